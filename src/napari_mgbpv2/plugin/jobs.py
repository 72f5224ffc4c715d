"""What long work has in common: where it stands, how its errors read, and what to do when memory runs out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.wording import readable_seconds

EXPECTED = (MGBPv2Error, MemoryError, OSError)  # errors that one sentence tells all about


@dataclass(frozen=True)
class Step:
    """Where a job stands.

    Attributes
    ----------
    done, total
        Steps done, and all.
    seconds
        Since it began.
    """

    done: int
    total: int
    seconds: float

    @property
    def share(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0

    def __str__(self) -> str:
        """Say it: "12 of 80 tiles, 3.4 per second, 20 s left"."""
        text = f"{self.done} of {self.total} steps"
        if self.done and self.seconds > 0:
            rate = self.done / self.seconds
            text += f", {rate:.3g} per second, {readable_seconds((self.total - self.done) / rate)} left"
        return text


@dataclass
class Clock:
    """Turns the library's progress into steps, no more than a few a second.

    Parameters
    ----------
    tell
        Called with a step.
    interval
        Least seconds between two of them; the last one is always told.
    """

    tell: Callable[[Step], None]
    interval: float = 0.1
    _began: float = field(default_factory=time.monotonic, init=False)
    _told: float = field(default=0.0, init=False)

    def __call__(self, done: int, total: int) -> None:
        """Hear of progress."""
        now = time.monotonic()
        if done >= total or now - self._told >= self.interval:
            self._told = now
            self.tell(Step(done, total, now - self._began))


def sentence_of(error: BaseException) -> str:
    """Say in one sentence what went wrong."""
    if is_out_of_memory(error):
        return "There was not enough memory, even for small tiles; choose another device or close other programs."
    return str(error).strip().split("\n")[0] or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its accelerator is used up."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()
