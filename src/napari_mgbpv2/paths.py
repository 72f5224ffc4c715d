"""Files that are complete or not there."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def explain_write_error(error: OSError) -> str:
    """Say why the operating system does not let us write, and what to do."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "the disk is full; free some space, or choose another place"
    return f"it cannot be written ({error.strerror or error}); check the folder and its permissions"


def write_atomically(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a small file under another name and give it its own when all of it is on the disk.

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
    with atomic_file(path, overwrite=overwrite) as partial:
        partial.write_bytes(content)


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a name to write a file under; it gets its own when the block ends without an error.

    Parameters
    ----------
    path, overwrite
        As `write_atomically` has them, and so are the errors.

    Yields
    ------
    Path
        An empty, hidden file beside ``path``, with the same ending.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists already")
        partial.open("xb").close()  # what cannot be written shows before the work
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists already")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
