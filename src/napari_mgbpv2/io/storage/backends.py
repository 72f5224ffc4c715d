"""Storage backends for partial outputs: the protocol, and the backend for local folders.

Files are addressed by Zarr keys. This module owns how a file is written atomically, flushed and removed. It does not
own locks, journals or publishing: those belong to the output transactions.
"""

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

MARKER = "napari_mgbpv2"  # attribute that identifies stores of this package
ROOTS = ("zarr.json", ".zgroup", ".zarray")  # a folder with one of these files is a Zarr node
METADATA = (*ROOTS, ".zattrs")
RUN_FOLDER_PREFIX = ".mgbpv2-run-"  # followed by the token of the run; files are staged in this folder
RUN_ENDED_MESSAGE = "{} was removed, or taken over by another run, while it was written; start again"
ENDED_RUN_PREFIX = ".mgbpv2-ended-"  # prefix of folders of ended runs, which can be deleted
_ZARR_TEMPORARY_FILE = re.compile(r".*\.[0-9a-f]{32}\.partial")  # temporary files of zarr, which it renames


def provenance_in(read: Callable[[str], bytes]) -> dict[str, Any] | None:
    """Return the provenance that a store of this package records; None for any other store.

    Parameters
    ----------
    read
        Reads a file at the root of the store by its key; raises `OSError` if it is missing.
    """
    for name, inner in (("zarr.json", "attributes"), (".zattrs", None)):
        try:
            found = json.loads(read(name))
            return dict((found[inner] if inner else found)[MARKER])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def write_small(path: Path, content: bytes) -> None:
    """Write a small file atomically and flush it to disk."""
    staged = path.with_name(f"{path.name}.tmp")
    with staged.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Flush the entries of a directory to disk, if the operating system supports it."""
    with suppress(OSError):  # Windows does not open directories
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class StorageBackend(Protocol):
    """Files by their keys. Can be pickled: other processes open the storage themselves."""

    writes_atomically: bool  # whether an existing file is always complete, even after a crash

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def destination(self) -> Destination:
        """Path or address of the finished image."""

    def zarr(self) -> Any:
        """Return a store that zarr accepts."""

    def exists_here(self) -> bool:
        """Return whether this process can access the storage."""

    def size_lookup(self) -> Callable[[str], int | None]:
        """Return a function from a key to the size of its file in bytes, or None if it is missing."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys without a file."""

    def put(self, key: str, content: bytes) -> None:
        """Write a file atomically and durably, if the run that this backend was opened for is still active.

        Raises
        ------
        DestinationError
            The run has ended: another run has taken over, or its output was removed.
        """

    def fsync(self, key: str) -> int:
        """Flush a file to durable storage; return its size in bytes."""

    def read(self, key: str) -> bytes:
        """Read a whole file. Raises `FileNotFoundError` if it is missing."""

    def read_tail(self, key: str, length: int) -> bytes:
        """Read the last ``length`` bytes of a file."""

    def remove(self, keys: Iterable[str]) -> None:
        """Delete files; missing ones are ignored."""

    def remove_temporaries(self) -> None:
        """Delete temporary files of killed processes."""


@dataclass(frozen=True)
class LocalBackend:
    """A local folder.

    A file is first written to the folder of its run, then renamed. If the folder of the run is missing, the rename
    fails. Removing that folder therefore stops all tasks of the run, on every machine and at any point.

    Parameters
    ----------
    path
        The folder.
    run
        Token of the writing run; empty for read-only use.
    """

    path: Path
    run: str = ""
    writes_atomically = False

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def destination(self) -> Path:
        """The folder without the suffix of unfinished output."""
        return self.path.with_suffix("")

    def zarr(self) -> Path:
        """Return the folder."""
        return self.path

    def exists_here(self) -> bool:
        """Return whether this process sees the folder of the run; another machine may have one of the same name."""
        return (self.path / f"{RUN_FOLDER_PREFIX}{self.run}" if self.run else self.path).is_dir()

    def size_lookup(self) -> Callable[[str], int | None]:
        """Return a function that reads the size of a file."""
        return self._size

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys without a file."""
        return [key for key in keys if self._size(key) is None]

    def begin_run(self) -> None:
        """End all earlier runs and start the run named by `run`."""
        self.end_runs()
        (self.path / f"{RUN_FOLDER_PREFIX}{self.run}").mkdir()

    def end_runs(self) -> None:
        """Stop the tasks of all runs from writing here; files in progress are discarded."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self.path):
                if name.startswith(RUN_FOLDER_PREFIX):
                    with suppress(FileNotFoundError):  # tasks can rename their files only while it exists
                        os.rename(self.path / name, self.path / f"{ENDED_RUN_PREFIX}{uuid.uuid4().hex}")
            for name in os.listdir(self.path):
                if name.startswith(ENDED_RUN_PREFIX):
                    shutil.rmtree(self.path / name, ignore_errors=True)

    def put(self, key: str, content: bytes) -> None:
        """Write a file to disk, then rename it if the run has not ended.

        Raises
        ------
        DestinationError
            The run has ended.
        """
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
        """Flush a file to disk; return its size in bytes."""
        with (self.path / key).open("r+b") as opened:
            os.fsync(opened.fileno())
            return os.fstat(opened.fileno()).st_size

    def read(self, key: str) -> bytes:
        """Read a whole file."""
        return (self.path / key).read_bytes()

    def read_tail(self, key: str, length: int) -> bytes:
        """Read the last ``length`` bytes of a file."""
        with (self.path / key).open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - length))
            return opened.read(length)

    def remove(self, keys: Iterable[str]) -> None:
        """Delete files; missing ones are ignored."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)

    def remove_temporaries(self) -> None:
        """Delete temporary files that zarr did not rename."""
        for left in self.path.rglob("*.partial"):
            if _ZARR_TEMPORARY_FILE.fullmatch(left.name):
                left.unlink(missing_ok=True)

    def _size(self, key: str) -> int | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return (self.path / key).stat().st_size
        return None
