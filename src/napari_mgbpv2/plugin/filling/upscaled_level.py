"""A level finer than the source: bicubic at once, and for the finest the network's tiles as they come."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.plugin.filling.feed import Feed, nearest_first
from napari_mgbpv2.plugin.filling.lazy_array import LazyArray
from napari_mgbpv2.plugin.filling.shown import Shown
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling import TileUpscaler, UpscalePlan

if TYPE_CHECKING:
    from napari_mgbpv2.upscaling.lazy import TiledImage

Unit = npt.NDArray[np.float32]
Plane = tuple[int, ...]

BLOCK = 512  # side of the bicubic blocks, in pixels of the level
SMALL_BLOCK = 256  # of those that are made while somebody waits: less is made that is not seen


def upscaled_level(plan: UpscalePlan, scale: int, network: Feed | None, source: Feed) -> UpscaledLevel:
    """Make a level.

    Parameters
    ----------
    plan
        Of the finest level.
    scale
        How many pixels of this level a source pixel becomes.
    network
        Feed of the network's tiles, for the finest level; None leaves it at the bicubic ones.
    source
        Feed of bicubic blocks.
    """
    compute = plan.compute_tile
    if scale != plan.scale:
        sizes = list(plan.layout.shape)
        for axis in (plan.layout.y, plan.layout.x):
            sizes[axis] = sizes[axis] // plan.scale * scale
        compute = replace(compute, scale=scale, layout=replace(plan.layout, shape=tuple(sizes)))
    pixels = getattr(compute.source, "image", compute.source)  # of an image with alpha, below its visible colours
    return UpscaledLevel(plan, compute, network, Blocks(compute, source, at_once=isinstance(pixels, np.ndarray)))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Bicubic upscaling in blocks, which a feed keeps.

    Parameters
    ----------
    compute
        What is read and how large it becomes.
    feed
        Keeps the blocks.
    at_once
        Make a missing block when it is looked at, which takes milliseconds for a source in memory. Otherwise the feed
        makes it: reading a Dask or Zarr source must never hold up the viewer.
    """

    compute: TileUpscaler
    feed: Feed
    at_once: bool

    @property
    def side(self) -> int:
        """Of a block, in pixels of the level."""
        return SMALL_BLOCK if self.at_once else BLOCK

    def expect(self, areas: Sequence[tuple[Plane, int]], rows: Span, columns: Span) -> None:
        """Ask the feed for blocks: these planes and groups of samples will be looked at."""
        if self.at_once:
            return
        blocks = list(self._blocks(rows, columns))
        order = nearest_first(blocks)
        samples = max(group.size for group in self.compute.layout.groups)
        most = max(1, self.feed.limit // 2 // (4 * samples * self.side**2))
        wanted = [(plane, group, *blocks[number]) for plane, group in areas for number in order]
        self.feed.want(self, wanted[:most], self._make)

    def __call__(self, plane: Plane, group: int, rows: Span, columns: Span) -> Unit:
        """Give (samples, rows, columns), 0 to 1 for black to white; black where a block is missing."""
        result = np.zeros((self.compute.layout.groups[group].size, rows.size, columns.size), np.float32)
        for row, column in self._blocks(rows, columns):
            part = (plane, group, row, column)
            block = self.feed.get(self, part)
            if block is None and self.at_once:
                block = self._make(part)
                self.feed.put(self, part, block)
            if block is not None:
                top, left = row * self.side, column * self.side
                of_rows = Span(max(rows.start, top), min(rows.stop, top + block.shape[1]))
                of_columns = Span(max(columns.start, left), min(columns.stop, left + block.shape[2]))
                result[:, _within(of_rows, rows.start), _within(of_columns, columns.start)] = block[
                    :, _within(of_rows, top), _within(of_columns, left)
                ]
        return result

    def _make(self, part: tuple[Plane, int, int, int]) -> Unit:
        plane, group, row, column = part
        layout, side = self.compute.layout, self.side
        rows = Span(row * side, min(layout.shape[layout.y], (row + 1) * side))
        columns = Span(column * side, min(layout.shape[layout.x], (column + 1) * side))
        return bicubic(self.compute, plane, group, rows, columns)

    def _blocks(self, rows: Span, columns: Span) -> Iterator[tuple[int, int]]:
        side = self.side
        down, across = (range(span.start // side, math.ceil(span.stop / side)) for span in (rows, columns))
        return itertools.product(down, across)


@dataclass(frozen=True, eq=False)
class Filling:
    """What a level shows at one moment: plan, source and feed belong together, and are replaced together.

    Whoever reads the level takes one of these and keeps to it, so that a view that is cut in another thread while the
    plan is replaced never mixes two plans. It also stands for its own tiles: those of another one are others.

    Parameters
    ----------
    plan
        Of the finest level.
    compute
        Of this one: what it reads, and how large it is.
    network
        Feed of the network's tiles, or None.
    blocks
        What is shown meanwhile.
    """

    plan: UpscalePlan
    compute: TileUpscaler
    network: Feed | None
    blocks: Blocks

    @cached_property
    def exact(self) -> TiledImage:
        """The complete result; its tiles are wanted in memory, as they are shown."""
        return self.plan.tiled_image(cache_bytes=0, wrap_compute=lambda _: self.plan.compute_tile)

    @cached_property
    def shown(self) -> Shown:
        """What there is of it."""
        return Shown(self.compute.layout, self.compute, self.plan.finish, level=self)

    def region(self, spans: Sequence[Span]) -> npt.NDArray[Any]:
        """Give what can be shown now, and request what is missing."""
        layout = self.compute.layout
        areas = list(self._areas(spans))
        rows, columns = spans[layout.y], spans[layout.x]
        tiles = self._request_tiles(areas, rows, columns)
        if any(self.tile(part) is None for part in tiles) or not tiles:
            self.blocks.expect(areas, rows, columns)
        return self.shown.region(spans)

    def whole(self) -> npt.NDArray[Any]:
        """Compute all pixels, by the network for the finest level and bicubic for others, whatever has been loaded."""
        if self.network is not None:
            return self.exact[...]
        layout = self.compute.layout
        blocks = replace(self.blocks, feed=Feed(self.blocks.feed.limit, _ignore, _ignore), at_once=True)
        complete = replace(self, blocks=blocks)
        return complete.shown.region([Span(0, size) for size in layout.shape])

    def tile(self, part: tuple[Plane, int, int, int]) -> Unit | None:
        """Return a weighted tile if it is there."""
        return None if self.network is None else self.network.get(self, part)

    def placeholder(self, plane: Plane, group: int, rows: Span, columns: Span) -> Unit:
        """Give what stands for missing tiles."""
        return self.blocks(plane, group, rows, columns)

    def forget_wishes(self) -> None:
        """Run no more tiles for what was looked at."""
        if self.network is not None:
            self.network.forget_wishes(self)

    def _areas(self, spans: Sequence[Span]) -> Iterator[tuple[Plane, int]]:
        layout = self.compute.layout
        samples = Span(0, 1) if layout.samples is None else spans[layout.samples]
        for plane in itertools.product(*(range(*spans[axis]) for axis in layout.plane_axes)):
            for number, group in enumerate(layout.groups):
                if max(group.start, samples.start) < min(group.stop, samples.stop):
                    yield plane, number

    def _request_tiles(self, areas: Sequence[tuple[Plane, int]], rows: Span, columns: Span) -> list[Any]:
        if self.network is None:
            return []
        layout = self.compute.layout
        grid = layout.grid
        places = list(grid.touching(rows, columns))
        order = nearest_first(places)
        largest = 4 * grid.rows.tile * grid.columns.tile * max(group.size for group in layout.groups)
        most = max(1, self.network.limit // largest)
        parts = [(plane, group, *places[number]) for plane, group in areas for number in order]
        self.network.want(self, parts[:most], self.exact.weighted_tile)
        return parts


class UpscaledLevel(LazyArray):
    """A level as it can be shown at this moment.

    Parameters
    ----------
    plan
        Of the finest level.
    compute
        Of this one: what it reads, and how large it is.
    network
        Feed of the network's tiles, or None.
    blocks
        What is shown meanwhile.
    """

    def __init__(self, plan: UpscalePlan, compute: TileUpscaler, network: Feed | None, blocks: Blocks) -> None:
        super().__init__(compute.layout.shape, compute.layout.dtype)
        self._filling = Filling(plan, compute, network, blocks)

    @property
    def plan(self) -> UpscalePlan:
        """Of the finest level."""
        return self._filling.plan

    def use(self, plan: UpscalePlan, network: Feed | None = None) -> None:
        """Go over to another plan of the same shape and type: another noise, model or tile.

        Parameters
        ----------
        plan
            The plan.
        network
            Another feed for its tiles, where the old one is closed.
        """
        if (plan.layout.shape, plan.layout.dtype) != (self.shape, self.dtype):
            raise ValueError("the plan is for an image of another shape or type")
        before = self._filling
        blocks = replace(before.blocks, compute=plan.compute_tile)
        self._filling = Filling(plan, plan.compute_tile, network or before.network, blocks)
        before.forget_wishes()

    def region(self, spans: Sequence[Span]) -> npt.NDArray[Any]:
        """Give what can be shown now, and request what is missing."""
        return self._filling.region(spans)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Compute the whole level, for those who want its pixels and not a view of them."""
        return self._filling.whole().astype(dtype or self.dtype, copy=False)

    def forget_wishes(self) -> None:
        """Run no more tiles for what was looked at."""
        self._filling.forget_wishes()

    def tile(self, part: tuple[Plane, int, int, int]) -> Unit | None:
        """Return a weighted tile if it is there."""
        return self._filling.tile(part)


def bicubic(compute: TileUpscaler, plane: Plane, group: int, rows: Span, columns: Span) -> Unit:
    """Upscale a region of one plane as the network's input is, (samples, rows, columns) float32."""
    from napari_mgbpv2.imaging.resampling import ResamplingWeights

    layout = compute.layout
    sizes = (layout.shape[axis] // compute.scale for axis in (layout.y, layout.x))
    taps = [
        ResamplingWeights.of(np.arange(*span), compute.scale, size)
        for span, size in zip((rows, columns), sizes, strict=True)
    ]
    pixels = compute.values.to_unit(compute.read(plane, layout.groups[group], *(each.window for each in taps)))
    for axis, each in ((2, taps[1]), (1, taps[0])):
        weights = each.weights[:, :, np.newaxis] if axis == 1 else each.weights
        indices = each.indices - each.window.start
        total = np.take(pixels, indices[:, 0], axis)
        total *= weights[:, 0]
        shifted = np.empty_like(total)
        for tap in range(1, indices.shape[1]):
            np.take(pixels, indices[:, tap], axis, out=shifted, mode="clip")  # which is faster, and clips nothing
            shifted *= weights[:, tap]
            total += shifted
        pixels = total
    return pixels


def _within(span: Span, start: int) -> slice:
    return slice(span.start - start, span.stop - start)


def _ignore(*_: object) -> None:
    """Tell nobody: what a feed of its own makes is used at once."""
