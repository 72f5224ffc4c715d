"""The journal of an unfinished image: what it is to become, and which of its shards are stored.

JSON lines: first the job, then one line a shard, each with a checksum. On a disk they are a file within the unfinished
store, each brought down to the disk before the next one; what a power cut leaves of the last line is ignored. So is a
damaged line between others: its shard is made again. Without a first line nothing is known of the work, and it is left
alone.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import google_crc32c

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import METADATA, RUN_ENDED_MESSAGE, write_small

NAME = ".mgbpv2-journal.jsonl"

Job = Mapping[str, Any]
Index = tuple[int, ...]


@dataclass(frozen=True)
class StoredShard:
    """A shard that has been written.

    Attributes
    ----------
    level, index
        Which one.
    size
        Bytes of its files.
    low, high
        Lowest and highest finite value of a shard of level 0 whose channel is shown with a window of its own; else
        None.
    """

    level: int
    index: Index
    size: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PartialOutput:
    """Unfinished work that can be gone on with.

    Attributes
    ----------
    location
        Where, for people.
    job
        What it is to become.
    shards
        How many are stored.
    """

    location: str
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
        """Start an empty journal, which has its first line as soon as it has its name."""
        write_small(self._path, encode_line(job_line(job)))
        self._file = self._path.open("ab")

    def resume(self) -> list[StoredShard]:
        """Read which shards are stored, and go on behind the last whole line."""
        content = self._path.read_bytes()
        self._file = self._path.open("r+b")
        length = content.rfind(b"\n") + 1
        self._file.truncate(length)
        self._file.seek(length)
        return parse_shards(decode_lines(content)[1:])

    def add(self, shard: StoredShard) -> None:
        """Note a shard, down to the disk."""
        self._write(shard_line(shard))

    def close(self) -> None:
        """Close the file; the journal stays."""
        if self._file is not None:
            with suppress(OSError):  # of a line that could not be written, which has been said
                self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        with self._lock:
            self._file.write(encode_line(line))
            self._file.flush()
            os.fsync(self._file.fileno())
            if not os.fstat(self._file.fileno()).st_nlink:
                raise DestinationError(RUN_ENDED_MESSAGE.format(self._path.parent))


def job_line(job: Job) -> dict[str, Any]:
    """Return the first line of a journal."""
    return {"job": dict(job)}


def shard_line(shard: StoredShard) -> dict[str, Any]:
    """Return the line that notes a shard."""
    return {"level": shard.level, "index": list(shard.index), "stored": [shard.size, shard.low, shard.high]}


def parse_shards(lines: Iterable[Mapping[str, Any]]) -> list[StoredShard]:
    """Read what `shard_line` has written; what is no such line is left out."""
    found = []
    for line in lines:
        try:
            size, low, high = line["stored"]
            found.append(StoredShard(int(line["level"]), tuple(map(int, line["index"])), int(size), low, high))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def encode_line(line: Mapping[str, Any]) -> bytes:
    """Return a line with its checksum."""
    return json.dumps({**line, "crc32c": _checksum(line)}).encode() + b"\n"


def decode_lines(content: bytes) -> list[dict[str, Any]]:
    """Return all lines that are whole and as they were written, the older ones without a checksum among them."""
    found = []
    for text in content.split(b"\n")[:-1]:
        try:
            line = json.loads(text)
            if not isinstance(line, dict) or line.pop("crc32c", None) not in (None, _checksum(line)):
                continue
        except ValueError:
            continue
        if set(line) in ({"job"}, {"level", "index", "stored"}):
            found.append(line)
    return found


def read_partial_output(store: Path) -> PartialOutput | None:
    """Tell what an unfinished store on a disk holds: work that would be lost with it. None where there is none.

    Raises
    ------
    DestinationError
        There is a journal, and it cannot be read, or is damaged: nothing is known of the work, and nothing is to be
        deleted.
    """
    try:
        content = (store / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DestinationError(
            f"{store / NAME} cannot be read ({error.strerror or error}), so it is not known what is done already; "
            f"nothing has been touched: try again, or move {store.name} away"
        ) from error
    if b"\n" not in content and not _has_shards(store):  # killed as it began, by a version before
        return None
    return parse_partial_output(str(store), store / NAME, decode_lines(content))


def parse_partial_output(place: str, journal: Path | str, lines: Sequence[Mapping[str, Any]]) -> PartialOutput | None:
    """Tell what the lines of a journal say. Errors as `read_partial_output` has them."""
    job = lines[0].get("job") if lines else None
    if not isinstance(job, dict):
        raise DestinationError(
            f"{journal} is damaged, so it is not known what is done already; nothing has been touched: "
            f"move {place.rpartition('/')[2]} away to begin anew"
        )
    shards = parse_shards(lines[1:])
    return PartialOutput(place, job, len({(shard.level, shard.index) for shard in shards})) if shards else None


def remove_journal(store: Path) -> None:
    """Delete the journal of a store that has been published since."""
    (store / NAME).unlink(missing_ok=True)


def _has_shards(store: Path) -> bool:
    ours = (*METADATA, ".mgbpv2-")
    return any(not name.startswith(ours) for _, _, files in os.walk(store) for name in files)


def _checksum(line: Mapping[str, Any]) -> int:
    return int(google_crc32c.value(json.dumps(line).encode()))
