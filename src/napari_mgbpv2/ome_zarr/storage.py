"""What the files of an unfinished image are written to: here, a folder of a disk. Keys are those of Zarr."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from napari_mgbpv2.addresses import Destination

MARKER = "napari_mgbpv2"  # the attribute that tells our stores from others
ROOTS = ("zarr.json", ".zgroup", ".zarray")  # one of these makes a folder a Zarr
METADATA = (*ROOTS, ".zattrs")
_LEFT_BY_A_KILL = re.compile(r".*\.[0-9a-f]{32}\.partial")  # the names under which zarr writes before it renames


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


class Storage(Protocol):
    """Files by their keys. It travels to other processes, which open it for themselves."""

    writes_whole: bool  # whether a file that is there is all there, whatever happened to who wrote it

    @property
    def name(self) -> str:
        """What people find it under."""

    @property
    def destination(self) -> Destination:
        """Where the finished image is to appear."""

    def zarr(self) -> Any:
        """Return what zarr takes for a store."""

    def is_there(self) -> bool:
        """Whether this process sees it."""

    def sizes(self) -> Callable[[str], int | None]:
        """Return a function that gives the size of a file, in bytes, or None where there is none."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return those of some files that are not there."""

    def settle(self, key: str) -> int:
        """Bring a file to where a power cut does not lose it; return its size."""

    def tail(self, key: str, length: int) -> bytes:
        """Read the last bytes of a file."""

    def remove(self, keys: Iterable[str]) -> None:
        """Delete files that may be there."""

    def tidy(self) -> None:
        """Delete what processes that were killed have left half-written."""

    def metadata_folder(self) -> Any:
        """Open a context with a folder that holds all metadata, under their keys."""


@dataclass(frozen=True)
class Folder:
    """A folder of a disk.

    Parameters
    ----------
    path
        The folder.
    """

    path: Path
    writes_whole = False

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

    def is_there(self) -> bool:
        """Whether this process sees the folder."""
        return self.path.is_dir()

    def sizes(self) -> Callable[[str], int | None]:
        """Return a function that looks at a file."""
        return self._size

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return those of some files that are not there."""
        return [key for key in keys if self._size(key) is None]

    def settle(self, key: str) -> int:
        """Flush a file, which zarr leaves to the system, down to the disk."""
        with (self.path / key).open("r+b") as opened:
            os.fsync(opened.fileno())
            return os.fstat(opened.fileno()).st_size

    def tail(self, key: str, length: int) -> bytes:
        """Read the last bytes of a file."""
        with (self.path / key).open("rb") as opened:
            opened.seek(-length, os.SEEK_END)
            return opened.read(length)

    def remove(self, keys: Iterable[str]) -> None:
        """Delete files that may be there."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Delete the files that zarr has not come to rename."""
        for left in self.path.rglob("*.partial"):
            if _LEFT_BY_A_KILL.fullmatch(left.name):
                left.unlink()

    @contextmanager
    def metadata_folder(self) -> Iterator[Path]:
        """Give the folder."""
        yield self.path

    def _size(self, key: str) -> int | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return (self.path / key).stat().st_size
        return None
