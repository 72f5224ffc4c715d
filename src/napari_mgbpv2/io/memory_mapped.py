"""Pixels of a file as they lie on the disk, mapped into memory."""

from __future__ import annotations

import math
import mmap
from typing import Any

import numpy as np

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import FileArray, Pixels, Window, truncated_file_error


class MappedArray(FileArray):
    """Pixels that lie in a file as they do in memory: mapped by the operating system, never copied whole.

    Parameters
    ----------
    path, shape, dtype
        As `FileArray` has them.
    offset
        Byte at which the pixels begin.
    order
        "C" or "F", the order of the axes in the file.
    nodata
        As `FileArray` has it.

    Raises
    ------
    SourceError
        The file is cut short, now or when it is read, or cannot be opened.
    """

    def __init__(
        self,
        path: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        offset: int,
        order: str = "C",
        nodata: float | None = None,
    ) -> None:
        super().__init__(path, shape, dtype, (MappedArray, (path, shape, dtype, offset, order, nodata)), nodata)
        self._end = offset + dtype.itemsize * math.prod(self.shape)
        try:
            with open(path, "rb") as file:
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # gone meanwhile, or empty
            raise SourceError(f"{path}: cannot be mapped into memory ({error}); check that it is there.") from error
        self._check_complete()
        self._pixels: Pixels = np.ndarray(self.shape, dtype, self._file, offset, order="F" if order == "F" else "C")

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """One pixel: nothing is decoded."""
        return (1,) * self.ndim

    @property
    def decoding_bytes(self) -> int:
        """None."""
        return 0

    def _read(self, window: Window) -> Pixels:
        self._check_complete()
        return np.array(self._pixels[window], dtype=self.dtype, order="C")

    def _check_complete(self) -> None:
        present = self._file.size()  # of the file as it is now: to read a map beyond it would end the process
        if self._end > present:
            raise truncated_file_error(self.path, f"its pixels need {self._end} bytes and it has {present}")
