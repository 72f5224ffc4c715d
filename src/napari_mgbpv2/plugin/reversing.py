"""Arrays whose pixels come in the reverse order along some axes, of any kind of array, without reading it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.plugin.filling.lazy_array import LazyArray
from napari_mgbpv2.tiling.grid import Span


class ReversedArray(LazyArray):
    """An array that is read window by window, in the reverse order along some axes.

    Parameters
    ----------
    data
        Gives NumPy arrays for one slice per axis.
    axes
        Numbers of the axes to reverse.
    """

    def __init__(self, data: Any, axes: Collection[int]) -> None:
        super().__init__(tuple(map(int, data.shape)), np.dtype(data.dtype))
        self._data, self._axes = data, frozenset(axes)

    def region(self, spans: Sequence[Span]) -> npt.NDArray[Any]:
        """Read the mirrored window and reverse it."""
        window, order = [], []
        for axis, (span, size) in enumerate(zip(spans, self.shape, strict=True)):
            mirrored = axis in self._axes
            window.append(slice(size - span.stop, size - span.start) if mirrored else slice(*span))
            order.append(slice(None, None, -1 if mirrored else 1))
        return np.asarray(self._data[tuple(window)])[tuple(order)]


def reversed_along(array: Any, axes: Collection[int]) -> Any:
    """Return an array with its pixels in the reverse order along some axes; reads no pixel.

    NumPy and Dask arrays stay of their kind; of any other, the result is a `ReversedArray`.

    Parameters
    ----------
    array
        The array.
    axes
        Numbers of the axes.
    """
    if not axes:
        return array
    # the plugin does not import Dask: its arrays are known by the protocol of its collections
    if isinstance(array, np.ndarray) or hasattr(array, "__dask_graph__"):
        return array[tuple(slice(None, None, -1 if axis in axes else 1) for axis in range(array.ndim))]
    return ReversedArray(array, axes)
