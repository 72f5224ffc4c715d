"""The machine that saving runs on, which has its moods."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_mgbpv2.conversion import run


class Machine:
    """What saving runs on: it may be slow, run out of memory, or wait until somebody presses Cancel.

    Attributes
    ----------
    tiles
        Size of the tiles of each run.
    pause
        Seconds between tiles.
    stored
        Shards that are stored.
    waits
        Whether it waits as soon as something is stored.
    fails_at
        For the next runs, the number of stored shards at which memory runs out.
    """

    def __init__(self) -> None:
        self.tiles: list[int] = []
        self.pause, self.stored, self.waits = 0.0, 0, False
        self.fails_at: list[int] = []

    def run(self, prepared: Any, *, cancelled: Callable[[], bool], tell: Callable[[Any], None], **options: Any) -> Path:
        self.tiles.append(prepared.plan.layout.grid.rows.tile)
        limit = self.fails_at.pop(0) if self.fails_at else None
        self.stored = 0

        def asked() -> bool:
            time.sleep(self.pause)
            if limit is not None and self.stored >= limit:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            while self.waits and self.stored and not cancelled():
                time.sleep(0.01)
            return cancelled()

        def told(report: Any) -> None:
            self.stored = report.shards
            tell(report)

        return run(prepared, cancelled=asked, tell=told, **options)
