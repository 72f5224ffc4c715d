"""Run a conversion in this process, with a few shards in flight so that reading, inference and writing overlap."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from napari_mgbpv2.conversion.job import IN_FLIGHT, ConversionPlan
from napari_mgbpv2.conversion.progress import ProgressTracker
from napari_mgbpv2.conversion.shards import ShardWork
from napari_mgbpv2.errors import DestinationError

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import Index, OMEZarrWriter, StoredShard

MAX_DAMAGES = 10  # times that damaged shards are recomputed before the conversion fails


def run_locally(prepared: ConversionPlan, work: ShardWork, writer: OMEZarrWriter, tracker: ProgressTracker) -> None:
    """Compute all missing shards of all pyramid levels.

    A shard of a coarser level is built as soon as the shards below it are stored, while the network computes the next
    ones.
    """
    image = work.image(tracker.wrap_compute, writer.is_stored)
    pyramid = PyramidBuilder(writer, tracker)

    def make(index: Index) -> None:
        tracker.check()
        region = writer.layout.shard_region(index)
        shard = writer.write(region, work.pixels(image, index))
        tracker.add(shard)
        pyramid.build_above(shard)

    in_flight: deque[Future[None]] = deque()
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="mgbpv2-shard") as pool:
        try:
            for _ in range(MAX_DAMAGES):
                pyramid.build_all_ready()
                for index in prepared.shard_order:
                    if writer.is_stored(index):
                        continue
                    in_flight.append(pool.submit(make, index))
                    if len(in_flight) == IN_FLIGHT:
                        in_flight.popleft().result()
                while in_flight:
                    in_flight.popleft().result()
                if writer.is_complete():  # else some of it was found damaged, and is made again
                    return
            raise DestinationError(
                f"{prepared.job.destination}: what is written is damaged again and again; check the disk, and resume"
            )
        except BaseException:
            tracker.stop()  # the threads end before their next tile, and the pool waits for them
            for future in in_flight:
                future.cancel()
            raise


class PyramidBuilder:
    """Builder of the coarser pyramid levels, which runs in the threads that store shards."""

    def __init__(self, writer: OMEZarrWriter, tracker: ProgressTracker) -> None:
        self._writer, self._tracker = writer, tracker
        self._lock = threading.Lock()
        self._claimed: set[tuple[int, Index]] = set()

    def build_all_ready(self) -> None:
        """Build the shards whose inputs an earlier run has stored."""
        for level in range(1, len(self._writer.layout.level_shapes())):
            for index in list(self._writer.missing(level)):
                self._build(index, level)

    def build_above(self, shard: StoredShard) -> None:
        """Build the shard above a stored one if that is ready, and so on up to the coarsest level."""
        while True:
            level = shard.level + 1
            with self._lock:
                index = self._writer.ready_parent(shard)
                if index is None or (level, index) in self._claimed or self._writer.is_stored(index, level):
                    return
                self._claimed.add((level, index))
            built = self._build(index, level)
            with self._lock:
                self._claimed.discard((level, index))
            if built is None:
                return
            shard = built

    def _build(self, index: Index, level: int) -> StoredShard | None:
        """Build a shard, or return None if its inputs are damaged and must be recomputed first."""
        from napari_mgbpv2.io.writers.ome_zarr import DamagedShards

        self._tracker.check()
        try:
            shard = self._writer.downsample_shard(index, level)
        except DamagedShards as error:
            self._tracker.uncount(self._writer.invalidate(error.shards))
            return None
        self._tracker.add(shard)
        return shard
