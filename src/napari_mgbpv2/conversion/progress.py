"""What has been done of a conversion and what is left, counted in tiles of the network and in shards."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.conversion.job import CancellationCallback, ConversionPlan, Progress
from napari_mgbpv2.conversion.shards import ShardWork
from napari_mgbpv2.errors import Cancelled

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import Index, OMEZarrWriter, StoredShard
    from napari_mgbpv2.upscaling.lazy import ComputeTile, TilePixels

STOPPED = "stopped before the image was complete"


@dataclass(frozen=True)
class Report:
    """Where a conversion stands.

    Attributes
    ----------
    tiles, all_tiles
        Tiles of the network that are done, and of the whole image.
    repeated_tiles
        Tiles that had to be run again.
    shards, all_shards
        Shards that are stored, and of all levels.
    megapixels, all_megapixels
        Pixels of the result at full resolution that are stored, in millions, and of the whole image.
    bytes_written
        Size of what this run has written.
    seconds
        Since this run began.
    """

    tiles: int
    all_tiles: int
    repeated_tiles: int
    shards: int
    all_shards: int
    megapixels: float
    all_megapixels: float
    bytes_written: int
    seconds: float


ReportCallback = Callable[[Report], None]


class ProgressTracker:
    """Counts what is done, tells of it, and asks whether to go on. For several threads.

    Steps are tiles, and shards of further levels. A tile belongs to the shard in which it starts; the tiles of a shard
    that an earlier run has stored are done.
    """

    def __init__(
        self,
        prepared: ConversionPlan,
        work: ShardWork,
        writer: OMEZarrWriter,
        progress: Progress | None,
        cancelled: CancellationCallback | None,
        tell: ReportCallback | None,
    ) -> None:
        layout = prepared.layout
        self._work, self._layout = work, layout
        self._destination = prepared.job.destination
        self._progress, self._cancelled, self._tell = progress, cancelled, tell
        self._lock = threading.RLock()  # guards all below; what is told is told in order
        self._stopped = False
        self._began = time.monotonic()
        self._run: npt.NDArray[np.bool_] = np.zeros(work.tile_counts, bool)  # which tiles are done
        self._tiles = self._repeated = self._extra = self._shards = self._further = self._pixels = self._bytes = 0
        self._all_shards = sum(math.prod(layout.shard_counts(level)) for level in range(len(layout.level_shapes())))
        self._all_further = self._all_shards - math.prod(layout.shard_counts())
        for level in range(len(layout.level_shapes())):
            for index in writer.stored(level):
                self._count(index, level)

    @property
    def report(self) -> Report:
        """Where the conversion stands."""
        with self._lock:
            return Report(
                tiles=self._tiles,
                all_tiles=self._run.size,
                repeated_tiles=self._repeated,
                shards=self._shards,
                all_shards=self._all_shards,
                megapixels=self._pixels / 1e6,
                all_megapixels=math.prod(self._layout.shape) / max(1, self._work.samples) / 1e6,
                bytes_written=self._bytes,
                seconds=time.monotonic() - self._began,
            )

    def wrap_compute(self, compute: ComputeTile) -> ComputeTile:
        """Wrap the function that computes a tile: it asks before, and counts after."""

        def counted(plane: tuple[int, ...], group: int, row: int, column: int) -> TilePixels:
            self.check()
            pixels = compute(plane, group, row, column)
            tile = (self._work.plane_number(plane), group, row, column)
            with self._lock:
                if self._run[tile]:
                    self._repeated += 1
                else:
                    self._run[tile] = True
                    self._tiles += 1
                    self._say()
            return pixels

        return counted

    def add(self, shard: StoredShard, tiles_run: int | None = None) -> None:
        """Count a shard that has been stored.

        Parameters
        ----------
        shard
            The shard.
        tiles_run
            Tiles that another process has run for it; those of this process have been counted one by one.
        """
        with self._lock:
            before = self._tiles
            self._count(shard.index, shard.level)
            if tiles_run is not None:  # a tile of the next shard's may be among them
                self._extra += tiles_run - (self._tiles - before)
                self._repeated = max(self._repeated, self._extra)
            self._bytes += shard.size
            if shard.level or tiles_run is not None:
                self._say()
            elif self._tell is not None:
                self._tell(self.report)

    def uncount(self, shards: Iterable[tuple[int, Index]]) -> None:
        """Count shards no more that have to be made again: level and position of each."""
        with self._lock:
            for level, index in shards:
                self._shards -= 1
                if level:
                    self._further -= 1
                else:
                    self._pixels -= self._pixels_of(index)

    def check(self) -> None:
        """Raise `Cancelled` if the work is to stop."""
        if self._stopped or (self._cancelled is not None and self._cancelled()):
            self.stop()
            kept = "what is done is kept, and resuming goes on with it" if self._shards else "nothing is left of it"
            raise Cancelled(f"{self._destination}: {STOPPED}; {kept}.")

    def stop(self) -> None:
        """Let all threads stop before their next tile."""
        self._stopped = True

    def _count(self, index: Index, level: int) -> None:
        self._shards += 1
        if level:
            self._further += 1
            return
        owned = self._run[self._work.tiles_of(index)]
        self._tiles += int(owned.size - owned.sum())
        owned[...] = True
        self._pixels += self._pixels_of(index)

    def _pixels_of(self, index: Index) -> int:
        sizes: list[int] = [part.stop - part.start for part in self._layout.shard_region(index)]
        return math.prod(sizes) // max(1, self._work.samples)

    def _say(self) -> None:
        if self._progress is not None:
            self._progress(self._tiles + self._further, self._run.size + self._all_further)
        if self._tell is not None:
            self._tell(self.report)
