"""The order in which shards are made: such that tiles across their borders wait in memory, each run once.

A tile that lies across the border of two shards is run for the first of them and kept for the second one. In a walk
along rows, a whole row of such tiles is kept until the next row of shards comes. What must be kept is least when the
rows of the order run along the shorter side of the image; and where even that is too much, the image is cut into bands,
whose borders alone cost tiles that are run twice.
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
    """An order of all shards of an image, and what it costs.

    Attributes
    ----------
    counts
        Number of shards along each axis; y and x are the last two.
    along
        The axis that the rows of the order run along, "x" or "y".
    band
        Shards of a row at the most.
    carried_pixels
        Pixels of tiles that are kept at the most, for shards that are still to be made.
    extra_share
        Tiles that are run a second time, as a share of all tiles.
    """

    counts: tuple[int, ...]
    along: str
    band: int
    carried_pixels: int
    extra_share: float

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, number: int) -> Index:
        """Shard at a position of the order."""
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
        """Count the shards along a row of the walk, all bands together, and across it."""
        rows, columns = self.counts[-2:]
        return (columns, rows) if self.along == "x" else (rows, columns)


def plan_shard_order(counts: tuple[int, ...], shard: tuple[int, int], grid: TileGrid, most_pixels: int) -> ShardOrder:
    """Choose an order of shards.

    Parameters
    ----------
    counts
        Number of shards along each axis; y and x are the last two.
    shard
        Height and width of a shard in pixels.
    grid
        Tiles of a plane.
    most_pixels
        Pixels of tiles that may be kept.
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
        """Tiles that meet both sides of a border of shards, for each border."""
        return [_across(self.tiles, number * self.shard) for number in range(1, self.shards)]

    @cached_property
    def left_over(self) -> int:
        """Pixels of tiles beyond a border of shards, in a line across it, at the most."""
        borders = (number * self.shard for number in range(1, self.shards))
        return max((_beyond(self.tiles, border) for border in borders), default=0)

    def covering(self, shards: int) -> int:
        """Pixels of the tiles that meet some shards, in a line, at the most; what overlaps counts for each."""
        together, largest, shortest_step = self._cores
        count = (shards * self.shard + largest - 2) // shortest_step + 1
        return min(together, count * largest)

    @cached_property
    def _cores(self) -> tuple[int, int, int]:
        """Pixels of all cores together and of the largest one, and the shortest step from one to the next."""
        sizes = [self.tiles.core(number).size for number in range(len(self.tiles))]
        steps = [after - before for before, after in pairwise(self.tiles.starts)]
        return sum(sizes), max(sizes), min(steps, default=self.tiles.size)


def _plan_along(along: str, counts: tuple[int, ...], side: _Side, other: _Side, most_pixels: int) -> ShardOrder:
    def carried(band: int) -> int:
        """What a row of shards leaves for the next one, and what the shard that is being made leaves for its others."""
        return other.left_over * side.covering(band) + side.left_over * other.covering(1)

    widths = (-(-side.shards // parts) for parts in range(1, side.shards + 1))  # as equal as can be
    band = next((width for width in widths if carried(width) <= most_pixels), 1)
    twice = sum(side.across[border - 1] for border in range(band, side.shards, band))
    return ShardOrder(counts, along, band, carried(band), twice / len(side.tiles))


def _beyond(tiles: TileAxis, border: int) -> int:
    """Count the pixels beyond a border of all tiles whose cores meet both sides of it."""
    before, after = tiles.touching(Span(border - 1, border)), tiles.touching(Span(border, border + 1))
    numbers = range(max(before.start, after.start), min(before.stop, after.stop))
    return sum(tiles.core(number).stop - border for number in numbers)


def _across(tiles: TileAxis, border: int) -> int:
    """Count the tiles of an axis whose cores meet both sides of a border."""
    before, after = tiles.touching(Span(border - 1, border)), tiles.touching(Span(border, border + 1))
    return len(range(max(before.start, after.start), min(before.stop, after.stop)))
