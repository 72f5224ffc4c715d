"""The journal of an unfinished image: what it is to become, and which of its shards are on the disk.

A file of JSON lines within the unfinished store: first the job, then one line a shard, each brought down to the disk
before the next one. What a power cut leaves of the last line is ignored.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.ome_zarr.shards import StoredShard

NAME = ".mgbpv2-journal.jsonl"

Job = Mapping[str, Any]


class Journal:
    """An open journal; several threads may add to it.

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
        self._write({"job": dict(job)})

    def resume(self) -> list[StoredShard]:
        """Read which shards are stored, and go on behind the last whole line."""
        _, lines, length = _read(self._path)
        self._file = self._path.open("r+b")
        self._file.truncate(length)
        self._file.seek(length)
        return [StoredShard(line["level"], tuple(line["index"]), *line["stored"]) for line in lines]

    def add(self, shard: StoredShard) -> None:
        """Note a shard, down to the disk."""
        stored = [shard.size, shard.low, shard.high]
        self._write({"level": shard.level, "index": list(shard.index), "stored": stored})

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


def job_in(store: Path) -> dict[str, Any] | None:
    """Return the job of an unfinished store; None where there is no journal, or one that says nothing yet."""
    try:
        return _read(store / NAME)[0]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def count_shards(store: Path) -> int:
    """Count the shards that an unfinished store holds: work that would be lost with it."""
    try:
        return len(_read(store / NAME)[1])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def remove_journal(store: Path) -> None:
    """Delete the journal of a store that has been published since."""
    (store / NAME).unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Return the job, the lines of shards, and the length of all whole lines in bytes."""
    content = path.read_bytes()
    lines: list[dict[str, Any]] = []
    length = 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn")
            lines.append(json.loads(line))
        except ValueError:  # all behind a torn line is redone
            break
        length += len(line)
    return dict(lines[0]["job"]) if lines else {}, lines[1:], length
