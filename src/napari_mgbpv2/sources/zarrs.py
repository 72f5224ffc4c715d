"""Zarr arrays and groups of v2 and v3, and OME-Zarr up to 0.5, in a folder, a .zip, on the network or open already."""

from __future__ import annotations

import itertools
import math
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, ZipStore

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources.finding import ZARR_MARKERS, is_zarr
from napari_mgbpv2.sources.image import (
    FileArray,
    ImageSource,
    Pixels,
    Window,
    bare_source,
    guess_axes,
    only_image,
    pick,
    pixel_dtype,
    placed,
)
from napari_mgbpv2.sources.remote import ZARR_METADATA, RemoteStore, is_of_network, reason_of, remote_store
from napari_mgbpv2.sources.units import long_unit
from napari_mgbpv2.sources.urls import is_url

_AXIS_NAMES = {
    "time": "t", "depth": "z", "plane": "z", "channel": "c", "channels": "c", "ch": "c", "row": "y", "height": "y",
    "column": "x", "col": "x", "width": "x", "sample": "s", "samples": "s", "rgb": "s", "rgba": "s",
}  # fmt: skip
_AXIS_TYPES = {"time": "t", "channel": "c"}
_SAMPLE_NAMES = {("red", "green", "blue"), ("r", "g", "b"), ("red", "green", "blue", "alpha"), ("r", "g", "b", "a")}
_NO_NAME = re.compile(r"(channel|ch|c)?[\s:_\d]*")  # what writers fill in, such as "Channel 0"
_OLD_AXES = "tczyx"  # of OME-Zarr 0.1 and 0.2, which do not say


def open_zarr(path: str, series: int, level: int) -> ImageSource:
    """Open a Zarr array, a group with one array, or an OME-Zarr image.

    Parameters
    ----------
    path
        A folder, a .zip file, or an address on the network.
    series
        Which image of a bioformats2raw collection, or which of several multiscales.
    level
        Which resolution of an OME-Zarr.

    Raises
    ------
    SourceError
        It is no Zarr, its metadata are damaged, it holds several images without saying which, or it is a plate.
    """
    node = _open_node(path)
    if isinstance(node, zarr.Array):
        return _open_array(path, node, f"Zarr v{node.metadata.zarr_format} array", series, level)
    group, ome, series = _image_group(path, node, series)
    if "multiscales" in ome:
        with _telling_of_damage(path):
            return _open_multiscale(path, group, ome, series, level)
    return _open_array(path, _only_array(path, _arrays(path, group)), "Zarr group of one array", series, level)


def open_store(store: object) -> Any:
    """Return the full-resolution array of an image in an open Zarr store, such as the one tifffile makes of a TIFF.

    Parameters
    ----------
    store
        A Zarr store, a group or an array. In a group, it is the first level of the first multiscale, or of levels
        "0", "1", ... that shrink, or the only array.

    Returns
    -------
    zarr.Array
        An array itself is returned as it is.

    Raises
    ------
    SourceError
        It is something else, holds no image or several, or its metadata are damaged.
    """
    where = f"this {type(store).__name__}"
    node: object = store
    if isinstance(store, Store):
        try:
            node = zarr.open(store, mode="r")
        except Exception as error:  # nothing in it, damaged JSON, unknown codecs and data types all end here
            raise SourceError(
                f"{where}: cannot be read as Zarr ({error}); give a store that holds an image."
            ) from error
    if isinstance(node, zarr.Group):
        node = _full_resolution(where, node)
    if not isinstance(node, zarr.Array):
        raise SourceError(f"{where}: is no Zarr store, group or array; open a file by its path instead.")
    pixel_dtype(where, node.dtype)
    return node


def _full_resolution(where: str, node: zarr.Group) -> zarr.Array[Any]:
    group, ome, series = _image_group(where, node, 0)
    if "multiscales" in ome:
        with _telling_of_damage(where):
            multiscale = pick(where, "OME-Zarr", "series", ome["multiscales"], series)
            array = _child(where, group, pick(where, "OME-Zarr", "level", multiscale["datasets"], 0)["path"])
        if not isinstance(array, zarr.Array):
            raise SourceError(f"{where}: its first level is no array; write it again.")
        return array
    arrays = _arrays(where, group)
    levels = [arrays.get(str(number)) for number in range(len(arrays))]
    sizes = [math.prod(level.shape) for level in levels if level is not None]
    if len(sizes) == len(arrays) > 1 and all(finer > coarser for finer, coarser in itertools.pairwise(sizes)):
        return arrays["0"]
    return _only_array(where, arrays)


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
        super().__init__(path, array.shape, array.dtype, reopen=(ZarrArray, (path, array)))
        self._array = array

    def _read(self, window: Window) -> Pixels:
        if self._array.shards is not None and isinstance(self._array.store, LocalStore):
            self._check_shards(window, self._array.shards, self._array.store)
        try:
            return np.asarray(self._array[window], dtype=self.dtype)
        except Exception as error:  # each codec has its own
            advice = "check the network" if is_of_network(error) else "the Zarr is damaged: copy or write it again"
            raise SourceError(
                f"{self.path}: a chunk of {self._array.name} cannot be read ({reason_of(error)}); {advice}."
            ) from error

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


def _open_node(path: str) -> zarr.Array[Any] | zarr.Group:
    store, root = _store_of(path)
    try:
        return zarr.open(store, mode="r", path=root)
    except Exception as error:  # damaged JSON, unknown codecs and data types all end here
        advice = "check the network and try again" if is_of_network(error) else "its metadata are damaged or unknown"
        raise SourceError(f"{path}: cannot be read as Zarr ({reason_of(error)}); {advice}.") from error


def _store_of(path: str) -> tuple[Store, str]:
    """Return the store of a Zarr and the place of its root in it; it pickles by its path or address."""
    if is_url(path):
        return remote_store(path), ""
    if not os.path.isdir(path):
        return ZipStore(path, mode="r"), _root_in_zip(path)
    if not is_zarr(path):
        raise SourceError(f"{path}: is a folder without Zarr metadata; give an image file or the Zarr itself.")
    return LocalStore(path, read_only=True), ""


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


def _image_group(path: str, group: zarr.Group, series: int) -> tuple[zarr.Group, dict[str, Any], int]:
    """Return the group of an image, its OME metadata, and which of the group's multiscales it is."""
    ome = _ome_metadata(group)
    if "plate" in ome:
        raise SourceError(f"{path}: is a plate of many images; give one of them, such as A/1/0 in it.")
    if "bioformats2raw.layout" in ome and "multiscales" not in ome:
        image = _child(path, group, str(series))
        return image, _ome_metadata(image), 0
    return group, ome, series


@contextmanager
def _telling_of_damage(path: str) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"{path}: its OME-Zarr metadata are damaged ({type(error).__name__}: {error}); write it again."
        ) from error


def _arrays(path: str, group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    try:
        return dict(group.arrays())
    except Exception as error:  # the metadata of a member are damaged, or the store does not list members
        if is_of_network(error):
            raise SourceError(
                f"{path}: this Zarr group has no OME metadata, and its server does not list what is in it; "
                "give the address of an array in it."
            ) from error
        raise SourceError(f"{path}: something in it cannot be read as Zarr ({error}); copy it again.") from error


def _only_array(path: str, arrays: Mapping[str, zarr.Array[Any]]) -> zarr.Array[Any]:
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays))
        what = f"several arrays ({names}); give one of them" if arrays else "no array"
        raise SourceError(f"{path}: this Zarr group holds {what}.")
    (array,) = arrays.values()
    return array


def _child(path: str, group: zarr.Group, name: str) -> Any:
    try:
        return group[name]
    except KeyError:
        raise SourceError(f"{path}: nothing is at {name!r} in this Zarr; choose another or copy it again.") from None
    except Exception as error:
        raise SourceError(f"{path}: {name!r} in it cannot be read as Zarr ({error}); copy it again.") from error


def _open_array(path: str, array: zarr.Array[Any], kind: str, series: int, level: int) -> ImageSource:
    only_image(path, kind, series, level)
    data = ZarrArray(path, array)
    return bare_source(data, _named_axes(array) or guess_axes(path, data.shape), path, kind)


def _named_axes(array: zarr.Array[Any]) -> str | None:
    """Return the axes by their names, if all have one that is known."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, Sequence) or len(names) != array.ndim:
        return None
    letters = [_AXIS_NAMES.get(str(name).lower(), str(name).lower()) for name in names]
    distinct = set(letters)
    known = len(distinct) == len(letters) and {"y", "x"} <= distinct <= set("tzcyxs")
    return "".join(letters) if known else None


def _ome_metadata(group: zarr.Group) -> dict[str, Any]:
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)  # 0.5 has a key for it, 0.4 has not
    return ome if isinstance(ome, dict) else {}


def _open_multiscale(path: str, group: zarr.Group, ome: dict[str, Any], series: int, level: int) -> ImageSource:
    multiscale = pick(path, "OME-Zarr", "series", ome["multiscales"], series)
    version = str(ome.get("version") or multiscale.get("version") or "of unknown version")
    if "coordinateSystems" in multiscale:
        raise SourceError(f"{path}: is OME-Zarr {version}, which is too new; convert it to 0.4 or 0.5.")
    dataset = pick(path, "OME-Zarr", "level", multiscale["datasets"], level)
    data = ZarrArray(path, _child(path, group, dataset["path"]))
    described = _described_axes(multiscale, data.ndim)
    axes = _ome_axes(path, described, data.ndim)
    scale, offset = _level_transform(path, group, multiscale, dataset, data.shape)
    pixel_size, units, translation = _placement(axes, described, scale, offset)
    channels = _channels(ome)
    names = _each(channels, "label", str)
    colors = _each(channels, "color", _hex_color)
    count = data.shape[axes.index("c")] if "c" in axes else 1
    if "c" in axes and "s" not in axes and _is_colour_image(count, names, colors):
        axes = axes.replace("c", "s")
    fits = len(channels) == count and "s" not in axes
    return ImageSource(
        data=data,
        axes=axes,
        pixel_size=pixel_size,
        units=units,
        translation=translation,
        channel_names=names if fits else None,
        channel_colors=colors if fits else None,
        path=path,
        kind=f"OME-Zarr {version}",
    )


def _described_axes(multiscale: Mapping[str, Any], ndim: int) -> list[dict[str, Any]]:
    """Return the axes as 0.4 and 0.5 have them; 0.3 has only names, and earlier ones not even that."""
    axes = multiscale.get("axes", _OLD_AXES if ndim == len(_OLD_AXES) else None)
    if axes is None:
        raise KeyError("axes")
    return [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]


def _ome_axes(path: str, described: list[dict[str, Any]], ndim: int) -> str:
    letters = []
    for axis in described:
        name = str(axis["name"]).lower()
        letter = _AXIS_NAMES.get(name, name)
        letters.append(letter if letter in set("tzcyxs") else _AXIS_TYPES.get(str(axis.get("type")), name))
    if len(letters) != ndim or len(set(letters)) < ndim or not {"y", "x"} <= set(letters) <= set("tzcyxs"):
        raise SourceError(f"{path}: has the axes {letters} for {ndim} dimensions; an image has t, c, z, y and x.")
    return "".join(letters)


def _level_transform(
    path: str, group: zarr.Group, multiscale: Mapping[str, Any], dataset: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """Return the scale and translation of a level along each axis."""
    transforms = [*dataset.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())]
    if transforms:
        return _compose(path, transforms, len(shape))
    full_shape = _child(path, group, multiscale["datasets"][0]["path"]).shape
    scale = [full / here for full, here in zip(full_shape, shape, strict=True)]
    return scale, [(step - 1) / 2 for step in scale]  # the levels begin at one corner


def _placement(
    axes: str, described: Sequence[Mapping[str, Any]], scale: Sequence[float], offset: Sequence[float]
) -> tuple[dict[str, float], dict[str, str | None], dict[str, float]]:
    """Return pixel size, unit and position along each axis that has them."""
    pixel_size, units, translation = {}, {}, {}
    for axis, said, step, start in zip(axes, described, scale, offset, strict=True):
        if axis in placed(axes):
            known = 0 < step < math.inf and math.isfinite(start)  # a damaged note on the pixel size spoils no pixel
            pixel_size[axis], translation[axis] = (step, start) if known else (1.0, 0.0)
            units[axis] = long_unit(said.get("unit")) if known else None
    return pixel_size, units, translation


def _compose(path: str, transforms: Sequence[Mapping[str, Any]], ndim: int) -> tuple[list[float], list[float]]:
    """Return the scale and translation of ``transforms`` applied one after the other."""
    scale, translation = np.ones(ndim), np.zeros(ndim)
    for transform in transforms:
        kind = transform["type"]
        if kind == "scale":
            with np.errstate(invalid="ignore"):  # damaged values may be infinite
                scale, translation = scale * transform["scale"], translation * transform["scale"]
        elif kind == "translation":
            translation = translation + transform["translation"]
        elif kind != "identity":
            raise SourceError(f"{path}: has a transform of type {kind!r}; only scale and translation are read.")
    if scale.shape != (ndim,) or translation.shape != (ndim,):
        raise ValueError("a coordinate transform does not fit the axes")
    return scale.tolist(), translation.tolist()


def _channels(ome: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    return channels if isinstance(channels, list) and all(isinstance(channel, dict) for channel in channels) else []


def _each(
    channels: Sequence[Mapping[str, Any]], key: str, convert: Callable[[Any], str | None]
) -> tuple[str, ...] | None:
    """Return ``key`` of each channel, or None unless all have one."""
    values = [convert(channel[key]) if channel.get(key) else None for channel in channels]
    present = tuple(value for value in values if value)
    return present if present and len(present) == len(values) else None


def _hex_color(color: object) -> str | None:
    match = re.fullmatch(r"#?([0-9A-Fa-f]{6})", str(color))
    return match[1].upper() if match else None


def _is_colour_image(count: int, names: tuple[str, ...] | None, colors: tuple[str, ...] | None) -> bool:
    """Tell red, green and blue samples from channels of their own, by their names or, without any, by their colours."""
    labels = [name.strip().lower() for name in names or ()]
    if labels and not all(_NO_NAME.fullmatch(label) for label in labels):
        return len(labels) == count and tuple(labels) in _SAMPLE_NAMES
    return count == 3 and colors == ("FF0000", "00FF00", "0000FF")
