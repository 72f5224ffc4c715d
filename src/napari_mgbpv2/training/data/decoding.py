"""Decode images without random access once, into files that can be memory-mapped.

PNG and JPEG are decoded whole or not at all, and so is a TIFF that is one compressed strip. Without a copy, each
sample would cost a whole image, or every image would have to stay in memory.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_mgbpv2.errors import DestinationError, SourceError
from napari_mgbpv2.io.memory_mapped import MappedArray
from napari_mgbpv2.io.readers import FileArray, ImageSource
from napari_mgbpv2.training.data.channel_planes import read_plane, source_size, standard_axes
from napari_mgbpv2.training.data.open_files import OpenFiles
from napari_mgbpv2.training.data.patches import PatchedArray
from napari_mgbpv2.training.data.temp_directory import TempDirectory

_MAX_DECODED_PIXELS = 2**22  # of a whole image that is decoded for each window, in about 20 ms


class ImageFiles:
    """Files of a training set, with decoded copies where needed. The copies are removed with this object."""

    def __init__(self) -> None:
        self._open = OpenFiles()
        self._scratch: TempDirectory | None = None
        self._made = 0

    def with_random_access(self, source: ImageSource, window: int) -> ImageSource:
        """Return the image, or a decoded copy if windows of that height and width cannot be read; its file is closed.

        Raises
        ------
        SourceError
            The image is damaged.
        DestinationError
            The copy cannot be written.
        """
        if not _has_random_access(source, window):
            self._scratch = self._scratch or TempDirectory()
            self._made += 1
            source = _write_decoded_copy(source, self._scratch.path / f"{self._made:06d}.raw")
        return self._open.reopening(source)


def _has_random_access(source: ImageSource, window: int) -> bool:
    data = source.data
    if not isinstance(data, FileArray) or isinstance(data, PatchedArray):
        return True
    if data.chunk_shape == data.shape:
        return False
    size = source_size(source)
    piece = [data.chunk_shape[source.axes.index(axis)] for axis in "yx"]
    # the pieces that a window touches on average
    decoded = math.prod(min(whole, window + part - 1) for whole, part in zip(size, piece, strict=True))
    return piece == [1, 1] or decoded <= _MAX_DECODED_PIXELS or decoded < math.prod(size) / 4


def _write_decoded_copy(source: ImageSource, path: Path) -> ImageSource:
    """Write the pixels plane by plane in C order, with y, x and s last."""
    axes, order = standard_axes(source.axes)
    shape = tuple(source.data.shape[i] for i in order)
    leading = len(axes.replace("s", "")) - 2
    everything = slice(None)
    try:
        with open(path, "wb") as file:
            for position in np.ndindex(shape[:leading]):
                plane = read_plane(source.data, source.axes, position, everything, everything)
                file.write(np.ascontiguousarray(plane).data)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, SourceError):
            raise DestinationError(
                f"{path.parent}: a decoded copy of {source.path} cannot be written ({error.strerror or error}); "
                "make room, let TMPDIR name another folder, or prepare patches in one."
            ) from error
        raise
    return replace(source, data=MappedArray(str(path), shape, source.data.dtype, 0), axes=axes)
