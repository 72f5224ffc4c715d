"""An image that has just been written, as levels of a napari layer with the axes of its source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.io.readers import ArrayLike, open_source
from napari_mgbpv2.plugin.filling.comparable import Comparable
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.filling.lazy_array import LazyArray
from napari_mgbpv2.plugin.filling.upscaled_level import upscaled_level
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling import UpscalePlan

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import ImageLayout


class StoredLevel(LazyArray):
    """One resolution of an image in a file.

    Parameters
    ----------
    data
        The file's array.
    order
        Number of the file's axis for each axis of this array.
    """

    def __init__(self, data: ArrayLike, order: Sequence[int]) -> None:
        super().__init__(tuple(data.shape[axis] for axis in order), data.dtype)
        self._data, self._order = data, tuple(order)

    def region(self, spans: Sequence[Span]) -> npt.NDArray[Any]:
        """Read."""
        window = tuple(slice(*spans[self._order.index(axis)]) for axis in range(self.ndim))
        return np.asarray(self._data[window]).transpose(self._order)


def open_comparable(path: Path, layout: ImageLayout, plan: UpscalePlan, feed: Feed) -> list[LazyArray]:
    """Open an image that this package has written; levels finer than its source can be compared with bicubic ones.

    Parameters
    ----------
    path
        The OME-Zarr or OME-TIFF.
    layout
        What has been written.
    plan
        How its pixels came to be. The arrays have the axes of its source.
    feed
        Makes bicubic blocks of a source that is not in memory.
    """
    levels: list[LazyArray] = []
    for number in range(len(layout.level_shapes())):
        source = open_source(path, level=number)
        stored_axes = source.axes.replace("s", "c")
        level: LazyArray = StoredLevel(source.data, [stored_axes.index(axis) for axis in plan.axes.replace("s", "c")])
        scale, rest = divmod(plan.scale, 2**number)
        if scale > 1 and not rest:
            level = Comparable(level, upscaled_level(plan, scale, None, feed), plan.layout.x)
        levels.append(level)
    return levels
