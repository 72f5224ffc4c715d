"""The place in an object store: a lock on it, a journal in parts, and the metadata that appear last.

Beside the shards stand, until the image is complete, below ``.mgbpv2/``: ``lock.json`` (who writes it), ``journal/``
(what is done) and ``metadata/`` (what makes it an image).
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import METADATA, ROOTS
from napari_mgbpv2.io.storage.journal import (
    Job,
    PartialOutput,
    StoredShard,
    decode_lines,
    encode_line,
    job_line,
    parse_partial_output,
    parse_shards,
    shard_line,
)
from napari_mgbpv2.io.storage.lease import Lease
from napari_mgbpv2.io.storage.object_store_backend import HIDDEN, LOCK, ObjectStoreBackend
from napari_mgbpv2.io.storage.object_stores import is_network_error

_JOURNAL = f"{HIDDEN}/journal"
# Hidden things, shards, and what a stop while publishing has put in its place already.
_OWN_KEYS = re.compile(rf"{re.escape(HIDDEN)}/.*|(\d+/)?((c/)?\d+(/\d+)*|{'|'.join(map(re.escape, METADATA))})")
_JOURNAL_FLUSH_SECONDS = 5.0  # between two parts of the journal: a kill loses what is noted in them


class ObjectStoreTransaction:
    """A destination in an object store that is ours until `publish`, `keep` or `discard`.

    Parameters
    ----------
    url
        Where the finished thing is to appear.
    overwrite
        Whether unfinished work may be dropped. A finished image is never replaced: there is no moment at which the new
        one could take its place.
    waiting
        As `Lease` has it.

    Raises
    ------
    DestinationError
        If there is something already, or if somebody else is writing there.
    """

    def __init__(self, url: str, *, overwrite: bool, on_wait: Callable[[str], None] | None = None) -> None:
        self.destination, self.overwrite = url, overwrite
        self.storage = ObjectStoreBackend(url, run=uuid.uuid4().hex)
        self.journal = ObjectStoreJournal(self.storage)
        self._short_retry_storage = replace(self.storage, long_retries=False)
        self._check_destination()
        self._lock = Lease(self._short_retry_storage, on_wait)
        try:
            self._check_destination()  # somebody may have completed it before we had the lock
        except BaseException:
            self._lock.release()
            raise

    def begin_run(self) -> None:
        """Do nothing: tasks look for the token in the lock."""

    def confirm(self) -> None:
        """Raise `DestinationError` if the lock is ours no more: it was not renewed for too long."""
        self._lock.confirm()

    def publish(self, finished: Path | None = None) -> None:
        """Let the finished thing appear."""
        assert finished is None, "a file is not made there"
        self._check_destination()  # something may have appeared while we wrote
        self.confirm()
        self.storage.publish()
        self._lock.release(delete=True)

    def partial_output(self) -> PartialOutput | None:
        """Tell what an earlier run has left unfinished; None where it has left nothing."""
        return read_partial_output_in_store(self._short_retry_storage)

    def keep(self) -> None:
        """Leave the unfinished work to whoever goes on with it."""
        self._lock.release()

    def discard(self) -> None:
        """Delete the unfinished work, as far as the network lets us."""
        with suppress_network_errors():
            self.clear()
        self._lock.release(delete=True)

    def clear(self) -> None:
        """Delete what another run left unfinished; nobody is at work there, we hold the lock."""
        found = [key for key in self.storage.list_sizes() if _OWN_KEYS.fullmatch(key)]
        self.storage.delete(key for key in found if not key.startswith(HIDDEN))
        # last, so that a deletion that is cut short is recognised and completed
        self.storage.delete(key for key in self.storage.list_sizes(HIDDEN) if key != LOCK)

    def _check_destination(self) -> None:
        objects = self._short_retry_storage.list_sizes()
        if any(name in objects for name in ROOTS):
            said = "what is in an object store is never overwritten" if self.overwrite else "exists already"
            raise DestinationError(
                f"{self.destination}: {said}: choose another name, or delete it first"
            ) from FileExistsError(self.destination)
        other = next((key for key in objects if not _OWN_KEYS.fullmatch(key)), None)
        if other is None and objects and not any(key.startswith(HIDDEN) for key in objects):
            other = next(iter(objects))  # shards of whatever it was
        if other is not None:
            raise DestinationError(f"{self.destination} holds {other}, which is not ours: choose another name")


@contextmanager
def suppress_network_errors() -> Iterator[None]:
    """Go on where a request has failed."""
    try:
        yield
    except Exception as error:
        if not is_network_error(error):
            raise


class ObjectStoreJournal:
    """A journal of an object store, where nothing can be added to an object: a new part every few seconds.

    Parameters
    ----------
    bucket
        The unfinished store.
    """

    def __init__(self, backend: ObjectStoreBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()  # guards all below
        self._number = 0  # of the next part
        self._pending: list[Mapping[str, Any]] = []
        self._written = time.monotonic()

    def begin(self, job: Job) -> None:
        """Start an empty journal."""
        with self._lock:
            self._pending.append(job_line(job))
            self._write()

    def resume(self) -> list[StoredShard]:
        """Read which shards are stored, and go on in new parts."""
        with self._lock:
            parts = _parts(self._backend)
            self._number = 1 + max(parts)
            return parse_shards(_lines(self._backend, parts)[1:])

    def add(self, shard: StoredShard) -> None:
        """Note a shard, and write what has been noted every few seconds."""
        with self._lock:
            self._pending.append(shard_line(shard))
            if time.monotonic() - self._written > _JOURNAL_FLUSH_SECONDS:
                self._write()

    def close(self) -> None:
        """Write what has been noted, as far as the network lets us; what is not noted is made again."""
        with self._lock, suppress_network_errors():
            if self._pending:
                self._backend = replace(self._backend, long_retries=False)
                self._write()

    def _write(self) -> None:
        content = b"".join(map(encode_line, self._pending))
        self._backend.write(f"{_JOURNAL}/{self._number:08}.jsonl", content)
        self._number += 1
        self._written = time.monotonic()
        self._pending.clear()


def read_partial_output_in_store(backend: ObjectStoreBackend) -> PartialOutput | None:
    """Tell what an unfinished store holds: work that would be lost with it. None where there is none.

    Raises
    ------
    DestinationError
        There is a journal, and it is damaged: nothing is to be deleted.
    """
    parts = _parts(backend)
    if any(backend.find(name) is not None for name in METADATA):  # published: what is left of the journal is litter
        return None
    return parse_partial_output(backend.url, f"{backend.url}/{_JOURNAL}", _lines(backend, parts)) if parts else None


def _parts(backend: ObjectStoreBackend) -> list[int]:
    """Return the numbers of all parts of a journal, ascending."""
    names = (key.rpartition("/")[2].removesuffix(".jsonl") for key in backend.list_sizes(_JOURNAL))
    return sorted(int(name) for name in names if name.isdecimal())


def _lines(backend: ObjectStoreBackend, parts: Iterable[int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in parts:
        found += decode_lines(backend.find(f"{_JOURNAL}/{number:08}.jsonl") or b"")
    return found
