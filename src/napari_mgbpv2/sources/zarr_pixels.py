"""The pixels of a Zarr array, wherever it lies, and how to get at it."""

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

from napari_mgbpv2.addresses import is_url, shown
from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.object_stores import is_of_network, reason_of, redacted
from napari_mgbpv2.sources.finding import ZARR_MARKERS, is_zarr
from napari_mgbpv2.sources.image import FileArray, Pixels, Window
from napari_mgbpv2.sources.remote import ZARR_METADATA, RemoteStore, remote_store
from napari_mgbpv2.sources.zarr_stores import FolderStore, ZipFileStore, codec_names


class ZarrArray(FileArray):
    """The pixels of a Zarr array; chunks that were never written have its fill value.

    Parameters
    ----------
    path
        Where it is, for messages.
    array
        The array; it pickles by its place.

    Raises
    ------
    SourceError
        It has no pixels, or they are no numbers.
    """

    def __init__(self, path: str, array: zarr.Array[Any]) -> None:
        super().__init__(path, array.shape, array.dtype, (ZarrArray, (path, array)), _nodata(array))
        self._array = array
        bounds = getattr(array.store, "bounds", None)
        if bounds is not None:
            metadata: dict[str, Any] = dict(array.metadata.to_dict())
            itemsize = array.dtype.itemsize
            described = metadata.get("codecs") or [metadata.get("compressor"), *(metadata.get("filters") or ())]
            chunk, stored = math.prod(array.chunks), math.prod(array.shards or array.chunks)
            index = 16 * (stored // chunk)  # of a shard
            bounds.add(array.path, stored * itemsize + index, stored * itemsize, codec_names(described))

    @property
    def piece_shape(self) -> tuple[int, ...]:
        """Pixels of a chunk; those of a shard are decoded one by one."""
        return tuple(self._array.chunks)

    def _read(self, window: Window) -> Pixels:
        if self._array.shards is not None and isinstance(self._array.store, LocalStore):
            self._check_shards(window, self._array.shards, self._array.store)
        try:
            return np.asarray(self._array[window], dtype=self.dtype)
        except SourceError:  # a chunk that was refused
            raise
        except Exception as error:  # each codec has its own
            advice = "check the network" if is_of_network(error) else "the Zarr is damaged: copy or write it again"
            raise SourceError(
                f"{self.path}: a chunk of {self._array.name} cannot be read ({reason_of(error)}); {advice}."
            ) from redacted(error)

    def identity(self) -> dict[str, Any]:
        """What the pixels come from, as `ImageSource.fingerprint` tells it."""
        store = self._array.store
        return store.identity(self.path, self._folders()) if isinstance(store, RemoteStore) else super().identity()

    def _files(self) -> Iterable[str]:
        store = self._array.store
        if not isinstance(store, LocalStore):
            return [self.path]
        files = (store.root / folder / name for folder in self._folders() for name in ZARR_METADATA)
        return [str(file) for file in files if file.exists()]

    def _folders(self) -> list[str]:
        """Return where in the store the array's metadata are: its folder, and those above up to the root, ""."""
        parts = self._array.path.split("/") if self._array.path else []
        return ["/".join(parts[:count]) for count in range(len(parts) + 1)]

    def _check_shards(self, window: Window, shards: tuple[int, ...], store: LocalStore) -> None:
        """Refuse empty files, as a power cut leaves them; some versions of zarr read them as fill values."""
        touched = [range(part.start // size, -(-part.stop // size)) for part, size in zip(window, shards, strict=True)]
        for index in itertools.product(*touched):
            file = store.root / self._array.path / self._array.metadata.encode_chunk_key(index)
            if file.exists() and file.stat().st_size == 0:
                raise SourceError(f"{file}: this shard is empty, the Zarr is damaged: copy or write it again.")


def _nodata(array: zarr.Array[Any]) -> float | None:
    """Return the value of missing pixels, where the attributes say one as CF, xarray and GDAL do."""
    for name in ("_FillValue", "missing_value", "nodata"):
        said = array.attrs.get(name)
        if isinstance(said, (int, float)) and not isinstance(said, bool):
            return float(said)
    return None


def open_node(path: str) -> zarr.Array[Any] | zarr.Group:
    """Open what is at the root of the Zarr in a folder, a .zip file or at an address.

    Raises
    ------
    SourceError
        It is no Zarr, its metadata are damaged, or it cannot be read.
    """
    store, root = _store_of(path)
    try:
        return zarr.open(store, mode="r", path=root)
    except SourceError:  # a document that was refused
        raise
    except Exception as error:  # damaged JSON, unknown codecs and data types all end here
        advice = "check the network and try again" if is_of_network(error) else "its metadata are damaged or unknown"
        raise SourceError(f"{shown(path)}: cannot be read as Zarr ({reason_of(error)}); {advice}.") from redacted(error)


def _store_of(path: str) -> tuple[Store, str]:
    """Return the store of a Zarr and the place of its root in it; it pickles by its path or address."""
    if is_url(path):
        return remote_store(path), ""
    if not os.path.isdir(path):
        return ZipFileStore(path, mode="r"), _root_in_zip(path)
    if not is_zarr(path):
        raise SourceError(f"{path}: is a folder without Zarr metadata; give an image file or the Zarr itself.")
    return FolderStore(path, read_only=True), ""


def _root_in_zip(path: str) -> str:
    """Return the folder of the Zarr in a .zip, which may hold it below a folder of its own."""
    try:
        with zipfile.ZipFile(path) as archive:
            roots = [os.path.dirname(name) for name in archive.namelist() if os.path.basename(name) in ZARR_MARKERS]
    except Exception as error:  # damage may look like a kind of .zip that Python does not know
        raise SourceError(f"{path}: cannot be read as .zip ({error}); copy or download it again.") from error
    if not roots:
        raise SourceError(f"{path}: this .zip holds no Zarr; give a .zip of a Zarr, or unpack it and give an image.")
    return min(roots, key=len)


def arrays_in(path: str, group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of a group by their names; raises `SourceError` if they cannot be read or listed."""
    try:
        return dict(group.arrays())
    except Exception as error:  # the metadata of a member are damaged, or the store does not list members
        if is_of_network(error):
            raise SourceError(
                f"{path}: this Zarr group has no OME metadata, and its server does not list what is in it; "
                "give the address of an array in it."
            ) from redacted(error)
        raise SourceError(f"{path}: something in it cannot be read as Zarr ({error}); copy it again.") from error


def only_array(path: str, arrays: Mapping[str, zarr.Array[Any]]) -> zarr.Array[Any]:
    """Return the array; raises `SourceError` if there is none or more than one."""
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays))
        what = f"several arrays ({names}); give one of them" if arrays else "no array"
        raise SourceError(f"{path}: this Zarr group holds {what}.")
    (array,) = arrays.values()
    return array


def child_of(path: str, group: zarr.Group, name: str) -> Any:
    """Return what is at ``name`` in a group; raises `SourceError` if nothing is, or it is damaged."""
    try:
        return group[name]
    except KeyError:
        raise SourceError(f"{path}: nothing is at {name!r} in this Zarr; choose another or copy it again.") from None
    except Exception as error:
        raise SourceError(f"{path}: {name!r} in it cannot be read as Zarr ({error}); copy it again.") from error
