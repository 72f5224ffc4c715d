"""Calibration of a GeoTIFF: pixel size, unit and position of the map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tifffile

from napari_mgbpv2.io.oriented import read_orientation

_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
_PROJECTED, _GEOGRAPHIC = 1, 2  # codes of GTModelTypeGeoKey
_PIXEL_IS_POINT = 2
_UNITS = {9001: ("meter", 1.0), 9002: ("foot", 1.0), 9003: ("meter", 1200 / 3937)}  # 9003 is the foot of US surveys
_METRIC_SYSTEMS = (range(32601, 32661), range(32701, 32761), range(25828, 25839), range(3857, 3858))
_TINY = 1e-9  # in pixels: smaller rotations are rounding errors


@dataclass(frozen=True)
class MapPlacement:
    """Pixel size, unit and position of a map.

    Attributes
    ----------
    pixel_size
        Pixel size along y and x, in ``unit``; empty, like ``position``, if the tags hold impossible lengths.
    unit
        "meter" or "foot"; None for degrees, and where it is not known.
    position
        Position of the centre of the first pixel along y and x, in the directions of these axes: along y, which runs
        southwards, it is minus the northing or latitude.
    notes
        Sentences on parts of the calibration that are not carried over.
    """

    pixel_size: dict[str, float]
    unit: str | None
    position: dict[str, float]
    notes: tuple[str, ...]


def map_placement(page: tifffile.TiffPage) -> MapPlacement | None:
    """Read the calibration of a map from its tags; None if they cannot be used.

    Parameters
    ----------
    page
        First page of the image. The result is for the upright image.
    """
    keys: dict[str, Any] = page.geotiff_tags or {}
    lines = _lines(page)
    if lines is None:
        return None
    (across, down), origin = lines
    shift = 0.0 if keys.get("GTRasterTypeGeoKey") == _PIXEL_IS_POINT else 0.5
    first = [origin[i] + shift * (across[i] + down[i]) for i in (0, 1)]
    height, width = page.imagelength, page.imagewidth
    swap, flip_y, flip_x = read_orientation(page)
    if swap:
        across, down, height, width = down, across, width, height
    if flip_y:
        first = [first[i] + (height - 1) * down[i] for i in (0, 1)]
        down = (-down[0], -down[1])
    if flip_x:
        first = [first[i] + (width - 1) * across[i] for i in (0, 1)]
        across = (-across[0], -across[1])
    sizes = {"y": math.hypot(*down), "x": math.hypot(*across)}
    if not all(math.isfinite(size) and size > 0 for size in sizes.values()) or not all(map(math.isfinite, first)):
        said = ", ".join(f"{size:g} along {axis}" for axis, size in sizes.items())
        note = f"the pixel size ({said}) and position of the map cannot be those of an image and are not used"
        return MapPlacement(pixel_size={}, unit=None, position={}, notes=(note,))
    unit, factor = _unit(keys)
    sign = {"y": math.copysign(1.0, down[1] or -1.0), "x": math.copysign(1.0, across[0] or 1.0)}
    return MapPlacement(
        pixel_size={axis: size * factor for axis, size in sizes.items()},
        unit=unit,
        position={"y": sign["y"] * first[1] * factor, "x": sign["x"] * first[0] * factor},
        notes=_notes(keys, across, down, sizes, sign),
    )


Vector = tuple[float, float]  # easting and northing, or longitude and latitude


def _lines(page: tifffile.TiffPage) -> tuple[tuple[Vector, Vector], Vector] | None:
    """Return the steps between columns and between rows, and the position of the corner of the raster."""
    matrix, scale, ties = (_numbers(page.tags.valueof(code)) for code in (_TRANSFORMATION, _PIXEL_SCALE, _TIE_POINTS))
    if len(matrix) >= 8:
        return ((matrix[0], matrix[4]), (matrix[1], matrix[5])), (matrix[3], matrix[7])
    if len(scale) >= 2 and len(ties) >= 6:
        column, row, _, east, north, _ = ties[:6]
        return ((scale[0], 0.0), (0.0, -scale[1])), (east - column * scale[0], north + row * scale[1])
    return None


def _numbers(value: object) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return ()


def _unit(keys: dict[str, Any]) -> tuple[str | None, float]:
    """Return the unit of length, and the size of the unit of the file in it."""
    if keys.get("GTModelTypeGeoKey") != _PROJECTED:
        return None, 1.0
    code = keys.get("ProjLinearUnitsGeoKey")
    if code in _UNITS:
        return _UNITS[int(code)]
    system = keys.get("ProjectedCSTypeGeoKey")
    if isinstance(system, int) and any(int(system) in systems for systems in _METRIC_SYSTEMS):
        return "meter", 1.0
    return None, 1.0


def _notes(
    keys: dict[str, Any], across: Vector, down: Vector, sizes: dict[str, float], sign: dict[str, float]
) -> tuple[str, ...]:
    system = keys.get("ProjectedCSTypeGeoKey") or keys.get("GeographicTypeGeoKey")
    name = f"EPSG:{int(system)}" if isinstance(system, int) and 0 < int(system) < 32767 else "its own"
    notes = [f"the coordinate system of the map ({name}) is not carried, its pixel size and position are"]
    if keys.get("GTModelTypeGeoKey") == _GEOGRAPHIC:
        notes.append("they are in degrees, which is not a supported unit of the result")
    if sign["y"] < 0:
        notes.append("positions along y count southwards, as rows do")
    if sign["x"] < 0:
        notes.append("positions along x count westwards, as columns do")
    if abs(down[0]) > _TINY * sizes["y"] or abs(across[1]) > _TINY * sizes["x"]:
        angle = math.degrees(math.atan2(across[1], across[0]))
        notes.append(f"the map is rotated or sheared (by {angle:.6g} degrees), which is not carried")
    return ("; ".join(notes),)
