"""A folder for what can be made again, removed when its maker is done."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any


class TempDirectory:
    """A new folder in the system's folder for temporary files (TMPDIR says where).

    It goes with this object, or at the latest with the process that made it. Copies in loader workers use it and
    leave it.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="napari-mgbpv2-"))
        weakref.finalize(self, _remove, self.path, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


def _remove(path: Path, maker: int) -> None:
    if os.getpid() == maker:  # a forked worker has a copy of the object, and ends first
        shutil.rmtree(path, ignore_errors=True)
