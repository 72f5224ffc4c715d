"""The order of shards, chosen so that a tile across the border of two shards is run once.

A tile across a border is run for the first shard, and its remainder is retained for the second one. In an order along
rows, the tiles of a whole row wait for the next row of shards. Rows along the shorter side of the image retain least.
If even that is too much, the image is divided into bands, and only tiles across the borders of bands are run twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from napari_mgbpv2.tiling.grid import Span, TileAxis, TileGrid

Index = tuple[int, ...]


@dataclass(frozen=True)
class ShardOrder:
    """An order of all shards of an image, with its costs.

    Attributes
    ----------
    counts
        Number of shards along each axis. y and x are the last two.
    along
        Axis of a row of shards, "x" or "y".
    band
        Largest number of shards in a row.
    carried_pixels
        Largest number of tile pixels that are retained for later shards.
    extra_share
        Tiles that are run a second time, as a share of all tiles, 0 to 1.
    """

    counts: tuple[int, ...]
    along: str
    band: int
    carried_pixels: int
    extra_share: float

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, number: int) -> Index:
        """Return the index of the shard at a position."""
        short, long = self._sides
        plane, rest = divmod(number, short * long)
        before = rest // (self.band * long)  # whole bands of the plane
        width = min(self.band, short - before * self.band)
        row, column = divmod(rest - before * self.band * long, width)
        across = before * self.band + column
        others: list[int] = []
        for count in reversed(self.counts[:-2]):
            plane, position = divmod(plane, count)
            others.insert(0, position)
        return (*others, row, across) if self.along == "x" else (*others, across, row)

    def __iter__(self) -> Iterator[Index]:
        return (self[number] for number in range(len(self)))

    @property
    def _sides(self) -> tuple[int, int]:
        """Number of shards along a row, all bands together, and across it."""
        rows, columns = self.counts[-2:]
        return (columns, rows) if self.along == "x" else (rows, columns)


def plan_shard_order(counts: tuple[int, ...], shard: tuple[int, int], grid: TileGrid, most_pixels: int) -> ShardOrder:
    """Choose an order of shards.

    Parameters
    ----------
    counts
        Number of shards along each axis. y and x are the last two.
    shard
        Height and width of a shard in pixels.
    grid
        Tiles of a plane.
    most_pixels
        Largest number of tile pixels that may be retained.
    """
    rows, columns = _Side(counts[-2], shard[0], grid.rows), _Side(counts[-1], shard[1], grid.columns)
    orders = [
        _plan_along("x", counts, columns, rows, most_pixels),
        _plan_along("y", counts, rows, columns, most_pixels),
    ]
    return min(orders, key=lambda order: (order.extra_share, order.carried_pixels))


@dataclass(frozen=True)
class _Side:
    """Shards and tiles along one axis."""

    shards: int
    shard: int
    tiles: TileAxis

    @cached_property
    def across(self) -> list[int]:
        """Number of tiles across each border of shards."""
        return [_across(self.tiles, number * self.shard) for number in range(1, self.shards)]

    @cached_property
    def left_over(self) -> int:
        """Largest number of tile pixels beyond a border of shards, on a line across it."""
        borders = (number * self.shard for number in range(1, self.shards))
        return max((_beyond(self.tiles, border) for border in borders), default=0)

    def covering(self, shards: int) -> int:
        """Return the largest number of pixels of the tiles on a line of shards, overlaps counted for each tile."""
        together, largest, shortest_step = self._cores
        count = (shards * self.shard + largest - 2) // shortest_step + 1
        return min(together, count * largest)

    @cached_property
    def _cores(self) -> tuple[int, int, int]:
        """Pixels of all cores together, pixels of the largest core, and the shortest step between tiles."""
        sizes = [self.tiles.core(number).size for number in range(len(self.tiles))]
        steps = [after - before for before, after in pairwise(self.tiles.starts)]
        return sum(sizes), max(sizes), min(steps, default=self.tiles.size)


def _plan_along(along: str, counts: tuple[int, ...], side: _Side, other: _Side, most_pixels: int) -> ShardOrder:
    """Return the order along one axis with the widest bands that retain few enough pixels."""

    def carried(band: int) -> int:
        """Return the pixels retained for the next row of shards, and for the other shards of this row."""
        return other.left_over * side.covering(band) + side.left_over * other.covering(1)

    widths = (-(-side.shards // parts) for parts in range(1, side.shards + 1))  # as equal as possible
    band = next((width for width in widths if carried(width) <= most_pixels), 1)
    twice = sum(side.across[border - 1] for border in range(band, side.shards, band))
    return ShardOrder(counts, along, band, carried(band), twice / len(side.tiles))


def _beyond(tiles: TileAxis, border: int) -> int:
    """Return the number of pixels beyond a border of all tiles across it."""
    before, after = tiles.touching(Span(border - 1, border)), tiles.touching(Span(border, border + 1))
    numbers = range(max(before.start, after.start), min(before.stop, after.stop))
    return sum(tiles.core(number).stop - border for number in numbers)


def _across(tiles: TileAxis, border: int) -> int:
    """Return the number of tiles across a border."""
    before, after = tiles.touching(Span(border - 1, border)), tiles.touching(Span(border, border + 1))
    return len(range(max(before.start, after.start), min(before.stop, after.stop)))
