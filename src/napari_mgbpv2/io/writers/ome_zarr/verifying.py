"""Verification of finished Zarr images by their metadata, file sizes, checksums and pixels."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_mgbpv2.addresses import Destination
from napari_mgbpv2.io.storage.backends import LocalBackend, StorageBackend, provenance_in
from napari_mgbpv2.io.storage.local_transaction import PUBLISHING
from napari_mgbpv2.io.storage.object_store_backend import HIDDEN, ObjectStoreBackend
from napari_mgbpv2.io.writers.ome_zarr.downsampling import is_half
from napari_mgbpv2.io.writers.ome_zarr.layout import SMALLEST
from napari_mgbpv2.io.writers.ome_zarr.shards import SizeOf, faults_of_shard, has_checksums, index_length
from napari_mgbpv2.io.writers.ome_zarr.validation import validate_folder

_AT_ONCE = 4  # files that are read at once
_MOST_LINES = 1000  # faults that are listed per level
_BLOSC_HEADER = 16  # bytes; the last four hold the size of the chunk


def faults_in_zarr(destination: Destination, *, thorough: bool = True) -> Iterator[str]:
    """Yield the faults of a finished image of this package, one line each.

    Parameters
    ----------
    destination
        Folder or address.
    thorough
        Whether to read all pixels: check their checksums, decode them, and compare each level with the means of the one
        before it. Otherwise only the existence and size of files are checked.
    """
    storage: StorageBackend = (
        LocalBackend(destination) if isinstance(destination, Path) else ObjectStoreBackend(destination)
    )
    try:
        provenance = provenance_in(storage.read if isinstance(storage, LocalBackend) else _reader(destination))
        if provenance is None:
            yield _missing_result_reason(destination, storage)
            return
        arrays = yield from _levels(destination, provenance)
        size_of, keys = storage.size_lookup(), set()
        for number, array in enumerate(arrays):
            faults = _faults_of_level(number, array, storage, size_of, thorough=thorough)
            found = list(itertools.islice(faults, _MOST_LINES + 1))
            yield from (line for _, line in found[:_MOST_LINES])
            if len(found) > _MOST_LINES:
                yield f"level {number}: and more"
            keys |= {(number, index) for index, _ in found}
        if thorough:
            yield from _faults_of_pyramid(arrays, keys)
    except OSError as error:
        yield f"it cannot be read ({error.strerror or error})"


def describe(destination: Destination) -> str:
    """Summarise the levels, files and checksums of an intact image in words."""
    levels = _levels(destination, {})
    while True:
        try:
            next(levels)
        except StopIteration as end:
            arrays: list[zarr.Array[Any]] = end.value
            break
    files = sum(
        math.prod(-(-size // step) for size, step in zip(array.shape, array.shards or array.chunks, strict=True))
        for array in arrays
    )
    checked = "with checksums" if all(map(has_checksums, arrays)) else "without checksums"
    return f"{len(arrays)} level{'s' * (len(arrays) != 1)}, {files:,} file{'s' * (files != 1)} {checked}"


def _reader(url: Any) -> Any:
    return lambda key: ObjectStoreBackend(url).find(key) or b""


def _missing_result_reason(destination: Destination, storage: StorageBackend) -> str:
    if isinstance(destination, Path):
        if not destination.exists():
            beside = destination.with_name(f"{destination.name}.partial")
            return f"only unfinished work exists, {beside.name}" if beside.exists() else "it does not exist"
        if (destination / PUBLISHING).exists() or destination.name.endswith(".partial"):
            return "it is unfinished work"
    elif storage.exists_here():
        return f"only unfinished work exists, below {HIDDEN}/"
    return "its metadata are damaged, or it is not a result of this package"


def _levels(destination: Destination, provenance: dict[str, Any]) -> Generator[str, None, list[zarr.Array[Any]]]:
    """Open all levels: yield the faults of their metadata, and return the arrays."""
    store: Any = destination if isinstance(destination, Path) else ObjectStoreBackend(destination).finished()
    try:
        root: Any = zarr.open(store, mode="r")
    except Exception as error:  # damaged metadata cause errors of many types
        yield f"its metadata cannot be read ({_short_message(error)})"
        return []
    names: list[str] = [""]
    if isinstance(root, zarr.Group):
        try:
            attributes: Any = dict(root.attrs)
            names = [str(each["path"]) for each in attributes.get("ome", attributes)["multiscales"][0]["datasets"]]
        except (KeyError, IndexError, TypeError) as error:
            yield f"its OME metadata are damaged (no {error})"
            return []
        yield from _faults_of_schema(destination)
    arrays: list[zarr.Array[Any]] = []
    for name in names:
        try:
            array = root if isinstance(root, zarr.Array) else root[name]
            if not isinstance(array, zarr.Array):
                raise TypeError("it is not an array")
            arrays.append(array)
        except Exception as error:
            yield f"level {name}: its metadata cannot be read ({_short_message(error)})"
            return arrays
    yield from _faults_of_shapes(arrays, provenance)
    return arrays


def _faults_of_schema(destination: Destination) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(destination, Path):
                validate_folder(destination)
            else:
                with ObjectStoreBackend(destination).metadata_folder() as folder:
                    validate_folder(folder)
    except Exception as error:  # damaged metadata cause errors of many types
        yield f"its metadata are not valid OME-Zarr metadata ({_short_message(error)})"


def _faults_of_shapes(arrays: Sequence[zarr.Array[Any]], provenance: dict[str, Any]) -> Iterator[str]:
    """Compare the shapes of levels with each other and with the provenance."""
    output = provenance.get("output", {})
    for number, (finer, coarser) in enumerate(itertools.pairwise(arrays), 1):
        expected = (*finer.shape[:-2], *(-(-size // 2) for size in finer.shape[-2:]))
        if coarser.shape != expected or coarser.dtype != finer.dtype:
            yield f"level {number}: it is {coarser.shape} {coarser.dtype}, and not {expected} {finer.dtype}"
    try:
        first = arrays[0]
        if output and (sorted(output["shape"]) != sorted(first.shape) or output["dtype"] != str(first.dtype)):
            yield f"level 0: it is {first.shape} {first.dtype}, and was to be {output['shape']} {output['dtype']}"
        if output and output["format"] != "zarr":
            natural = ((max(first.shape[-2:]) - 1) // SMALLEST).bit_length() + 1
            if len(arrays) != (output["levels"] or natural):
                yield f"it has {len(arrays)} levels, and was to have {output['levels'] or natural}"
    except (KeyError, TypeError, AttributeError) as error:
        yield f"its provenance is damaged (no {error})"


def _faults_of_level(
    number: int, array: zarr.Array[Any], storage: StorageBackend, size_of: SizeOf, *, thorough: bool
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the faults of the files of a level, each with the position of the file."""
    shape = array.shards or array.chunks
    counts = [-(-size // step) for size, step in zip(array.shape, shape, strict=True)]
    prefix = f"{array.path}/".lstrip("/")

    def look(index: tuple[int, ...]) -> tuple[tuple[int, ...], list[str]]:
        key = prefix + array.metadata.encode_chunk_key(index)
        size = size_of(key)
        if size is None:
            return index, [f"{key} is missing"]
        return index, [f"{key}: {fault}" for fault in _faults_of_file(key, size, index, array, storage, thorough)]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        indices = itertools.product(*map(range, counts))
        while some := list(itertools.islice(indices, 64)):  # in batches: there may be hundreds of thousands
            for index, faults in pool.map(look, some):
                yield from ((index, line) for line in faults)


def _faults_of_file(
    key: str, size: int, index: tuple[int, ...], array: zarr.Array[Any], storage: StorageBackend, thorough: bool
) -> list[str]:
    if not thorough and storage.writes_atomically:
        return [] if size else ["it is empty"]
    try:
        if array.shards is None:
            return _faults_of_chunk(key, size, array, storage)
        if not thorough:
            length = index_length(array)
            ending = storage.read_tail(key, length)
            return _faults_of_size(ending, size, array)
        content = storage.read(key)
        return faults_of_shard(content, array) or _faults_of_count(content, index, array)
    except FileNotFoundError:
        return ["it is missing"]
    except OSError as error:
        return [f"it cannot be read ({error.strerror or error})"]


def _faults_of_size(ending: bytes, size: int, array: zarr.Array[Any]) -> list[str]:
    """Check that the index of a shard matches the size of its file."""
    if len(ending) < index_length(array):
        return ["it is cut short"]
    used = np.frombuffer(ending[:-4], "<u8").reshape(-1, 2)
    used = used[used[:, 0] != 2**64 - 1]
    with np.errstate(over="ignore"):
        expected = int(used[:, 1].sum()) + len(ending)
    return [] if expected == size else [f"it has {size} bytes, and not {expected}"]


def _faults_of_count(content: bytes, index: tuple[int, ...], array: zarr.Array[Any]) -> list[str]:
    """Check that no chunk is missing, which readers would show as black."""
    assert array.shards is not None
    stored = np.frombuffer(content[-index_length(array) : -4], "<u8").reshape(-1, 2)
    count = int((stored[:, 0] != 2**64 - 1).sum())
    parts = zip(index, array.shape, array.shards, array.chunks, strict=True)
    expected = math.prod(-(-min(shard, size - at * shard) // chunk) for at, size, shard, chunk in parts)
    return [] if count == expected else [f"it has {count} chunks, and not {expected}"]


def _faults_of_chunk(key: str, size: int, array: zarr.Array[Any], storage: StorageBackend) -> list[str]:
    """Check the size of a chunk in its own file, without a checksum."""
    if not array.compressors:
        expected = math.prod(array.chunks) * array.dtype.itemsize
    else:
        header = storage.read(key)[:_BLOSC_HEADER]
        expected = int.from_bytes(header[12:16], "little") if len(header) == _BLOSC_HEADER else -1
    return (
        [] if expected == size else [f"it has {size} bytes, and not {expected}" if expected >= 0 else "it is cut short"]
    )


def _faults_of_pyramid(arrays: Sequence[zarr.Array[Any]], known: set[tuple[int, Any]]) -> Iterator[str]:
    """Decode all pixels and compare each level with the means of the one before it."""
    damaged = {level for level, _ in known}
    for number, array in enumerate(arrays):
        if number in damaged:
            continue  # already reported
        step = array.shards or array.chunks
        finer = arrays[number - 1] if number and number - 1 not in damaged else None
        for region in _regions(array.shape, step):
            try:
                pixels = np.asarray(array[region])
                if finer is None or finer.shape[:-2] != array.shape[:-2]:
                    continue
                above = (*region[:-2], *(slice(2 * part.start, 2 * part.stop) for part in region[-2:]))
                before = np.asarray(finer[above])
            except Exception as error:  # codecs raise errors of many types
                yield f"level {number}: the pixels {_format_region(region)} cannot be decoded ({_short_message(error)})"
                continue
            if not is_half(pixels, before):
                where = _format_region(region)
                yield f"level {number}: the pixels {where} are not the means of those of level {number - 1}"


def _regions(shape: Sequence[int], step: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    counts = [range(0, size, each) for size, each in zip(shape, step, strict=True)]
    for starts in itertools.product(*counts):
        yield tuple(
            slice(start, min(start + each, size)) for start, each, size in zip(starts, step, shape, strict=True)
        )


def _format_region(region: Sequence[slice]) -> str:
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in region) + "]"


def _short_message(error: BaseException) -> str:
    """Shorten the message of a library error to one line."""
    return " ".join(str(error).split())[:150] or type(error).__name__
