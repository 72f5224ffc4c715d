"""Stored arrays of an image, shard by shard. Several processes may write to them without coordination.

Each call writes one complete shard. A partial write would read, change and write back the shard, and two such writers
could lose each other's pixels. A shard is one file. OME-Zarr 0.4 has no shards: there it is a block of chunks, each in
its own file.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import google_crc32c
import numcodecs  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore, StorePath

from napari_mgbpv2.errors import DestinationError
from napari_mgbpv2.io.storage.backends import MARKER, METADATA, StorageBackend, provenance_in
from napari_mgbpv2.io.storage.journal import Index, StoredShard
from napari_mgbpv2.io.storage.object_stores import is_network_error
from napari_mgbpv2.io.writers.ome_zarr.downsampling import halve, halve_visible
from napari_mgbpv2.io.writers.ome_zarr.layout import ImageLayout, Region
from napari_mgbpv2.io.writers.ome_zarr.metadata import Ranges, ome_attributes
from napari_mgbpv2.io.writers.ome_zarr.validation import validate_documents

SizeOf = Callable[[str], int | None]

_BLOSC = {"zstd": ("zstd", 1, "shuffle"), "lz4": ("lz4", 5, "bitshuffle"), "zstd-9": ("zstd", 9, "shuffle")}
_EMPTY = 2**64 - 1  # index entry of a missing chunk


class DamagedShards(DestinationError):
    """Shards of a partial output are damaged and must be written again.

    Attributes
    ----------
    shards
        Level and position of each damaged shard.
    """

    shards: tuple[tuple[int, Index], ...] = ()


@dataclass(frozen=True)
class ShardStore:
    """The stored arrays of an image. Can be pickled: other processes open the arrays themselves.

    Parameters
    ----------
    storage
        Storage backend of the files.
    layout
        Shape, type and format of the image.
    """

    storage: StorageBackend
    layout: ImageLayout

    def create(self) -> None:
        """Create all arrays without pixels. The root records the provenance, but not yet the image metadata."""
        attributes: dict[str, Any] = {MARKER: dict(self.layout.provenance)}
        version: Literal[2, 3] = 2 if self.layout.format == "0.4" else 3
        if self.layout.format != "zarr":
            zarr.create_group(self.storage.zarr(), zarr_format=version, attributes=attributes)
        for level, shape in enumerate(self.layout.level_shapes()):
            sharded: dict[str, Any] = {
                "shards": self.layout.shard_shape(level),
                "dimension_names": list(self.layout.axes),
            }
            unsharded: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
            zarr.create_array(
                self.storage.zarr(),
                name=self._name(level) or None,
                shape=shape,
                dtype=self.layout.dtype,
                chunks=self.layout.chunk_shape(level),
                compressors=_compressors(self.layout, version),
                fill_value=0,
                zarr_format=version,
                config={"write_empty_chunks": True},  # a missing file then always means that the shard was not written
                attributes=attributes if self.layout.format == "zarr" else None,
                **(unsharded if version == 2 else sharded),
            )

    def write(self, region: Region, data: npt.NDArray[Any], level: int = 0) -> StoredShard:
        """Write one complete shard durably.

        Parameters
        ----------
        region
            Region of the shard, as yielded by `ImageLayout.shards`.
        data
            Pixels with the shape of the region and the dtype of the layout.
        level
            Pyramid level.

        Raises
        ------
        DestinationError
            If the run that this store belongs to has ended.
        OSError
            If the disk is full or fails. Object stores raise the errors of obstore.
        ValueError
            If the region is not one complete shard, or the data does not match it.
        """
        index = self.layout.shard_index(region, level)
        shape = tuple(part.stop - part.start for part in region)
        if data.shape != shape or data.dtype.newbyteorder("=") != self.layout.dtype:
            raise ValueError(f"the shard is {shape} {self.layout.dtype}, its data {data.shape} {data.dtype}")
        size = 0
        for key, content in self._encoded(region, data, level).items():
            self.storage.put(key, content)
            size += len(content)
        low, high = self._range(data) if level == 0 else (None, None)
        return StoredShard(level, index, size, low, high)

    def downsample_shard(self, index: Index, level: int) -> StoredShard:
        """Write a shard of a level above 0 as the 2 x 2 means of the level before it.

        Raises
        ------
        DamagedShards
            If shards of the level before are damaged.
        DestinationError
            If files of the level before are missing, which would be read as black; or if the run has ended.
        OSError
            If the disk is full or fails. Object stores raise the errors of obstore.
        """
        region = self.layout.finer_region(index, level)
        steps = self.layout.shard_shape(level - 1)
        below = [range(part.start // step, -(-part.stop // step)) for part, step in zip(region, steps, strict=True)]
        keys = (key for each in itertools.product(*below) for key in self.keys(each, level - 1))
        if gone := self.storage.missing(keys):
            raise missing_files_error(self.storage, gone)
        pixels = self._read(region, level - 1, [*itertools.product(*below)])
        halved = halve_visible(pixels, self.layout.axes.index("c")) if self.layout.has_alpha else halve(pixels)
        return self.write(self.layout.shard_region(index, level), halved, level)

    def keys(self, index: Index, level: int) -> Iterator[str]:
        """Yield the keys of the files of a shard, existing or not."""
        array = self._arrays[level]
        keys = [range(number, number + 1) for number in index]
        if array.shards is None:
            region = self.layout.shard_region(index, level)
            keys = [
                range(part.start // size, -(-part.stop // size))
                for part, size in zip(region, array.chunks, strict=True)
            ]
        for key in itertools.product(*keys):
            yield self._key(level, array.metadata.encode_chunk_key(key))

    def is_whole(self, shard: StoredShard, size_of: SizeOf) -> bool:
        """Return whether a shard is complete: it has the recorded size and a valid index.

        Parameters
        ----------
        shard
            The recorded shard.
        size_of
            Function from a key to the size of its file in bytes, or None; see `StorageBackend.size_lookup`.
        """
        keys = list(self.keys(shard.index, shard.level))
        sizes = [size_of(key) for key in keys]
        if sum(size or 0 for size in sizes) != shard.size or None in sizes:
            return False
        array = self._arrays[shard.level]
        if array.shards is None or self.storage.writes_atomically:
            return True
        if not has_checksums(array):
            return shard.size >= index_length(array) and _is_sound(
                self.storage.read_tail(keys[0], index_length(array)), shard.size - index_length(array)
            )
        return not faults_of_shard(self.storage.read(keys[0]), array)

    def remove(self, index: Index, level: int) -> None:
        """Delete the files of a shard."""
        self.storage.remove(self.keys(index, level))

    def has_level(self, level: int, size_of: SizeOf) -> bool:
        """Return whether the metadata of a level exist."""
        return any(size_of(self._key(level, name)) is not None for name in METADATA)

    def check(self) -> None:
        """Validate the OME-Zarr metadata of the image before hours of work.

        Raises
        ------
        DestinationError
            If OME-Zarr does not allow them.
        """
        if self.layout.format == "zarr":
            return
        files: dict[str, Any] = {}
        trial = replace(self, storage=cast(StorageBackend, _InMemoryBackend(MemoryStore(files))))
        trial.create()
        trial.describe(dict.fromkeys(range(self.layout.channels), (0.25, 0.75)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # recommendations that are not required
                validate_documents({key: content.to_bytes() for key, content in files.items()})
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise DestinationError(
                f"{self.storage.destination}: OME-Zarr {self.layout.format} does not allow such an image: {reason}"
            ) from error

    def describe(self, ranges: Ranges) -> None:
        """Add the metadata that make the store an image.

        Parameters
        ----------
        ranges
            Lowest and highest finite value of each channel, by its number, if known.
        """
        if self.layout.format != "zarr":
            group = zarr.open_group(self.storage.zarr(), mode="r+")
            group.attrs.update(ome_attributes(self.layout, ranges))

    def finish(self, ranges: Ranges) -> None:
        """Add the metadata that make the store an image, and flush them to disk.

        Parameters
        ----------
        ranges
            Lowest and highest finite value of each channel, by its number, if known.
        """
        self.storage.remove_temporaries()
        self.describe(ranges)
        size_of = self.storage.size_lookup()
        folders = {"", *(self._name(level) for level in range(len(self._arrays)))}
        for key in (f"{folder}/{name}".lstrip("/") for folder in folders for name in METADATA):
            if size_of(key) is not None:
                self.storage.fsync(key)

    def check_stored(self) -> None:
        """Check that the metadata of the partial output are intact and match the layout.

        Raises
        ------
        DestinationError
            If they are damaged, or belong to another image.
        """
        level = ""
        try:
            if provenance_in(self.storage.read) is None:
                raise ValueError("the provenance is missing")
            for number, array in enumerate(self._arrays):
                level = f" of level {number}"
                layout = self.layout
                shards = None if layout.format == "0.4" else layout.shard_shape(number)
                found = array.shape, array.dtype, array.chunks, array.shards
                if found != (layout.level_shapes()[number], layout.dtype, layout.chunk_shape(number), shards):
                    raise ValueError("they belong to another array")
        except Exception as error:
            if isinstance(error, (OSError, MemoryError)) or is_network_error(error):
                raise
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise DestinationError(
                f"{self.storage.destination}: the metadata{level} of {self.storage.name} are damaged ({reason}), so it "
                f"cannot be resumed; nothing was changed: move {self.storage.name} away, or ask to overwrite it"
            ) from error

    def levels(self) -> list[Any]:
        """Return the arrays of all levels."""
        return list(self._arrays)

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "layout": self.layout}

    @cached_property
    def _arrays(self) -> list[zarr.Array[Any]]:
        names = (self._name(level) for level in range(len(self.layout.level_shapes())))
        arrays = [zarr.open_array(self.storage.zarr(), path=name, mode="r+") for name in names]
        return [
            array.with_config({"write_empty_chunks": True}) for array in arrays
        ]  # the metadata do not store this setting

    def _encoded(self, region: Region, data: npt.NDArray[Any], level: int) -> dict[str, bytes]:
        """Return the encoded files of a shard by key, without reading existing ones."""
        files: dict[str, Any] = {}
        stored = self._arrays[level]
        path = StorePath(MemoryStore(files), self._name(level))
        metadata, config = cast(Any, stored.metadata), stored.async_array.config
        array: zarr.Array[Any] = zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=path, config=config))
        array[region] = data
        return {key: content.to_bytes() for key, content in files.items()}

    def _read(self, region: Region, level: int, shards: Sequence[Index]) -> npt.NDArray[Any]:
        """Read a region of a level.

        Raises
        ------
        DamagedShards
            If some of the given shards, which cover the region, cannot be decoded.
        """
        array = self._arrays[level]
        try:
            return np.asarray(array[region])
        except Exception as error:  # codecs raise errors of many types
            if isinstance(error, (OSError, MemoryError)) or is_network_error(error):
                raise
            if damaged := [index for index in shards if not self._is_readable(index, level)]:
                found = DamagedShards(
                    f"{self.storage.destination}: {len(damaged)} shard{'s' * (len(damaged) > 1)} of level {level} of "
                    f"{self.storage.name} are damaged; resuming writes them again"
                )
                found.shards = tuple((level, index) for index in damaged)
                raise found from error
            raise

    def _is_readable(self, index: Index, level: int) -> bool:
        try:
            np.asarray(self._arrays[level][self.layout.shard_region(index, level)])
        except Exception as error:
            if isinstance(error, (OSError, MemoryError)) or is_network_error(error):
                raise
            return False
        return True

    def _name(self, level: int) -> str:
        return "" if self.layout.format == "zarr" else str(level)

    def _key(self, level: int, name: str) -> str:
        return f"{self._name(level)}/{name}".lstrip("/")

    def _range(self, data: npt.NDArray[Any]) -> tuple[float | None, float | None]:
        if (
            "c" not in self.layout.axes or self.layout.colour or self.layout.interleaved
        ):  # colours need no display range
            return None, None
        values = data[np.isfinite(data)] if data.dtype.kind == "f" else data
        return (values.min().item(), values.max().item()) if values.size else (None, None)


@dataclass(frozen=True)
class _InMemoryBackend:
    """A storage backend in memory, for validating metadata."""

    store: MemoryStore

    def zarr(self) -> MemoryStore:
        return self.store


def _compressors(layout: ImageLayout, version: int) -> Any:
    """Return the codecs of a chunk. In Zarr version 3 the last one is a checksum, if the layout has checksums."""
    name, level, shuffle = _BLOSC.get(layout.codec, ("", 0, ""))
    if version == 2:
        kinds: Mapping[str, int] = {"shuffle": numcodecs.Blosc.SHUFFLE, "bitshuffle": numcodecs.Blosc.BITSHUFFLE}
        return numcodecs.Blosc(cname=name, clevel=level, shuffle=kinds[shuffle]) if name else None
    codecs = [BloscCodec(cname=name, clevel=level, shuffle=shuffle)] if name else []  # type: ignore[arg-type]
    return [*codecs, Crc32cCodec()] if layout.checksums else codecs or None


def has_checksums(array: zarr.Array[Any]) -> bool:
    """Return whether each chunk of an array has a checksum."""
    return any(isinstance(codec, Crc32cCodec) for codec in array.compressors)


def index_length(array: zarr.Array[Any]) -> int:
    """Return the bytes of the index at the end of a shard: 16 per chunk, and 4 for a CRC-32C."""
    assert array.shards is not None
    return 16 * int(np.prod(np.floor_divide(array.shards, array.chunks))) + 4


def faults_of_shard(content: bytes, array: zarr.Array[Any]) -> list[str]:
    """Check the index and checksums of a shard of this package; return its faults, one sentence each.

    Parameters
    ----------
    content
        The whole file.
    array
        The array of the shard.
    """
    length = index_length(array)
    if len(content) < length or not _is_sound(content[-length:], len(content) - length):
        return ["its index is damaged, or it is cut short"]
    index = np.frombuffer(content[-length:-4], "<u8").reshape(-1, 2)
    used = index[index[:, 0] != _EMPTY]
    if int(used[:, 1].sum()) != len(content) - length:
        return [f"it has {len(content)} bytes, and its index is of {int(used[:, 1].sum()) + length}"]
    if not has_checksums(array):
        return []
    view = memoryview(content)
    wrong = sum(not _is_checked(view[start : start + count]) for start, count in used.tolist())
    return [f"{wrong} of its {len(used)} chunks {'has' if wrong == 1 else 'have'} a wrong checksum"] if wrong else []


def _is_checked(chunk: memoryview) -> bool:
    return len(chunk) >= 4 and google_crc32c.value(bytes(chunk[:-4])) == int.from_bytes(chunk[-4:], "little")


def _is_sound(stored: bytes, end: int) -> bool:
    """Check the index of a shard: 16 bytes per chunk for its offset and length, and a CRC-32C.

    Parameters
    ----------
    stored
        The index: the last bytes of the file.
    end
        Number of bytes before the index.
    """
    if google_crc32c.value(stored[:-4]) != int.from_bytes(stored[-4:], "little"):
        return False
    index = np.frombuffer(stored[:-4], "<u8").reshape(-1, 2)
    used = index[index[:, 0] != _EMPTY]
    return bool((used.sum(axis=1) <= end).all())


def missing_files_error(storage: StorageBackend, keys: Sequence[str], what: str = "went missing") -> DestinationError:
    """Return the error for written files that are missing or changed."""
    error = DestinationError(
        f"{storage.destination}: {len(keys)} file{'s' * (len(keys) > 1)} of {storage.name} {what} while it was "
        "written; do not change it"
    )
    error.__cause__ = FileNotFoundError(keys[0])
    return error
