"""An array that is cut without being read: what napari indexes, twice, before it looks at a pixel.

For one view, napari first cuts out the visible rows and columns of *all* planes and then picks the plane. So indexing
gives a window, windows can be indexed again, and only `numpy.asarray` asks for pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.tiling.grid import Span

Pixels = npt.NDArray[Any]


class LazyArray(ABC):
    """Base of arrays that give windows.

    Parameters
    ----------
    shape
        Size along each axis.
    dtype
        Type of a pixel.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @abstractmethod
    def region(self, spans: Sequence[Span]) -> Pixels:
        """Give the pixels of one span an axis."""

    def __getitem__(self, index: Any) -> LazyWindow:
        """Cut out a window by integers, slices and an ellipsis; reads nothing."""
        return LazyWindow(self, tuple(map(range, self.shape)))[index]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Pixels:
        """Give all pixels."""
        return self.region([Span(0, size) for size in self.shape]).astype(dtype or self.dtype, copy=False)


class LazyWindow:
    """A part of a lazy array.

    Parameters
    ----------
    array
        The whole.
    places
        For each of its axes a position, or a range of positions.
    """

    def __init__(self, array: LazyArray, places: tuple[int | range, ...]) -> None:
        self._array, self._places = array, places
        self.dtype = array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis that is left."""
        return tuple(len(place) for place in self._places if isinstance(place, range))

    @property
    def ndim(self) -> int:
        """Number of axes that are left."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> LazyWindow:
        """Cut out a window of the window."""
        parts = list(index) if isinstance(index, tuple) else [index]
        at = next((number for number, part in enumerate(parts) if part is Ellipsis), len(parts))
        rest = self.ndim - sum(part is not Ellipsis for part in parts)
        if rest < 0:
            raise IndexError(f"{len(parts)} indices for {self.ndim} axes")
        parts[at : at + 1] = [slice(None)] * rest
        given = iter(parts)
        places = [place[_plain(next(given))] if isinstance(place, range) else place for place in self._places]
        return LazyWindow(self._array, tuple(places))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Pixels:
        """Give the pixels."""
        spans: list[Span] = []
        inner: list[int | slice] = []
        for place in self._places:
            if isinstance(place, int):
                spans.append(Span(place, place + 1))
                inner.append(0)
            elif len(place) == 0:
                return np.empty(self.shape, dtype or self.dtype)
            else:
                low, high = min(place[0], place[-1]), max(place[0], place[-1])
                spans.append(Span(low, high + 1))
                inner.append(slice(None, None, place.step))
        pixels: Pixels = self._array.region(spans)[tuple(inner)]
        return pixels.astype(dtype or self.dtype, copy=False)


def _plain(part: Any) -> Any:
    """Return a slice as it is and an integer of any kind as Python's."""
    return part if isinstance(part, slice) else int(part)
