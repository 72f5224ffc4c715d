"""The writer: whole shards in, a pyramid of stored levels, a commit at the end; after a stop, the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from napari_mgbpv2.io.storage.journal import Index, Job, StoredShard
from napari_mgbpv2.io.storage.local_transaction import OutputTransaction
from napari_mgbpv2.io.storage.object_stores import is_network_error
from napari_mgbpv2.io.storage.partial_output import open_transaction, translate_write_errors
from napari_mgbpv2.io.writers.ome_zarr.layout import ImageLayout, Region
from napari_mgbpv2.io.writers.ome_zarr.shards import DamagedShards, ShardStore, missing_files_error

_CONCURRENT_CHECKS = 4  # shards of unfinished work

MakeFile = Callable[[Path, list[Any]], Path]


class OMEZarrWriter:
    """Writes one OME-Zarr image: all shards of level 0, those of each further level, then `commit`.

    A context manager. Leaving it without `commit` leaves nothing behind; with a ``job``, whatever is complete of it is
    kept, so that a writer that is opened with ``resume`` goes on with it. Several threads may write different shards at
    once, and so may other processes through `store`, whose shards are then to be told to `record`.

    Parameters
    ----------
    destination
        Directory to appear when all is written; its parent is created if missing. Or an address, s3://...
    layout
        What is written.
    overwrite
        Replace what is there already, once the new image is complete; and what another job left unfinished. What this
        job left is gone on with.
    job
        All that decides about the pixels, JSON-able. Unfinished work is gone on with only by the same job.
    resume
        Go on with the work that an earlier writer of this job left unfinished, if there is some.
    make_file
        Makes a file of the complete levels, in the directory and from the arrays that it is given; the file, not the
        store, then appears at the destination.
    waiting
        Called with a sentence where the lock of an earlier run has to be waited for, in object stores.
    comparable
        Makes of a job that was noted, by this version or an earlier one, what is compared with ``job``.

    Raises
    ------
    DestinationError
        If the destination exists (and, with `overwrite`, is of another kind), is being written by somebody else, cannot
        be written, or holds unfinished work that is not to be resumed, of another job, or that cannot be read. Nothing
        has been touched then.
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
        self._sizes = [np.zeros(shape, np.int64) for shape in counts]  # bytes of those that are stored
        self._modified = False  # whether anything has been changed at the destination
        self._open = True
        self._failure = ""  # why the disk ended the work
        self._writing = 0  # calls under way
        self._changed = Condition()  # guards the three above and the ranges
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
        """Regions of all whole shards of a level in raster order, generated as they are asked for."""
        return self.layout.shards(level)

    def is_stored(self, index: Index, level: int = 0) -> bool:
        """Whether a shard is on the disk."""
        return bool(self._stored[level][index])

    def stored(self, level: int = 0) -> Iterator[Index]:
        """All shards of a level that are on the disk."""
        return (tuple(map(int, index)) for index in np.argwhere(self._stored[level]))

    def write(self, region: Region, data: npt.NDArray[Any], level: int = 0) -> StoredShard:
        """Write one whole shard, down to the disk.

        Parameters
        ----------
        region
            One of `shards`.
        data
            Its pixels, of the region's shape and the layout's dtype.
        level
            Pyramid level.

        Raises
        ------
        DestinationError
            If the disk is full or fails. The writer is then closed.
        ValueError
            If the region is not one whole shard, the data does not fit it, or the writer is closed.
        """
        return self._store(lambda: self.store.write(region, data, level))

    def downsample_shard(self, index: Index, level: int) -> StoredShard:
        """Write a shard of a further level, from the stored level before it. Errors as `write` has them.

        Raises
        ------
        DamagedShards
            Some of that level are not what was written: `invalidate` them, and make them again.
        """
        return self._store(lambda: self.store.downsample_shard(index, level))

    def invalidate(self, shards: Iterable[tuple[int, Index]]) -> list[tuple[int, Index]]:
        """Take shards for not stored, and all that may have been made from them.

        Parameters
        ----------
        shards
            Level and position of each.

        Returns
        -------
        list of tuple
            Level and position of those that were stored.
        """
        dropped = []
        with self._close_on_errors(), self._counted_call():
            for level, index in shards:
                dropped += [(level, index)] if self._remove_shard(index, level) else []
                dropped += self._invalidate_parents(index, level)
        return dropped

    def record(self, shard: StoredShard) -> None:
        """Note a shard that another process has stored. Errors as `write` has them."""
        with self._close_on_errors(), self._counted_call():
            self._note(shard)

    def is_complete(self) -> bool:
        """Whether all shards of all levels are stored."""
        return all(bool(stored.all()) for stored in self._stored)

    def is_ready(self, index: Index, level: int) -> bool:
        """Whether all that a shard of a further level is made from is stored."""
        return self._is_ready(index, level)

    def ready_parent(self, shard: StoredShard) -> Index | None:
        """Return the shard of the next level that a shard belongs to, if all that it is made from is stored."""
        level = shard.level + 1
        if level >= len(self._stored):
            return None
        above = self._parent(shard.index, shard.level)
        return above if self._is_ready(above, level) else None

    def missing(self, level: int) -> Iterator[Index]:
        """Shards of a further level that are not stored, though all that they are made from is."""
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
        """Fill what is missing of a level with the 2 x 2 means of the stored level before it, shard by shard.

        Parameters
        ----------
        level
            1 or more; the level before it is complete.
        cancelled
            Asked before each shard; True stops the work.
        on_shard
            Called with each shard that has been written.

        Raises
        ------
        Cancelled
            If `cancelled` says so.
        DestinationError
            If the disk is full or fails. The writer is then closed.
        ValueError
            If there is no such level, the one before it is not complete, or the writer is closed.
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
        """Add the metadata, and let the finished image appear at its destination.

        Returns
        -------
        Path or str
            The destination: absolute, or its address.

        Raises
        ------
        DestinationError
            If the disk or the network fails, something that was written has been removed since, or something has
            appeared at the destination meanwhile. An old image that was to be replaced is still there then.
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
        """End the work: what is complete of a job is kept, anything else removed. Does nothing once it has ended."""
        with self._changed:
            was_open, self._open = self._open, False
            self._changed.wait_for(lambda: not self._writing)
            if not was_open:
                return
            keeps = True
            try:
                self._journal.close()
                keeps = not self._modified or self._has_partial_output()
            finally:  # whatever happens, the lock is let go
                if keeps:
                    self._transaction.keep()
                else:
                    self._transaction.discard()

    def __enter__(self) -> OMEZarrWriter:
        """Use the writer until it is left."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what has not been committed."""
        self.close()

    def _has_partial_output(self) -> bool:
        """Whether something has been done that is to be kept: whatever cannot be read may be hours of work."""
        try:
            return self._resumable and self._transaction.partial_output() is not None
        except (OSError, MemoryError):
            return True
        except Exception as error:
            if is_network_error(error):
                return True
            raise

    def _can_resume(self, job: Job | None, resume: bool) -> bool:
        """Whether there is work to go on with; work of hours is not thrown away unasked."""
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
                f"{self._transaction.destination}: {partial} cannot be resumed, it was begun with other settings: "
                f"{different}; use those, or overwrite it"
            )
        return True

    def _is_sound(self) -> bool:
        """Whether the metadata of unfinished work are as they should be; it is an error only if it has to be kept."""
        try:
            self._check_levels()
            self.store.check_stored()
        except DestinationError:
            if not self._transaction.overwrite:
                raise
            return False
        return True

    def _restore_partial_output(self) -> None:
        """Note what is whole of the unfinished work, and remove what is damaged."""
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
        for level in range(1, len(self._stored)):  # what was made of a shard that is not whole may be damaged like it
            for index in list(self.stored(level)):
                if not self._is_ready(index, level):
                    self._stored[level][index] = False
        for level, stored in enumerate(self._stored):
            for position in np.argwhere(~stored):
                keys = self.store.keys(tuple(map(int, position)), level)
                self.store.storage.remove(key for key in keys if size_of(key) is not None)

    def _is_known_shard(self, shard: StoredShard) -> bool:
        """Whether there is such a shard: a damaged journal may name others."""
        if not 0 <= shard.level < len(self._stored):
            return False
        shape = self._stored[shard.level].shape
        return len(shard.index) == len(shape) and all(0 <= n < size for n, size in zip(shard.index, shape, strict=True))

    def _check_levels(self) -> None:
        """Refuse an unfinished store that has lost the metadata of a level."""
        size_of = self.store.storage.size_lookup()
        for level in range(len(self._stored)):
            if not self.store.has_level(level, size_of):
                raise DestinationError(
                    f"{self._transaction.destination}: level {level} of {self.store.storage.name} has gone; "
                    "ask to overwrite it, and begin anew"
                )

    def _check_files(self) -> None:
        """Refuse to publish what somebody has removed or changed a part of: readers would take that for black."""
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
        """Remove what may have been made from a shard that was not there; return what was stored of it."""
        dropped = []
        while level + 1 < len(self._stored):
            index, level = self._parent(index, level), level + 1
            dropped += [(level, index)] if self._remove_shard(index, level) else []
        return dropped

    def _remove_shard(self, index: Index, level: int) -> bool:
        """Remove a shard; tell whether it was stored."""
        with self._changed:
            was_stored = bool(self._stored[level][index])
            self._stored[level][index] = False
        self.store.remove(index, level)
        return was_stored

    def _parent(self, index: Index, level: int) -> Index:
        """Shard of the next level that a shard belongs to."""
        steps = zip(self.layout.shard_region(index, level)[-2:], self.layout.shard_shape(level + 1)[-2:], strict=True)
        return (*index[:-2], *(part.start // 2 // step for part, step in steps))

    def _store(self, work: Callable[[], StoredShard]) -> StoredShard:
        # Ctrl-C ends the wait, not zarr's own threads: leaving the pool waits for them, so none writes after a close.
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
            channel = shard.index[self.layout.axes.index("c")]  # a shard holds one channel
            low, high = self._ranges.get(channel, (shard.low, shard.high))
            self._ranges[channel] = min(shard.low, low), max(shard.high, high)

    def _is_ready(self, index: Index, level: int) -> bool:
        steps = self.layout.shard_shape(level - 1)
        children = tuple(
            slice(part.start // step, -(-part.stop // step))
            for part, step in zip(self.layout.finer_region(index, level), steps, strict=True)
        )
        return bool(self._stored[level - 1][children].all())

    def _check_complete(self, level: int) -> None:
        done, count = int(self._stored[level].sum()), self._stored[level].size
        if done < count:
            raise ValueError(f"level {level} is not complete: {done} of its {count} shards are written")

    @contextmanager
    def _counted_call(self) -> Iterator[None]:
        """Keep `close` waiting; refuse to begin once the writer is closed."""
        with self._changed:
            if self._failure:  # in another thread
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
        except DamagedShards:  # which does not end the work: they are made again
            raise
        except DestinationError as error:
            said = str(error)
            if self._modified and error.__cause__ is not None and self._has_partial_output():
                said += "; what is done is kept, and resuming goes on with it"
            with self._changed:
                self._failure = self._failure or said
            self.close()
            raise DestinationError(said) from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in what two jobs differ, for people; empty if they do not."""
    told = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        words = name.replace("_", " ") if name.isidentifier() else name  # which is a path
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = differences(old, new)
            told += [f"{words}: {inner}"] if inner else []
        elif old != new:
            told.append(f"{words} was {_short(old)} and is {_short(new)}")
    return "; ".join(told)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
