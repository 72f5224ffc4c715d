"""A lock on a destination of a disk, which the operating system keeps: it ends with the process that holds it."""

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
_open_here: set[int] = set()  # descriptors of the locks that this process holds


class Lock:
    """A file that one process at a time has locked. Whatever its content is, and whoever made it, does not matter.

    Nothing is guessed from host names or process numbers: the kernel lets a lock go when its process ends, in whatever
    way, also where containers or the machines of a network file system share a folder.

    Parameters
    ----------
    path
        The file; it is deleted when the lock is let go.
    destination
        What is locked, for the message.

    Raises
    ------
    DestinationError
        Somebody else holds it.
    OSError
        The file cannot be made.
    """

    def __init__(self, path: Path, destination: Path) -> None:
        self.path = path
        self._descriptor = _lock(path)
        if self._descriptor is None:
            raise DestinationError(
                f"{destination} is being written already, by another run; wait for its end, or choose another name"
            )

    def release(self) -> None:
        """Delete the file, and let go. Does nothing the second time."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            # While it is held: whoever has opened the file already finds that it has no name any more, and tries again.
            if sys.platform != "win32" and _is_named(descriptor, self.path):
                os.unlink(self.path)
        _open_here.discard(descriptor)
        with suppress(OSError):
            os.close(descriptor)
        if sys.platform == "win32":  # which deletes no file that is open
            with suppress(OSError):
                os.unlink(self.path)


def _lock(path: Path) -> int | None:
    """Return a descriptor of the locked file; None where somebody else holds it."""
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
        os.close(descriptor)  # it was deleted by who held it, between our opening and our locking it


def _open(path: Path) -> int:
    flags = os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, os.O_RDWR | flags, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | flags, 0o666)  # left by another user, in a folder that both may write to


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
            f"{path.parent}: this file system has no locks; make sure that nobody else writes {path.stem}",
            RuntimeWarning,
            stacklevel=4,
        )
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the file that is open is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _close_in_a_fork() -> None:
    """Close the copies that a forked process has: they would hold the locks beyond the end of this one."""
    for descriptor in _open_here:
        with suppress(OSError):
            os.close(descriptor)
    _open_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_a_fork)
