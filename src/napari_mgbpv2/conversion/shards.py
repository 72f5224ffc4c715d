"""Making one shard of the result: what travels to other processes, and how shards and tiles belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.conversion.job import TILE_CACHE_BYTES, ConversionPlan
from napari_mgbpv2.tiling.grid import Span, TileAxis
from napari_mgbpv2.upscaling import UpscalePlan

if TYPE_CHECKING:
    from napari_mgbpv2.conversion.tile_fragments import ShardedImage
    from napari_mgbpv2.io.writers.ome_zarr import ImageLayout, Index
    from napari_mgbpv2.upscaling.lazy import ComputeTile, Tile, TiledImage


@dataclass(frozen=True)
class ShardWork:
    """Makes shards of a result whose axes stand in another order than those of the source may.

    Parameters
    ----------
    plan
        How the image is upscaled.
    layout
        What is written.
    """

    plan: UpscalePlan
    layout: ImageLayout

    @classmethod
    def of(cls, prepared: ConversionPlan) -> ShardWork:
        """Take what making shards needs of a conversion."""
        return cls(prepared.plan, prepared.layout)

    def image(
        self, wrap_compute: Callable[[ComputeTile], ComputeTile], is_stored: Callable[[Index], bool] | None = None
    ) -> ShardedImage:
        """Make the image that shards are cut from; it keeps what tiles have for shards to come.

        Parameters
        ----------
        wrap_compute
            Wraps the function that computes a tile.
        is_stored
            Whether a shard has been made already.
        """
        from napari_mgbpv2.conversion.tile_fragments import ShardedImage

        image = ShardedImage(
            self.plan.layout,
            wrap_compute(self.plan.compute_blended_tile),
            self.plan.finish,
            TILE_CACHE_BYTES,
            shard=(self.layout.shard_shape()[-2], self.layout.shard_shape()[-1]),
        )
        if is_stored is not None:
            image.is_needed = lambda tile, shard: not is_stored(self._shard_of(tile, shard))
        return image

    def pixels(self, image: TiledImage, index: Index) -> npt.NDArray[Any]:
        """Compute the pixels of a shard, which lies in one plane, without a detour over the order of the source."""
        region, tiled = self.layout.shard_region(index), self.plan.layout
        plane = tuple(region[self._positions[axis]].start for axis in tiled.plane_axes)
        rows, columns = (Span(part.start, part.stop) for part in region[-2:])
        samples = slice(0, 1) if tiled.samples is None else region[self._positions[tiled.samples]]
        parts = []
        for number, group in enumerate(tiled.groups):
            first, last = max(group.start, samples.start), min(group.stop, samples.stop)
            if first < last:
                finished = image.finish(image.blend(plane, number, rows, columns, group.size))
                parts.append(finished[first - group.start : last - group.start])
        shape = [part.stop - part.start for part in region]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(shape)

    def _shard_of(self, tile: Tile, position: tuple[int, int]) -> Index:
        """Shard at a place of the plane of a tile; of samples that have shards of their own, that of the first."""
        tiled, shape = self.plan.layout, self.layout.shard_shape()
        index = [0] * len(shape)
        for axis, plane_index in zip(tiled.plane_axes, tile[0], strict=True):
            index[self._positions[axis]] = plane_index
        index[-2:] = position
        return tuple(index)

    @property
    def samples(self) -> int:
        """Samples of a colour pixel; 0 where the image has no such axis."""
        tiled = self.plan.layout
        return 0 if tiled.samples is None else tiled.shape[tiled.samples]

    @property
    def tile_counts(self) -> tuple[int, int, int, int]:
        """Number of planes, of groups of samples, and of rows and columns of tiles."""
        tiled = self.plan.layout
        return tiled.planes, len(tiled.groups), len(tiled.grid.rows), len(tiled.grid.columns)

    def plane_number(self, plane: tuple[int, ...]) -> int:
        """Return the number of a plane among all planes."""
        sizes = [self.plan.layout.shape[axis] for axis in self.plan.layout.plane_axes]
        return int(np.ravel_multi_index(plane, sizes)) if sizes else 0

    def tiles_of(self, index: Index) -> tuple[int, slice, slice, slice]:
        """Plane, groups, rows and columns of the tiles that start in a shard: each tile does so in one."""
        region, tiled = self.layout.shard_region(index), self.plan.layout
        plane = self.plane_number(tuple(region[self._positions[axis]].start for axis in tiled.plane_axes))
        groups = slice(0, len(tiled.groups))
        if tiled.samples is not None:
            channels = region[self._positions[tiled.samples]]
            starting = [n for n, group in enumerate(tiled.groups) if channels.start <= group.start < channels.stop]
            groups = slice(starting[0], starting[-1] + 1) if starting else slice(0, 0)
        grid = tiled.grid
        return plane, groups, _tiles_starting_in(grid.rows, region[-2]), _tiles_starting_in(grid.columns, region[-1])

    @cached_property
    def _axes(self) -> str:
        return self.plan.axes.replace("s", "c")

    @cached_property
    def _positions(self) -> list[int]:
        """Where each axis of the source stands in the result."""
        return [self.layout.axes.index(axis) for axis in self._axes]


def _tiles_starting_in(tiles: TileAxis, part: slice) -> slice:
    found = tiles.starting_in(Span(part.start, part.stop))
    return slice(found.start, found.stop)
