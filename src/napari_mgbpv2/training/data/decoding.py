"""Images whose windows cannot be had by themselves, decoded once into files that can be mapped.

PNG and JPEG are decoded whole or not at all, and so is a TIFF that is one compressed strip. Without a copy, each
sample would cost a whole image, or every image would have to stay in memory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.errors import DestinationError, SourceError
from napari_mgbpv2.sources import FileArray, ImageSource
from napari_mgbpv2.sources.image import MappedArray
from napari_mgbpv2.training.data.open_files import OpenFiles
from napari_mgbpv2.training.data.patches import PatchedArray
from napari_mgbpv2.training.data.planes import read_plane, source_size, standard_axes
from napari_mgbpv2.training.data.scratch import Scratch

_CHEAP_PIXELS = 2**22  # to decode for one window: some 20 ms


class ImageFiles:
    """The files of a training set, decoded copies among them; those are removed with this object."""

    def __init__(self) -> None:
        self._open = OpenFiles()
        self._scratch: Scratch | None = None
        self._made = 0

    def readable(self, source: ImageSource, window: int) -> ImageSource:
        """Return the image if windows of that height and width can be read, else a decoded copy of it; closed.

        Raises
        ------
        SourceError
            The image is damaged.
        DestinationError
            The copy cannot be written.
        """
        if not _has_random_access(source, window):
            self._scratch = self._scratch or Scratch()
            self._made += 1
            source = _copy(source, self._scratch.path / f"{self._made:06d}.raw")
        return self._open.closed(source)


def _has_random_access(source: ImageSource, window: int) -> bool:
    data = source.data
    if not isinstance(data, FileArray) or isinstance(data, (MappedArray, PatchedArray)):
        return True
    piece = _piece(data, source.axes)
    if piece is None:
        return False
    size = source_size(source)
    # the pieces that a window touches on average
    decoded = np.prod([min(whole, window + part - 1) for whole, part in zip(size, piece, strict=True)])
    return bool(decoded <= _CHEAP_PIXELS or decoded < size[0] * size[1] / 4)


def _piece(data: Any, axes: str) -> tuple[int, int] | None:
    """Height and width of what is decoded at a time; None for the whole image."""
    # The rooms of the formats do not tell: Zarr has chunks, TIFF has tiles and strips of five dimensions.
    chunks = getattr(getattr(data, "_array", None), "chunks", None)
    if chunks is not None:
        return chunks[axes.index("y")], chunks[axes.index("x")]
    segment = getattr(data, "_segment_shape", None)
    return None if segment is None else (segment[2], segment[3])


def _copy(source: ImageSource, path: Path) -> ImageSource:
    """Write the pixels plane by plane, as they lie in memory, with y, x and s last."""
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
