"""The journal of an unfinished image: what it is to become, and which of its shards are stored.

JSON lines: first the job, then one line a shard. On a disk they are a file within the unfinished store, each brought
down to the disk before the next one; what a power cut leaves of the last line is ignored.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.ome_zarr.shards import StoredShard

NAME = ".mgbpv2-journal.jsonl"

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """Unfinished work that can be gone on with.

    Attributes
    ----------
    place
        Where, for people.
    job
        What it is to become.
    shards
        How many are stored.
    """

    place: str
    job: Job
    shards: int


class Journal(Protocol):
    """A journal that can be opened; several threads may add to it."""

    def begin(self, job: Job) -> None:
        """Start an empty one."""

    def resume(self) -> list[StoredShard]:
        """Read which shards are stored, and go on behind them."""

    def add(self, shard: StoredShard) -> None:
        """Note a shard."""

    def close(self) -> None:
        """End; the journal stays."""


class FileJournal:
    """A journal on a disk.

    Parameters
    ----------
    store
        The unfinished store.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / NAME
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None

    def begin(self, job: Job) -> None:
        """Start an empty journal."""
        self._file = self._path.open("xb")
        self._write(line_of_job(job))

    def resume(self) -> list[StoredShard]:
        """Read which shards are stored, and go on behind the last whole line."""
        _, lines, length = _read(self._path)
        self._file = self._path.open("r+b")
        self._file.truncate(length)
        self._file.seek(length)
        return [shard_in(line) for line in lines]

    def add(self, shard: StoredShard) -> None:
        """Note a shard, down to the disk."""
        self._write(line_of(shard))

    def close(self) -> None:
        """Close the file; the journal stays."""
        if self._file is not None:
            self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        with self._lock:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            if not os.fstat(self._file.fileno()).st_nlink:
                raise DestinationError(f"{self._path.parent} was removed while it was written; begin again")


def line_of_job(job: Job) -> dict[str, Any]:
    """Return the first line of a journal."""
    return {"job": dict(job)}


def line_of(shard: StoredShard) -> dict[str, Any]:
    """Return the line that notes a shard."""
    return {"level": shard.level, "index": list(shard.index), "stored": [shard.size, shard.low, shard.high]}


def shard_in(line: Mapping[str, Any]) -> StoredShard:
    """Read what `line_of` has written."""
    return StoredShard(line["level"], tuple(line["index"]), *line["stored"])


def kept_in(store: Path) -> Kept | None:
    """Tell what an unfinished store on a disk holds: work that would be lost with it. None where there is none."""
    try:
        job, lines, _ = _read(store / NAME)
        return Kept(str(store), job, len(lines)) if lines else None
    except (OSError, ValueError, KeyError, TypeError):  # no journal, or one that says nothing yet
        return None


def remove_journal(store: Path) -> None:
    """Delete the journal of a store that has been published since."""
    (store / NAME).unlink(missing_ok=True)


def lines_in(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return all whole lines, and their length in bytes; all behind a torn line is redone."""
    lines: list[dict[str, Any]] = []
    length = 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
        except ValueError:
            break
        length += len(line)
    return lines, length


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Return the job, the lines of shards, and the length of all whole lines in bytes."""
    lines, length = lines_in(path.read_bytes())
    return dict(lines[0]["job"]) if lines else {}, lines[1:], length
