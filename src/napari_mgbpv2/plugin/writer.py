"""The writer: an image layer, as it is, into an OME-Zarr with its pixel size, units and axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.plugin.layer_image import name_axes

_ORDER = "tczyx"


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write an image layer; of a pyramid, its full resolution is written and the coarser ones are made anew.

    A layer of this plugin's is computed in full. That takes its time and the viewer waits for it: the Save button of
    the widget does the same in the background.

    Parameters
    ----------
    path
        The OME-Zarr to write. Nothing that is there is replaced.
    data
        The layer's data.
    meta
        Its attributes, as napari gives them.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    ImageError
        OME-Zarr has no place for the layer's axes.
    DestinationError
        Something is there already, it cannot be written, or OME-Zarr cannot hold the type.
    """
    from napari_mgbpv2.ome_zarr import ImageLayout, OMEZarrWriter
    from napari_mgbpv2.plugin.filling import exact

    array = data[0] if isinstance(data, (list, tuple)) or hasattr(data, "shapes") else data
    axes = name_axes(array, meta.get("axis_labels") or _labels(array, meta), rgb=bool(meta.get("rgb")))
    stored = axes.replace("s", "c")
    if len(set(stored)) < len(stored):
        raise ImageError(f"{path}: OME-Zarr has one axis for channels and colours, and the layer has both.")
    wanted = "".join(sorted(stored, key=_ORDER.index))
    place = _Place(meta, axes.replace("s", ""))
    shape = dict(zip(stored, map(int, array.shape), strict=True))
    layout = ImageLayout(
        shape=tuple(shape[axis] for axis in wanted),
        dtype=np.dtype(array.dtype),
        axes=wanted,
        pixel_size=tuple(place.number("scale", axis, 1.0) for axis in wanted),
        units=tuple(place.unit(axis) for axis in wanted),
        translation=tuple(place.number("translate", axis, 0.0) for axis in wanted),
        name=str(meta.get("name", Path(path).name)),
        channel_names=None,
        channel_colors=None,
        provenance={"source": "napari layer"} | dict(meta.get("metadata", {}).get("mgbpv2", {})),
        colour="s" in axes and shape["c"] in (3, 4),
    )
    complete = exact(array)
    with OMEZarrWriter(path, layout) as writer:
        for region in writer.shards():
            window = tuple(region[wanted.index(axis)] for axis in stored)
            pixels = np.asarray(complete[window]).transpose([stored.index(axis) for axis in wanted])
            writer.write(region, np.ascontiguousarray(pixels))
        for level in range(1, len(layout.level_shapes())):
            writer.build_level(level)
        return [str(writer.commit())]


class _Place:
    """Numbers and units of a layer by axis; channels and colours have none."""

    def __init__(self, meta: dict[str, Any], axes: str) -> None:
        self._meta, self._axes = meta, axes

    def number(self, name: str, axis: str, default: float) -> float:
        values = self._meta.get(name)
        if axis == "c" or values is None:
            return default
        value = float(values[self._axes.index(axis)])
        return abs(value) if name == "scale" else value

    def unit(self, axis: str) -> str | None:
        from napari_mgbpv2.sources.image import long_unit

        units = self._meta.get("units")
        if axis == "c" or units is None:
            return None
        return long_unit(str(units[self._axes.index(axis)]))


def _labels(array: Any, meta: dict[str, Any]) -> tuple[str, ...]:
    """Return labels that say nothing, one an axis."""
    return ("",) * (len(array.shape) - bool(meta.get("rgb")))
