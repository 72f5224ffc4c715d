"""Tiles cut at the borders of shards: of a tile, only what is still to be used stays in memory."""

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
    """A tiled image that is asked for whole shards, each once: a tile is cut into what each shard takes of it.

    Parameters
    ----------
    layout, compute_tile, finish, cache_bytes
        As `TiledImage` has them; the cache holds fragments of tiles.
    shard
        Height and width of a shard.
    is_needed
        Whether a shard will be asked for what it takes of a tile.
    """

    shard: tuple[int, int] = (1024, 1024)
    is_needed: IsNeeded = field(default=lambda tile, shard: True)

    def __post_init__(self) -> None:
        """Make the store of fragments."""
        super().__post_init__()
        self._fragments = TileFragmentCache(self.cache_bytes)

    def blend(self, plane: Plane, group: int, rows: Span, columns: Span, samples: int) -> TilePixels:
        """Add up what tiles give to a shard, always in the same order."""
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
        """Compute a tile and give each shard's fragment of it, but for those that no shard will ask for."""
        pixels = self.weighted_tile(tile)
        core_rows, core_columns = self.layout.grid.rows.core(tile[2]), self.layout.grid.columns.core(tile[3])
        for shard_row, rows in _parts(core_rows, self.shard[0]):
            for shard_column, columns in _parts(core_columns, self.shard[1]):
                shard = (shard_row, shard_column)
                if shard == requesting_shard or self.is_needed(tile, shard):
                    # a copy, as a view would keep all of it
                    yield shard, array_namespace(pixels).asarray(pixels[:, rows, columns], copy=True)


def _parts(core: Span, side: int) -> Iterator[tuple[int, slice]]:
    """Cut a span at multiples of ``side``: the number of each part, and where it lies within the span."""
    for number in range(core.start // side, -(-core.stop // side)):
        first, last = max(core.start, number * side), min(core.stop, (number + 1) * side)
        yield number, slice(first - core.start, last - core.start)


class TileFragmentCache:
    """Pieces that wait for their shard, up to a total size; a tile is cut once, however many threads ask for it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # guards all below
        self._size = 0
        self._waiting: OrderedDict[Tile, dict[ShardPosition, TilePixels]] = OrderedDict()  # the first to go first
        self._in_progress: dict[Tile, Future[None]] = {}

    def take(self, tile: Tile, shard: ShardPosition, cut: Callable[[], dict[ShardPosition, TilePixels]]) -> TilePixels:
        """Return a fragment, which is then no longer kept; the tile is cut by ``cut`` if the fragment is not there."""
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
            future.result()  # then it may be there; not if it has been dropped, or the other thread had none for us

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
