"""Files that are open only while they are used: a training set has more images than a process may have open files."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from napari_mgbpv2.caching import BoundedCache
from napari_mgbpv2.sources import FileArray, ImageSource
from napari_mgbpv2.sources.image import MappedArray, Pixels, Window

_OPEN_BYTES = 2**30  # what the open images of one process may hold on to
_MAPPED_BYTES, _DECODED_BYTES = 4 * 2**20, 128 * 2**20  # a mapped file counts for its descriptor, others keep pixels


@dataclass(frozen=True)
class _Open:
    data: FileArray
    nbytes: int


_open: BoundedCache[str, _Open] = BoundedCache(_OPEN_BYTES)


class ReopenedArray:
    """The pixels of a file, which is opened when they are read and closed when many others have been.

    Parameters
    ----------
    data
        The pixels; they are let go.
    """

    def __init__(self, data: FileArray) -> None:
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim
        self._reopen = data.__reduce__()
        self._key = uuid.uuid4().hex  # copies in loader workers share it

    def __getitem__(self, window: Window) -> Pixels:
        """Read pixels; raises `SourceError` if the file has gone or is damaged."""
        return _open.get(self._key, self._opened).data[window]

    def _opened(self) -> _Open:
        reopen, arguments = self._reopen
        data: FileArray = reopen(*arguments)
        return _Open(data, _MAPPED_BYTES if isinstance(data, MappedArray) else _DECODED_BYTES)


def reopening(source: ImageSource) -> ImageSource:
    """Return an image whose file is closed for now."""
    if not isinstance(source.data, FileArray):
        return source
    return replace(source, data=ReopenedArray(source.data))
