"""Calibration from the coordinates that xarray writes next to a Zarr array."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_mgbpv2.imaging.axes import dimension_names
from napari_mgbpv2.io.cf import read_packing
from napari_mgbpv2.io.image import calibrated_axes
from napari_mgbpv2.io.units import is_time, long_unit

_MOST_COORDINATES = 2**22  # per dimension; more are not read
_UNEVEN = 1e-3  # largest departure from an even grid, in steps: coordinates are often float32


@dataclass
class Grid:
    """Calibration of the axes with evenly spaced coordinates.

    Attributes
    ----------
    pixel_size, position
        Pixel size and position of the centre of the first pixel, by axis, in ``units``.
    units
        NGFF long names, or None.
    notes
        Sentences on coordinates that are changed or not carried over.
    """

    pixel_size: dict[str, float] = field(default_factory=dict)
    position: dict[str, float] = field(default_factory=dict)
    units: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_grid(array: zarr.Array[Any], axes: str, parent: zarr.Group | None) -> Grid:
    """Read the coordinates of an array from its group.

    The coordinates of a dimension are an array with its name. Decreasing coordinates, such as latitudes, are negated,
    with a note.

    Parameters
    ----------
    array
        Array of the pixels.
    axes
        One letter per axis of the array.
    parent
        Group of the array, or None.
    """
    grid, names = Grid(), dimension_names(array)
    if parent is None or names is None:
        return grid
    for axis, name, size in zip(axes, names, array.shape, strict=True):
        values = _coordinates(parent, name, size) if axis in calibrated_axes(axes) and axis != "t" else None
        if values is None:
            continue
        step = (values[-1] - values[0]) / (size - 1)
        even = values[0] + step * np.arange(size)
        if not np.isfinite(step) or step == 0 or np.abs(values - even).max() > _UNEVEN * abs(step):
            grid.notes.append(f"its coordinates {name} are not evenly spaced and are not carried")
            continue
        sign = np.sign(step)
        grid.pixel_size[axis], grid.position[axis] = float(abs(step)), float(sign * values[0])
        said = parent[name].attrs.get("units")
        unit = long_unit(said)
        grid.units[axis] = None if unit is None or is_time(unit) else unit
        if said and grid.units[axis] is None:
            grid.notes.append(f"the unit of its coordinates {name} ({said}) is not carried")
        if step < 0:
            grid.notes.append(f"its coordinates {name} fall: positions along {axis} are minus them")
    return grid


def _coordinates(parent: zarr.Group, name: str, size: int) -> npt.NDArray[np.float64] | None:
    """Return the coordinates of a dimension, or None without at least two of them."""
    try:
        found = parent.get(name)
        if not isinstance(found, zarr.Array) or found.shape != (size,) or not 2 <= size <= _MOST_COORDINATES:
            return None
        packing, stored = read_packing(name, dict(found.attrs)), np.asarray(found[:])
        values: npt.NDArray[np.float64] = np.asarray(stored if packing is None else packing.unpack(stored, None), "f8")
        return values
    except Exception:  # damaged coordinates do not affect pixels
        return None
