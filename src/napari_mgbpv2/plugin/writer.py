"""The writer: an image layer, as it is, into an OME-Zarr with its pixel size, units and axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.axes import AXIS_ORDER
from napari_mgbpv2.plugin.layer_image import name_axes
from napari_mgbpv2.plugin.place import Placement, placement
from napari_mgbpv2.plugin.reversing import reversed_along
from napari_mgbpv2.plugin.roles import facts_of


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write an image layer; of a pyramid, its full resolution is written and the coarser ones are made anew.

    The image is written where it lies: along an axis that runs backwards, by a negative scale, the pixels are written
    in the reverse order. A file cannot hold a rotation (but for half a turn) or a shear, and a warning says so.

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
    from napari_mgbpv2.io.writers.ome_zarr import ImageLayout, OMEZarrWriter
    from napari_mgbpv2.plugin.filling import exact

    array = data[0] if isinstance(data, (list, tuple)) or hasattr(data, "shapes") else data
    axes = name_axes(array, meta.get("axis_labels") or _labels(array, meta), rgb=bool(meta.get("rgb")))
    stored = axes.replace("s", "c")
    if len(set(stored)) < len(stored):
        raise ImageError(f"{path}: OME-Zarr has one axis for channels and colours, and the layer has both.")
    wanted = "".join(sorted(stored, key=AXIS_ORDER.index))
    placed = _placement(meta, len(axes.replace("s", "")))
    place = _Place(placed.forwards(array.shape), meta.get("units"), axes.replace("s", ""))
    shape = dict(zip(stored, map(int, array.shape), strict=True))
    layout = ImageLayout(
        shape=tuple(shape[axis] for axis in wanted),
        dtype=np.dtype(array.dtype),
        axes=wanted,
        pixel_size=tuple(place.pixel_size(axis) for axis in wanted),
        units=tuple(place.unit(axis) for axis in wanted),
        translation=tuple(place.position(axis) for axis in wanted),
        name=str(meta.get("name", Path(path).name)),
        channel_names=None,
        channel_colors=None,
        provenance={"source": "napari layer"} | facts_of(meta.get("metadata") or {}),
        colour="s" in axes and shape["c"] in (3, 4),
    )
    if not placed.is_complete:
        from napari.utils.notifications import show_warning

        show_warning(f"{Path(path).name} keeps the layer's scale and position, but not its rotation, shear or affine.")
    complete = reversed_along(exact(array), placed.backwards)
    with OMEZarrWriter(path, layout) as writer:
        for region in writer.shards():
            window = tuple(region[wanted.index(axis)] for axis in stored)
            pixels = np.asarray(complete[window]).transpose([stored.index(axis) for axis in wanted])
            writer.write(region, np.ascontiguousarray(pixels))
        for level in range(1, len(layout.level_shapes())):
            writer.build_level(level)
        return [str(writer.commit())]


def _placement(meta: dict[str, Any], ndim: int) -> Placement:
    """Return the placement of a layer of ``ndim`` axes by its attributes, each of which may be missing."""
    given = {
        name: meta[name] for name in ("scale", "translate", "rotate", "shear", "affine") if meta.get(name) is not None
    }
    defaults: dict[str, Any] = {
        "scale": np.ones(ndim),
        "translate": np.zeros(ndim),
        "rotate": np.eye(ndim),
        "shear": np.zeros(ndim * (ndim - 1) // 2),
        "affine": np.eye(ndim + 1),
    }
    return placement(**(defaults | given))


class _Place:
    """Numbers and units of a layer by axis; channels and colours have none."""

    def __init__(self, placed: Placement, units: Sequence[Any] | None, axes: str) -> None:
        self._placed, self._units, self._axes = placed, units, axes

    def pixel_size(self, axis: str) -> float:
        return 1.0 if axis == "c" else self._placed.scale[self._axes.index(axis)]

    def position(self, axis: str) -> float:
        return 0.0 if axis == "c" else self._placed.translate[self._axes.index(axis)]

    def unit(self, axis: str) -> str | None:
        from napari_mgbpv2.io.image import long_unit

        if axis == "c" or self._units is None:
            return None
        return long_unit(str(self._units[self._axes.index(axis)]))


def _labels(array: Any, meta: dict[str, Any]) -> tuple[str, ...]:
    """Return labels that say nothing, one an axis."""
    return ("",) * (len(array.shape) - bool(meta.get("rgb")))
