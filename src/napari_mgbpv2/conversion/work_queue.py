"""Distribute the shard order over workers, with work stealing.

The queue owns which positions are assigned. It knows nothing of shards, tiles or dask.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class WorkStealingQueue:
    """Queue of positions in the shard order, split into one contiguous range per worker.

    Parameters
    ----------
    numbers
        (n,) int64 positions still to be computed, in shard order. Neighbours share tiles.
    """

    def __init__(self, numbers: npt.NDArray[np.int64]) -> None:
        self._numbers = numbers
        self._ranges: dict[str, tuple[int, int]] = {}  # first and end, as positions in the numbers
        self._unclaimed: tuple[int, int] = (0, len(numbers))

    def __len__(self) -> int:
        """Return the number of unassigned positions."""
        return sum(stop - start for start, stop in (*self._ranges.values(), self._unclaimed))

    def next(self, worker: str) -> int | None:
        """Return the next position for a worker, or None if the queue is empty.

        A worker whose range is empty steals the second half of the largest range, which keeps the number of borders
        between workers low.
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
