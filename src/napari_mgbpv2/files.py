"""Small files that are complete or not there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file under another name and give it its own when all of it is on the disk.

    Parameters
    ----------
    path
        The file.
    content
        All of it.
    overwrite
        Whether it may replace one that is there.

    Raises
    ------
    FileExistsError
        There is one that may not be replaced.
    OSError
        It cannot be written; what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists already")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
