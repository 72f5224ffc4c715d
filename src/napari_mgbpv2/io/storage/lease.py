"""A lock on a destination in an object store: an object that counts as long as its holder renews it.

No process can ask another machine whether a run is alive. So the holder writes the object anew every
`HEARTBEAT_SECONDS`, and who finds it waits until it has seen it unchanged for `LEASE_SECONDS`, by its own clock: no two
clocks are compared. Every write depends on the version of the object that was seen last, so that of two who find it
expired only one takes it.
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
_POLL_SECONDS = 1.0  # between looks at a lock that may have expired

_released_tokens: set[str] = set()  # tokens of this process that it could not say to have let go: without the network


class Lease:
    """The lock; it is ours, and renewed by a thread of its own, until `release`.

    Parameters
    ----------
    bucket
        What is locked. Its `run` is written into the lock: tasks of the run look for it.
    waiting
        Called with a sentence where the lock of a run that may have died has to be waited for.

    Raises
    ------
    DestinationError
        Another run holds it, and renews it.
    """

    def __init__(self, backend: ObjectStoreBackend, on_wait: Callable[[str], None] | None = None) -> None:
        self._backend, self._on_wait = backend, on_wait
        self._lock = threading.Lock()  # guards the three below
        self._content = b""
        self._e_tag: str | None = None
        self._lost = False
        self._ended = threading.Event()
        self._take()
        self._thread = threading.Thread(target=self._renew_periodically, name="mgbpv2-lease", daemon=True)
        self._thread.start()

    def confirm(self) -> None:
        """Renew now.

        Raises
        ------
        DestinationError
            Another run has taken over.
        """
        self._renew()
        if self._lost:
            raise DestinationError(RUN_ENDED_MESSAGE.format(self._backend.url))

    def release(self, *, delete: bool = False) -> None:
        """Let go, as far as the network lets us.

        Parameters
        ----------
        delete
            Whether the object is to be deleted, where nothing else is left. No request deletes a given version of an
            object, so it is first renewed: whoever finds it then waits, and it is gone before that is over.
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
                raise self._held_error()  # by who has been faster
            elif not announced and self._on_wait is not None:
                announced = True
                self._on_wait(
                    f"{self._backend.url} is locked by an earlier run, or by one that works: "
                    f"waiting up to {LEASE_SECONDS:.0f} s to see which"
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
            f"{self._backend.url} is being written already, by another run; wait for its end, or choose another name"
        )

    def _write(self, more: dict[str, Any], mode: PutMode) -> bool:
        """Write the lock anew; tell whether it is ours."""
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
            if found != content:  # else the answer to our request was lost, and it was made again
                return False
        self._content, self._e_tag = content, e_tag
        return True

    def _renew(self) -> None:
        with self._lock:
            if self._lost or self._ended.is_set() or self._write({}, self._mode):
                return
            # deleted by somebody; nobody else has it as long as we are first to make it again
            self._lost = self._backend.find(LOCK) is not None or not self._write({}, "create")

    def _renew_periodically(self) -> None:
        while not self._ended.wait(min(HEARTBEAT_SECONDS, LEASE_SECONDS / 4)):
            with suppress(Exception):  # the network may come back; what is lost meanwhile, the next one finds
                self._renew()


def _is_free(found: bytes) -> bool:
    """Whether who has written a lock has let it go."""
    try:
        owner = json.loads(found)
        return bool(owner.get("released")) or owner.get("token") in _released_tokens
    except (ValueError, AttributeError):  # none of ours: it counts as long as any other
        return False
