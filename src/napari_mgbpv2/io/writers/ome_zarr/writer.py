"""Writer of one OME-Zarr image: shards of level 0, downsampled levels, and a commit that publishes everything.

This module owns which shards are stored, how a partial output is resumed, and what is invalidated with a damaged
shard. It does not own array access (`shards`), levels and metadata (`layout`, `metadata`), or locking and publishing
(the output transactions in `napari_mgbpv2.io.storage`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.errors import Cancelled, DestinationError
from napari_mgbpv2.io.storage.journal import Index, Job, StoredShard, differences
from napari_mgbpv2.io.storage.local_transaction import OutputTransaction
from napari_mgbpv2.io.storage.object_stores import is_network_error
from napari_mgbpv2.io.storage.partial_output import open_transaction, translate_write_errors
from napari_mgbpv2.io.writers.ome_zarr.layout import ImageLayout, Region
from napari_mgbpv2.io.writers.ome_zarr.shards import DamagedShards, ShardStore, missing_files_error

_CONCURRENT_CHECKS = 4  # shards of partial output that are checked at once

MakeFile = Callable[[Path, list[Any]], Path]


class OMEZarrWriter:
    """Writer of one OME-Zarr image: all shards of level 0, then those of each further level, then `commit`.

    A context manager. Without `commit`, nothing is left behind on exit, unless a ``job`` is given: complete shards are
    then kept, and a writer opened with ``resume`` continues from them. Several threads may write different shards at
    the same time. Other processes may write through `store`; their shards must be passed to `record`.

    Parameters
    ----------
    destination
        Directory that appears when the image is complete; its parent is created if missing. Or an address, s3://...
    layout
        Shape, type and format of the image.
    overwrite
        Replace an existing image once the new one is complete, and discard partial output of other jobs. Partial
        output of this job is resumed.
    job
        All settings that determine the pixels; JSON-able. Partial output is resumed only by an equal job.
    resume
        Resume the partial output of this job, if any.
    make_file
        Function from a directory and the arrays of all levels to a file that it writes in the directory. This file is
        then published instead of the store.
    on_wait
        Called with a message before waiting for the lock of an earlier run; for object stores only.
    comparable
        Converts a recorded job, possibly of an earlier version, for the comparison with ``job``.

    Raises
    ------
    DestinationError
        If the destination exists (or, with ``overwrite``, is not of the same kind), is being written by another run or
        is not writable; or if its partial output must not be resumed, is of another job or cannot be read. Nothing is
        changed then.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        layout: ImageLayout,
        *,
        overwrite: bool = False,
        job: Job | None = None,
        resume: bool = False,
        make_file: MakeFile | None = None,
        on_wait: Callable[[str], None] | None = None,
        comparable: Callable[[Job], Job] | None = None,
    ) -> None:
        self.layout = layout
        self._make_file = make_file
        self._resumable = job is not None
        self._comparable = comparable or dict
        counts = [layout.shard_counts(level) for level in range(len(layout.level_shapes()))]
        self._stored = [np.zeros(shape, bool) for shape in counts]
        self._sizes = [np.zeros(shape, np.int64) for shape in counts]  # bytes of each stored shard
        self._modified = False  # whether the destination was changed
        self._open = True
        self._failure = ""  # message of the error that closed the writer
        self._writing = 0  # number of active calls
        self._changed = Condition()  # guards the three attributes above and the ranges
        self._ranges: dict[int, tuple[float, float]] = {}  # lowest and highest value of each channel of level 0
        self._transaction = open_transaction(
            destination, overwrite=overwrite, is_file=make_file is not None, on_wait=on_wait
        )
        self._journal = self._transaction.journal
        try:
            self.store = ShardStore(self._transaction.storage, layout)
            with self._close_on_errors():
                self.store.check()
                if self._can_resume(job, resume) and self._is_sound():
                    self._restore_partial_output()
                else:
                    self._modified = True
                    self._transaction.clear()
                    self.store.create()
                    if job is not None:
                        self._journal.begin(job)
                    self._transaction.begin_run()
        except BaseException:
            self.close()
            raise

    def shards(self, level: int = 0) -> Iterator[Region]:
        """Yield the regions of all shards of a level in raster order."""
        return self.layout.shards(level)

    def is_stored(self, index: Index, level: int = 0) -> bool:
        """Return whether a shard is stored."""
        return bool(self._stored[level][index])

    def stored(self, level: int = 0) -> Iterator[Index]:
        """Yield the positions of all stored shards of a level."""
        return (tuple(map(int, index)) for index in np.argwhere(self._stored[level]))

    def write(self, region: Region, data: npt.NDArray[Any], level: int = 0) -> StoredShard:
        """Write one complete shard durably.

        Parameters
        ----------
        region
            Region of the shard, as yielded by `shards`.
        data
            Pixels with the shape of the region and the dtype of the layout.
        level
            Pyramid level.

        Raises
        ------
        DestinationError
            If the disk is full or fails. The writer is then closed.
        ValueError
            If the region is not one complete shard, the data does not match it, or the writer is closed.
        """
        return self._store(lambda: self.store.write(region, data, level))

    def downsample_shard(self, index: Index, level: int) -> StoredShard:
        """Write a shard of a level above 0 by downsampling the level before it.

        Raises
        ------
        DamagedShards
            If shards of the level before are damaged: `invalidate` them, and write them again.
        DestinationError
            If the disk is full or fails. The writer is then closed.
        """
        return self._store(lambda: self.store.downsample_shard(index, level))

    def invalidate(self, shards: Iterable[tuple[int, Index]]) -> list[tuple[int, Index]]:
        """Mark shards, and all shards downsampled from them, as not stored, and delete their files.

        Parameters
        ----------
        shards
            Level and position of each shard.

        Returns
        -------
        list of tuple
            Level and position of each shard that was stored.
        """
        dropped = []
        with self._close_on_errors(), self._counted_call():
            for level, index in shards:
                dropped += [(level, index)] if self._remove_shard(index, level) else []
                dropped += self._invalidate_parents(index, level)
        return dropped

    def record(self, shard: StoredShard) -> None:
        """Record a shard that another process has stored.

        Raises
        ------
        DestinationError
            If the disk is full or fails. The writer is then closed.
        """
        with self._close_on_errors(), self._counted_call():
            self._note(shard)

    def is_complete(self) -> bool:
        """Return whether all shards of all levels are stored."""
        return all(bool(stored.all()) for stored in self._stored)

    def is_ready(self, index: Index, level: int) -> bool:
        """Return whether all shards from which a shard is downsampled are stored."""
        steps = self.layout.shard_shape(level - 1)
        children = tuple(
            slice(part.start // step, -(-part.stop // step))
            for part, step in zip(self.layout.finer_region(index, level), steps, strict=True)
        )
        return bool(self._stored[level - 1][children].all())

    def ready_parent(self, shard: StoredShard) -> Index | None:
        """Return the shard of the next level that covers a shard, if it is ready to be downsampled."""
        level = shard.level + 1
        if level >= len(self._stored):
            return None
        above = self._parent(shard.index, shard.level)
        return above if self.is_ready(above, level) else None

    def missing(self, level: int) -> Iterator[Index]:
        """Yield the positions of shards of a level above 0 that are not stored but ready to be downsampled."""
        ready = self._stored[level - 1]
        for axis in (-2, -1):
            side, finer = self.layout.shard_shape(level)[axis], self.layout.shard_shape(level - 1)[axis]
            firsts = 2 * side * np.arange(self._stored[level].shape[axis]) // finer
            ready = np.logical_and.reduceat(ready, firsts, axis=axis)
        return (tuple(map(int, index)) for index in np.argwhere(ready & ~self._stored[level]))

    def build_level(
        self,
        level: int,
        *,
        cancelled: Callable[[], bool] | None = None,
        on_shard: Callable[[StoredShard], None] | None = None,
    ) -> None:
        """Write all missing shards of a level as 2 x 2 means of the level before it.

        Parameters
        ----------
        level
            Pyramid level, at least 1. The level before it must be complete.
        cancelled
            Called before each shard; True stops the work.
        on_shard
            Called with each written shard.

        Raises
        ------
        Cancelled
            If ``cancelled`` returns True.
        DestinationError
            If the disk is full or fails. The writer is then closed.
        ValueError
            If the level does not exist, the one before it is not complete, or the writer is closed.
        """
        if not 1 <= level < len(self._stored):
            raise ValueError(f"level {level} is not one of 1 to {len(self._stored) - 1}")
        self._check_complete(level - 1)
        for index in self.missing(level):
            if cancelled is not None and cancelled():
                raise Cancelled(f"{self._transaction.destination}: stopped before the image was complete")
            stored = self.downsample_shard(index, level)
            if on_shard is not None:
                on_shard(stored)

    def commit(self) -> Destination:
        """Write the metadata and publish the image at its destination.

        Returns
        -------
        Path or str
            The destination: an absolute path, or an address.

        Raises
        ------
        DestinationError
            If the disk or the network fails, written files are missing or changed, or the destination was created
            meanwhile. An old image that was to be replaced is still present then.
        ValueError
            If a level is not complete, or the writer is closed.
        """
        for level in range(len(self._stored)):
            self._check_complete(level)
        with self._close_on_errors(), self._counted_call():
            self._transaction.confirm()
            self._check_levels()
            self._check_files()
            self.store.finish(self._ranges)
            file = None
            if self._make_file is not None:
                assert isinstance(self._transaction, OutputTransaction)
                file = self._make_file(self._transaction.partial, self.store.levels())
            self._journal.close()
            self._transaction.publish(file)
            self._open = False
        return self._transaction.destination

    def close(self) -> None:
        """Close the writer. Complete shards of a job are kept, anything else is deleted. Further calls do nothing."""
        with self._changed:
            was_open, self._open = self._open, False
            self._changed.wait_for(lambda: not self._writing)
            if not was_open:
                return
            keeps = True
            try:
                self._journal.close()
                keeps = not self._modified or self._has_partial_output()
            finally:  # release the lock in any case
                if keeps:
                    self._transaction.keep()
                else:
                    self._transaction.discard()

    def __enter__(self) -> OMEZarrWriter:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the writer; without `commit`, the image is not published."""
        self.close()

    def _has_partial_output(self) -> bool:
        """Return whether there is output to keep. An unreadable output counts, since it may be hours of work."""
        try:
            return self._resumable and self._transaction.partial_output() is not None
        except (OSError, MemoryError):
            return True
        except Exception as error:
            if is_network_error(error):
                return True
            raise

    def _can_resume(self, job: Job | None, resume: bool) -> bool:
        """Return whether to resume partial output; raise an error if it would otherwise be discarded unasked."""
        kept, partial = self._transaction.partial_output(), self._transaction.storage.name
        if kept is None:
            return False
        overwrite = self._transaction.overwrite
        if job is None or not (resume or overwrite):
            if overwrite:
                return False
            raise DestinationError(
                f"{self._transaction.destination}: an earlier run left {partial}, which is not complete: "
                "resume it, or ask to overwrite it"
            )
        if different := differences(self._comparable(kept.job), job):
            if overwrite:
                return False
            raise DestinationError(
                f"{self._transaction.destination}: {partial} cannot be resumed, it was started with other settings: "
                f"{different}; use those, or overwrite it"
            )
        return True

    def _is_sound(self) -> bool:
        """Return whether the metadata of a partial output are intact; raise an error if it must not be discarded."""
        try:
            self._check_levels()
            self.store.check_stored()
        except DestinationError:
            if not self._transaction.overwrite:
                raise
            return False
        return True

    def _restore_partial_output(self) -> None:
        """Mark the complete shards of the partial output as stored, and delete the damaged ones."""
        self._modified = True
        self._transaction.begin_run()
        noted = list(
            {(each.level, each.index): each for each in self._journal.resume() if self._is_known_shard(each)}.values()
        )
        size_of = self.store.storage.size_lookup()
        pool = ThreadPoolExecutor(_CONCURRENT_CHECKS)
        try:
            for shard, is_whole in zip(
                noted, pool.map(lambda each: self.store.is_whole(each, size_of), noted), strict=True
            ):
                if is_whole:
                    self._mark(shard)
        finally:
            pool.shutdown(cancel_futures=True)
        for level in range(1, len(self._stored)):  # discard shards downsampled from damaged ones
            for index in list(self.stored(level)):
                if not self.is_ready(index, level):
                    self._stored[level][index] = False
        for level, stored in enumerate(self._stored):
            for position in np.argwhere(~stored):
                keys = self.store.keys(tuple(map(int, position)), level)
                self.store.storage.remove(key for key in keys if size_of(key) is not None)

    def _is_known_shard(self, shard: StoredShard) -> bool:
        """Return whether a shard exists in the layout; a damaged journal may list others."""
        if not 0 <= shard.level < len(self._stored):
            return False
        shape = self._stored[shard.level].shape
        return len(shard.index) == len(shape) and all(0 <= n < size for n, size in zip(shard.index, shape, strict=True))

    def _check_levels(self) -> None:
        """Refuse a partial output without the metadata of a level."""
        size_of = self.store.storage.size_lookup()
        for level in range(len(self._stored)):
            if not self.store.has_level(level, size_of):
                raise DestinationError(
                    f"{self._transaction.destination}: level {level} of {self.store.storage.name} is missing; "
                    "ask to overwrite it, and start again"
                )

    def _check_files(self) -> None:
        """Refuse to publish if files were removed or changed: readers would show missing chunks as black."""
        size_of = self.store.storage.size_lookup()
        gone: list[str] = []
        cut: list[str] = []
        incomplete: list[tuple[Index, int]] = []
        for level, stored in enumerate(self._stored):
            for index in map(tuple, np.argwhere(stored).tolist()):
                keys = list(self.store.keys(index, level))
                sizes = [size_of(key) for key in keys]
                missing = [key for key, size in zip(keys, sizes, strict=True) if size is None]
                if not missing and sum(size or 0 for size in sizes) != self._sizes[level][index]:
                    cut += keys[:1]
                    incomplete.append((index, level))
                gone += missing
                incomplete += [(index, level)] if missing else []
        for index, level in incomplete:
            self._remove_shard(index, level)
            self._invalidate_parents(index, level)
        if gone or cut:
            raise missing_files_error(self.store.storage, gone or cut, "went missing" if gone else "changed its size")

    def _invalidate_parents(self, index: Index, level: int) -> list[tuple[int, Index]]:
        """Remove all shards downsampled from a shard; return those that were stored."""
        dropped = []
        while level + 1 < len(self._stored):
            index, level = self._parent(index, level), level + 1
            dropped += [(level, index)] if self._remove_shard(index, level) else []
        return dropped

    def _remove_shard(self, index: Index, level: int) -> bool:
        """Remove a shard; return whether it was stored."""
        with self._changed:
            was_stored = bool(self._stored[level][index])
            self._stored[level][index] = False
        self.store.remove(index, level)
        return was_stored

    def _parent(self, index: Index, level: int) -> Index:
        """Return the shard of the next level that covers a shard."""
        steps = zip(self.layout.shard_region(index, level)[-2:], self.layout.shard_shape(level + 1)[-2:], strict=True)
        return (*index[:-2], *(part.start // 2 // step for part, step in steps))

    def _store(self, work: Callable[[], StoredShard]) -> StoredShard:
        # Ctrl-C interrupts only the wait. Leaving the pool waits for the threads of zarr, so none writes after a close.
        with self._close_on_errors(), self._counted_call(), ThreadPoolExecutor(1) as pool:
            shard = pool.submit(work).result()
            self._note(shard)
            return shard

    def _note(self, shard: StoredShard) -> None:
        if self._resumable:
            self._journal.add(shard)
        with self._changed:
            self._mark(shard)

    def _mark(self, shard: StoredShard) -> None:
        self._stored[shard.level][shard.index] = True
        self._sizes[shard.level][shard.index] = shard.size
        if shard.low is not None and shard.high is not None:
            channel = shard.index[self.layout.axes.index("c")]  # each shard holds one channel
            low, high = self._ranges.get(channel, (shard.low, shard.high))
            self._ranges[channel] = min(shard.low, low), max(shard.high, high)

    def _check_complete(self, level: int) -> None:
        done, count = int(self._stored[level].sum()), self._stored[level].size
        if done < count:
            raise ValueError(f"level {level} is not complete: {done} of its {count} shards are written")

    @contextmanager
    def _counted_call(self) -> Iterator[None]:
        """Let `close` wait for this call; refuse to start once the writer is closed."""
        with self._changed:
            if self._failure:  # set by another thread
                raise DestinationError(self._failure)
            if not self._open:
                raise ValueError(f"the writer of {self._transaction.destination} is closed")
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    @contextmanager
    def _close_on_errors(self) -> Iterator[None]:
        try:
            with translate_write_errors(self._transaction.destination):
                yield
        except DamagedShards:  # these shards can be written again
            raise
        except DestinationError as error:
            message = str(error)
            if self._modified and error.__cause__ is not None and self._has_partial_output():
                message += "; what is done is kept, and resuming goes on with it"
            with self._changed:
                self._failure = self._failure or message
            self.close()
            raise DestinationError(message) from error
