"""The place on disk: a name for the unfinished thing, a lock on it, and its move to where it is wanted.

Beside a destination stand, while it is written, ``<destination>.partial`` (the unfinished store),
``<destination>.lock`` (who writes it) and, for the moment of replacing it, ``<destination>.replaced`` (the old one).
Within the unfinished store, `PUBLISHING` says that it is complete and about to be moved: what a kill leaves of that is
completed by the next run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import (
    ENDED_RUN_PREFIX,
    METADATA,
    ROOTS,
    LocalBackend,
    flush_directory,
    provenance_in,
    write_small,
)
from napari_mgbpv2.io.storage.journal import NAME as JOURNAL
from napari_mgbpv2.io.storage.journal import FileJournal, Journal, PartialOutput, read_partial_output, remove_journal
from napari_mgbpv2.io.storage.locks import Lock
from napari_mgbpv2.paths import explain_write_error

PUBLISHING = ".mgbpv2-publishing.json"
DISCARDING = ".mgbpv2-discarding"  # in a store of which all is to be deleted

_METADATA_FILES = re.compile(
    r"zarr\.json|\.z(array|group|attrs|metadata)|(zarr|\.z\w+)\.[0-9a-f]{32}\.partial|\.DS_Store|\.mgbpv2-.*"
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CHUNKS = re.compile(r"c|(c\.)?\d+(\.\d+)*(\.[0-9a-f]{32}\.partial)?")  # files or directories of an array


def free_disk_space(path: str | os.PathLike[str]) -> int:
    """Free bytes on the disk that holds `path`, or would hold it once it is created."""
    place = Path(os.path.abspath(path))
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def translate_os_errors(destination: Destination) -> Iterator[None]:
    """Say in one sentence what the operating system refuses."""
    try:
        yield
    except DestinationError:
        raise
    except OSError as error:
        raise DestinationError(f"{destination}: {explain_write_error(error)}") from error


class OutputTransaction:
    """A destination that is ours until `publish`, `keep` or `discard`, with a name beside it to work under.

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
        self.partial = partial_path(self.destination)
        self.storage = LocalBackend(self.partial, run=uuid.uuid4().hex)
        self.journal: Journal = FileJournal(self.partial)
        if self.destination.suffix in (".partial", ".replaced", ".lock"):
            raise DestinationError(f"{self.destination}: a name with this ending is kept for unfinished work")
        with translate_os_errors(self.destination):
            _make_folder(self.destination)
            _check_name(self.destination)
            self._lock = Lock(_sibling(self.destination, ".lock"), self.destination)
            try:
                complete_publishing(self.destination, is_file=is_file)
                self._check_destination()
                if os.path.lexists(self.partial) and not _is_unfinished(self.partial):
                    raise DestinationError(
                        f"{self.partial} is in the way and not an unfinished image of ours: move it away"
                    )
            except BaseException:
                self._lock.release()
                raise

    def begin_run(self) -> None:
        """Let tasks of this run write, and none of another one."""
        (self.partial / PUBLISHING).unlink(missing_ok=True)  # of an attempt that did not come to move anything
        flush_directory(self.partial)
        self.storage.begin_run()

    def confirm(self) -> None:
        """Do nothing: the lock is ours until we let it go."""

    def publish(self, finished: Path | None = None) -> None:
        """Move the finished thing to its destination; if that fails, what was there is there again.

        Parameters
        ----------
        finished
            A file within the unfinished store; by default the store itself.
        """
        self.storage.end_runs()
        self._check_destination()  # something may have appeared while we wrote
        name = None if finished is None else finished.name
        write_small(self.partial / PUBLISHING, json.dumps({"file": name}).encode())
        replaced = _sibling(self.destination, ".replaced")
        if os.path.lexists(self.destination):
            os.replace(self.destination, replaced)
            try:
                _move(finished or self.partial, self.destination)
            except BaseException:
                if not os.path.lexists(self.destination):
                    os.replace(replaced, self.destination)
                raise
        else:
            _move(finished or self.partial, self.destination)
        flush_directory(self.destination.parent)
        complete_publishing(self.destination, is_file=self.is_file)
        self._lock.release()

    def partial_output(self) -> PartialOutput | None:
        """Return the partial output of an earlier run, or None. Errors as `read_partial_output`."""
        return read_partial_output(self.partial)

    def keep(self) -> None:
        """Leave the unfinished store to whoever goes on with it."""
        with suppress(OSError):
            self.storage.end_runs()
        self._lock.release()

    def discard(self) -> None:
        """Remove the unfinished store."""
        with suppress(OSError):
            self.storage.end_runs()
            discard(self.partial)
        self._lock.release()

    def clear(self) -> None:
        """Remove what another run left unfinished; nobody is at work there, we hold the lock."""
        self.storage.end_runs()
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
        objection = _not_tiff(self.destination) if self.is_file else _not_zarr(self.destination)
        if objection := objection or _not_movable(self.destination):
            raise DestinationError(f"{self.destination} is not overwritten: {objection}")


def has_leftovers(destination: Path) -> bool:
    """Whether a run was killed in the middle of publishing, or before it had deleted what it needed no more."""
    partial, inside = partial_path(destination), (destination / name for name in (JOURNAL, PUBLISHING))
    beside = (_sibling(destination, ".replaced"), partial / PUBLISHING, partial / DISCARDING)
    return any(map(os.path.lexists, (*beside, *inside))) or (partial.is_dir() and not any(partial.iterdir()))


def complete_publishing(destination: Path, *, is_file: bool) -> None:
    """Complete the publishing that a killed run was in the middle of. The caller holds the lock.

    At every moment the old image, the new one or both are whole, under the name of the destination or beside it. Where
    the destination has neither, the new one gets its place; where it has the new one, all else goes.

    Raises
    ------
    DestinationError
        Somebody has put something else there in between, or something that is not ours has one of our names.
    """
    replaced, partial = _sibling(destination, ".replaced"), partial_path(destination)
    finished = _finished_in(partial)
    for left in (replaced, partial):
        if left == partial and finished is not None and os.path.lexists(replaced):
            continue  # what it was about to be moved to is looked at first
        if (left / DISCARDING).is_file():
            discard(left)
        with suppress(OSError):  # it is not there, not empty, or no folder
            left.rmdir()
    if finished is not None:
        if _is_published(finished, destination):
            if os.path.lexists(replaced):
                _check_ours(replaced, is_file)
                discard(replaced)
            discard(partial)
        elif os.path.lexists(replaced):
            _check_ours(replaced, is_file)
            if os.path.lexists(destination):
                raise DestinationError(
                    f"{destination} has appeared while it was being replaced; the image of before is {replaced}, and "
                    f"the new one {finished}: move away which of them you do not need"
                )
            _move(finished, destination)
            flush_directory(destination.parent)
            complete_publishing(destination, is_file=is_file)
        return
    if os.path.lexists(replaced):
        _check_ours(replaced, is_file)
        if os.path.lexists(destination):
            _check_ours(destination, is_file)
            discard(replaced)
        else:  # nothing says that there is a new one
            os.replace(replaced, destination)
            flush_directory(destination.parent)
    if not is_file and is_zarr_node(destination) and not destination.is_symlink():
        remove_journal(destination)
        (destination / PUBLISHING).unlink(missing_ok=True)  # last


def _finished_in(partial: Path) -> Path | None:
    """Return what was about to be moved to the destination; None if nothing was."""
    try:
        name = json.loads((partial / PUBLISHING).read_bytes())["file"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DestinationError(f"{partial / PUBLISHING} is damaged; move {partial} away") from error
    return partial if name is None else partial / Path(name).name


def _is_published(finished: Path, destination: Path) -> bool:
    """Whether a finished file has its place; where a store has it, its unfinished name is not there any more."""
    if not os.path.lexists(destination):
        return False
    return not os.path.lexists(finished) or (finished.is_file() and os.path.samefile(finished, destination))


def _check_ours(path: Path, is_file: bool) -> None:
    if objection := _not_tiff(path) if is_file else _not_zarr(path):
        raise DestinationError(f"{path} is in the way: {objection}; move it away")


def _move(finished: Path, destination: Path) -> None:
    """Give the finished thing its name, which nobody else has; of a file, a rename would replace that silently."""
    if finished.is_file():
        try:
            os.link(finished, destination)
            return
        except FileExistsError as error:
            raise DestinationError(
                f"{destination} exists already: choose another name or ask to overwrite it"
            ) from error
        except OSError:  # no second names there
            pass
    os.replace(finished, destination)


def _check_name(destination: Path) -> None:
    """Refuse a name to which nothing can be added, before hours of work."""
    try:
        longest = os.pathconf(destination.parent, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not say
        return
    spare = longest - len(os.fsencode(destination.name)) - len(".replaced")
    if spare < 0 <= spare + len(".replaced"):
        raise DestinationError(f"{destination}: the name is too long for what stands beside it: shorten it by {-spare}")


def _not_movable(path: Path) -> str:
    """Say why something cannot be moved aside, which would show only at the end; empty if nothing is known of that."""
    if os.path.ismount(path):
        return "another file system is mounted there"
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return ""
    folder, user = path.parent.stat(), os.geteuid()
    if folder.st_mode & stat.S_ISVTX and user not in (folder.st_uid, path.lstat().st_uid):
        return "it belongs to another user"
    return ""


def discard(store: Path) -> None:
    """Delete a store, or a file.

    A deletion that is cut short is recognised by `DISCARDING`, which goes last, and completed.
    """
    if not store.is_dir() or store.is_symlink():
        store.unlink(missing_ok=True)
        return
    last = (*METADATA, PUBLISHING, DISCARDING)
    with suppress(OSError):
        (store / DISCARDING).touch()
        (store / JOURNAL).unlink(missing_ok=True)
        for entry in store.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name not in last:
                entry.unlink(missing_ok=True)
        for name in last:
            (store / name).unlink(missing_ok=True)
    shutil.rmtree(store, ignore_errors=True)


def partial_path(destination: Path) -> Path:
    """Name under which a destination is written until it is complete."""
    return _sibling(destination, ".partial")


def _make_folder(destination: Path) -> None:
    """Make the folder of a destination."""
    if file := next((folder for folder in destination.parents if folder.exists() and not folder.is_dir()), None):
        raise DestinationError(f"{destination}: {file} is a file, not a folder; choose another place")
    destination.parent.mkdir(parents=True, exist_ok=True)


def _sibling(path: Path, suffix: str) -> Path:
    return path.parent / (path.name + suffix)


def _is_unfinished(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    if (
        any((path / name).is_file() for name in (JOURNAL, DISCARDING))
        or provenance_in(lambda name: (path / name).read_bytes()) is not None
    ):
        return True
    # killed before the root metadata were whole, or while all was deleted: there are folders without files, and the
    # names under which zarr and we write
    found = ((Path(at), name) for at, _, files in os.walk(path) for name in files)
    return all(
        ENDED_RUN_PREFIX in str(at.relative_to(path))
        or (name != "zarr.json" and _METADATA_FILES.fullmatch(name) is not None and not (at / name).is_symlink())
        for at, name in found
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
    if not is_zarr_node(path):
        return "it is not a Zarr store"
    is_array = _is_array(path)
    for entry in path.iterdir():  # somebody's folder may have been made a Zarr group by mistake
        if entry.is_dir():
            known = entry.name == "OME" or is_zarr_node(entry)
        else:
            known = _METADATA_FILES.fullmatch(entry.name) is not None
        if not known and not (is_array and _CHUNKS.fullmatch(entry.name)):
            return f"it holds {entry.name}, which is not part of a Zarr store"
    return ""


def is_zarr_node(path: Path) -> bool:
    """Whether a directory holds the metadata of a Zarr array or group."""
    return any((path / name).is_file() for name in ROOTS)


def _is_array(node: Path) -> bool:
    if (node / ".zarray").is_file():
        return True
    try:
        return bool(json.loads((node / "zarr.json").read_bytes())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):  # a group of version 2, or damaged
        return False
