"""Keep files open only while they are used: a training set can exceed the limit of open files per process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.io.image import Pixels, Reopen, Window
from napari_mgbpv2.io.memory_mapped import MappedArray
from napari_mgbpv2.io.readers import FileArray, ImageSource

_OPEN_BYTES = 2**30  # limit of the memory that open images of one process retain
_MAPPED_BYTES, _DECODED_BYTES = 4 * 2**20, 128 * 2**20  # a mapped file counts for its descriptor, others keep pixels


@dataclass(frozen=True)
class _Open:
    data: FileArray
    nbytes: int


class OpenFiles:
    """Cache of the open files of a training set. Copies in loader workers start empty."""

    def __init__(self) -> None:
        self._open: BoundedCache[int, _Open] = BoundedCache(_OPEN_BYTES)
        self._count = 0

    def reopening(self, source: ImageSource) -> ImageSource:
        """Return the image with its file closed. Reading pixels opens the file."""
        if not isinstance(source.data, FileArray):
            return source
        self._count += 1
        return replace(source, data=ReopenedArray(source.data, self, self._count))

    def get(self, number: int, reopen: Reopen) -> FileArray:
        """Return the pixels of file ``number``, and open it if needed."""
        return self._open.get(number, lambda: _reopen(reopen)).data

    def __getstate__(self) -> dict[str, Any]:
        return {"_count": self._count}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _open=BoundedCache(_OPEN_BYTES))


def _reopen(reopen: Reopen) -> _Open:
    function, arguments = reopen
    data: FileArray = function(*arguments)
    return _Open(data, _MAPPED_BYTES if isinstance(data, MappedArray) else _DECODED_BYTES)


class ReopenedArray:
    """Pixels of a file that is opened on reading, and closed when the cache evicts it.

    Parameters
    ----------
    data
        The pixels of the open file, which is not retained.
    files
        Cache of open files.
    number
        Key of the file in that cache.
    """

    def __init__(self, data: FileArray, files: OpenFiles, number: int) -> None:
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim
        self._reopen: Reopen = data.reopen
        self._files, self._number = files, number

    def __getitem__(self, window: Window) -> Pixels:
        """Read pixels; raises `SourceError` if the file is missing or damaged."""
        return self._files.get(self._number, self._reopen)[window]
