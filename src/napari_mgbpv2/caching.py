"""A cache of the most recently used values, bounded by their total size in bytes, that creates each value once.

`cachetools` has plain LRU caches; use those where nothing more is needed. This one adds creation of a value by the
first of several threads that request it, `BoundedCache.demote`, and a newest value that may exceed the limit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """A value with a size, such as a NumPy array."""

    @property
    def nbytes(self) -> int:
        """Size in bytes. It does not change."""


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Sized)


class BoundedCache(Generic[Key, Value]):
    """The most recently used values up to a total size. Threads that request a key at the same time create it once.

    Parameters
    ----------
    limit
        Total size of all values in bytes. The newest value is retained even if it alone is larger.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # guards all below
        self._size = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()  # in the order of eviction
        self._pending: dict[Key, Future[Value]] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of ``key``. Create it if it is not cached; wait if another thread is creating it.

        Parameters
        ----------
        key
            Key of the value.
        make
            Creates the value, called without a lock. It must not request the same key. An error is raised in all
            threads that wait for the value, and the next call tries again.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            future = self._pending.get(key)
            is_ours = future is None
            if future is None:
                future = self._pending[key] = Future()
        if is_ours:
            self._make(key, make, future)
        return future.result()

    def demote(self, key: Key) -> None:
        """Evict the value of ``key`` first, unless it is used again. Do nothing if it is not cached."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key, last=False)

    def discard(self, key: Key) -> None:
        """Remove the value of ``key``. Do nothing if it is not cached, or is being created."""
        with self._lock:
            if key in self._values:
                self._size -= self._values.pop(key).nbytes

    def _make(self, key: Key, make: Callable[[], Value], future: Future[Value]) -> None:
        try:
            value = make()
            size = value.nbytes
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._pending[key]
            self._values[key] = value
            self._size += size
            while self._size > self._limit and len(self._values) > 1:
                self._size -= self._values.popitem(last=False)[1].nbytes
        future.set_result(value)
