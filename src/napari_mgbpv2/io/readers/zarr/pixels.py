"""Pixels of Zarr arrays in folders, .zip files and at addresses, and how to open them."""

from __future__ import annotations

import itertools
import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from napari_mgbpv2.addresses import display_path, is_url
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.io.cf import missing_value, read_packing
from napari_mgbpv2.io.converted import ConvertedArray
from napari_mgbpv2.io.image import FileArray, Pixels, Window
from napari_mgbpv2.io.readers.discovery import ZARR_MARKERS, is_zarr
from napari_mgbpv2.io.readers.zarr.remote import ZARR_METADATA, RemoteStore, remote_store
from napari_mgbpv2.io.readers.zarr.stores import FolderStore, ZipFileStore, codec_names
from napari_mgbpv2.io.storage.object_stores import is_network_error, redacted, short_reason


class ZarrArray(FileArray):
    """Lazy pixels of a Zarr array; missing chunks have the fill value.

    Parameters
    ----------
    path
        Path or address, for messages.
    array
        The array; its pickle stores its location.

    Raises
    ------
    SourceError
        The array has no pixels, or they are not numbers.
    """

    def __init__(self, path: str, array: zarr.Array[Any]) -> None:
        super().__init__(path, array.shape, array.dtype, (ZarrArray, (path, array)), read_nodata(array))
        self._array = array
        if isinstance(array.store, (FolderStore, ZipFileStore)):
            metadata: dict[str, Any] = dict(array.metadata.to_dict())
            itemsize = array.dtype.itemsize
            described = metadata.get("codecs") or [metadata.get("compressor"), *(metadata.get("filters") or ())]
            chunk, stored = math.prod(array.chunks), math.prod(array.shards or array.chunks)
            index = 16 * (stored // chunk)  # bytes of the index of a shard
            array.store.limits.add(array.path, stored * itemsize + index, stored * itemsize, codec_names(described))

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk in pixels; the chunks of a shard are decoded separately."""
        return tuple(self._array.chunks)

    def _read(self, window: Window) -> Pixels:
        if self._array.shards is not None and isinstance(self._array.store, LocalStore):
            self._check_shards(window, self._array.shards, self._array.store)
        try:
            return np.asarray(self._array[window], dtype=self.dtype)
        except SourceError:  # refused by the store
            raise
        except Exception as error:  # codecs raise errors of many types
            advice = "check the network" if is_network_error(error) else "the Zarr is damaged: copy or write it again"
            raise SourceError(
                f"{self.path}: a chunk of {self._array.name} cannot be read ({short_reason(error)}); {advice}."
            ) from redacted(error)

    def identity(self) -> dict[str, Any]:
        """Return the file part of `ImageSource.fingerprint`, as a JSON-able dict."""
        store = self._array.store
        return store.identity(self.path, self._folders()) if isinstance(store, RemoteStore) else super().identity()

    def _files(self) -> Iterable[str]:
        store = self._array.store
        if not isinstance(store, LocalStore):
            return [self.path]
        files = (store.root / folder / name for folder in self._folders() for name in ZARR_METADATA)
        return [str(file) for file in files if file.exists()]

    def _folders(self) -> list[str]:
        """Return the folders of the array's metadata in the store: its own and its ancestors, up to the root ""."""
        parts = self._array.path.split("/") if self._array.path else []
        return ["/".join(parts[:count]) for count in range(len(parts) + 1)]

    def _check_shards(self, window: Window, shards: tuple[int, ...], store: LocalStore) -> None:
        """Refuse empty files, which a power cut may leave; some versions of zarr read them as fill values."""
        touched = [range(part.start // size, -(-part.stop // size)) for part, size in zip(window, shards, strict=True)]
        for index in itertools.product(*touched):
            file = store.root / self._array.path / self._array.metadata.encode_chunk_key(index)
            if file.exists() and file.stat().st_size == 0:
                raise SourceError(f"{file}: this shard is empty, the Zarr is damaged: copy or write it again.")


def read_nodata(array: zarr.Array[Any]) -> float | None:
    """Return the value of missing pixels from the attributes, or from the fill value if xarray wrote the array.

    In Zarr version 2, xarray stores ``_FillValue`` as the fill value of the array. A fill value of 0 is the default of
    other writers, so it counts only for packed values.
    """
    attributes = dict(array.attrs)
    found = missing_value(attributes)
    if found is not None or array.metadata.zarr_format != 2 or "_ARRAY_DIMENSIONS" not in attributes:
        return found
    fill, packed = array.metadata.fill_value, {"scale_factor", "add_offset"} & set(attributes)
    return missing_value({"_FillValue": fill}) if fill is not None and (packed or fill != 0) else None


def open_array_pixels(path: str, array: zarr.Array[Any]) -> FileArray:
    """Return the pixels of a Zarr array, unpacked if CF attributes declare packed values.

    Raises
    ------
    SourceError
        The array has no pixels, or they are not numbers.
    """
    stored = ZarrArray(path, array)
    packing = read_packing(path, dict(array.attrs)) if stored.dtype.kind in "uif" else None
    if packing is None:
        return stored
    missing, line = stored.nodata, packing  # float pixels are NaN already
    return ConvertedArray(
        stored,
        lambda values: line.unpack(values, missing),
        packing.dtype_for(stored.dtype),
        (open_array_pixels, (path, array)),
    )


def packing_note(path: str, array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return a sentence on unpacked values; empty if values are not packed."""
    packing = read_packing(path, dict(array.attrs)) if np.dtype(array.dtype).kind in "uif" else None
    if packing is None:
        return ()
    return (
        f"its {array.dtype} values are packed (scale_factor {packing.factor:.10g}, add_offset {packing.offset:.10g}) "
        f"and are read as {packing.dtype_for(array.dtype)}",
    )


def open_node(path: str) -> zarr.Array[Any] | zarr.Group:
    """Open the root of a Zarr in a folder, in a .zip file or at an address.

    Raises
    ------
    SourceError
        The path is not a Zarr, its metadata are damaged, or it cannot be read.
    """
    store, root = _open_file_store(path)
    try:
        node = zarr.open(store, mode="r", path=root)
        if isinstance(node, zarr.Group) and not isinstance(store, RemoteStore):
            # consolidated metadata may be outdated; they are worth that risk only on a network
            return zarr.open_group(store, mode="r", path=root, use_consolidated=False)
        return node
    except SourceError:  # refused by the store
        raise
    except Exception as error:  # from damaged JSON, unknown codecs and data types
        advice = "check the network and try again" if is_network_error(error) else "its metadata are damaged or unknown"
        raise SourceError(
            f"{display_path(path)}: cannot be read as Zarr ({short_reason(error)}); {advice}."
        ) from redacted(error)


def _open_file_store(path: str) -> tuple[Store, str]:
    """Return the store of a Zarr and the path of its root in the store."""
    if is_url(path):
        return remote_store(path), ""
    if not os.path.isdir(path):
        return ZipFileStore(path, mode="r"), _root_in_zip(path)
    if not is_zarr(path):
        raise SourceError(f"{path}: is a folder without Zarr metadata; give an image file or the Zarr itself.")
    return FolderStore(path, read_only=True), ""


def _root_in_zip(path: str) -> str:
    """Return the folder of the Zarr inside a .zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            roots = [os.path.dirname(name) for name in archive.namelist() if os.path.basename(name) in ZARR_MARKERS]
    except Exception as error:  # damaged files may look like unsupported kinds of .zip
        raise SourceError(f"{path}: cannot be read as .zip ({error}); copy or download it again.") from error
    if not roots:
        raise SourceError(
            f"{path}: this .zip does not hold a Zarr; give a .zip of a Zarr, or unpack it and give an image."
        )
    return min(roots, key=len)


def list_arrays(path: str, group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of a group by name.

    Raises
    ------
    SourceError
        An array cannot be read, or the server does not list the group.
    """
    try:
        return dict(group.arrays())
    except Exception as error:  # the metadata of a member are damaged, or the store does not list members
        if is_network_error(error):
            raise SourceError(
                f"{path}: this Zarr group has no OME metadata, and its server does not list its members; "
                "give the address of an array in it."
            ) from redacted(error)
        raise SourceError(f"{path}: something in it cannot be read as Zarr ({error}); copy it again.") from error


def only_array(path: str, group: zarr.Group, arrays: Mapping[str, zarr.Array[Any]]) -> zarr.Array[Any]:
    """Return the image among the arrays of a group: the only one that is not a coordinate of another.

    Raises
    ------
    SourceError
        The number of images is not one; the message lists the members of the group.
    """
    images = {name: array for name, array in arrays.items() if array.ndim >= 2}
    named = {each for array in images.values() for each in _coordinate_names(array)}
    chosen = {name: array for name, array in images.items() if name not in named} or images or dict(arrays)
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    if chosen:
        raise SourceError(
            f"{path}: this Zarr group holds several arrays ({', '.join(sorted(chosen))}); give one of them."
        )
    groups = _groups_in(group)
    holds = f"no array but the groups {', '.join(groups)}: give one of them" if groups else "no array"
    raise SourceError(f"{path}: this Zarr group holds {holds}.")


def _coordinate_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the names of the coordinates of an array that xarray wrote."""
    values = (array.attrs.get(name) for name in ("coordinates", "grid_mapping"))
    return tuple(name for text in values if isinstance(text, str) for name in text.split())


def _groups_in(group: zarr.Group) -> list[str]:
    try:
        return sorted(group.group_keys())
    except Exception:  # the store does not list its members, or one of them is damaged
        return []


def open_child(path: str, group: zarr.Group, name: str) -> Any:
    """Open a member of a group by its path.

    Raises
    ------
    SourceError
        The member is missing or damaged.
    """
    try:
        return group[name]
    except KeyError:
        raise SourceError(f"{path}: nothing is at {name!r} in this Zarr; choose another or copy it again.") from None
    except Exception as error:
        raise SourceError(f"{path}: {name!r} in it cannot be read as Zarr ({error}); copy it again.") from error


def parent_group(array: zarr.Array[Any]) -> zarr.Group | None:
    """Return the group of an array, even if the array was opened by its own folder; None without a group."""
    store, path = array.store, array.path
    if not path and isinstance(store, LocalStore):
        folder = store.root.resolve()
        if not is_zarr(str(folder.parent)):
            return None
        store, path = FolderStore(str(folder.parent), read_only=True), folder.name
    if not path:
        return None
    try:
        return zarr.open_group(store, mode="r", path=path.rpartition("/")[0], use_consolidated=False)
    except Exception:  # missing or damaged metadata of the group spoil no pixel of the array
        return None
