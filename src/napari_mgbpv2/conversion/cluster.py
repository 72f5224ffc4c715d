"""Converting on `dask.distributed`: one task a shard, a few at a time, each written by the worker that computes it.

Every worker walks through an area of its own, so that tiles across the borders of its shards stay in its memory; one
that has finished its area takes half of what another has left. Tasks write files and return their sizes: no pixel
travels, and the graph never holds more than what is in flight. Shards are complete files or not there, and equal
whoever makes them: a worker may die at any time, or two may make the same shard.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mgbpv2.conversion.areas import Areas
from napari_mgbpv2.conversion.job import Prepared
from napari_mgbpv2.conversion.local import MOST_DAMAGES
from napari_mgbpv2.conversion.progress import Tally
from napari_mgbpv2.conversion.workers import PATIENCE, check_workers
from napari_mgbpv2.conversion.working import ShardWork
from napari_mgbpv2.errors import ClusterError

if TYPE_CHECKING:
    from napari_mgbpv2.lazy import ComputeTile, TiledImage, TilePixels
    from napari_mgbpv2.ome_zarr import DamagedShards, Index, OMEZarrWriter, ShardStore, StoredShard

IN_FLIGHT = 2  # tasks a thread of a worker: the next one waits there when one is done
MOST_DEATHS = 10  # of workers at one shard
_RESULT_SECONDS = 10.0  # for some numbers that are there already
_CHECK_SECONDS = 0.5  # between questions whether to stop, and looks at which workers there are


def run_on_cluster(prepared: Prepared, work: ShardWork, writer: OMEZarrWriter, tally: Tally, client: Any) -> None:
    """Make all shards that are missing, of all levels, on the workers of a cluster.

    Raises
    ------
    ClusterError
        There are no workers, they do not have this package, do not see the files, or die at one shard again and again.
    """
    check_workers(client, writer.store.storage)
    run = _Run(prepared, work, writer, tally, client)
    try:
        run.all()
    except BaseException:
        run.cancel()
        raise


@dataclass(frozen=True)
class _Task:
    level: int
    index: Index
    worker: str | None  # whose area it is of; a shard of a further level is of none


class _Run:
    def __init__(self, prepared: Prepared, work: ShardWork, writer: OMEZarrWriter, tally: Tally, client: Any) -> None:
        from distributed.protocol.pickle import dumps

        self._writer, self._tally, self._client = writer, tally, client
        self._walk = prepared.walk
        self._token = uuid.uuid4().hex
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._tasks: dict[Any, _Task] = {}
        self._busy: Counter[str | None] = Counter()
        self._deaths: Counter[tuple[int, Index]] = Counter()
        self._further: deque[tuple[int, Index]] = deque()
        self._again: deque[Index] = deque()  # shards of level 0 that were found damaged
        self._damages: Counter[tuple[int, Index]] = Counter()
        self._number = itertools.count()
        self._payload: bytes = dumps(work)  # type: ignore[no-untyped-call]
        self._taught: set[str | None] = set()  # workers that have been sent it

    def all(self) -> None:
        """Keep all workers busy until nothing is missing."""
        stored = (number for number, index in enumerate(self._walk) if not self._writer.is_stored(index))
        areas = Areas(np.fromiter(stored, np.int64))
        for level in range(1, len(self._writer.layout.level_shapes())):
            self._further += [(level, index) for index in self._writer.missing(level)]
        threads: dict[str, int] = {}
        looked, seen = -np.inf, time.monotonic()
        while True:
            self._tally.check()
            now = time.monotonic()
            if now - looked > _CHECK_SECONDS:
                threads, looked = dict(self._client.nthreads()), now
                self._reassign(threads)
            if threads:
                seen = now
            elif now - seen > PATIENCE:
                raise ClusterError(f"the cluster has had no workers for {PATIENCE:.0f} s; start some and resume.")
            self._fill(threads, areas)
            if not self._tasks and threads and not (len(areas) or self._again or self._further):
                return
            with contextlib.suppress(queue.Empty):
                self._take(self._done.get(timeout=_CHECK_SECONDS))

    def cancel(self) -> None:
        """Drop all tasks that have not begun; those that have end by themselves."""
        with contextlib.suppress(Exception):  # the scheduler may have gone
            self._client.cancel(list(self._tasks))

    def _fill(self, threads: dict[str, int], areas: Areas) -> None:
        while self._further and self._busy[None] < 2 * IN_FLIGHT * sum(threads.values()):
            level, index = self._further.popleft()
            self._submit(_Task(level, index, None))
        while self._again and threads:
            self._submit(_Task(0, self._again.popleft(), self._least_busy(threads)))
        for worker, count in threads.items():
            while self._busy[worker] < IN_FLIGHT * count and (number := areas.next(worker)) is not None:
                self._submit(_Task(0, self._walk[number], worker))

    def _reassign(self, threads: dict[str, int]) -> None:
        """Give the tasks of workers that have gone to others: the scheduler may wait for their return for ever."""
        orphans = [(future, task) for future, task in self._tasks.items() if task.worker not in (None, *threads)]
        if not threads or not orphans:
            return
        for future, task in orphans:
            del self._tasks[future]
            self._busy[task.worker] -= 1
            self._count_death(task, None)
            self._submit(replace(task, worker=self._least_busy(threads)))
        self._client.cancel([future for future, _ in orphans])

    def _least_busy(self, threads: dict[str, int]) -> str:
        return min(threads, key=lambda worker: self._busy[worker] / threads[worker])

    def _submit(self, task: _Task) -> None:
        key = f"mgbpv2-shard-{self._token}-{next(self._number)}"
        if task.level:
            future = self._client.submit(
                _build_shard, self._writer.store, task.index, task.level, key=key, pure=False, priority=10
            )
        else:
            future = self._client.submit(
                _make_shard,
                None if task.worker in self._taught else self._payload,
                self._writer.store,
                self._token,
                task.index,
                key=key,
                pure=False,
                workers=[task.worker],
                allow_other_workers=True,
            )
            self._taught.add(task.worker)
        self._tasks[future] = task
        self._busy[task.worker] += 1
        future.add_done_callback(self._done.put)

    def _take(self, future: Any) -> None:
        task = self._tasks.pop(future, None)
        if task is None:  # another worker has been given it
            return
        self._busy[task.worker] -= 1
        if future.status == "finished" and (made := self._made_by(future)) is not None:
            shard, tiles_run = made
            self._writer.record(shard)
            self._tally.add(shard, tiles_run)
            above = self._writer.ready_above(shard)
            if above is not None and not self._writer.is_stored(above, shard.level + 1):
                self._further.append((shard.level + 1, above))
            return
        self._after_failure(future, task)

    def _made_by(self, future: Any) -> tuple[StoredShard, int] | None:
        """Return what a task has given; None where its worker has died with it since.

        The scheduler would then run the task again, and might wait for that worker for ever.
        """
        try:
            made: tuple[StoredShard, int] = future.result(timeout=_RESULT_SECONDS)
            return made
        except Exception:  # late, lost, or what the second run has come to: it is run anew, and tells again
            self._client.cancel([future])
            return None

    def _after_failure(self, future: Any, task: _Task) -> None:
        from distributed import KilledWorker

        from napari_mgbpv2.ome_zarr import DamagedShards

        error = future.exception() if future.status == "error" else None
        if isinstance(error, _UntaughtError):
            self._taught.discard(task.worker)
            self._submit(task)
            return
        if isinstance(error, DamagedShards):
            self._make_again(error)
            return
        if error is not None and not isinstance(error, KilledWorker):
            raise error
        self._count_death(task, error)
        self._submit(task)

    def _make_again(self, error: DamagedShards) -> None:
        """Make shards again that were found damaged; what is made from them follows."""
        self._damages.update(error.shards)
        if max(self._damages[shard] for shard in error.shards) >= MOST_DAMAGES:
            raise error
        dropped = self._writer.forget(error.shards)
        self._tally.take_back(dropped)
        self._again += [index for level, index in dropped if not level]
        self._further += [(level, index) for level, index in dropped if level and self._writer.is_ready(index, level)]

    def _count_death(self, task: _Task, error: BaseException | None) -> None:
        self._deaths[task.level, task.index] += 1
        if self._deaths[task.level, task.index] >= MOST_DEATHS:
            raise ClusterError(
                f"workers die again and again at shard {task.index} of level {task.level}; they may lack memory: "
                "use fewer workers or smaller tiles, and resume."
            ) from error


def _build_shard(store: ShardStore, index: Index, level: int) -> tuple[StoredShard, int]:
    with _told(store):
        return store.build(index, level), 0


def _make_shard(payload: bytes | None, store: ShardStore, token: str, index: Index) -> tuple[StoredShard, int]:
    """Compute and write a shard in this process; return also how many tiles have been run for it.

    The work, which may hold a whole image, is sent to a process once and unpacked there alone: a scheduler need not see
    the source.
    """
    work, image, counter = _work_of(token, payload)
    pixels = work.pixels(image, index)
    with _told(store):
        return store.write(store.layout.shard_region(index), pixels), counter.take()


@contextlib.contextmanager
def _told(store: ShardStore) -> Iterator[None]:
    from napari_mgbpv2.ome_zarr import telling_errors

    with telling_errors(store.storage.destination):
        yield


class _Counter:
    """Counts the tiles that this process runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def around(self, compute: ComputeTile) -> ComputeTile:
        def counted(plane: tuple[int, ...], group: int, row: int, column: int) -> TilePixels:
            with self._lock:
                self._count += 1
            return compute(plane, group, row, column)

        return counted

    def take(self) -> int:
        with self._lock:
            count, self._count = self._count, 0
        return count


class _UntaughtError(Exception):
    """A process has not been sent the work, though it was thought to have been."""


_work: dict[str, tuple[ShardWork, TiledImage, _Counter]] = {}  # of the run that this process works for
_work_lock = threading.Lock()


def _work_of(token: str, payload: bytes | None) -> tuple[ShardWork, TiledImage, _Counter]:
    """Return the work of a run, and the image that all its tasks share in this process, with its tiles."""
    from distributed.protocol.pickle import loads

    with _work_lock:
        if token not in _work:
            if payload is None:
                raise _UntaughtError
            _work.clear()
            work, counter = loads(payload), _Counter()  # type: ignore[no-untyped-call]
            _work[token] = work, work.image(counter.around), counter
        return _work[token]
