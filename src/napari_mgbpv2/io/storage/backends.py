"""What the files of an unfinished image are written to: here, a folder of a disk. Keys are those of Zarr."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.errors import DestinationError

MARKER = "napari_mgbpv2"  # the attribute that tells our stores from others
ROOTS = ("zarr.json", ".zgroup", ".zarray")  # one of these makes a folder a Zarr
METADATA = (*ROOTS, ".zattrs")
RUN_FOLDER_PREFIX = ".mgbpv2-run-"  # and the token of a run: its files are written in there before they get their names
RUN_ENDED_MESSAGE = "{} was removed, or taken over by another run, while it was written; begin again"
ENDED_RUN_PREFIX = ".mgbpv2-ended-"  # and anything: a folder of a run that has ended, to be deleted
_ZARR_TEMPORARY_FILE = re.compile(r".*\.[0-9a-f]{32}\.partial")  # the names under which zarr writes before it renames


def provenance_in(read: Callable[[str], bytes]) -> dict[str, Any] | None:
    """Return how a store of ours came to be; None of anything else.

    Parameters
    ----------
    read
        Gives a file at the root; raises `OSError` where there is none.
    """
    for name, inner in (("zarr.json", "attributes"), (".zattrs", None)):
        try:
            found = json.loads(read(name))
            return dict((found[inner] if inner else found)[MARKER])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def write_small(path: Path, content: bytes) -> None:
    """Write a small file of ours so that it is whole and on the disk, or not there at all."""
    staged = path.with_name(f"{path.name}.tmp")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Bring the names in a directory down to the disk, where the system can."""
    with suppress(OSError):  # Windows does not open directories
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class StorageBackend(Protocol):
    """Files by their keys. It travels to other processes, which open it for themselves."""

    writes_atomically: bool  # whether a file that is there is all there, whatever happened to who wrote it

    @property
    def name(self) -> str:
        """What people find it under."""

    @property
    def destination(self) -> Destination:
        """Where the finished image is to appear."""

    def zarr(self) -> Any:
        """Return what zarr takes for a store."""

    def exists_here(self) -> bool:
        """Whether this process sees it."""

    def size_lookup(self) -> Callable[[str], int | None]:
        """Return a function that gives the size of a file, in bytes, or None where there is none."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return those of some files that are not there."""

    def put(self, key: str, content: bytes) -> None:
        """Write a file whole, to where a power cut does not lose it, if the run that this was opened for goes on.

        Raises
        ------
        DestinationError
            The run has ended: another one has taken over, or what it writes has been removed.
        """

    def fsync(self, key: str) -> int:
        """Bring a file to where a power cut does not lose it; return its size."""

    def read(self, key: str) -> bytes:
        """Return all of a file; `FileNotFoundError` if there is none."""

    def read_tail(self, key: str, length: int) -> bytes:
        """Read the last bytes of a file."""

    def remove(self, keys: Iterable[str]) -> None:
        """Delete files that may be there."""

    def remove_temporaries(self) -> None:
        """Delete what processes that were killed have left half-written."""


@dataclass(frozen=True)
class LocalBackend:
    """A folder of a disk.

    A file is written in a folder of its run, and moved to its name when it is whole. Where that folder is missing, the
    move fails: so ending a run, by whoever takes over, ends its tasks on all machines too, wherever they have stopped.

    Parameters
    ----------
    path
        The folder.
    run
        Token of the run that writes; empty where nothing is written.
    """

    path: Path
    run: str = ""
    writes_atomically = False

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.name

    @property
    def destination(self) -> Path:
        """The folder without the ending that tells that it is unfinished."""
        return self.path.with_suffix("")

    def zarr(self) -> Path:
        """Return the folder."""
        return self.path

    def exists_here(self) -> bool:
        """Whether this process sees the folder, and that of the run: another machine may have a folder of that name."""
        return (self.path / f"{RUN_FOLDER_PREFIX}{self.run}" if self.run else self.path).is_dir()

    def size_lookup(self) -> Callable[[str], int | None]:
        """Return a function that looks at a file."""
        return self._size

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return those of some files that are not there."""
        return [key for key in keys if self._size(key) is None]

    def begin_run(self) -> None:
        """End all runs that have written here, and let that of `run` begin."""
        self.end_runs()
        (self.path / f"{RUN_FOLDER_PREFIX}{self.run}").mkdir()

    def end_runs(self) -> None:
        """Let no task of a run write here any more; what is being written is dropped."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self.path):
                if name.startswith(RUN_FOLDER_PREFIX):
                    with suppress(FileNotFoundError):  # a folder of that name is what makes a task's file get its own
                        os.rename(self.path / name, self.path / f"{ENDED_RUN_PREFIX}{uuid.uuid4().hex}")
            for name in os.listdir(self.path):
                if name.startswith(ENDED_RUN_PREFIX):
                    shutil.rmtree(self.path / name, ignore_errors=True)

    def put(self, key: str, content: bytes) -> None:
        """Write a file whole, down to the disk, and rename it if the run has not ended. Errors as `StorageBackend`."""
        target, staged = self.path / key, self.path / f"{RUN_FOLDER_PREFIX}{self.run}" / uuid.uuid4().hex
        try:
            with staged.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.replace(staged, target)
            except FileNotFoundError:
                if not staged.exists():
                    raise
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged, target)
        except FileNotFoundError as error:
            raise DestinationError(RUN_ENDED_MESSAGE.format(self.path)) from error
        except BaseException:
            with suppress(OSError):
                staged.unlink()
            raise

    def fsync(self, key: str) -> int:
        """Flush a file, and its name, down to the disk."""
        with (self.path / key).open("r+b") as opened:
            os.fsync(opened.fileno())
            return os.fstat(opened.fileno()).st_size

    def read(self, key: str) -> bytes:
        """Return all of a file."""
        return (self.path / key).read_bytes()

    def read_tail(self, key: str, length: int) -> bytes:
        """Read the last bytes of a file."""
        with (self.path / key).open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - length))
            return opened.read(length)

    def remove(self, keys: Iterable[str]) -> None:
        """Delete files that may be there."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)

    def remove_temporaries(self) -> None:
        """Delete the files that zarr has not come to rename."""
        for left in self.path.rglob("*.partial"):
            if _ZARR_TEMPORARY_FILE.fullmatch(left.name):
                left.unlink(missing_ok=True)

    def _size(self, key: str) -> int | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return (self.path / key).stat().st_size
        return None
