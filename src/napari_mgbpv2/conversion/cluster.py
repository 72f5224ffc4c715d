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
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mgbpv2.conversion import workers
from napari_mgbpv2.conversion.job import ConversionPlan
from napari_mgbpv2.conversion.local import MAX_DAMAGES
from napari_mgbpv2.conversion.progress import ProgressTracker
from napari_mgbpv2.conversion.shards import ShardWork
from napari_mgbpv2.conversion.work_queue import WorkStealingQueue
from napari_mgbpv2.conversion.worker_checks import Event, Requirements, WorkerChecks
from napari_mgbpv2.errors import ClusterError, MGBPv2Error

if TYPE_CHECKING:
    from napari_mgbpv2.io.writers.ome_zarr import DamagedShards, Index, OMEZarrWriter, ShardStore, StoredShard

Note = Callable[[str], None]

IN_FLIGHT = 2  # tasks per thread of a worker: the next one waits there when one is done
MAX_WORKER_FAILURES = 10  # of workers at one shard
_RESULT_SECONDS = 10.0  # for some numbers that are there already
_CHECK_SECONDS = 0.5  # between questions whether to stop, and looks at which workers there are
_MOST_NAMED = 3  # workers in one message


def run_on_cluster(
    prepared: ConversionPlan,
    work: ShardWork,
    writer: OMEZarrWriter,
    tracker: ProgressTracker,
    client: Any,
    note: Note | None = None,
) -> None:
    """Make all shards that are missing, of all levels, on the workers of a cluster that can do it.

    Parameters
    ----------
    prepared, work, writer, tracker
        The conversion.
    client
        Client of the cluster.
    note
        Called with a sentence for each worker that is refused while others work; by default, it is a warning.

    Raises
    ------
    ClusterError
        There are no workers that can do the work, they die at one shard again and again, or the scheduler has ended.
    """
    run = _Run(prepared, work, writer, tracker, client, note or _warn)
    try:
        run.all()
    except MGBPv2Error:
        run.cancel()
        raise
    except Exception as error:  # whatever the client raises then, the cause is that it has lost the scheduler
        run.cancel()
        if run.is_connected:
            raise
        raise run.lost_scheduler() from error
    except BaseException:
        run.cancel()
        raise
    finally:
        run.close()


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=5)


@dataclass(frozen=True)
class _Task:
    level: int
    index: Index
    worker: str


class _Run:
    def __init__(
        self,
        prepared: ConversionPlan,
        work: ShardWork,
        writer: OMEZarrWriter,
        tracker: ProgressTracker,
        client: Any,
        note: Note,
    ) -> None:
        from distributed.protocol.pickle import dumps

        self._writer, self._tracker, self._client = writer, tracker, client
        self._shard_order = prepared.shard_order
        self._name = f"mgbpv2-{uuid.uuid4().hex}"
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._tasks: dict[Any, _Task] = {}
        self._busy: Counter[str] = Counter()
        self._worker_failures: Counter[tuple[int, Index]] = Counter()
        self._waiting: deque[tuple[int, Index]] = deque()  # shards of further levels, and such as are made again
        self._damages: Counter[tuple[int, Index]] = Counter()
        self._number = itertools.count()
        payload: bytes = dumps(work)  # type: ignore[no-untyped-call]
        requirements = Requirements.of(prepared, writer.store.storage)
        self._checks = WorkerChecks(client, requirements, self._name, payload, self._events.put, note)
        self._has_worked = False
        self._address = client.scheduler.address

    @property
    def is_connected(self) -> bool:
        """Whether the client has its scheduler."""
        return bool(self._client.status == "running")

    def lost_scheduler(self) -> ClusterError:
        """Return the error for a scheduler that has ended."""
        return ClusterError(
            f"the dask scheduler at {self._address} has ended, or the connection to it is lost; what is done is kept: "
            "start the cluster again, and resume."
        )

    def all(self) -> None:
        """Keep all workers busy until nothing is missing."""
        stored = (number for number, index in enumerate(self._shard_order) if not self._writer.is_stored(index))
        work_queue = WorkStealingQueue(np.fromiter(stored, np.int64))
        for level in range(1, len(self._writer.layout.level_shapes())):
            self._waiting += [(level, index) for index in self._writer.missing(level)]
        looked, seen = -np.inf, time.monotonic()
        while True:
            self._tracker.check()
            if not self.is_connected:
                raise self.lost_scheduler()
            now = time.monotonic()
            if now - looked > _CHECK_SECONDS:
                looked = now
                with contextlib.suppress(OSError):  # the client is about to find that the scheduler has ended
                    self._checks.update(dict(self._client.nthreads()))
                self._reassign()
            usable = self._checks.usable
            if usable:
                seen, self._has_worked = now, True
            else:
                self._check_worker_timeout(now - seen)
            self._fill(usable, work_queue)
            if not self._tasks and usable and not (len(work_queue) or self._waiting):
                return
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=_CHECK_SECONDS)()

    def cancel(self) -> None:
        """Cancel all tasks that have not started; the others end by themselves."""
        if self.is_connected:
            with contextlib.suppress(Exception):  # the scheduler may end just now
                self._client.cancel(list(self._tasks))

    def close(self) -> None:
        """Let the workers forget the work."""
        self._checks.close()

    def _check_worker_timeout(self, waited: float) -> None:
        if self._checks.are_all_refused and (waited > workers.NO_WORKER_TIMEOUT or not self._has_worked):
            refusals = self._checks.refusals
            more = f"; and {len(refusals) - _MOST_NAMED} more" if len(refusals) > _MOST_NAMED else ""
            raise ClusterError(f"no worker can be used: {'; '.join(refusals[:_MOST_NAMED])}{more}.")
        if waited > workers.NO_WORKER_TIMEOUT:
            raise ClusterError(
                f"the cluster has had no workers for {workers.NO_WORKER_TIMEOUT:.0f} s; what is done is kept: "
                "start some, and resume."
            )

    def _fill(self, usable: dict[str, int], work_queue: WorkStealingQueue) -> None:
        for worker, threads in usable.items():
            while self._busy[worker] < IN_FLIGHT * threads:
                if self._waiting:
                    level, index = self._waiting.popleft()
                    self._submit(_Task(level, index, worker))
                elif (number := work_queue.next(worker)) is not None:
                    self._submit(_Task(0, self._shard_order[number], worker))
                else:
                    break

    def _reassign(self) -> None:
        """Give the tasks of workers that are gone to others: the scheduler may wait for their return for ever."""
        usable = self._checks.usable
        orphans = [(future, task) for future, task in self._tasks.items() if task.worker not in usable]
        if not orphans:
            return
        for future, task in orphans:
            del self._tasks[future]
            self._busy[task.worker] -= 1
            self._count_worker_failure(task, None)
            self._waiting.appendleft((task.level, task.index))
        self._client.cancel([future for future, _ in orphans])

    def _submit(self, task: _Task) -> None:
        future = self._client.submit(
            _build_shard if task.level else _make_shard,
            self._name,
            self._writer.store,
            task.index,
            task.level,
            key=f"{self._name}-{next(self._number)}",
            pure=False,
            priority=10 if task.level else 0,
            workers=[task.worker],
        )
        self._tasks[future] = task
        self._busy[task.worker] += 1
        future.add_done_callback(lambda done: self._events.put(partial(self._take, done)))

    def _take(self, future: Any) -> None:
        task = self._tasks.pop(future, None)
        if task is None:  # another worker has been given it
            return
        self._busy[task.worker] -= 1
        lost: BaseException | None = None
        if future.status == "finished":
            try:
                shard, tiles_run = future.result(timeout=_RESULT_SECONDS)
            except Exception as failure:
                lost = failure
            else:
                self._record(shard, tiles_run)
                return
        if future.status == "error":  # it may have become so: a result that is lost with its worker is made again
            self._after_failure(task, future.exception())
        elif lost is None or _is_of_connection(lost):
            self._client.cancel([future])
            self._after_failure(task, None)
        else:
            raise lost

    def _record(self, shard: StoredShard, tiles_run: int) -> None:
        self._writer.record(shard)
        self._tracker.add(shard, tiles_run)
        above = self._writer.ready_parent(shard)
        if above is not None and not self._writer.is_stored(above, shard.level + 1):
            self._waiting.append((shard.level + 1, above))

    def _after_failure(self, task: _Task, error: BaseException | None) -> None:
        """Have a shard made again, where that is what its failure asks for.

        Parameters
        ----------
        task
            The task.
        error
            What it has raised; None where it is lost with its worker.
        """
        from distributed import KilledWorker

        from napari_mgbpv2.conversion.worker_plugin import NotPreparedError
        from napari_mgbpv2.io.writers.ome_zarr import DamagedShards

        if not self.is_connected:
            raise self.lost_scheduler() from error
        if isinstance(error, NotPreparedError):
            self._checks.forget(task.worker)
        elif isinstance(error, DamagedShards):
            self._rebuild_damaged(error)
            return
        elif error is None or isinstance(error, KilledWorker):
            self._count_worker_failure(task, error)
        else:
            raise error
        self._waiting.appendleft((task.level, task.index))

    def _rebuild_damaged(self, error: DamagedShards) -> None:
        """Make shards again that were found damaged; what is made from them follows."""
        self._damages.update(error.shards)
        if max(self._damages[shard] for shard in error.shards) >= MAX_DAMAGES:
            raise error
        dropped = self._writer.invalidate(error.shards)
        self._tracker.uncount(dropped)
        self._waiting += [
            (level, index) for level, index in dropped if not level or self._writer.is_ready(index, level)
        ]

    def _count_worker_failure(self, task: _Task, error: BaseException | None) -> None:
        self._worker_failures[task.level, task.index] += 1
        if self._worker_failures[task.level, task.index] >= MAX_WORKER_FAILURES:
            raise ClusterError(
                f"workers die again and again at shard {task.index} of level {task.level}; they may lack memory: "
                "use fewer workers or smaller tiles, and resume."
            ) from error


def _is_of_connection(error: BaseException) -> bool:
    """Whether a result could not be fetched because the worker that holds it is gone; anything else is a fault."""
    from distributed import CancelledError

    return isinstance(error, (CancelledError, TimeoutError, OSError))


def _build_shard(name: str, store: ShardStore, index: Index, level: int) -> tuple[StoredShard, int]:
    """Write a shard of a further level, in a task. Parameters and result as those of `_make_shard`."""
    from napari_mgbpv2.conversion.worker_plugin import plugin_of_this_worker

    plugin_of_this_worker(name)  # a process that has not been checked makes nothing
    with _storage_errors(store):
        return store.downsample_shard(index, level), 0


def _make_shard(name: str, store: ShardStore, index: Index, level: int) -> tuple[StoredShard, int]:
    """Compute and write a shard of level 0, in a task.

    Parameters
    ----------
    name
        Name of the plugin that holds the work.
    store
        The output.
    index, level
        Position of the shard.

    Returns
    -------
    StoredShard, int
        The shard, and the number of tiles that have been computed for it.
    """
    from napari_mgbpv2.conversion.worker_plugin import plugin_of_this_worker

    work, image, counter = plugin_of_this_worker(name).load()
    pixels = work.pixels(image, index)
    with _storage_errors(store):
        return store.write(store.layout.shard_region(index, level), pixels, level), counter.take()


@contextlib.contextmanager
def _storage_errors(store: ShardStore) -> Iterator[None]:
    from napari_mgbpv2.io.writers.ome_zarr import translate_write_errors

    with translate_write_errors(store.storage.destination):
        yield
