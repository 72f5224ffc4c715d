"""Directories (IFDs) of a TIFF, read as bytes: their number, and whether all describe pages of one layout.

tifffile creates an object per page, which takes about ten seconds for 100,000 pages, and unpacks each list of tiles
into Python integers. This module compares directories as bytes, and checks counts before anything is unpacked.
"""

from __future__ import annotations

import itertools
import mmap
import os
import stat
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.image import truncated_file_error

MOST_SEGMENTS = 8_000_000  # tiles or strips per page; tifffile takes 100 bytes for each
_MOST_TAGS = 4096
_IMAGE_DESCRIPTION = 270
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_SEGMENT_TAGS = (_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES)
_SUB_IFDS = 330
# Tags that determine the layout or meaning of pixels: subfile type, size, bits, compression, photometric, fill
# order, orientation, samples, rows per strip, planar configuration, predictor, palette, tile size, SubIFDs, extra
# samples, sample format, JPEG tables, subsampling, black and white, depth, GDAL_NODATA.
_DECISIVE = (
    254, 255, 256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 320, 322, 323, 330, 338, 339, 347, 512, 530, 532,
    32997, 32998, 42113,
)  # fmt: skip
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_DECISIVE_BYTES = 4096  # per tag, such as a palette
_BLOCK = 16_384  # directories per comparison


@dataclass(frozen=True)
class Directories:
    """The directories of the main chain of a TIFF.

    Attributes
    ----------
    offsets
        Byte offset of each directory.
    complete
        Whether the chain ends within the file.
    uniform
        Whether all pages have the same size, type and layout, no SubIFDs, and a description only in the first page.
    data_offsets
        Offset of the only strip or tile of each page, or None if pages have several.
    """

    offsets: npt.NDArray[np.int64]
    complete: bool
    uniform: bool
    data_offsets: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class _Format:
    """Sizes of the parts of a directory in classic TIFF or BigTIFF, in either byte order."""

    order: str
    big: bool

    @property
    def head(self) -> int:
        return 8 if self.big else 2

    @property
    def entry(self) -> np.dtype[Any]:
        count = self.order + ("u8" if self.big else "u4")
        value = f"V{self.inline}"
        return np.dtype([("code", self.order + "u2"), ("type", self.order + "u2"), ("count", count), ("value", value)])

    @property
    def inline(self) -> int:
        """Bytes of an offset, and of a value that is stored in its tag."""
        return 8 if self.big else 4

    def integer(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self.order == "<" else "big")

    def integers(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.ascontiguousarray(values).view(f"{self.order}u{self.inline}")


def read_directories(path: str) -> Directories:
    """Read the chain of directories of a TIFF.

    Raises
    ------
    SourceError
        The file cannot be read or is not a TIFF, or a page has too many tiles or strips.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _directories(path, content)
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check that it is there.") from error
    except ValueError as error:  # empty
        raise truncated_file_error(path, "it has no content") from error


def check_regular(path: str) -> None:
    """Refuse anything but regular files: opening a pipe or a device may block forever.

    Raises
    ------
    SourceError
        The path is missing, or not a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check that it is there.") from error
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path}: is not a regular file; give an image file.")


def first_description(path: str) -> bytes | None:
    """Return the ImageDescription of the first page of a file, if it has one and is a TIFF."""
    try:
        check_regular(path)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            form = _format(content)
            if form is None:
                return None
            entries = _entries(content, form, _first(content, form))
            if entries is None:
                return None
            for entry in entries[entries["code"] == _IMAGE_DESCRIPTION]:
                return _value(content, form, entry)
    except (SourceError, OSError, ValueError):
        return None
    return None


def _format(content: mmap.mmap) -> _Format | None:
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        return None
    version = int.from_bytes(content[2:4], "little" if order == "<" else "big")
    return _Format(order, version == 43) if version in (42, 43) else None


def _first(content: mmap.mmap, form: _Format) -> int:
    return form.integer(content[8:16] if form.big else content[4:8])


def _tag_count(content: mmap.mmap, form: _Format, offset: int) -> int | None:
    """Return the number of tags of a directory; None if the directory is not within the file."""
    if not 8 <= offset <= len(content) - form.head:
        return None
    count = form.integer(content[offset : offset + form.head])
    end = offset + form.head + count * form.entry.itemsize
    return count if count <= _MOST_TAGS and end <= len(content) else None


def _entries(content: mmap.mmap, form: _Format, offset: int) -> npt.NDArray[Any] | None:
    count = _tag_count(content, form, offset)
    if count is None:
        return None
    start = offset + form.head
    return np.frombuffer(content[start : start + count * form.entry.itemsize], form.entry)


def _value(content: mmap.mmap, form: _Format, entry: Any) -> bytes:
    size = _TYPE_BYTES.get(int(entry["type"]), 1) * int(entry["count"])
    inline = bytes(entry["value"])
    if size <= len(inline):
        return inline[:size]
    start = form.integer(inline)
    return content[start : start + size]


def _directories(path: str, content: mmap.mmap) -> Directories:
    form = _format(content)
    if form is None:
        raise SourceError(f"{path}: cannot be read as TIFF; it is damaged or cut short: copy or export it again.")
    offsets, counts, complete = _chain(content, form)
    if not offsets.size:
        raise truncated_file_error(path, "its list of pages leads beyond its end")
    alike: dict[int, bytes] | None = None
    uniform = True
    starts: list[npt.NDArray[np.int64]] | None = []
    # The first page often has more tags than the others, and is compared separately.
    for begin, end in [(0, 1), *((i, min(i + _BLOCK, offsets.size)) for i in range(1, offsets.size, _BLOCK))]:
        # Runs have the same number of tags, so their directories can be compared and checked at once.
        for part in _runs(counts, begin, end):
            entries = _gather(content, form, offsets[part], int(counts[part.start]))
            _check_segments(path, content, entries)
            if len(entries) == 1:
                _check_announced(path, form, entries)
            if not uniform:
                continue
            found = _decisive(content, form, entries, first=part.start == 0)
            uniform = found is not None and (alike is None or found == alike)
            alike = found
            if uniform and starts is not None:
                own = _single_starts(form, entries)
                starts = None if own is None else [*starts, own]
    data_offsets = np.concatenate(starts) if uniform and starts else None
    return Directories(offsets, complete, uniform, data_offsets)


def _runs(counts: npt.NDArray[np.int64], begin: int, end: int) -> list[slice]:
    """Split a range of directories into runs with the same number of tags."""
    cuts = [begin, *(begin + 1 + np.flatnonzero(np.diff(counts[begin:end]))).tolist(), end]
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def _chain(content: mmap.mmap, form: _Format) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], bool]:
    """Return the offset and number of tags of each directory, and whether the chain ends."""
    head = struct.Struct(form.order + ("Q" if form.big else "H"))
    link = struct.Struct(form.order + ("Q" if form.big else "I"))
    offsets, counts, seen, size = [], [], set(), form.entry.itemsize
    offset, complete = _first(content, form), True
    try:
        while offset and offset not in seen:  # like tifffile, end a circular chain
            (count,) = head.unpack_from(content, offset)
            if count > _MOST_TAGS or offset < 8:
                raise struct.error("not a directory")
            (following,) = link.unpack_from(content, offset + head.size + count * size)
            seen.add(offset)
            offsets.append(offset)
            counts.append(count)
            offset = following
    except (struct.error, OverflowError):  # beyond the end
        complete = False
    return np.array(offsets, np.int64), np.array(counts, np.int64), complete


def _gather(content: mmap.mmap, form: _Format, offsets: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
    """Return the tags of directories with ``count`` tags each, one row per directory."""
    size = count * form.entry.itemsize
    starts = (offsets + form.head).tolist()
    joined = b"".join([content[start : start + size] for start in starts])
    return np.frombuffer(joined, form.entry).reshape(len(starts), count)


def _check_segments(path: str, content: mmap.mmap, entries: npt.NDArray[Any]) -> None:
    """Refuse lists of tiles or strips that exceed the file, or the supported number."""
    chosen = entries[np.isin(entries["code"], _SEGMENT_TAGS)]
    if not chosen.size:
        return
    longest = chosen[np.argmax(chosen["count"])]
    count = int(longest["count"])
    if count * _TYPE_BYTES.get(int(longest["type"]), 1) > len(content):
        raise truncated_file_error(path, f"a page lists {count:,} tiles or strips, more than the file has bytes for")
    if count > MOST_SEGMENTS:
        raise SourceError(
            f"{path}: a page has {count:,} tiles or strips, and at most {MOST_SEGMENTS:,} are read; "
            "save it with larger ones."
        )


def _check_announced(path: str, form: _Format, entries: npt.NDArray[Any]) -> None:
    """Refuse a page whose size requires too many tiles or strips, even if fewer are listed."""
    flat = entries.reshape(-1)

    def values(code: int) -> npt.NDArray[np.int64]:
        found = flat[(flat["code"] == code) & (flat["count"] == 1)]
        sizes = np.array([_TYPE_BYTES.get(int(kind), 0) for kind in found["type"]], np.int64)
        raw = [value.tobytes()[:size] for value, size in zip(found["value"], sizes, strict=True)]
        return np.array([min(form.integer(each), 2**62) for each in raw], np.int64)

    height, width = (int(values(code).max(initial=0)) for code in (257, 256))
    rows, length, across = (int(values(code).min(initial=2**62)) for code in (278, 323, 322))
    down = -(-height // max(1, min(rows, length)))
    count = down * max(1, -(-width // max(1, across)))
    if count > MOST_SEGMENTS:
        raise SourceError(
            f"{path}: a page announces {count:,} tiles or strips, and at most {MOST_SEGMENTS:,} are read; "
            "save it with larger ones."
        )


def _decisive(content: mmap.mmap, form: _Format, entries: npt.NDArray[Any], *, first: bool) -> dict[int, bytes] | None:
    """Return the decisive tags that all directories share; None if they differ, or do not form a plain stack."""
    codes = entries["code"]
    if (codes != codes[0]).any():
        return None
    columns = {int(code): number for number, code in enumerate(codes[0])}
    if _SUB_IFDS in columns or (_IMAGE_DESCRIPTION in columns and not first):
        return None
    found = {}
    for code in _DECISIVE:
        if code not in columns:
            continue
        column = entries[:, columns[code]]
        kind, count = int(column["type"][0]), int(column["count"][0])
        size = _TYPE_BYTES.get(kind, 1) * count
        if (column["type"] != kind).any() or (column["count"] != count).any() or size > _MOST_DECISIVE_BYTES:
            return None
        inline = form.integers(column["value"])
        if size > form.inline:
            values = {content[start : start + size] for start in inline.tolist()}
        else:
            values = {int(value).to_bytes(form.inline, "little") for value in np.unique(inline)}
        if len(values) != 1:
            return None
        found[code] = values.pop()
    return found


def _single_starts(form: _Format, entries: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
    """Return the offset of the only segment of each page, or None if a page has several."""
    row = entries[0]["code"]
    for code in (_STRIP_OFFSETS, _TILE_OFFSETS):
        for number in np.flatnonzero(row == code):
            column = entries[:, number]
            kind = _TYPE_BYTES.get(int(column["type"][0]), 0)
            if (column["count"] != 1).any() or kind not in (2, 4, 8) or (column["type"] != column["type"][0]).any():
                return None
            values = np.ascontiguousarray(column["value"]).view(f"{form.order}u{kind}").reshape(len(column), -1)
            return values[:, 0].astype(np.int64)
    return None
