"""What long work has in common: where it stands, how its errors read, and what to do when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from napari_mgbpv2.conversion import Report
from napari_mgbpv2.conversion.oom import is_out_of_memory
from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.formatting import format_bytes, format_duration

EXPECTED = (MGBPv2Error, MemoryError, OSError)  # errors that one sentence tells all about


@dataclass(frozen=True)
class Step:
    """Where a conversion stands.

    Attributes
    ----------
    report
        As the library tells it.
    rate
        Tiles a second, of this run; 0 before that can be said.
    """

    report: Report
    rate: float

    @property
    def share(self) -> float:
        """Share of the work that is done, 0 to 1: of the tiles, and of what they are written into."""
        report = self.report
        return (report.tiles + report.shards) / (report.all_tiles + report.all_shards)

    def __str__(self) -> str:
        """Say it: "12 of 80 tiles, 1.4 Mpx/s, 20 s left, 31 MB written"."""
        report = self.report
        if report.shards == report.all_shards:
            return "finishing …"
        words = [f"{report.tiles} of {report.all_tiles} tiles"]
        if self.rate:
            megapixels = self.rate * report.all_megapixels / report.all_tiles
            left = (report.all_tiles - report.tiles) / self.rate
            words += [f"{megapixels:.2g} Mpx/s", f"{format_duration(left)} left"]
        return ", ".join([*words, f"{format_bytes(report.bytes_written)} written"])


@dataclass
class Clock:
    """Turns the library's reports into steps, no more than a few a second.

    Parameters
    ----------
    tell
        Called with a step.
    interval
        Least seconds between two of them; the last one is always told.

    Attributes
    ----------
    last
        The newest report.
    """

    tell: Callable[[Step], None]
    interval: float = 0.1
    last: Report | None = field(default=None, init=False)
    _first: Report | None = field(default=None, init=False)
    _told: float = field(default=-math.inf, init=False)

    def __call__(self, report: Report) -> None:
        """Hear of progress."""
        first = self._first = self._first or report
        self.last = report
        if report.shards < report.all_shards and report.seconds - self._told < self.interval:
            return
        self._told = report.seconds
        seconds = report.seconds - first.seconds
        self.tell(Step(report, (report.tiles - first.tiles) / seconds if seconds > 0 else 0.0))


def sentence_of(error: BaseException) -> str:
    """Say in one sentence what went wrong."""
    if is_out_of_memory(error):
        return "There was not enough memory, even for small tiles; choose another device or close other programs."
    return str(error).strip().split("\n")[0] or type(error).__name__
