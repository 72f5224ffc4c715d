"""The dispatch of a huge conversion to many workers, played without network, files or cluster.

    python benchmarks/scheduling.py [--side 1000000] [--workers 1 2 10 100 1000] [--spread 0.3]

The shard order and the work queue are those of the real dispatcher; a shard takes each worker a random time. Prints how
evenly the workers end, which share of tiles runs twice because its shards were made by different workers, and what the
dispatch costs.
"""

from __future__ import annotations

import argparse
import heapq
import time

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.conversion.job import TILE_CACHE_BYTES
from napari_mgbpv2.conversion.work_queue import WorkStealingQueue
from napari_mgbpv2.model.checkpoints import load_model
from napari_mgbpv2.model.network import configurations
from napari_mgbpv2.model.zoo import default_model
from napari_mgbpv2.tiling.grid import Span, TileGrid, plan_grid
from napari_mgbpv2.tiling.shard_order import ShardOrder, plan_shard_order

Owners = npt.NDArray[np.int32]

SHARD = 2048
PIXELS_KEPT = TILE_CACHE_BYTES // 12  # of three channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1_000_000, help="pixels of the result along y and x")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 10, 100, 1000])
    parser.add_argument("--spread", type=float, default=0.3, help="of the time of a shard, relative")
    options = parser.parse_args()
    network = load_model(default_model(4).path)
    grid = plan_grid(options.side, options.side, configurations(network), guard=network.guard or 72)
    counts = (-(-options.side // SHARD),) * 2
    walk = plan_shard_order(counts, (SHARD, SHARD), grid, PIXELS_KEPT)
    print(f"{options.side:,} x {options.side:,} px: {len(walk):,} shards, {len(grid):,} tiles of {grid.rows.tile} px")
    print(f"{'workers':>8}{'ideal time':>12}{'tiles twice':>13}{'dispatch, us a shard':>22}")
    for workers in options.workers:
        ends, owners, seconds = play(walk, workers, options.spread)
        ideal = len(walk) / workers
        share = tiles_run(walk, owners, grid) / len(grid) - 1
        print(f"{workers:>8}{ends / ideal:>12.3f}{share:>13.2%}{1e6 * seconds / len(walk):>22.1f}", flush=True)


def play(walk: ShardOrder, workers: int, spread: float) -> tuple[float, Owners, float]:
    """Give each worker its next shard when it has finished one; return the end, who made what, and the cost."""
    generator = np.random.default_rng(0)
    work_queue = WorkStealingQueue(np.arange(len(walk), dtype=np.int64))
    owners = np.empty(len(walk), np.int32)
    free = [(0.0, worker) for worker in range(workers)]
    times = iter(np.maximum(0.1, generator.normal(1, spread, len(walk) + workers)))
    end, spent = 0.0, 0.0
    while free:
        now, worker = heapq.heappop(free)
        began = time.perf_counter()
        number = work_queue.next(str(worker))
        spent += time.perf_counter() - began
        if number is None:
            continue
        owners[number] = worker
        done = now + next(times)
        end = max(end, done)
        heapq.heappush(free, (done, worker))
    return end, owners, spent


def tiles_run(walk: ShardOrder, owners: Owners, grid: TileGrid) -> int:
    """How often tiles run in all: once for each worker, and for each band, that has a shard which the tile meets."""
    by_shard = np.empty(walk.counts, np.int64)
    axis = -1 if walk.along == "x" else -2
    for number, index in enumerate(walk):
        by_shard[index] = owners[number] + (index[axis] // walk.band) * (owners.max() + 1)
    total = 0
    columns = [_shards(grid.columns.core(column)) for column in range(len(grid.columns))]
    for row in range(len(grid.rows)):
        rows = by_shard[_shards(grid.rows.core(row))]
        same = (rows == rows[:1]).all(axis=0)  # per column of shards: made by one worker
        for part in columns:
            block = rows[:, part]
            if block.size == 1 or (same[part].all() and (block[0] == block[0, 0]).all()):
                total += 1
            else:
                total += len(np.unique(block))
    return total


def _shards(core: Span) -> slice:
    return slice(core.start // SHARD, -(-core.stop // SHARD))


if __name__ == "__main__":
    main()
