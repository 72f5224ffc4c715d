"""Locks on destinations in object stores: an object that its holder renews.

A process cannot check whether a run on another machine is alive. The holder therefore rewrites the object every
`HEARTBEAT_SECONDS`. A process that finds it treats it as expired after seeing it unchanged for `LEASE_SECONDS` by its
own clock, so clocks are never compared. Every write is conditional on the version that was last read: if two processes
find an expired lock, only one of them can take it.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import RUN_ENDED_MESSAGE
from napari_mgbpv2.io.storage.object_store_backend import LOCK, ObjectStoreBackend
from napari_mgbpv2.io.storage.object_stores import is_network_error

if TYPE_CHECKING:
    from obstore import PutMode

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 15.0
_POLL_SECONDS = 1.0  # between checks of a lock that may have expired

_released_tokens: set[str] = set()  # of this process, whose release may not have reached the store


class Lease:
    """A held lock, renewed by a background thread until `release`.

    Parameters
    ----------
    bucket
        The locked storage. The lock records its `run`; tasks of the run check it.
    waiting
        Called with a message before waiting for the lock of a run that may have died.

    Raises
    ------
    DestinationError
        Another run holds and renews the lock.
    """

    def __init__(self, backend: ObjectStoreBackend, on_wait: Callable[[str], None] | None = None) -> None:
        self._backend, self._on_wait = backend, on_wait
        self._lock = threading.Lock()  # guards the next three attributes
        self._content = b""
        self._e_tag: str | None = None
        self._lost = False
        self._ended = threading.Event()
        self._take()
        self._thread = threading.Thread(target=self._renew_periodically, name="mgbpv2-lease", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Renew the lock now.

        Raises
        ------
        DestinationError
            Another run has taken over.
        """
        self._renew()
        if self._lost:
            raise DestinationError(RUN_ENDED_MESSAGE.format(self._backend.url))

    def release(self, *, delete: bool = False) -> None:
        """Release the lock; network errors are ignored.

        Parameters
        ----------
        delete
            Whether to delete the lock object, if nothing else is left. A given version of an object cannot be deleted
            conditionally, so the lock is renewed first: other processes then wait until it is deleted.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with self._lock:
            _released_tokens.add(self._backend.run)
            try:
                if not self._lost and self._write({} if delete else {"released": True}, self._mode) and delete:
                    self._backend.delete([LOCK])
            except Exception as error:
                if not is_network_error(error):
                    raise

    @property
    def _mode(self) -> PutMode:
        return {"e_tag": self._e_tag}

    def _take(self) -> None:
        found, e_tag = self._backend.read_versioned(LOCK)
        seen, announced = time.monotonic(), False
        while True:
            if found is None:
                if self._write({}, "create"):
                    return
            elif _is_free(found) or time.monotonic() - seen > LEASE_SECONDS:
                if self._write({}, {"e_tag": e_tag}):
                    return
                raise self._held_error()  # another process was faster
            elif not announced and self._on_wait is not None:
                announced = True
                self._on_wait(
                    f"{self._backend.url} is locked by an earlier run that may have ended: "
                    f"waiting up to {LEASE_SECONDS:.0f} s to find out"
                )
            time.sleep(min(_POLL_SECONDS, LEASE_SECONDS / 10))
            again, e_tag = self._backend.read_versioned(LOCK)
            if found is not None and again is not None and again != found and not _is_free(again):
                raise self._held_error()
            if again != found:
                seen = time.monotonic()
            found = again

    def _held_error(self) -> DestinationError:
        return DestinationError(
            f"{self._backend.url} is already being written by another run; wait for it to end, or choose another name"
        )

    def _write(self, more: dict[str, Any], mode: PutMode) -> bool:
        """Write the lock; return whether this process holds it."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        owner = {
            "pid": os.getpid(),
            "host": platform.node(),
            "token": self._backend.run,
            "beat": time.time_ns(),
            **more,
        }
        content = json.dumps(owner).encode()
        try:
            e_tag = self._backend.write(LOCK, content, mode)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            found, e_tag = self._backend.read_versioned(LOCK)
            if found != content:  # equal content: our request succeeded, but its response was lost and it was retried
                return False
        self._content, self._e_tag = content, e_tag
        return True

    def _renew(self) -> None:
        with self._lock:
            if self._lost or self._ended.is_set() or self._write({}, self._mode):
                return
            # Something deleted the lock. It is still ours if we are the first to create it again.
            self._lost = self._backend.find(LOCK) is not None or not self._write({}, "create")

    def _renew_periodically(self) -> None:
        while not self._ended.wait(min(HEARTBEAT_SECONDS, LEASE_SECONDS / 4)):
            with suppress(Exception):  # the network may recover; the next renewal detects a lost lock
                self._renew()


def _is_free(found: bytes) -> bool:
    """Return whether the holder of a lock has released it."""
    try:
        owner = json.loads(found)
        return bool(owner.get("released")) or owner.get("token") in _released_tokens
    except (ValueError, AttributeError):  # written by other software: it expires like any other
        return False
