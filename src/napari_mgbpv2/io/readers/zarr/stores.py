"""Read-only stores for untrusted Zarrs in folders and .zip files, limited to the sizes in their metadata.

A Zarr may hold links to other files of the machine, pipes, devices, and files that decompress to huge sizes. They are
refused before they are read.
"""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.storage import LocalStore, ZipStore

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.formatting import format_bytes

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
LARGEST_METADATA = 16 * 2**20  # bytes per document; JSON takes up to 30 times as much in memory
_SLACK = 2**20  # bytes that a codec may add to incompressible data
_STEP_BYTES = 2**20  # bytes per decompression step


class SizeLimits:
    """Size limits of the chunks in a store, compressed and decompressed, according to the metadata."""

    def __init__(self) -> None:
        self._limits: dict[str, tuple[int, int, frozenset[str]]] = {}

    def add(self, folder: str, stored: int, unpacked: int, codecs: frozenset[str]) -> None:
        """Add an array.

        Parameters
        ----------
        folder
            Path in the store; "" for the root.
        stored, unpacked
            Bytes of the pixels in one file, and in one block that is decompressed as a whole.
        codecs
            Names of its codecs.
        """
        self._limits[folder] = stored, unpacked, codecs

    def check_size(self, where: str, key: str, size: int) -> None:
        """Refuse a file that is larger than its array or a metadata document can be."""
        most = LARGEST_METADATA
        if key.rpartition("/")[2] not in METADATA:
            found = self._find(key)
            if found is None:
                return
            most = 2 * found[0] + _SLACK
        if size > most:
            raise SourceError(
                f"{where}: {key} would take {format_bytes(size)}, more than the {format_bytes(most)} that it can "
                "have by its metadata; it is damaged or made to fill the memory, and was not read."
            )

    def check_content(self, where: str, key: str, content: Callable[[], Any]) -> None:
        """Refuse a compressed chunk that exceeds the size in its metadata when decompressed."""
        found = self._find(key)
        if found is None or key.rpartition("/")[2] in METADATA or not found[2]:
            return
        _, most, codecs = found
        if unpacks_to_more(content(), most + _SLACK, codecs):
            raise SourceError(
                f"{where}: the chunk {key} unpacks to more than the {format_bytes(most)} of its metadata; it is "
                "damaged or made to fill the memory, and was not read."
            )

    def _find(self, key: str) -> tuple[int, int, frozenset[str]] | None:
        found = [folder for folder in self._limits if not folder or key.startswith(f"{folder}/")]
        return self._limits[max(found, key=len)] if found else None


def unpacks_to_more(content: Any, most: int, codecs: frozenset[str]) -> bool:
    """Return whether compressed bytes decompress to more than ``most`` bytes, without decompressing all of them.

    Parameters
    ----------
    content
        Compressed bytes.
    most
        Largest allowed number of decompressed bytes.
    codecs
        Zarr names of the codecs of the array.
    """
    start = bytes(content[:18])
    if "blosc" in codecs and len(start) >= 16 and int.from_bytes(start[4:8], "little") > most:
        return True
    if "lz4" in codecs and len(start) >= 4 and int.from_bytes(start[:4], "little") > most:
        return True
    if "zstd" in codecs and start.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd_exceeds(content, start, most)
    unpackers: dict[str, tuple[tuple[bytes, ...], Callable[[], Any]]] = {
        "gzip": ((b"\x1f\x8b",), lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
        "zlib": ((b"\x78",), zlib.decompressobj),
        "bz2": ((b"BZh",), bz2.BZ2Decompressor),
        "lzma": ((b"\xfd7zXZ\0", b"\x5d\0\0"), lambda: lzma.LZMADecompressor(memlimit=2**28)),
    }
    for name, (magics, unpacker) in unpackers.items():
        if name in codecs and start.startswith(magics):
            return _stream_exceeds(content, unpacker, most)
    return False


def _zstd_exceeds(content: Any, start: bytes, most: int) -> bool:
    """Compare the size in the zstd frame header; without one, decompress up to the limit."""
    flags = start[4]
    single, kind = bool(flags & 0x20), flags >> 6
    length = (1 if single else 0, 2, 4, 8)[kind]
    if length:
        begin = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
        size = int.from_bytes(start[begin : begin + length], "little") + (256 if length == 2 else 0)
        return size > most
    from numcodecs.zstd import decompress  # type: ignore[import-untyped, unused-ignore]

    try:
        decompress(bytes(content), np.empty(most, "u1"))
    except (RuntimeError, ValueError):  # too large or damaged
        return True
    return False


def _stream_exceeds(content: Any, unpacker: Callable[[], Any], most: int) -> bool:
    """Decompress in steps and count the bytes, over all concatenated streams."""
    rest, total = bytes(content), 0
    try:
        while rest:
            stream = unpacker()
            piece = stream.decompress(rest, _STEP_BYTES)
            while True:
                total += len(piece)
                if total > most:
                    return True
                if stream.eof:
                    rest = stream.unused_data
                    break
                tail = getattr(stream, "unconsumed_tail", b"")
                if not piece and not tail:
                    return False  # truncated: the codec reports it
                piece = stream.decompress(tail, _STEP_BYTES)
    except (zlib.error, OSError, EOFError, lzma.LZMAError):  # the codec reports the damage
        return False
    return False


class FolderStore(LocalStore):
    """A Zarr in a folder; links that lead out of the folder are refused."""

    def __init__(self, root: Any, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)
        self.limits = SizeLimits()

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value, or None if it is missing."""
        self._check(key, whole=byte_range is None)
        value = await super().get(key, prototype, byte_range)
        if value is not None:
            self.limits.check_content(str(self.root), key, value.to_bytes)
        return value

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value, or None if it is missing."""
        self._check(key, whole=byte_range is None)
        value = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        if value is not None:
            self.limits.check_content(str(self.root), key, value.to_bytes)
        return value

    def _check(self, key: str, *, whole: bool) -> None:
        path = self.root / key
        try:
            status = path.stat()
        except OSError:  # missing: zarr handles it
            return
        if stat.S_ISDIR(status.st_mode):
            return
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{path}: is a pipe or a device, not a file, and was not read.")
        root, real = os.path.realpath(self.root), os.path.realpath(path)
        if os.path.commonpath([root, real]) != root:
            raise SourceError(
                f"{path}: leads out of the Zarr, to {real}, and was not read; copy the Zarr with what links lead to."
            )
        if whole:
            self.limits.check_size(str(self.root), key, status.st_size)


class ZipFileStore(ZipStore):
    """A Zarr in a .zip; entries that exceed the sizes in the metadata are refused."""

    def __init__(self, path: Any, **options: Any) -> None:
        super().__init__(path, **options)
        self.limits = SizeLimits()

    def _get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if not self._is_open:
            self._sync_open()
        try:
            size = self._zf.getinfo(key).file_size
        except KeyError:
            return None
        self.limits.check_size(str(self.path), key, size)
        value = super()._get(key, prototype, byte_range)
        if value is not None:
            self.limits.check_content(str(self.path), key, value.to_bytes)
        return value


def codec_names(described: Iterable[Any]) -> frozenset[str]:
    """Return the names of the codecs in Zarr v2 or v3 metadata, including those inside shards."""
    names: set[str] = set()
    for codec in described:
        if not isinstance(codec, dict):
            continue
        name = str(codec.get("name") or codec.get("id") or "")
        names.add(name.removeprefix("numcodecs."))
        inner = codec.get("configuration")
        if isinstance(inner, dict):
            names |= codec_names([*(inner.get("codecs") or ()), *(inner.get("index_codecs") or ())])
    return frozenset(names)
