"""Locks on local destinations. The operating system releases a lock when the process that holds it ends."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from napari_mgbpv2.errors import DestinationError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS = tuple(
    getattr(errno, name) for name in ("ENOSYS", "EOPNOTSUPP", "ENOTSUP", "ENOLCK") if hasattr(errno, name)
)
_open_here: set[int] = set()  # descriptors of locks held by this process


class Lock:
    """An exclusive lock on a file. The content and owner of the file are irrelevant.

    The kernel releases the lock whenever the process ends, also if containers or machines share the folder over a
    network file system. Host names and process numbers are not needed.

    Parameters
    ----------
    path
        The lock file; deleted on release.
    destination
        The locked destination, for messages.

    Raises
    ------
    DestinationError
        Another process holds the lock.
    OSError
        The lock file cannot be created.
    """

    def __init__(self, path: Path, destination: Path) -> None:
        self.path = path
        self._descriptor = _lock(path)
        if self._descriptor is None:
            raise DestinationError(
                f"{destination} is already being written by another run; wait for it to end, or choose another name"
            )

    def release(self) -> None:
        """Delete the lock file and release the lock. Further calls do nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            # Delete while locked: a process that has already opened the file sees that it is unlinked, and retries.
            if sys.platform != "win32" and _is_named(descriptor, self.path):
                os.unlink(self.path)
        _open_here.discard(descriptor)
        with suppress(OSError):
            os.close(descriptor)
        if sys.platform == "win32":  # Windows cannot delete open files
            with suppress(OSError):
                os.unlink(self.path)


def _lock(path: Path) -> int | None:
    """Return a descriptor of the locked file; None if another process holds the lock."""
    while True:
        descriptor = _open(path)
        try:
            if not _try(descriptor, path):
                os.close(descriptor)
                return None
            if sys.platform == "win32" or _is_named(descriptor, path):
                _open_here.add(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the previous holder deleted it before we locked it


def _open(path: Path) -> int:
    flags = os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, os.O_RDWR | flags, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | flags, 0o666)  # left by another user in a shared folder


def _try(descriptor: int, path: Path) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_ELSEWHERE:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{path.parent}: this file system has no locks; make sure that no other process writes {path.stem}",
            RuntimeWarning,
            stacklevel=4,
        )
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _close_in_a_fork() -> None:
    """Close the descriptors that a fork inherited, which would hold the locks after the parent ends."""
    for descriptor in _open_here:
        with suppress(OSError):
            os.close(descriptor)
    _open_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_a_fork)
