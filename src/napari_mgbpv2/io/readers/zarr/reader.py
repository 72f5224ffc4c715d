"""Zarr arrays and groups of v2 and v3, and OME-Zarr up to 0.5, in a folder, a .zip, on the network, or already open."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import zarr
from zarr.abc.store import Store

from napari_mgbpv2.addresses import display_path
from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.imaging.axes import axes_from_names, dimension_names
from napari_mgbpv2.io.image import (
    ImageSource,
    axes_with_override,
    check_single_image,
    guess_axes,
    pick,
    pixel_dtype,
    source_without_metadata,
)
from napari_mgbpv2.io.readers.zarr.grids import read_grid
from napari_mgbpv2.io.readers.zarr.ome_metadata import (
    image_group,
    open_multiscale,
    refuse_labels,
    translate_metadata_errors,
)
from napari_mgbpv2.io.readers.zarr.pixels import (
    list_arrays,
    only_array,
    open_array_pixels,
    open_child,
    open_node,
    packing_note,
    parent_group,
)


def open_zarr(path: str, series: int, level: int, axes_override: str | None) -> ImageSource:
    """Open a Zarr array, a group with one array, or an OME-Zarr image.

    Parameters
    ----------
    path
        A folder, a .zip file, or an address on the network.
    series
        Index of the image in a bioformats2raw collection, or of the multiscale.
    level
        Index of the resolution in an OME-Zarr.
    axes_override
        Axes to use if the metadata do not define them, or None.

    Raises
    ------
    SourceError
        The path is not a Zarr, its metadata are damaged, it is a plate, or it holds several images.
    """
    node = open_node(path)
    path = display_path(path)  # from here on only used in messages and records
    if isinstance(node, zarr.Array):
        return _open_array(path, node, f"Zarr v{node.metadata.zarr_format} array", series, level, axes_override)
    group, ome, series = image_group(path, node, series)
    if "multiscales" in ome:
        with translate_metadata_errors(path):
            return open_multiscale(path, group, ome, series, level, axes_override)
    only = only_array(path, group, list_arrays(path, group))
    return _open_array(path, only, "array of a Zarr group", series, level, axes_override, group)


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
        An array is returned unchanged.

    Raises
    ------
    SourceError
        The store is of another type, does not hold exactly one image, or its metadata are damaged.
    """
    where = f"this {type(store).__name__}"
    node: object = store
    if isinstance(store, Store):
        try:
            node = zarr.open(store, mode="r")
        except Exception as error:  # from empty stores, damaged JSON, unknown codecs and data types
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
    group, ome, series = image_group(where, node, 0)
    if "multiscales" in ome:
        with translate_metadata_errors(where):
            multiscale = pick(where, "OME-Zarr", "series", ome["multiscales"], series)
            array = open_child(where, group, pick(where, "OME-Zarr", "level", multiscale["datasets"], 0)["path"])
        if not isinstance(array, zarr.Array):
            raise SourceError(f"{where}: its first level is no array; write it again.")
        return array
    arrays = list_arrays(where, group)
    levels = [arrays.get(str(number)) for number in range(len(arrays))]
    sizes = [math.prod(level.shape) for level in levels if level is not None]
    if len(sizes) == len(arrays) > 1 and all(finer > coarser for finer, coarser in itertools.pairwise(sizes)):
        return arrays["0"]
    return only_array(where, group, arrays)


def _open_array(
    path: str,
    array: zarr.Array[Any],
    kind: str,
    series: int,
    level: int,
    axes_override: str | None,
    parent: zarr.Group | None = None,
) -> ImageSource:
    check_single_image(path, kind, series, level)
    parent = parent or parent_group(array)
    if parent is not None:
        refuse_labels(path, parent)
    data = open_array_pixels(path, array)
    axes = axes_with_override(
        axes_override, data.shape, lambda: _named_axes(path, array) or guess_axes(path, data.shape)
    )
    source = source_without_metadata(data, axes, path, kind)
    grid = read_grid(array, axes, parent)
    return replace(
        source,
        pixel_size=source.pixel_size | grid.pixel_size,
        units=source.units | grid.units,
        translation=source.translation | grid.position,
        notes=(*packing_note(path, array), *grid.notes),
    )


def _named_axes(path: str, array: zarr.Array[Any]) -> str | None:
    """Return the axes by the names of the dimensions, or None for an array without names."""
    names = dimension_names(array)
    try:
        return None if names is None else axes_from_names(names, array.shape)
    except ImageError as error:
        raise SourceError(f"{path}: {error}") from error
