"""A level as fine as the source or coarser: means of its pixels, made by a feed where reading may take its time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.plugin.filling.feed import Feed, nearest_first
from napari_mgbpv2.plugin.filling.lazy_array import LazyArray
from napari_mgbpv2.tiling.grid import Span

Pixels = npt.NDArray[Any]
Block = tuple[tuple[int, ...], int, int]  # position along the carried axes, row and column of the block

READ_SIDE = 1024  # source pixels along y and x that are read for one block


class CoarseLevel(LazyArray):
    """The source at 1 / 2^halvings of its resolution, filled block by block.

    Parameters
    ----------
    source
        Gives pixels for one slice an axis.
    axes
        Letter of every axis.
    halvings
        How often y and x are halved.
    feed
        Makes the blocks.
    """

    def __init__(self, source: Any, axes: str, halvings: int, feed: Feed) -> None:
        self._source, self._feed, self._halvings = source, feed, halvings
        self._y, self._x = axes.index("y"), axes.index("x")
        self._samples = axes.find("s")
        self._step = 2**halvings
        self._block = max(16, READ_SIDE // self._step)
        shape = tuple(
            math.ceil(size / self._step) if axis in "yx" else int(size)
            for axis, size in zip(axes, source.shape, strict=True)
        )
        super().__init__(shape, np.dtype(source.dtype))

    def region(self, spans: Sequence[Span]) -> Pixels:
        """Give what is there, zero where it is not, and ask for what is missing."""
        parts = list(self._touching(spans))
        most = max(1, self._feed.limit // 2 // (self._block**2 * self.dtype.itemsize * 4))
        self._feed.want(self, parts[:most], self._make)
        return self._collect(spans, parts, partial(self._feed.get, self))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Pixels:
        """Compute the whole level, for those who want its pixels and not a view of them."""
        spans = [Span(0, size) for size in self.shape]
        return self._collect(spans, list(self._touching(spans)), self._make).astype(dtype or self.dtype, copy=False)

    def _collect(self, spans: Sequence[Span], parts: Sequence[Block], get: Callable[[Block], Pixels | None]) -> Pixels:
        """Put blocks together; zero where there is none."""
        result = np.zeros([span.size for span in spans], self.dtype)
        for part in parts:
            pixels = get(part)
            if pixels is None:
                continue
            window = self._window(part, self._block)
            inside, outside = [], []
            for place, span in zip(window, spans, strict=True):
                first, last = max(place.start, span.start), min(place.stop, span.stop)
                inside.append(slice(first - place.start, last - place.start))
                outside.append(slice(first - span.start, last - span.start))
            result[tuple(outside)] = pixels[tuple(inside)]
        return result

    def _touching(self, spans: Sequence[Span]) -> Iterator[Block]:
        rows, columns = (
            range(spans[axis].start // self._block, math.ceil(spans[axis].stop / self._block))
            for axis in (self._y, self._x)
        )
        blocks = list(itertools.product(rows, columns))
        order = nearest_first(blocks)
        carried = [range(*span) for axis, span in enumerate(spans) if axis not in (self._y, self._x, self._samples)]
        for plane in itertools.product(*carried):
            for number in order:
                yield (plane, *blocks[number])

    def _window(self, part: Block, block: int) -> list[Span]:
        """Pixels of a block along each axis, at a resolution where its side is ``block``."""
        plane, row, column = part
        positions = iter(plane)
        window = []
        for axis, size in enumerate(self.shape):
            if axis in (self._y, self._x):
                number = row if axis == self._y else column
                limit = size if block == self._block else int(self._source.shape[axis])
                window.append(Span(number * block, min(limit, (number + 1) * block)))
            elif axis == self._samples:
                window.append(Span(0, size))
            else:
                position = next(positions)
                window.append(Span(position, position + 1))
        return window

    def _make(self, part: Block) -> Pixels:
        from napari_mgbpv2.io.writers.ome_zarr import halve

        window = self._window(part, self._block * self._step)
        pixels = np.asarray(self._source[tuple(slice(*span) for span in window)])
        pixels = np.moveaxis(pixels, (self._y, self._x), (-2, -1))
        if pixels.dtype.kind == "b":
            pixels = pixels[..., :: self._step, :: self._step]
        else:
            for _ in range(self._halvings):
                pixels = halve(pixels)
        return np.ascontiguousarray(np.moveaxis(pixels, (-2, -1), (self._y, self._x)))


class ThumbnailLevel(LazyArray):
    """The coarsest level of an image that is not in memory, for which nothing is read: black where it is looked at.

    When a two-dimensional layer is made, napari takes the whole of its coarsest level for the thumbnail, at once.

    Parameters
    ----------
    finer
        The next finer level.
    axes
        Letter of every axis.
    step
        How many of its pixels along y and x become one.

    Attributes
    ----------
    is_taken
        Whether that has happened. Whoever asks for all pixels from then on gets the real ones.
    """

    def __init__(self, finer: CoarseLevel, axes: str, step: int) -> None:
        shape = (math.ceil(size / step) if axis in "yx" else size for axis, size in zip(axes, finer.shape, strict=True))
        super().__init__(tuple(shape), finer.dtype)
        self._finer, self.is_taken = finer, False
        self._sampled = tuple(slice(None, None, step if axis in "yx" else 1) for axis in axes)

    def region(self, spans: Sequence[Span]) -> Pixels:
        """Give black."""
        return np.zeros([span.size for span in spans], self.dtype)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Pixels:
        """Compute the whole level, for those who want its pixels and not a view of them."""
        if not self.is_taken:
            return super().__array__(dtype, copy)
        return np.asarray(self._finer)[self._sampled].astype(dtype or self.dtype, copy=False)
