"""The place on disk: a name for the unfinished thing, a lock on it, and its move to where it is wanted.

Beside a destination stand, while it is written, ``<destination>.partial`` (the unfinished store),
``<destination>.lock`` (who writes it) and, for the moment of replacing it, ``<destination>.replaced`` (the old one).
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

from napari_mgbpv2.errors import DestinationError

MARKER = "napari_mgbpv2"  # the group attribute that tells our stores from others

_NODE_FILES = ("zarr.json", ".zgroup", ".zarray")  # one of these makes a directory a Zarr node
_METADATA_FILES = re.compile(
    r"zarr\.json|\.z(array|group|attrs|metadata)|(zarr|\.z\w+)\.[0-9a-f]{32}\.partial|\.DS_Store"
)
_CHUNKS = re.compile(r"c|(c\.)?\d+(\.\d+)*(\.[0-9a-f]{32}\.partial)?")  # files or directories of an array


def free_space(path: str | os.PathLike[str]) -> int:
    """Free bytes on the disk that holds `path`, or would hold it once it is created."""
    place = Path(os.path.abspath(path))
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def telling_os_errors(destination: Path) -> Iterator[None]:
    """Say in one sentence what the operating system refuses."""
    try:
        yield
    except DestinationError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        reason = "the disk is full" if full else f"it cannot be written ({error.strerror or error})"
        raise DestinationError(f"{destination}: {reason}; nothing unfinished was left") from error


class Place:
    """A destination that is ours until `publish` or `give_up`, with a name beside it to work under.

    Parameters
    ----------
    destination
        Where the finished store is to appear; the parent is created if missing.
    overwrite
        Whether it may replace a Zarr store that is there.

    Raises
    ------
    DestinationError
        If there is something that may not be replaced, if somebody else is writing there, or nobody can.
    """

    def __init__(self, destination: str | os.PathLike[str], *, overwrite: bool) -> None:
        self.destination = Path(os.path.abspath(destination))
        self.overwrite = overwrite
        self.partial = _beside(self.destination, ".partial")
        self._replaced = _beside(self.destination, ".replaced")
        if self.destination.suffix in (".partial", ".replaced", ".lock"):
            raise DestinationError(f"{self.destination}: a name with this ending is kept for unfinished work")
        with telling_os_errors(self.destination):
            self.destination.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(_beside(self.destination, ".lock"), self.destination)
            try:
                self._tidy_replaced()
                self._check_destination()
                self._tidy_partial()
            except BaseException:
                self._lock.release()
                raise

    def publish(self) -> None:
        """Move the finished store to its destination; if that fails, what was there is there again."""
        self._check_destination()  # something may have appeared while we wrote
        if os.path.lexists(self.destination):
            os.replace(self.destination, self._replaced)
            try:
                os.replace(self.partial, self.destination)
            except BaseException:
                os.replace(self._replaced, self.destination)
                raise
            flush_directory(self.destination.parent)
            discard(self._replaced)
        else:
            os.replace(self.partial, self.destination)
            flush_directory(self.destination.parent)
        self._lock.release()

    def give_up(self) -> None:
        """Remove the unfinished store."""
        discard(self.partial)
        self._lock.release()

    def _check_destination(self) -> None:
        if not os.path.lexists(self.destination):
            return
        if not self.overwrite:
            raise DestinationError(f"{self.destination} exists already: choose another name or ask to overwrite it")
        if objection := _not_zarr(self.destination):
            raise DestinationError(f"{self.destination} is not overwritten: {objection}")

    def _tidy_partial(self) -> None:
        """Remove what a killed run left; nobody is at work there, we hold the lock."""
        if not os.path.lexists(self.partial):
            return
        if not _is_unfinished(self.partial):
            raise DestinationError(f"{self.partial} is in the way and not an unfinished image of ours: move it away")
        discard(self.partial)
        if self.partial.exists():
            raise DestinationError(f"{self.partial}, left by a run that was killed, cannot be removed: delete it")

    def _tidy_replaced(self) -> None:
        """Complete or undo the replacing that a killed run was in the middle of."""
        if not os.path.lexists(self._replaced):
            return
        if objection := _not_zarr(self._replaced):
            raise DestinationError(f"{self._replaced} is in the way: {objection}; move it away")
        if os.path.lexists(self.destination):
            discard(self._replaced)
        else:
            os.replace(self._replaced, self.destination)


class Lock:
    """A file that says which process writes a destination.

    Raises
    ------
    DestinationError
        If another process that lives, or one of another machine, holds it.
    """

    def __init__(self, path: Path, destination: Path) -> None:
        self.path = path
        self._owner = json.dumps({"pid": os.getpid(), "host": platform.node(), "token": uuid.uuid4().hex}).encode()
        self._remove_if_dead()
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            raise DestinationError(
                f"{destination} is being written already; if you are sure that it is not, delete {path}"
            ) from None
        try:
            os.write(descriptor, self._owner)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Remove the file if it is still ours."""
        with suppress(OSError):
            if self.path.read_bytes() == self._owner:
                self.path.unlink()

    def _remove_if_dead(self) -> None:
        try:
            found = self.path.read_bytes()
            owner = json.loads(found)
            dead = owner["host"] == platform.node() and not psutil.pid_exists(owner["pid"])
        except (OSError, ValueError, KeyError, TypeError):  # none there, or not readable: whether it exists decides
            return
        if not dead:
            return
        aside = _beside(self.path, f".{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):  # somebody else removed it first
            os.replace(self.path, aside)
            if aside.read_bytes() == found:
                aside.unlink()
            else:  # somebody else removed it first and locked anew: that one is not ours to remove
                os.replace(aside, self.path)


def flush(file: Path) -> None:
    """Bring a file down to the disk, so that a power cut does not lose it."""
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())


def flush_directory(directory: Path) -> None:
    """Bring the names in a directory down to the disk, where the system can."""
    with suppress(OSError):  # Windows does not open directories
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def discard(store: Path) -> None:
    """Delete a store, its root metadata last: a deletion that is cut short is recognised and completed."""
    with suppress(OSError):
        for entry in store.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.parent / (path.name + suffix)


def _is_unfinished(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        return MARKER in json.loads((path / "zarr.json").read_bytes())["attributes"]
    except FileNotFoundError:  # killed before the root metadata was there: nothing, or zarr's temporary file
        return all(re.fullmatch(r"zarr\.[0-9a-f]{32}\.partial", entry.name) for entry in path.iterdir())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _not_zarr(path: Path) -> str:
    """Say why a path is not a Zarr store that may be deleted; empty if it is one."""
    if path.is_symlink() or not path.is_dir():
        return "it is not a directory"
    if not any((path / name).is_file() for name in _NODE_FILES):
        return "it is not a Zarr store"
    is_array = _is_array(path)
    for entry in path.iterdir():  # somebody's folder may have been made a Zarr group by mistake
        if entry.is_dir():
            known = entry.name == "OME" or any((entry / name).is_file() for name in _NODE_FILES)
        else:
            known = _METADATA_FILES.fullmatch(entry.name) is not None
        if not known and not (is_array and _CHUNKS.fullmatch(entry.name)):
            return f"it holds {entry.name}, which is not part of a Zarr store"
    return ""


def _is_array(node: Path) -> bool:
    if (node / ".zarray").is_file():
        return True
    try:
        return bool(json.loads((node / "zarr.json").read_bytes())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):  # a group of version 2, or damaged
        return False
