"""The journal of a partial output: the job, and the shards that are stored.

The format is JSON lines: the job first, then one line per shard, each with a checksum. On a local disk the journal is a
file inside the unfinished store, and each line is flushed before the next one is written. Incomplete and damaged lines
of shards are ignored, and those shards are computed again. Without a valid first line the partial output is unknown; it
is refused and left untouched.
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
    """A stored shard.

    Attributes
    ----------
    level, index
        Pyramid level, and position of the shard along each axis.
    size
        Size of its files in bytes.
    low, high
        Lowest and highest finite value of a level 0 shard whose channel has its own display range; else None.
    """

    level: int
    index: Index
    size: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PartialOutput:
    """Partial output that can be resumed.

    Attributes
    ----------
    location
        Path or address, for messages.
    job
        The recorded job.
    shards
        Number of stored shards.
    """

    location: str
    job: Job
    shards: int


class Journal(Protocol):
    """A journal of stored shards. `add` is thread-safe."""

    def begin(self, job: Job) -> None:
        """Start an empty journal."""

    def resume(self) -> list[StoredShard]:
        """Read the stored shards, and append from then on."""

    def add(self, shard: StoredShard) -> None:
        """Append a shard."""

    def close(self) -> None:
        """Close the journal without deleting it."""


class FileJournal:
    """A journal on a local disk.

    Parameters
    ----------
    store
        Folder of the unfinished store.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / NAME
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None

    def begin(self, job: Job) -> None:
        """Start a journal; the file appears together with its first line."""
        write_small(self._path, encode_line(job_line(job)))
        self._file = self._path.open("ab")

    def resume(self) -> list[StoredShard]:
        """Read the stored shards, and append after the last complete line."""
        content = self._path.read_bytes()
        self._file = self._path.open("r+b")
        length = content.rfind(b"\n") + 1
        self._file.truncate(length)
        self._file.seek(length)
        return parse_shards(decode_lines(content)[1:])

    def add(self, shard: StoredShard) -> None:
        """Append a shard and flush it to disk."""
        self._write(shard_line(shard))

    def close(self) -> None:
        """Close the file without deleting it."""
        if self._file is not None:
            with suppress(OSError):  # a failed write has already been reported
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
    """Return the first line of a journal, which records the job."""
    return {"job": dict(job)}


def shard_line(shard: StoredShard) -> dict[str, Any]:
    """Return the journal line of a shard."""
    return {"level": shard.level, "index": list(shard.index), "stored": [shard.size, shard.low, shard.high]}


def parse_shards(lines: Iterable[Mapping[str, Any]]) -> list[StoredShard]:
    """Parse lines made by `shard_line`; skip all others."""
    found = []
    for line in lines:
        try:
            size, low, high = line["stored"]
            found.append(StoredShard(int(line["level"]), tuple(map(int, line["index"])), int(size), low, high))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def encode_line(line: Mapping[str, Any]) -> bytes:
    """Encode a line with its checksum."""
    return json.dumps({**line, "crc32c": _checksum(line)}).encode() + b"\n"


def decode_lines(content: bytes) -> list[dict[str, Any]]:
    """Decode all complete, undamaged lines. Lines without a checksum, from earlier versions, are accepted."""
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
    """Return the partial output in an unfinished local store; None if no shard is stored.

    Raises
    ------
    DestinationError
        The journal cannot be read or is damaged. Nothing must be deleted then.
    """
    try:
        content = (store / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DestinationError(
            f"{store / NAME} cannot be read ({error.strerror or error}), so finished shards are unknown; "
            f"nothing was changed: try again, or move {store.name} away"
        ) from error
    if b"\n" not in content and not _has_shards(store):  # an earlier version was killed as it started
        return None
    return parse_partial_output(str(store), store / NAME, decode_lines(content))


def parse_partial_output(place: str, journal: Path | str, lines: Sequence[Mapping[str, Any]]) -> PartialOutput | None:
    """Return the partial output that journal lines describe; None if no shard is stored.

    Raises
    ------
    DestinationError
        The first line is missing or damaged.
    """
    job = lines[0].get("job") if lines else None
    if not isinstance(job, dict):
        raise DestinationError(
            f"{journal} is damaged, so finished shards are unknown; nothing was changed: "
            f"move {place.rpartition('/')[2]} away to start again"
        )
    shards = parse_shards(lines[1:])
    return PartialOutput(place, job, len({(shard.level, shard.index) for shard in shards})) if shards else None


def remove_journal(store: Path) -> None:
    """Delete the journal of a published store."""
    (store / NAME).unlink(missing_ok=True)


def _has_shards(store: Path) -> bool:
    ours = (*METADATA, ".mgbpv2-")
    return any(not name.startswith(ours) for _, _, files in os.walk(store) for name in files)


def _checksum(line: Mapping[str, Any]) -> int:
    return int(google_crc32c.value(json.dumps(line).encode()))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe in words how two jobs differ; empty if they are equal."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        words = name.replace("_", " ") if name.isidentifier() else name  # other names are paths
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = differences(old, new)
            found += [f"{words}: {inner}"] if inner else []
        elif old != new:
            found.append(f"{words} was {_short(old)} and is {_short(new)}")
    return "; ".join(found)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
