"""Output transactions on local disks: lock a destination, stage the output, publish it.

While a destination is written, these names exist next to it: ``<destination>.partial`` (the unfinished store),
``<destination>.lock`` (the lock of the writing run) and, briefly during a replacement, ``<destination>.replaced`` (the
old output). The file `PUBLISHING` inside the unfinished store marks it as complete and about to be moved. If a run is
killed at that point, the next run completes the move.

This module owns locking, publishing and discarding. It does not own file access (`backends`) or the journal format
(`journal`).
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
DISCARDING = ".mgbpv2-discarding"  # marks a store that is being deleted

_METADATA_FILES = re.compile(
    r"zarr\.json|\.z(array|group|attrs|metadata)|(zarr|\.z\w+)\.[0-9a-f]{32}\.partial|\.DS_Store|\.mgbpv2-.*"
)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CHUNKS = re.compile(r"c|(c\.)?\d+(\.\d+)*(\.[0-9a-f]{32}\.partial)?")  # files or directories of an array


def free_disk_space(path: str | os.PathLike[str]) -> int:
    """Return the free bytes on the disk of `path`, which need not exist yet."""
    place = Path(os.path.abspath(path))
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def translate_os_errors(destination: Destination) -> Iterator[None]:
    """Convert `OSError` to a one-sentence `DestinationError`."""
    try:
        yield
    except DestinationError:
        raise
    except OSError as error:
        raise DestinationError(f"{destination}: {explain_write_error(error)}") from error


class OutputTransaction:
    """A transaction on a local destination, which it locks until `publish`, `keep` or `discard`.

    Parameters
    ----------
    destination
        Path of the finished output; its parent is created if missing.
    overwrite
        Whether the output may replace an existing Zarr store, or an existing TIFF if the output is a TIFF.
    is_file
        Whether the finished output is a TIFF file instead of a Zarr store.

    Raises
    ------
    DestinationError
        If the destination exists and may not be replaced, another run is writing it, or it is not writable.
    """

    def __init__(self, destination: str | os.PathLike[str], *, overwrite: bool, is_file: bool = False) -> None:
        self.destination = Path(os.path.abspath(destination))
        self.overwrite, self.is_file = overwrite, is_file
        self.partial = partial_path(self.destination)
        self.storage = LocalBackend(self.partial, run=uuid.uuid4().hex)
        self.journal: Journal = FileJournal(self.partial)
        if self.destination.suffix in (".partial", ".replaced", ".lock"):
            raise DestinationError(f"{self.destination}: names with this ending are reserved for unfinished output")
        with translate_os_errors(self.destination):
            _make_folder(self.destination)
            _check_name(self.destination)
            self._lock = Lock(_sibling(self.destination, ".lock"), self.destination)
            try:
                complete_publishing(self.destination, is_file=is_file)
                self._check_destination()
                if os.path.lexists(self.partial) and not _is_unfinished(self.partial):
                    raise DestinationError(
                        f"{self.partial} is not unfinished output of this program but has its name: move it away"
                    )
            except BaseException:
                self._lock.release()
                raise

    def begin_run(self) -> None:
        """Allow tasks of this run to write; stop those of all other runs."""
        (self.partial / PUBLISHING).unlink(missing_ok=True)  # left by an attempt that moved nothing
        flush_directory(self.partial)
        self.storage.begin_run()

    def confirm(self) -> None:
        """Do nothing: a local lock cannot be lost."""

    def publish(self, finished: Path | None = None) -> None:
        """Move the finished output to its destination; if that fails, restore the old output.

        Parameters
        ----------
        finished
            A file in the unfinished store; by default the store itself.
        """
        self.storage.end_runs()
        self._check_destination()  # it may have been created meanwhile
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
        """Return the partial output of an earlier run, if any."""
        return read_partial_output(self.partial)

    def keep(self) -> None:
        """Keep the unfinished store for a later run to resume."""
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
        """Remove the partial output of another run. It has ended, since this transaction holds the lock."""
        self.storage.end_runs()
        discard(self.partial)
        if os.path.lexists(self.partial):
            raise DestinationError(f"{self.partial}, left by a stopped run, cannot be removed: delete it")

    def _check_destination(self) -> None:
        if not os.path.lexists(self.destination):
            return
        if not self.overwrite:
            raise DestinationError(
                f"{self.destination} exists already: choose another name or ask to overwrite it"
            ) from FileExistsError(self.destination)
        objection = _not_tiff(self.destination) if self.is_file else _not_zarr(self.destination)
        if objection := objection or _not_movable(self.destination):
            raise DestinationError(f"{self.destination} was not overwritten: {objection}")


def has_leftovers(destination: Path) -> bool:
    """Return whether a run was killed while publishing or cleaning up."""
    partial, inside = partial_path(destination), (destination / name for name in (JOURNAL, PUBLISHING))
    beside = (_sibling(destination, ".replaced"), partial / PUBLISHING, partial / DISCARDING)
    return any(map(os.path.lexists, (*beside, *inside))) or (partial.is_dir() and not any(partial.iterdir()))


def complete_publishing(destination: Path, *, is_file: bool) -> None:
    """Complete the publishing of a killed run. The caller holds the lock.

    At any time the old output, the new output or both are complete, at the destination or next to it. If the
    destination is missing, the new output is moved there. If it already holds the new output, leftovers are deleted.

    Raises
    ------
    DestinationError
        Something else was created at the destination, or a reserved name is used by other data.
    """
    replaced, partial = _sibling(destination, ".replaced"), partial_path(destination)
    finished = _finished_in(partial)
    for left in (replaced, partial):
        if left == partial and finished is not None and os.path.lexists(replaced):
            continue  # first find out whether it was moved
        if (left / DISCARDING).is_file():
            discard(left)
        with suppress(OSError):  # missing, not empty, or not a folder
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
                    f"{destination} appeared while it was being replaced; the old image is {replaced}, and "
                    f"the new one {finished}: move away the ones that you do not need"
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
        else:  # no new output is recorded
            os.replace(replaced, destination)
            flush_directory(destination.parent)
    if not is_file and is_zarr_node(destination) and not destination.is_symlink():
        remove_journal(destination)
        (destination / PUBLISHING).unlink(missing_ok=True)  # must be last: it marks the cleanup as unfinished


def _finished_in(partial: Path) -> Path | None:
    """Return the finished output that was about to be moved, if any."""
    try:
        name = json.loads((partial / PUBLISHING).read_bytes())["file"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DestinationError(f"{partial / PUBLISHING} is damaged; move {partial} away") from error
    return partial if name is None else partial / Path(name).name


def _is_published(finished: Path, destination: Path) -> bool:
    """Return whether finished output is at its destination; a moved store no longer has its unfinished name."""
    if not os.path.lexists(destination):
        return False
    return not os.path.lexists(finished) or (finished.is_file() and os.path.samefile(finished, destination))


def _check_ours(path: Path, is_file: bool) -> None:
    if objection := _not_tiff(path) if is_file else _not_zarr(path):
        raise DestinationError(f"{path} has a reserved name, but {objection}; move it away")


def _move(finished: Path, destination: Path) -> None:
    """Move finished output to an unused destination. Files are linked, since a rename could overwrite silently."""
    if finished.is_file():
        try:
            os.link(finished, destination)
            return
        except FileExistsError as error:
            raise DestinationError(
                f"{destination} exists already: choose another name or ask to overwrite it"
            ) from error
        except OSError:  # the file system has no hard links
            pass
    os.replace(finished, destination)


def _check_name(destination: Path) -> None:
    """Refuse a name that is too long for the suffixes of staged files, before hours of work."""
    try:
        longest = os.pathconf(destination.parent, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system without that information
        return
    spare = longest - len(os.fsencode(destination.name)) - len(".replaced")
    if spare < 0 <= spare + len(".replaced"):
        raise DestinationError(
            f"{destination}: the name is too long for temporary names next to it: shorten it by {-spare}"
        )


def _not_movable(path: Path) -> str:
    """Return why a path cannot be renamed, to fail before the work instead of after it; empty if it can."""
    if os.path.ismount(path):
        return "another file system is mounted there"
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return ""
    folder, user = path.parent.stat(), os.geteuid()
    if folder.st_mode & stat.S_ISVTX and user not in (folder.st_uid, path.lstat().st_uid):
        return "it belongs to another user"
    return ""


def discard(store: Path) -> None:
    """Delete a store or a file.

    `DISCARDING` is deleted last. A later run recognises an interrupted deletion by it, and completes it.
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
    """Return the path of the unfinished output of a destination."""
    return _sibling(destination, ".partial")


def _make_folder(destination: Path) -> None:
    """Create the parent folder of a destination."""
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
    # A run that was killed before it wrote the root metadata, or while it deleted everything, leaves empty folders and
    # temporary files.
    found = ((Path(at), name) for at, _, files in os.walk(path) for name in files)
    return all(
        ENDED_RUN_PREFIX in str(at.relative_to(path))
        or (name != "zarr.json" and _METADATA_FILES.fullmatch(name) is not None and not (at / name).is_symlink())
        for at, name in found
    )


def _not_tiff(path: Path) -> str:
    """Return why a path is not a TIFF that may be replaced; empty if it is."""
    if path.is_symlink() or not path.is_file():
        return "it is not a file"
    with path.open("rb") as file:
        return "" if file.read(4) in _TIFF else "it is not a TIFF"


def _not_zarr(path: Path) -> str:
    """Return why a path is not a Zarr store that may be deleted; empty if it is."""
    if path.is_symlink() or not path.is_dir():
        return "it is not a directory"
    if not is_zarr_node(path):
        return "it is not a Zarr store"
    is_array = _is_array(path)
    for entry in path.iterdir():  # a folder of the user may have become a Zarr group by mistake
        if entry.is_dir():
            known = entry.name == "OME" or is_zarr_node(entry)
        else:
            known = _METADATA_FILES.fullmatch(entry.name) is not None
        if not known and not (is_array and _CHUNKS.fullmatch(entry.name)):
            return f"it holds {entry.name}, which is not part of a Zarr store"
    return ""


def is_zarr_node(path: Path) -> bool:
    """Return whether a directory holds the metadata of a Zarr array or group."""
    return any((path / name).is_file() for name in ROOTS)


def _is_array(node: Path) -> bool:
    if (node / ".zarray").is_file():
        return True
    try:
        return bool(json.loads((node / "zarr.json").read_bytes())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):  # a group of version 2, or damaged
        return False
