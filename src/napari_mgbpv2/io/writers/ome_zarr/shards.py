"""The stored arrays of an image, shard by shard: what any process may write to without knowing of the others.

One call writes one whole shard. Part of a shard would be read, changed and written back, and two that did so to one
shard would lose each other's pixels. A shard is one file; in OME-Zarr 0.4, which has none, it is a block of chunks,
each of them a file.
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
_EMPTY = 2**64 - 1  # in the index of a shard: a chunk that is not there


class DamagedShards(DestinationError):
    """Shards of unfinished work cannot be read as they were written: they are to be made again.

    Attributes
    ----------
    shards
        Level and position of each.
    """

    shards: tuple[tuple[int, Index], ...] = ()


@dataclass(frozen=True)
class ShardStore:
    """The stored arrays of an image. It travels to other processes, which open them for themselves.

    Parameters
    ----------
    storage
        Where they lie.
    layout
        The image.
    """

    storage: StorageBackend
    layout: ImageLayout

    def create(self) -> None:
        """Make all arrays, without pixels. The root says how the image comes to be, but not yet that it is one."""
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
                config={"write_empty_chunks": True},  # a shard without a file is one that was never written
                attributes=attributes if self.layout.format == "zarr" else None,
                **(unsharded if version == 2 else sharded),
            )

    def write(self, region: Region, data: npt.NDArray[Any], level: int = 0) -> StoredShard:
        """Write one whole shard, to where a power cut does not lose it.

        Parameters
        ----------
        region
            One of the layout's `shards`.
        data
            Its pixels, of the region's shape and the layout's dtype.
        level
            Pyramid level.

        Raises
        ------
        DestinationError
            If the run that this store belongs to has ended.
        OSError
            If the disk is full or fails. Of an object store, the errors are obstore's.
        ValueError
            If the region is not one whole shard, or the data does not fit it.
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
        """Write a shard of a further level: the 2 x 2 means of the stored level before.

        Raises
        ------
        DamagedShards
            If something of the level before is not what was written: it is not built into the pyramid.
        DestinationError
            If something of the level before has gone: it would be read as black.
        OSError, ValueError
            As `write` raises them.
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
        """Files of a shard, whether they are there or not."""
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
        """Whether a shard is stored as it was written: of that size, and with a sound index.

        Parameters
        ----------
        shard
            What was written.
        size_of
            What `Storage.sizes` gives.
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
        """Whether the metadata of a level are there."""
        return any(size_of(self._key(level, name)) is not None for name in METADATA)

    def check(self) -> None:
        """Refuse, before hours of work, an image whose metadata OME-Zarr does not allow.

        Raises
        ------
        DestinationError
            It does not.
        """
        if self.layout.format == "zarr":
            return
        files: dict[str, Any] = {}
        trial = replace(self, storage=cast(StorageBackend, _InMemoryBackend(MemoryStore(files))))
        trial.create()
        trial.describe(dict.fromkeys(range(self.layout.channels), (0.25, 0.75)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what should be so, and need not
                validate_documents({key: content.to_bytes() for key, content in files.items()})
        except ValueError as error:
            said = " ".join(str(error).split())
            raise DestinationError(
                f"{self.storage.destination}: OME-Zarr {self.layout.format} does not allow such an image: {said}"
            ) from error

    def describe(self, ranges: Ranges) -> None:
        """Add the metadata that make the store an image.

        Parameters
        ----------
        ranges
            Lowest and highest finite value of a channel, by its number, where known.
        """
        if self.layout.format != "zarr":
            group = zarr.open_group(self.storage.zarr(), mode="r+")
            group.attrs.update(ome_attributes(self.layout, ranges))

    def finish(self, ranges: Ranges) -> None:
        """Add the metadata that make the store an image, and bring them down to the disk. Parameters as `describe`."""
        self.storage.remove_temporaries()
        self.describe(ranges)
        size_of = self.storage.size_lookup()
        folders = {"", *(self._name(level) for level in range(len(self._arrays)))}
        for key in (f"{folder}/{name}".lstrip("/") for folder in folders for name in METADATA):
            if size_of(key) is not None:
                self.storage.fsync(key)

    def check_stored(self) -> None:
        """Refuse unfinished work whose metadata are damaged or those of another image.

        Raises
        ------
        DestinationError
            They are.
        """
        level = ""
        try:
            if provenance_in(self.storage.read) is None:
                raise ValueError("they do not say how the image comes to be")
            for number, array in enumerate(self._arrays):
                level = f" of level {number}"
                layout = self.layout
                shards = None if layout.format == "0.4" else layout.shard_shape(number)
                found = array.shape, array.dtype, array.chunks, array.shards
                if found != (layout.level_shapes()[number], layout.dtype, layout.chunk_shape(number), shards):
                    raise ValueError("they are those of another array")
        except Exception as error:
            if isinstance(error, (OSError, MemoryError)) or is_network_error(error):
                raise
            said = " ".join(str(error).split())[:100] or type(error).__name__
            raise DestinationError(
                f"{self.storage.destination}: the metadata{level} of {self.storage.name} are damaged ({said}), so it "
                f"cannot be resumed; nothing has been touched: move {self.storage.name} away, or ask to overwrite it"
            ) from error

    def levels(self) -> list[Any]:
        """Arrays of all levels, to read."""
        return list(self._arrays)

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "layout": self.layout}

    @cached_property
    def _arrays(self) -> list[zarr.Array[Any]]:
        names = (self._name(level) for level in range(len(self.layout.level_shapes())))
        arrays = [zarr.open_array(self.storage.zarr(), path=name, mode="r+") for name in names]
        return [array.with_config({"write_empty_chunks": True}) for array in arrays]  # not kept in the metadata

    def _encoded(self, region: Region, data: npt.NDArray[Any], level: int) -> dict[str, bytes]:
        """Return the files of a shard; none that is there is read."""
        files: dict[str, Any] = {}
        stored = self._arrays[level]
        path = StorePath(MemoryStore(files), self._name(level))
        metadata, config = cast(Any, stored.metadata), stored.async_array.config
        array: zarr.Array[Any] = zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=path, config=config))
        array[region] = data
        return {key: content.to_bytes() for key, content in files.items()}

    def _read(self, region: Region, level: int, shards: Sequence[Index]) -> npt.NDArray[Any]:
        """Read a region that some shards cover."""
        array = self._arrays[level]
        try:
            return np.asarray(array[region])
        except Exception as error:  # each codec has its own
            if isinstance(error, (OSError, MemoryError)) or is_network_error(error):
                raise
            if damaged := [index for index in shards if not self._is_readable(index, level)]:
                found = DamagedShards(
                    f"{self.storage.destination}: {len(damaged)} shard{'s' * (len(damaged) > 1)} of level {level} of "
                    f"{self.storage.name} cannot be read as written; resuming makes them again"
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
        ):  # colours are shown as they are
            return None, None
        values = data[np.isfinite(data)] if data.dtype.kind == "f" else data
        return (values.min().item(), values.max().item()) if values.size else (None, None)


@dataclass(frozen=True)
class _InMemoryBackend:
    """A store in memory, to try out what will be written."""

    store: MemoryStore

    def zarr(self) -> MemoryStore:
        return self.store


def _compressors(layout: ImageLayout, version: int) -> Any:
    """Return the codecs of a chunk; in shards, the last one is a checksum."""
    name, level, shuffle = _BLOSC.get(layout.codec, ("", 0, ""))
    if version == 2:
        kinds: Mapping[str, int] = {"shuffle": numcodecs.Blosc.SHUFFLE, "bitshuffle": numcodecs.Blosc.BITSHUFFLE}
        return numcodecs.Blosc(cname=name, clevel=level, shuffle=kinds[shuffle]) if name else None
    codecs = [BloscCodec(cname=name, clevel=level, shuffle=shuffle)] if name else []  # type: ignore[arg-type]
    return [*codecs, Crc32cCodec()] if layout.checksums else codecs or None


def has_checksums(array: zarr.Array[Any]) -> bool:
    """Whether each chunk of an array has a checksum."""
    return any(isinstance(codec, Crc32cCodec) for codec in array.compressors)


def index_length(array: zarr.Array[Any]) -> int:
    """Bytes of the index at the end of a shard: 16 a chunk, and a CRC."""
    assert array.shards is not None
    return 16 * int(np.prod(np.floor_divide(array.shards, array.chunks))) + 4


def faults_of_shard(content: bytes, array: zarr.Array[Any]) -> list[str]:
    """Say what is wrong with a shard that this package has written, by its index and checksums; empty if nothing is.

    Parameters
    ----------
    content
        All of the file.
    array
        The array that it is of.
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
    """Check the index of a shard: 16 bytes a chunk, where it starts and how long it is, and a CRC.

    Parameters
    ----------
    stored
        The index, the last bytes of the file.
    end
        Bytes before it, those of the chunks.
    """
    if google_crc32c.value(stored[:-4]) != int.from_bytes(stored[-4:], "little"):
        return False
    index = np.frombuffer(stored[:-4], "<u8").reshape(-1, 2)
    used = index[index[:, 0] != _EMPTY]
    return bool((used.sum(axis=1) <= end).all())


def missing_files_error(storage: StorageBackend, keys: Sequence[str], what: str = "went missing") -> DestinationError:
    """Return the error for files that were written and are not there any more, or not as they were."""
    error = DestinationError(
        f"{storage.destination}: {len(keys)} file{'s' * (len(keys) > 1)} of {storage.name} {what} while it was "
        "written; leave it alone"
    )
    error.__cause__ = FileNotFoundError(keys[0])
    return error
