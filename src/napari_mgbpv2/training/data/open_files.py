"""Files that are open only while they are used: a training set has more images than a process may have open files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.io.image import Pixels, Reopen, Window
from napari_mgbpv2.io.memory_mapped import MappedArray
from napari_mgbpv2.io.readers import FileArray, ImageSource

_OPEN_BYTES = 2**30  # what the open images of one process may hold on to
_MAPPED_BYTES, _DECODED_BYTES = 4 * 2**20, 128 * 2**20  # a mapped file counts for its descriptor, others keep pixels


@dataclass(frozen=True)
class _Open:
    data: FileArray
    nbytes: int


class OpenFiles:
    """The files of a training set that are open now; copies in loader workers begin with none."""

    def __init__(self) -> None:
        self._open: BoundedCache[int, _Open] = BoundedCache(_OPEN_BYTES)
        self._count = 0

    def reopening(self, source: ImageSource) -> ImageSource:
        """Return the same image with its file closed: it is opened when pixels are read."""
        if not isinstance(source.data, FileArray):
            return source
        self._count += 1
        return replace(source, data=ReopenedArray(source.data, self, self._count))

    def get(self, number: int, reopen: Reopen) -> FileArray:
        """Return the pixels of a file that is known by ``number``, opened if it is not open."""
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
    """The pixels of a file, which is opened when they are read and closed when many others have been.

    Parameters
    ----------
    data
        The pixels; they are let go.
    files
        Keeps it open.
    number
        By which it is known there.
    """

    def __init__(self, data: FileArray, files: OpenFiles, number: int) -> None:
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim
        self._reopen: Reopen = data.reopen
        self._files, self._number = files, number

    def __getitem__(self, window: Window) -> Pixels:
        """Read pixels; raises `SourceError` if the file has gone or is damaged."""
        return self._files.get(self._number, self._reopen)[window]
