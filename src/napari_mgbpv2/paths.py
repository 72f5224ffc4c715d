"""Atomic writing of files: a file is complete or not there."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def explain_write_error(error: OSError) -> str:
    """Return why the operating system refuses to write, and what to do."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "the disk is full; free some space, or choose another place"
    return f"it cannot be written ({error.strerror or error}); check the folder and its permissions"


def write_atomically(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a small file under a temporary name, and rename it when all of it is on the disk.

    Parameters
    ----------
    path
        The file.
    content
        Its whole content.
    overwrite
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        The file exists and ``overwrite`` is False.
    OSError
        The file cannot be written. An existing one is unchanged.
    """
    with atomic_file(path, overwrite=overwrite) as partial:
        partial.write_bytes(content)


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary file, and rename it to ``path`` if the block ends without an error.

    Parameters
    ----------
    path
        The file.
    overwrite
        Whether to replace an existing file.

    Yields
    ------
    Path
        An empty, hidden file in the folder of ``path``, with the same suffix.

    Raises
    ------
    FileExistsError
        The file exists and ``overwrite`` is False.
    OSError
        The file cannot be written. An existing one is unchanged.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists already")
        partial.open("xb").close()  # A folder that is not writable shows before the work.
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path} exists already")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
