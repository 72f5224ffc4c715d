"""Sharing a walk among workers: each has an area of its own, and takes from others when it has finished."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class WorkStealingQueue:
    """Numbers to be done, in parts that are each walked through by one worker.

    Parameters
    ----------
    numbers
        All that is to be done, in the order of the walk: neighbours in it share work.
    """

    def __init__(self, numbers: npt.NDArray[np.int64]) -> None:
        self._numbers = numbers
        self._ranges: dict[str, tuple[int, int]] = {}  # first and end, as positions in the numbers
        self._unclaimed: tuple[int, int] = (0, len(numbers))

    def __len__(self) -> int:
        """Count what nobody has been given."""
        return sum(stop - start for start, stop in (*self._ranges.values(), self._unclaimed))

    def next(self, worker: str) -> int | None:
        """Give a worker its next number; None where nothing is left.

        A worker without an area takes the latter half of the largest one: its own borders are then as few as can be.
        """
        start, stop = self._ranges.get(worker, (0, 0))
        if start == stop:
            start, stop = self._ranges[worker] = self._take_range()
            if start == stop:
                return None
        self._ranges[worker] = (start + 1, stop)
        return int(self._numbers[start])

    def _take_range(self) -> tuple[int, int]:
        start, stop = self._unclaimed
        if start < stop:
            self._unclaimed = (0, 0)
            return start, stop
        if not self._ranges:
            return 0, 0
        owner = max(self._ranges, key=lambda worker: self._ranges[worker][1] - self._ranges[worker][0])
        start, stop = self._ranges[owner]
        middle = start + (stop - start) // 2
        self._ranges[owner] = (start, middle)
        return middle, stop
