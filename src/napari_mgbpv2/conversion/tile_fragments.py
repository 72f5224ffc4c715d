"""Blend shards from tiles that are cut at shard borders.

Only fragments that a later shard needs stay in memory. `ShardedImage` blends a shard, `TileFragmentCache` owns the
fragments and computes each tile once for all threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from array_api_compat import array_namespace

from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling.lazy import Plane, Tile, TiledImage, TilePixels, zeros_like_tile

ShardPosition = tuple[int, int]  # row and column of a shard in its plane
IsNeeded = Callable[[Tile, ShardPosition], bool]


@dataclass
class ShardedImage(TiledImage):
    """Tiled image that is read in whole shards, each of them once. Each tile is cut into one fragment per shard.

    Parameters
    ----------
    layout, compute_tile, finish
        Geometry and dtype of the image, the function that computes a tile, and the function that converts a blended
        region to pixels; the same as in `TiledImage`.
    cache_bytes
        Maximum size of the cached fragments, in bytes.
    shard
        Height and width of a shard, in target pixels.
    is_needed
        Return whether a shard still needs its fragment of a tile. By default, every shard does.
    """

    shard: tuple[int, int] = (1024, 1024)
    is_needed: IsNeeded = field(default=lambda tile, shard: True)

    def __post_init__(self) -> None:
        """Create the fragment cache."""
        super().__post_init__()
        self._fragments = TileFragmentCache(self.cache_bytes)

    def blend(self, plane: Plane, group: int, rows: Span, columns: Span, samples: int) -> TilePixels:
        """Accumulate the fragments of a shard, always in the same order, so that the sum is reproducible."""
        grid = self.layout.grid
        shard = (rows.start // self.shard[0], columns.start // self.shard[1])
        blended = None
        for row, column in grid.touching(rows, columns):
            tile = (plane, group, row, column)
            fragment = self._fragments.take(tile, shard, lambda tile=tile: dict(self._cut(tile, shard)))  # type: ignore[misc]
            top, left = (
                max(core.start, span.start) - span.start
                for core, span in ((grid.rows.core(row), rows), (grid.columns.core(column), columns))
            )
            if blended is None:
                blended = zeros_like_tile(fragment, (samples, rows.size, columns.size))
            target = blended[:, top : top + fragment.shape[1], left : left + fragment.shape[2]]
            target += fragment
        return blended

    def _cut(self, tile: Tile, requesting_shard: ShardPosition) -> Iterator[tuple[ShardPosition, TilePixels]]:
        """Compute a tile and yield the fragment of each shard that needs one."""
        pixels = self.weighted_tile(tile)
        core_rows, core_columns = self.layout.grid.rows.core(tile[2]), self.layout.grid.columns.core(tile[3])
        for shard_row, rows in _parts(core_rows, self.shard[0]):
            for shard_column, columns in _parts(core_columns, self.shard[1]):
                shard = (shard_row, shard_column)
                if shard == requesting_shard or self.is_needed(tile, shard):
                    # a copy: a view would keep the whole tile in memory
                    yield shard, array_namespace(pixels).asarray(pixels[:, rows, columns], copy=True)


def _parts(core: Span, side: int) -> Iterator[tuple[int, slice]]:
    """Split a span at multiples of ``side``. Yield the number of each part and its slice within the span."""
    for number in range(core.start // side, -(-core.stop // side)):
        first, last = max(core.start, number * side), min(core.stop, (number + 1) * side)
        yield number, slice(first - core.start, last - core.start)


class TileFragmentCache:
    """Fragments that later shards need, up to a total size in bytes.

    A tile is computed once, however many threads request its fragments at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # guards all below
        self._size = 0
        self._waiting: OrderedDict[Tile, dict[ShardPosition, TilePixels]] = OrderedDict()  # oldest first
        self._in_progress: dict[Tile, Future[None]] = {}

    def take(self, tile: Tile, shard: ShardPosition, cut: Callable[[], dict[ShardPosition, TilePixels]]) -> TilePixels:
        """Remove and return a fragment. If it is not cached, compute the tile with ``cut``."""
        while True:
            with self._lock:
                fragments = self._waiting.get(tile, {})
                if shard in fragments:
                    return self._remove(tile, shard)
                future = self._in_progress.get(tile)
                is_ours = future is None
                if future is None:
                    future = self._in_progress[tile] = Future()
            if is_ours:
                return self._cut(tile, shard, cut, future)
            future.result()  # the fragment may still be missing, if it was evicted: look again

    def _cut(
        self, tile: Tile, shard: ShardPosition, cut: Callable[[], dict[ShardPosition, TilePixels]], future: Future[None]
    ) -> TilePixels:
        try:
            made = cut()
        except BaseException as error:
            with self._lock:
                del self._in_progress[tile]
            future.set_exception(error)
            raise
        own = made.pop(shard)
        with self._lock:
            del self._in_progress[tile]
            kept = self._waiting.setdefault(tile, {})
            for where, fragment in made.items():
                if where not in kept:
                    kept[where] = fragment
                    self._size += fragment.nbytes
            if not kept:
                del self._waiting[tile]
            while self._size > self._limit and len(self._waiting) > 1:
                _, dropped = self._waiting.popitem(last=False)
                self._size -= sum(fragment.nbytes for fragment in dropped.values())
        future.set_result(None)
        return own

    def _remove(self, tile: Tile, shard: ShardPosition) -> TilePixels:
        fragments = self._waiting[tile]
        fragment = fragments.pop(shard)
        self._size -= fragment.nbytes
        if not fragments:
            del self._waiting[tile]
        return fragment
