"""The place on disk: a name for the unfinished thing, a lock on it, and its move to where it is wanted.

Beside a destination stand, while it is written, ``<destination>.partial`` (the unfinished store),
``<destination>.lock`` (who writes it) and, for the moment of replacing it, ``<destination>.replaced`` (the old one).
"""

from __future__ import annotations

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

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.files import why_not_written
from napari_mgbpv2.ome_zarr.journal import FileJournal, Journal, Kept, kept_in, remove_journal
from napari_mgbpv2.ome_zarr.storage import ROOTS, Folder, Storage, provenance_in

_METADATA_FILES = re.compile(
    r"zarr\.json|\.z(array|group|attrs|metadata)|(zarr|\.z\w+)\.[0-9a-f]{32}\.partial|\.DS_Store|\.mgbpv2-.*"
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CHUNKS = re.compile(r"c|(c\.)?\d+(\.\d+)*(\.[0-9a-f]{32}\.partial)?")  # files or directories of an array


def free_space_of_disk(path: str | os.PathLike[str]) -> int:
    """Free bytes on the disk that holds `path`, or would hold it once it is created."""
    place = Path(os.path.abspath(path))
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def telling_os_errors(destination: Destination) -> Iterator[None]:
    """Say in one sentence what the operating system refuses."""
    try:
        yield
    except DestinationError:
        raise
    except OSError as error:
        raise DestinationError(f"{destination}: {why_not_written(error)}") from error


class Place:
    """A destination that is ours until `publish`, `keep` or `give_up`, with a name beside it to work under.

    Parameters
    ----------
    destination
        Where the finished thing is to appear; the parent is created if missing.
    overwrite
        Whether it may replace what is there: a Zarr store, or a TIFF where one is to be written.
    is_file
        Whether the finished thing is a TIFF file, not a Zarr store.

    Raises
    ------
    DestinationError
        If there is something that may not be replaced, if somebody else is writing there, or nobody can.
    """

    def __init__(self, destination: str | os.PathLike[str], *, overwrite: bool, is_file: bool = False) -> None:
        self.destination = Path(os.path.abspath(destination))
        self.overwrite, self.is_file = overwrite, is_file
        self.partial = partial_of(self.destination)
        self.storage: Storage = Folder(self.partial)
        self.journal: Journal = FileJournal(self.partial)
        self._replaced = _beside(self.destination, ".replaced")
        if self.destination.suffix in (".partial", ".replaced", ".lock"):
            raise DestinationError(f"{self.destination}: a name with this ending is kept for unfinished work")
        with telling_os_errors(self.destination):
            _make_folder(self.destination)
            self._lock = Lock(_beside(self.destination, ".lock"), self.destination)
            try:
                self._tidy_replaced()
                self._check_destination()
                if os.path.lexists(self.partial) and not _is_unfinished(self.partial):
                    raise DestinationError(
                        f"{self.partial} is in the way and not an unfinished image of ours: move it away"
                    )
            except BaseException:
                self._lock.release()
                raise

    def publish(self, finished: Path | None = None) -> None:
        """Move the finished thing to its destination; if that fails, what was there is there again.

        Parameters
        ----------
        finished
            A file within the unfinished store; by default the store itself.
        """
        self._check_destination()  # something may have appeared while we wrote
        if os.path.lexists(self.destination):
            os.replace(self.destination, self._replaced)
            try:
                os.replace(finished or self.partial, self.destination)
            except BaseException:
                os.replace(self._replaced, self.destination)
                raise
            flush_directory(self.destination.parent)
            discard(self._replaced)
        else:
            os.replace(finished or self.partial, self.destination)
            flush_directory(self.destination.parent)
        if finished is not None:
            discard(self.partial)
        else:
            remove_journal(self.destination)
        self._lock.release()

    def kept(self) -> Kept | None:
        """Tell what an earlier run has left unfinished; None where it has left nothing."""
        return kept_in(self.partial)

    def keep(self) -> None:
        """Leave the unfinished store to whoever goes on with it."""
        self._lock.release()

    def give_up(self) -> None:
        """Remove the unfinished store."""
        discard(self.partial)
        self._lock.release()

    def clear(self) -> None:
        """Remove what another run left unfinished; nobody is at work there, we hold the lock."""
        discard(self.partial)
        if os.path.lexists(self.partial):
            raise DestinationError(f"{self.partial}, left by a run that was stopped, cannot be removed: delete it")

    def _check_destination(self) -> None:
        if not os.path.lexists(self.destination):
            return
        if not self.overwrite:
            raise DestinationError(
                f"{self.destination} exists already: choose another name or ask to overwrite it"
            ) from FileExistsError(self.destination)
        if objection := _not_tiff(self.destination) if self.is_file else _not_zarr(self.destination):
            raise DestinationError(f"{self.destination} is not overwritten: {objection}")

    def _tidy_replaced(self) -> None:
        """Complete or undo the replacing that a killed run was in the middle of."""
        if not os.path.lexists(self._replaced):
            return
        if objection := _not_tiff(self._replaced) if self.is_file else _not_zarr(self._replaced):
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


def flush_directory(directory: Path) -> None:
    """Bring the names in a directory down to the disk, where the system can."""
    with suppress(OSError):  # Windows does not open directories
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def discard(store: Path) -> None:
    """Delete a store, its root metadata last: a deletion that is cut short is recognised and completed. Or a file."""
    if not store.is_dir():
        store.unlink(missing_ok=True)
        return
    with suppress(OSError):
        for entry in store.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
    shutil.rmtree(store, ignore_errors=True)


def partial_of(destination: Path) -> Path:
    """Name under which a destination is written until it is complete."""
    return _beside(destination, ".partial")


def _make_folder(destination: Path) -> None:
    """Make the folder of a destination."""
    if file := next((folder for folder in destination.parents if folder.exists() and not folder.is_dir()), None):
        raise DestinationError(f"{destination}: {file} is a file, not a folder; choose another place")
    destination.parent.mkdir(parents=True, exist_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.parent / (path.name + suffix)


def _is_unfinished(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    if provenance_in(lambda name: (path / name).read_bytes()) is not None:
        return True
    # killed before the root metadata were whole: nothing else is there, but for the names zarr writes under
    return all(
        entry.is_file() and entry.name != "zarr.json" and _METADATA_FILES.fullmatch(entry.name)
        for entry in path.iterdir()
    )


def _not_tiff(path: Path) -> str:
    """Say why a path is not a TIFF that may be replaced; empty if it is one."""
    if path.is_symlink() or not path.is_file():
        return "it is not a file"
    with path.open("rb") as file:
        return "" if file.read(4) in _TIFF else "it is not a TIFF"


def _not_zarr(path: Path) -> str:
    """Say why a path is not a Zarr store that may be deleted; empty if it is one."""
    if path.is_symlink() or not path.is_dir():
        return "it is not a directory"
    if not is_node(path):
        return "it is not a Zarr store"
    is_array = _is_array(path)
    for entry in path.iterdir():  # somebody's folder may have been made a Zarr group by mistake
        if entry.is_dir():
            known = entry.name == "OME" or is_node(entry)
        else:
            known = _METADATA_FILES.fullmatch(entry.name) is not None
        if not known and not (is_array and _CHUNKS.fullmatch(entry.name)):
            return f"it holds {entry.name}, which is not part of a Zarr store"
    return ""


def is_node(path: Path) -> bool:
    """Whether a directory holds the metadata of a Zarr array or group."""
    return any((path / name).is_file() for name in ROOTS)


def _is_array(node: Path) -> bool:
    if (node / ".zarray").is_file():
        return True
    try:
        return bool(json.loads((node / "zarr.json").read_bytes())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):  # a group of version 2, or damaged
        return False
