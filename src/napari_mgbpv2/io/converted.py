"""Pixels that mean something else than what their file has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from napari_mgbpv2.io.image import FileArray, Pixels, ReadingMemory, Reopen, Window


class ConvertedArray(FileArray):
    """Pixels that are converted one by one when they are read.

    Parameters
    ----------
    pixels
        As they are in the file.
    convert
        Gives the values for those of the file, with the samples behind them where there are several.
    dtype
        Of what it gives.
    reopen
        As `FileArray` has it.
    samples
        How many it gives for each value.
    """

    def __init__(
        self,
        pixels: FileArray,
        convert: Callable[[Pixels], Pixels],
        dtype: npt.DTypeLike,
        reopen: Reopen,
        samples: int = 1,
    ) -> None:
        self._samples = (samples,) * (samples > 1)
        super().__init__(pixels.path, pixels.shape + self._samples, dtype, reopen)
        self._pixels, self._convert = pixels, convert

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """As in the file, with all samples."""
        return self._pixels.chunk_shape + self._samples

    @property
    def decoding_bytes(self) -> int:
        """As in the file."""
        return self._pixels.decoding_bytes

    def reading_memory(self, window: Sequence[int], readers: int) -> ReadingMemory:
        """As in the file."""
        return self._pixels.reading_memory(window[: self._pixels.ndim], readers)

    def identity(self) -> dict[str, Any]:
        """What the pixels come from."""
        return self._pixels.identity()

    def _read(self, window: Window) -> Pixels:
        count = self._pixels.ndim
        samples: tuple[Any, ...] = window[count:]
        return self._convert(self._pixels[window[:count]])[(..., *samples)]
