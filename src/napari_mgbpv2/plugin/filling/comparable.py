"""An image that can be compared where it lies: the result up to a column, and bicubic upscaling beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.plugin.filling.lazy_array import LazyArray
from napari_mgbpv2.tiling.grid import Span


class Comparable(LazyArray):
    """A result on the left of a border, bicubic upscaling on its right.

    Parameters
    ----------
    result, bicubic
        Two levels of the same shape and type.
    x
        Number of the axis along which the border moves.

    Attributes
    ----------
    share
        How much of the width is the result, 0 to 1. At first all of it.
    """

    def __init__(self, result: LazyArray, bicubic: LazyArray, x: int) -> None:
        super().__init__(result.shape, result.dtype)
        self.result, self.bicubic, self.share = result, bicubic, 1.0
        self._x = x

    def region(self, spans: Sequence[Span]) -> npt.NDArray[Any]:
        """Give the pixels of both sides; what is not shown is not asked for."""
        columns = spans[self._x]
        border = min(max(round(self.share * self.shape[self._x]), columns.start), columns.stop)
        sides = ((self.result, Span(columns.start, border)), (self.bicubic, Span(border, columns.stop)))
        parts = [
            array.region([*spans[: self._x], side, *spans[self._x + 1 :]]) for array, side in sides if side.size > 0
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self._x)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Give all pixels of the result, for those who want these and not a view of them."""
        return self.result.__array__(dtype, copy)
