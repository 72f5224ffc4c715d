"""OME-Zarr metadata up to version 0.5: axes, units, transforms, channels."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.imaging.axes import AXIS_NAMES
from napari_mgbpv2.io.colour_profiles import fitting_profile
from napari_mgbpv2.io.image import (
    FileArray,
    ImageSource,
    axes_with_override,
    calibrated_axes,
    is_default_channel_name,
    pick,
)
from napari_mgbpv2.io.oriented import FlippedArray
from napari_mgbpv2.io.readers.zarr.pixels import open_array_pixels, open_child, packing_note
from napari_mgbpv2.io.units import long_unit

_AXIS_TYPES = {"time": "t", "channel": "c"}
_OWN_ATTRIBUTE = "napari_mgbpv2"  # provenance of results of this package
_SAMPLE_NAMES = {
    ("red", "green", "blue"), ("r", "g", "b"), ("red", "green", "blue", "alpha"), ("r", "g", "b", "a"),
    ("gray", "alpha"), ("grey", "alpha"),
}  # fmt: skip
_OLD_AXES = "tczyx"  # of OME-Zarr 0.1 and 0.2, which do not store them


def open_multiscale(
    path: str, group: zarr.Group, ome: dict[str, Any], series: int, level: int, axes_override: str | None
) -> ImageSource:
    """Open one level of one of the multiscales of a group.

    Parameters
    ----------
    path
        Path or address of the Zarr.
    group, ome, series
        Result of `image_group`: the group of the image, its OME metadata, and the index of the multiscale.
    level
        Index of the resolution.
    axes_override
        Axes to use if the metadata do not define them, or None.

    Raises
    ------
    SourceError
        The series or level does not exist, or its version or transforms are not supported.
    LookupError, TypeError, ValueError, AttributeError
        The metadata are damaged, see `translate_metadata_errors`.
    """
    multiscale = pick(path, "OME-Zarr", "series", ome["multiscales"], series)
    version = str(ome.get("version") or multiscale.get("version") or "of unknown version")
    if "coordinateSystems" in multiscale:
        raise SourceError(f"{path}: is OME-Zarr {version}, which is too new; convert it to 0.4 or 0.5.")
    dataset = pick(path, "OME-Zarr", "level", multiscale["datasets"], level)
    array = open_child(path, group, dataset["path"])
    data = open_array_pixels(path, array)
    described = _declared_axes(multiscale, data.ndim)
    axes = axes_with_override(axes_override, data.shape, lambda: _ome_axes(path, described, data.ndim))
    scale, offset = _level_transform(path, group, multiscale, dataset, data.shape)
    flipped = tuple(
        number for number, step in enumerate(scale) if -math.inf < step < 0 and axes[number] in calibrated_axes(axes)
    )
    if flipped:
        sizes = data.shape
        data = FlippedArray(data, flipped, (_flipped_pixels, (path, array, flipped)))
        offset = [
            start + step * (size - 1) if step < 0 else start
            for start, step, size in zip(offset, scale, sizes, strict=True)
        ]
        scale = [abs(step) for step in scale]
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
        icc_profile=fitting_profile(_stored_profile(group), data.shape[axes.index("s")] if "s" in axes else 1),
        notes=(*packing_note(path, array), *_flip_note("".join(axes[number] for number in flipped))),
    )


def _flipped_pixels(path: str, array: zarr.Array[Any], flipped: tuple[int, ...]) -> FileArray:
    return FlippedArray(open_array_pixels(path, array), flipped, (_flipped_pixels, (path, array, flipped)))


def _flip_note(axes: str) -> tuple[str, ...]:
    if not axes:
        return ()
    which = f"axis {axes} has" if len(axes) == 1 else f"axes {', '.join(axes)} have"
    return (f"its {which} a negative scale: the pixels are read in the reverse order, at the same position",)


def _stored_profile(group: zarr.Group) -> bytes | None:
    """Return the ICC profile in the attributes of a result of this package, if any."""
    ours = dict(group.attrs).get(_OWN_ATTRIBUTE)
    encoded = ours.get("icc_profile") if isinstance(ours, dict) else None
    try:
        return base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except ValueError:
        return None


def image_group(path: str, group: zarr.Group, series: int) -> tuple[zarr.Group, dict[str, Any], int]:
    """Return the group of an image, its OME metadata, and the index of its multiscale.

    Raises
    ------
    SourceError
        The group is a plate, a well or a label image, or a collection without the series.
    """
    ome = _ome_metadata(group)
    if "plate" in ome:
        raise SourceError(f"{path}: is a plate of many images; give one of them, such as A/1/0 in it.")
    if "multiscales" not in ome:
        if "well" in ome:
            fields = [str(image.get("path")) for image in _list_of(ome["well"], "images")]
            raise SourceError(
                f"{path}: is a well of a plate; give one of its images: {', '.join(fields) or 'the list is empty'}."
            )
        if isinstance(ome.get("labels"), list):
            raise SourceError(f"{path}: holds label images alone ({', '.join(map(str, ome['labels']))}); {_LABELS}")
        if "bioformats2raw.layout" in ome:
            return _image_of_collection(path, group, series)
    refuse_labels(path, group)
    return group, ome, series


_LABELS = (
    "the values are the numbers of objects, which a network would mix: give the image itself, and enlarge labels by "
    "repeating pixels, such as labels.repeat(4, -2).repeat(4, -1)."
)


def refuse_labels(path: str, group: zarr.Group) -> None:
    """Raise `SourceError` if a group is a label image."""
    if "image-label" in _ome_metadata(group):
        raise SourceError(f"{path}: is a label image; {_LABELS}")


def _image_of_collection(path: str, group: zarr.Group, series: int) -> tuple[zarr.Group, dict[str, Any], int]:
    """Return an image of a bioformats2raw collection by its list of paths, or else by its number."""
    listed = group.get("OME")
    names = _list_of(_ome_metadata(listed), "series") if isinstance(listed, zarr.Group) else []
    name = str(pick(path, "collection", "series", names, series)) if names else str(series)
    image = open_child(path, group, name)
    if not isinstance(image, zarr.Group):
        raise SourceError(f"{path}: {name!r} in it is not an image; copy it again.")
    return image, _ome_metadata(image), 0


def _list_of(document: Any, key: str) -> list[Any]:
    """Return a list in metadata that may be damaged, or an empty list."""
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, list) else []


@contextmanager
def translate_metadata_errors(path: str) -> Iterator[None]:
    """Convert the errors that damaged OME metadata cause to a `SourceError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"{path}: its OME-Zarr metadata are damaged ({type(error).__name__}: {error}); write it again."
        ) from error


def _ome_metadata(group: zarr.Group) -> dict[str, Any]:
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)  # 0.5 nests the metadata under this key, 0.4 does not
    return ome if isinstance(ome, dict) else {}


def _declared_axes(multiscale: Mapping[str, Any], ndim: int) -> list[dict[str, Any]]:
    """Return the axes in the form of 0.4 and 0.5. Version 0.3 stores only names, and earlier versions nothing."""
    axes = multiscale.get("axes", _OLD_AXES if ndim == len(_OLD_AXES) else None)
    if axes is None:
        raise KeyError("axes")
    return [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]


def _ome_axes(path: str, described: list[dict[str, Any]], ndim: int) -> str:
    letters = []
    for axis in described:
        name = str(axis["name"]).lower()
        letter = AXIS_NAMES.get(name, name)
        letters.append(letter if letter in set("tzcyxs") else _AXIS_TYPES.get(str(axis.get("type")), name))
    if len(letters) != ndim or len(set(letters)) < ndim or not {"y", "x"} <= set(letters) <= set("tzcyxs"):
        raise SourceError(
            f"{path}: has the axes {letters} for {ndim} dimensions, not t, c, z, y and x; say what they are with axes=."
        )
    return "".join(letters)


def _level_transform(
    path: str, group: zarr.Group, multiscale: Mapping[str, Any], dataset: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """Return the scale and translation of a level along each axis."""
    transforms = [*dataset.get("coordinateTransformations", ()), *multiscale.get("coordinateTransformations", ())]
    if transforms:
        return _compose(path, transforms, len(shape))
    full_shape = open_child(path, group, multiscale["datasets"][0]["path"]).shape
    scale = [full / here for full, here in zip(full_shape, shape, strict=True)]
    return scale, [(step - 1) / 2 for step in scale]  # all levels share one corner


def _placement(
    axes: str, described: Sequence[Mapping[str, Any]], scale: Sequence[float], offset: Sequence[float]
) -> tuple[dict[str, float], dict[str, str | None], dict[str, float]]:
    """Return pixel size, unit and position along each axis that has them."""
    pixel_size, units, translation = {}, {}, {}
    for axis, said, step, start in zip(axes, described, scale, offset, strict=True):
        if axis in calibrated_axes(axes):
            known = 0 < step < math.inf and math.isfinite(start)  # a damaged pixel size does not affect pixels
            pixel_size[axis], translation[axis] = (step, start) if known else (1.0, 0.0)
            units[axis] = long_unit(said.get("unit")) if known else None
    return pixel_size, units, translation


def _compose(path: str, transforms: Sequence[Mapping[str, Any]], ndim: int) -> tuple[list[float], list[float]]:
    """Return the combined scale and translation of consecutive transforms."""
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
    if labels and not all(map(is_default_channel_name, labels)):
        return len(labels) == count and tuple(labels) in _SAMPLE_NAMES
    return count == 3 and colors == ("FF0000", "00FF00", "0000FF")
