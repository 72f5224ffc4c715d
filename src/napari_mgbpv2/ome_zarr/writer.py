"""The writer: whole shards in, a pyramid of stored levels, a commit at the end; after a stop, the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
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
from napari_mgbpv2.object_stores import is_of_network
from napari_mgbpv2.ome_zarr.journal import Job
from napari_mgbpv2.ome_zarr.layout import ImageLayout, Region
from napari_mgbpv2.ome_zarr.place import Place
from napari_mgbpv2.ome_zarr.shards import Index, ShardStore, StoredShard, gone_missing
from napari_mgbpv2.ome_zarr.unfinished import place_at, telling_errors

Finish = Callable[[Path, list[Any]], Path]


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
        Replace what is there already, once the new image is complete; and what an earlier job left unfinished.
    job
        All that decides about the pixels, JSON-able. Unfinished work is gone on with only by the same job.
    resume
        Go on with the work that an earlier writer of this job left unfinished, if there is some.
    finish
        Makes a file of the complete levels, in the directory and from the arrays that it is given; the file, not the
        store, then appears at the destination.

    Raises
    ------
    DestinationError
        If the destination exists (and, with `overwrite`, is of another kind), is being written by somebody else, cannot
        be written, or holds unfinished work that is not to be resumed, or of another job.
    """

    def __init__(
        self,
        destination: str | os.PathLike[str],
        layout: ImageLayout,
        *,
        overwrite: bool = False,
        job: Job | None = None,
        resume: bool = False,
        finish: Finish | None = None,
    ) -> None:
        self.layout = layout
        self._finish = finish
        self._keeps = job is not None
        self._place = place_at(destination, overwrite=overwrite, is_file=finish is not None)
        self.store = ShardStore(self._place.storage, layout)
        self._journal = self._place.journal
        self._open = True
        self._failure = ""  # why the disk ended the work
        self._writing = 0  # calls under way
        self._changed = Condition()  # guards the three above and the ranges
        self._ranges: dict[int, tuple[float, float]] = {}  # lowest and highest value of each channel of level 0
        self._stored = [np.zeros(layout.shard_counts(level), bool) for level in range(len(layout.level_shapes()))]
        try:
            with self._closing_on_os_errors():
                if self._may_resume(job, resume):
                    self._take_over()
                else:
                    self._place.clear()
                    self.store.create()
                    if job is not None:
                        self._journal.begin(job)
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

    def build(self, index: Index, level: int) -> StoredShard:
        """Write a shard of a further level, from the stored level before it. Errors as `write` has them."""
        return self._store(lambda: self.store.build(index, level))

    def record(self, shard: StoredShard) -> None:
        """Note a shard that another process has stored. Errors as `write` has them."""
        with self._closing_on_os_errors(), self._under_way():
            self._note(shard)

    def ready_above(self, shard: StoredShard) -> Index | None:
        """Return the shard of the next level that a shard belongs to, if all that it is made from is stored."""
        level = shard.level + 1
        if level >= len(self._stored):
            return None
        above = self._above(shard.index, shard.level)
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
                raise Cancelled(f"{self._place.destination}: stopped before the image was complete")
            stored = self.build(index, level)
            if on_shard is not None:
                on_shard(stored)

    def commit(self) -> Destination:
        """Add the metadata, validate, and let the finished image appear at its destination.

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
        with self._closing_on_os_errors(), self._under_way():
            self._check_levels()
            self._check_files()
            self.store.finish(self._ranges)
            file = None
            if self._finish is not None:
                assert isinstance(self._place, Place)
                file = self._finish(self._place.partial, self.store.levels())
            self._journal.close()
            self._place.publish(file)
            self._open = False
        return self._place.destination

    def close(self) -> None:
        """End the work: what is complete of a job is kept, anything else removed. Does nothing once it has ended."""
        with self._changed:
            was_open, self._open = self._open, False
            self._changed.wait_for(lambda: not self._writing)
            if not was_open:
                return
            self._journal.close()
            if self._keeps_work():
                self._place.keep()
            else:
                self._place.give_up()

    def __enter__(self) -> OMEZarrWriter:
        """Use the writer until it is left."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what has not been committed."""
        self.close()

    def _keeps_work(self) -> bool:
        """Whether something has been done that is to be kept; where the network has gone, something may have been."""
        try:
            return self._keeps and self._place.kept() is not None
        except Exception as error:
            if is_of_network(error):
                return True
            raise

    def _may_resume(self, job: Job | None, resume: bool) -> bool:
        """Whether there is work to go on with; work of hours is not thrown away unasked."""
        kept, partial = self._place.kept(), self._place.storage.name
        if kept is None:
            return False
        if not resume or job is None:
            if self._place.overwrite:
                return False
            raise DestinationError(
                f"{self._place.destination}: an earlier run left {partial}, which is not complete: "
                "resume it, or ask to overwrite it"
            )
        if different := differences(kept.job, job):
            raise DestinationError(
                f"{self._place.destination}: {partial} cannot be resumed, it was begun with other settings: "
                f"{different}; use those, or overwrite it"
            )
        return True

    def _take_over(self) -> None:
        """Note what is whole of the unfinished work, and remove what is damaged."""
        self._check_levels()
        size_of = self.store.storage.sizes()
        for shard in self._journal.resume():
            if self.store.is_whole(shard, size_of):
                self._mark(shard)
            else:
                self._stored[shard.level][shard.index] = False
        for level, stored in enumerate(self._stored):
            for index in np.argwhere(~stored):
                keys = self.store.keys(tuple(map(int, index)), level)
                self.store.storage.remove(key for key in keys if size_of(key) is not None)

    def _check_levels(self) -> None:
        """Refuse an unfinished store that has lost the metadata of a level."""
        size_of = self.store.storage.sizes()
        for level in range(len(self._stored)):
            if not self.store.has_level(level, size_of):
                raise DestinationError(
                    f"{self._place.destination}: level {level} of {self.store.storage.name} has gone; "
                    "ask to overwrite it, and begin anew"
                )

    def _check_files(self) -> None:
        """Refuse to publish what somebody has removed a part of: readers would take that for black."""
        size_of = self.store.storage.sizes()
        gone: list[str] = []
        incomplete: list[tuple[Index, int]] = []
        for level, stored in enumerate(self._stored):
            for index in map(tuple, np.argwhere(stored).tolist()):
                missing = [key for key in self.store.keys(index, level) if size_of(key) is None]
                gone += missing
                incomplete += [(index, level)] if missing else []
        for index, level in incomplete:
            self._forget_above(index, level)
        if gone:
            raise gone_missing(self.store.storage, gone)

    def _forget_above(self, index: Index, level: int) -> None:
        """Remove what may have been made from a shard that was not there."""
        while level + 1 < len(self._stored):
            index, level = self._above(index, level), level + 1
            self.store.remove(index, level)

    def _above(self, index: Index, level: int) -> Index:
        """Shard of the next level that a shard belongs to."""
        steps = zip(self.layout.shard_region(index, level)[-2:], self.layout.shard_shape(level + 1)[-2:], strict=True)
        return (*index[:-2], *(part.start // 2 // step for part, step in steps))

    def _store(self, work: Callable[[], StoredShard]) -> StoredShard:
        # Ctrl-C ends the wait, not zarr's own threads: leaving the pool waits for them, so none writes after a close.
        with self._closing_on_os_errors(), self._under_way(), ThreadPoolExecutor(1) as pool:
            shard = pool.submit(work).result()
            self._note(shard)
            return shard

    def _note(self, shard: StoredShard) -> None:
        if self._keeps:
            self._journal.add(shard)
        with self._changed:
            self._mark(shard)

    def _mark(self, shard: StoredShard) -> None:
        self._stored[shard.level][shard.index] = True
        if shard.low is not None and shard.high is not None:
            channel = shard.index[self.layout.axes.index("c")]  # a shard holds one channel
            low, high = self._ranges.get(channel, (shard.low, shard.high))
            self._ranges[channel] = min(shard.low, low), max(shard.high, high)

    def _is_ready(self, index: Index, level: int) -> bool:
        steps = self.layout.shard_shape(level - 1)
        children = tuple(
            slice(part.start // step, -(-part.stop // step))
            for part, step in zip(self.layout.parents(index, level), steps, strict=True)
        )
        return bool(self._stored[level - 1][children].all())

    def _check_complete(self, level: int) -> None:
        done, count = int(self._stored[level].sum()), self._stored[level].size
        if done < count:
            raise ValueError(f"level {level} is not complete: {done} of its {count} shards are written")

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Keep `close` waiting; refuse to begin once the writer is closed."""
        with self._changed:
            if self._failure:  # in another thread
                raise DestinationError(self._failure)
            if not self._open:
                raise ValueError(f"the writer of {self._place.destination} is closed")
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    @contextmanager
    def _closing_on_os_errors(self) -> Iterator[None]:
        try:
            with telling_errors(self._place.destination):
                yield
        except DestinationError as error:
            said = str(error)
            if error.__cause__ is not None and self._keeps_work():
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
