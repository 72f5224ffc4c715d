"""The feed: parts of images made by a thread of its own, the newest request first, kept up to a size in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Make = Callable[[Any], Pixels]


class Feed:
    """Makes the parts that were asked for last, and forgets those that nobody asks for any more.

    Asking never waits: what is there is given, what is missing comes later, and ``changed`` tells. Parts belong to an
    owner (a level of a pyramid); a new request of an owner replaces its older one, and goes before those of others.

    Parameters
    ----------
    limit
        Bytes of all kept parts together.
    changed
        Called by the feed's thread when a part has been made.
    failed
        Called by the feed's thread with what making a part has raised; the feed is closed then.
    ended
        Called when it has been closed and makes nothing any more, by whichever thread comes last.
    """

    def __init__(
        self,
        limit: int,
        changed: Callable[[], None],
        failed: Callable[[Exception], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit = limit
        self._changed, self._failed, self._ended = changed, failed, ended
        self._lock = threading.Lock()  # guards all below
        self._kept: OrderedDict[tuple[Hashable, Hashable], Pixels] = OrderedDict()  # the first to go first
        self._size = 0
        self._wanted: OrderedDict[Hashable, tuple[deque[Hashable], Make]] = OrderedDict()  # the newest last
        self._in_work: tuple[Hashable, Hashable] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def get(self, owner: Hashable, part: Hashable) -> Pixels | None:
        """Return a part if it is there."""
        with self._lock:
            if (owner, part) in self._kept:
                self._kept.move_to_end((owner, part))
            return self._kept.get((owner, part))

    def put(self, owner: Hashable, part: Hashable, pixels: Pixels) -> None:
        """Keep a part that somebody else has made."""
        self._keep((owner, part), pixels)

    def want(self, owner: Hashable, parts: Sequence[Hashable], make: Make) -> None:
        """Replace what an owner wants.

        Parameters
        ----------
        owner
            Whose parts they are.
        parts
            All that are looked at, there or not, the most urgent first. No more than can be kept at once: else they
            would push each other out for ever.
        make
            Makes a part.
        """
        with self._lock:
            self._wanted.pop(owner, None)
            missing = deque(
                part for part in parts if (owner, part) not in self._kept and self._in_work != (owner, part)
            )
            if not missing or self._closed:
                return
            self._wanted[owner] = missing, make
            if self._thread is None:
                # No daemon: a thread that is inside torch when the interpreter ends would bring it down.
                self._thread = threading.Thread(target=self._work, name="mgbpv2-feed")
                self._thread.start()

    def forget_wishes(self, owner: Hashable) -> None:
        """Make no more of what an owner wanted: nobody looks at it any more."""
        with self._lock:
            self._wanted.pop(owner, None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being made."""
        with self._lock:
            return self._thread is None

    @property
    def is_closed(self) -> bool:
        """Whether nothing will be made any more."""
        return self._closed

    def close(self, timeout: float | None = 0.0) -> None:
        """Make nothing more and let go of what is kept; a part in work is finished, and awaited for ``timeout``."""
        with self._lock:
            was_open, self._closed = not self._closed, True
            self._wanted.clear()
            self._kept.clear()
            self._size = 0
            thread = self._thread
        if thread is None:
            if was_open:
                self._ended()
        elif thread is not threading.current_thread():
            thread.join(timeout)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            owner, part, make = task
            try:
                pixels = make(part)
            except Exception as error:
                self.close()
                with self._lock:
                    self._thread = self._in_work = None
                self._ended()
                self._failed(error)
                return
            if self._keep((owner, part), pixels):
                self._changed()
            del pixels
        if self._closed:
            self._ended()

    def _next(self) -> tuple[Hashable, Hashable, Make] | None:
        with self._lock:
            self._in_work = None
            if not self._wanted:
                self._thread = None
                return None
            owner, (parts, make) = next(reversed(self._wanted.items()))
            part = parts.popleft()
            if not parts:
                del self._wanted[owner]
            self._in_work = owner, part
            return owner, part, make

    def _keep(self, key: tuple[Hashable, Hashable], pixels: Pixels) -> bool:
        with self._lock:
            if self._closed:
                return False
            if key in self._kept:
                self._size -= self._kept.pop(key).nbytes
            self._kept[key] = pixels
            self._size += pixels.nbytes
            while self._size > self.limit and len(self._kept) > 1:
                self._size -= self._kept.popitem(last=False)[1].nbytes
            return True


def nearest_first(parts: Sequence[tuple[int, int]]) -> list[int]:
    """Order (row, column) pairs by their distance to the middle of them all; gives their numbers."""
    places = np.asarray(parts, dtype=np.float64).reshape(-1, 2)
    if not len(places):
        return []
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    order: list[int] = np.argsort(((places - middle) ** 2).sum(axis=1), kind="stable").tolist()
    return order
