"""Lazy pixels that are converted when they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from napari_mgbpv2.io.image import FileArray, Pixels, ReadingMemory, Reopen, Window


class ConvertedArray(FileArray):
    """Pixels of a file with a pixelwise conversion.

    Parameters
    ----------
    pixels
        Pixels of the file.
    convert
        Function from stored to converted values; with several samples, they are the last axis of its result.
    dtype
        Type of the converted values.
    reopen
        A module-level function and its arguments that build the same array again.
    samples
        Number of converted samples per stored value.
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
        """Shape of a block in the file, with all samples."""
        return self._pixels.chunk_shape + self._samples

    @property
    def decoding_bytes(self) -> int:
        """Peak memory in bytes for decoding one block of the file."""
        return self._pixels.decoding_bytes

    def reading_memory(self, window: Sequence[int], readers: int) -> ReadingMemory:
        """Return the memory for reading the file."""
        return self._pixels.reading_memory(window[: self._pixels.ndim], readers)

    def identity(self) -> dict[str, Any]:
        """Return the identity of the file."""
        return self._pixels.identity()

    def _read(self, window: Window) -> Pixels:
        count = self._pixels.ndim
        samples: tuple[Any, ...] = window[count:]
        return self._convert(self._pixels[window[:count]])[(..., *samples)]
