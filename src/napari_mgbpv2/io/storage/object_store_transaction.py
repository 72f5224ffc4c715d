"""Output transactions in object stores: lock an address, write shards and a journal, publish the metadata.

Until the image is complete, the prefix ``.mgbpv2/`` holds ``lock.json`` (the lock of the writing run), ``journal/``
(the stored shards) and ``metadata/`` (the staged metadata).
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
# Hidden objects, shards, and metadata that an interrupted `publish` has already copied.
_OWN_KEYS = re.compile(rf"{re.escape(HIDDEN)}/.*|(\d+/)?((c/)?\d+(/\d+)*|{'|'.join(map(re.escape, METADATA))})")
_JOURNAL_FLUSH_SECONDS = 5.0  # interval between journal parts: a kill loses the entries of one interval


class ObjectStoreTransaction:
    """A transaction on an address in an object store, which it locks until `publish`, `keep` or `discard`.

    Parameters
    ----------
    url
        Address of the finished output.
    overwrite
        Whether partial output may be discarded. A finished image is never replaced, since that cannot be done
        atomically.
    waiting
        Called with a message before waiting for the lock of a run that may have died.

    Raises
    ------
    DestinationError
        If the address is in use, or another run is writing there.
    """

    def __init__(self, url: str, *, overwrite: bool, on_wait: Callable[[str], None] | None = None) -> None:
        self.destination, self.overwrite = url, overwrite
        self.storage = ObjectStoreBackend(url, run=uuid.uuid4().hex)
        self.journal = ObjectStoreJournal(self.storage)
        self._short_retry_storage = replace(self.storage, long_retries=False)
        self._check_destination()
        self._lock = Lease(self._short_retry_storage, on_wait)
        try:
            self._check_destination()  # another run may have completed it before we got the lock
        except BaseException:
            self._lock.release()
            raise

    def begin_run(self) -> None:
        """Do nothing: tasks check the token in the lock."""

    def confirm(self) -> None:
        """Raise `DestinationError` if the lock was lost because it was not renewed in time."""
        self._lock.confirm()

    def publish(self, finished: Path | None = None) -> None:
        """Publish the staged metadata, which makes the image visible."""
        assert finished is None, "object stores hold no TIFF files"
        self._check_destination()  # it may have been created meanwhile
        self.confirm()
        self.storage.publish()
        self._lock.release(delete=True)

    def partial_output(self) -> PartialOutput | None:
        """Return the partial output of an earlier run, if any."""
        return read_partial_output_in_store(self._short_retry_storage)

    def keep(self) -> None:
        """Keep the partial output for a later run to resume."""
        self._lock.release()

    def discard(self) -> None:
        """Delete the partial output; network errors are ignored."""
        with suppress_network_errors():
            self.clear()
        self._lock.release(delete=True)

    def clear(self) -> None:
        """Delete the partial output of another run. It has ended, since this transaction holds the lock."""
        found = [key for key in self.storage.list_sizes() if _OWN_KEYS.fullmatch(key)]
        self.storage.delete(key for key in found if not key.startswith(HIDDEN))
        # Last: a later run recognises an interrupted deletion by these, and completes it.
        self.storage.delete(key for key in self.storage.list_sizes(HIDDEN) if key != LOCK)

    def _check_destination(self) -> None:
        objects = self._short_retry_storage.list_sizes()
        if any(name in objects for name in ROOTS):
            reason = "objects in an object store are never overwritten" if self.overwrite else "exists already"
            raise DestinationError(
                f"{self.destination}: {reason}: choose another name, or delete it first"
            ) from FileExistsError(self.destination)
        other = next((key for key in objects if not _OWN_KEYS.fullmatch(key)), None)
        if other is None and objects and not any(key.startswith(HIDDEN) for key in objects):
            other = next(iter(objects))  # chunks of other software
        if other is not None:
            raise DestinationError(
                f"{self.destination} holds {other}, which was not written by this program: choose another name"
            )


@contextmanager
def suppress_network_errors() -> Iterator[None]:
    """Ignore errors of network requests."""
    try:
        yield
    except Exception as error:
        if not is_network_error(error):
            raise


class ObjectStoreJournal:
    """A journal in an object store. Objects cannot be appended to, so a new part is written every few seconds.

    Parameters
    ----------
    bucket
        Storage of the partial output.
    """

    def __init__(self, backend: ObjectStoreBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()  # guards all attributes below
        self._number = 0  # of the next part
        self._pending: list[Mapping[str, Any]] = []
        self._written = time.monotonic()

    def begin(self, job: Job) -> None:
        """Start an empty journal."""
        with self._lock:
            self._pending.append(job_line(job))
            self._write()

    def resume(self) -> list[StoredShard]:
        """Read the stored shards, and append in new parts."""
        with self._lock:
            parts = _parts(self._backend)
            self._number = 1 + max(parts)
            return parse_shards(_lines(self._backend, parts)[1:])

    def add(self, shard: StoredShard) -> None:
        """Append a shard; pending entries are written every few seconds."""
        with self._lock:
            self._pending.append(shard_line(shard))
            if time.monotonic() - self._written > _JOURNAL_FLUSH_SECONDS:
                self._write()

    def close(self) -> None:
        """Write pending entries; network errors are ignored, since unrecorded shards are computed again."""
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
    """Return the partial output in an object store; None if no shard is stored.

    Raises
    ------
    DestinationError
        The journal is damaged. Nothing must be deleted then.
    """
    parts = _parts(backend)
    if any(backend.find(name) is not None for name in METADATA):  # published: leftovers of the journal do not count
        return None
    return parse_partial_output(backend.url, f"{backend.url}/{_JOURNAL}", _lines(backend, parts)) if parts else None


def _parts(backend: ObjectStoreBackend) -> list[int]:
    """Return the numbers of all parts of the journal in ascending order."""
    names = (key.rpartition("/")[2].removesuffix(".jsonl") for key in backend.list_sizes(_JOURNAL))
    return sorted(int(name) for name in names if name.isdecimal())


def _lines(backend: ObjectStoreBackend, parts: Iterable[int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in parts:
        found += decode_lines(backend.find(f"{_JOURNAL}/{number:08}.jsonl") or b"")
    return found
