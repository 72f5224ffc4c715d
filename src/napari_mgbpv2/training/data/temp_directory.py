"""Temporary directory that is removed with its owner."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any


class TempDirectory:
    """New directory in the system's directory for temporary files, which TMPDIR sets.

    It is removed with this object, or at the latest when the process that made it ends. Copies of the object in loader
    workers use the directory and do not remove it.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="napari-mgbpv2-"))
        weakref.finalize(self, _remove, self.path, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def _remove(path: Path, maker: int) -> None:
    if os.getpid() == maker:  # a forked worker has a copy of the object, and ends first
        shutil.rmtree(path, ignore_errors=True)
