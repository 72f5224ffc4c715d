"""Keeping the last used values up to a total size in bytes, each made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """A value that knows its size, as a NumPy array does."""

    @property
    def nbytes(self) -> int:
        """Size in bytes; it does not change."""


Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Sized)


class BoundedCache(Generic[Key, Value]):
    """The last used values up to a total size; each is made once, however many threads ask for it at a time.

    Parameters
    ----------
    limit
        Bytes of all kept values together. The newest value is kept even if it alone is larger.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # guards all below
        self._size = 0
        self._kept: OrderedDict[Key, Value] = OrderedDict()  # the first to go first
        self._being_made: dict[Key, Future[Value]] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of ``key``, made if it is not kept and awaited if another thread is making it.

        Parameters
        ----------
        key
            What the value is known by.
        make
            Makes the value, outside any lock. Whatever it raises is raised in all threads that wait for the value,
            and the next call tries again. It must not ask for the same key.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future = self._being_made.get(key)
            is_ours = future is None
            if future is None:
                future = self._being_made[key] = Future()
        if is_ours:
            self._make(key, make, future)
        return future.result()

    def demote(self, key: Key) -> None:
        """Let the value of ``key`` be the first to go, until it is used again; does nothing if it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key, last=False)

    def discard(self, key: Key) -> None:
        """Drop the value of ``key``; does nothing if it is not kept, or still being made."""
        with self._lock:
            if key in self._kept:
                self._size -= self._kept.pop(key).nbytes

    def _make(self, key: Key, make: Callable[[], Value], future: Future[Value]) -> None:
        try:
            made = make()
            size = made.nbytes
        except BaseException as error:
            with self._lock:
                del self._being_made[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._being_made[key]
            self._kept[key] = made
            self._size += size
            while self._size > self._limit and len(self._kept) > 1:
                self._size -= self._kept.popitem(last=False)[1].nbytes
        future.set_result(made)
