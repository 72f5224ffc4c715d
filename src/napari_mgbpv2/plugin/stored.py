"""An OME-Zarr that has just been written, as levels of a napari layer with the axes of its source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.plugin.filling.lazy_array import LazyArray
from napari_mgbpv2.sources import ArrayLike, open_source
from napari_mgbpv2.tiling import Span


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


def open_levels(path: Path, levels: int, stored_axes: str, axes: str) -> list[StoredLevel]:
    """Open an image that this package has written.

    Parameters
    ----------
    path
        The OME-Zarr.
    levels
        How many it has.
    stored_axes
        Letters of its axes.
    axes
        The axes that the arrays are to have: the same in another order, "s" for the "c" of colours.
    """
    order = [stored_axes.index(axis) for axis in axes.replace("s", "c")]
    return [StoredLevel(open_source(path, level=level).data, order) for level in range(levels)]
