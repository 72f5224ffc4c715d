"""Lazy pixels of formats that can only be decoded as a whole."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.io.image import FileArray, Pixels, ReadingMemory, Reopen, Window


class DecodedArray(FileArray):
    """Pixels that are decoded as a whole at the first access and retained in memory."""

    reads_its_file = False

    def __init__(self, path: str, shape: tuple[int, ...], dtype: npt.DTypeLike, reopen: Reopen) -> None:
        super().__init__(path, shape, dtype, reopen)
        self._lock = threading.Lock()
        self._pixels: Pixels | None = None

    @property
    def retained_bytes(self) -> int:
        """Size of the decoded pixels in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def reading_memory(self, window: Sequence[int], readers: int) -> ReadingMemory:
        """Return the peak memory of decoding, and the memory of the decoded pixels."""
        return ReadingMemory(self.decoding_bytes, self.retained_bytes)

    def _read(self, window: Window) -> Pixels:
        with self._lock:
            if self._pixels is None:
                self._pixels = self._decode()
                self.check_unchanged()
        return np.array(self._pixels[window])

    @abstractmethod
    def _decode(self) -> Pixels:
        """Decode all pixels; raises `SourceError` if they are damaged."""
