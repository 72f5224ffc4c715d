"""What TIFF files of every flavour say about their images: axes, pixel size, units, channels."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tifffile

from napari_mgbpv2.errors import SourceError
from napari_mgbpv2.sources.colour_profiles import fitting_profile
from napari_mgbpv2.sources.image import ImageSource, Pixels, axes_or, placed
from napari_mgbpv2.sources.tiff_pixels import open_pixels, opened
from napari_mgbpv2.sources.units import is_screen_resolution, long_unit

_KINDS = {"ome": "OME-TIFF", "imagej": "ImageJ TIFF", "svs": "Aperio SVS", "ndpi": "Hamamatsu NDPI", "lsm": "Zeiss LSM"}
_MICROMETERS_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}  # inch, centimetre; 1 is none
_PROJECTED, _LINEAR_UNITS = 1, {9001: "meter", 9002: "foot", 9003: "foot"}  # codes of GeoTIFF


def open_tiff(path: str, series: int, level: int, said_axes: str | None) -> ImageSource:
    """Open one image of a TIFF file; its axes are as they are said where the file does not tell.

    Raises
    ------
    SourceError
        The file is damaged or cut short, has no such series or level, or has axes that are none of an image's.
    """
    with opened(path, series) as (tif, full):
        axes = axes_or(said_axes, full.shape, lambda: _axes(path, full.axes))
        data = open_pixels(path, tif, full, level)
        calibration = _calibration(tif, full, axes, series)
        profile = full.keyframe.iccprofile
    axes += "s" * (data.ndim - len(axes))  # of a palette
    pixel_size, translation = {}, {}
    for axis, full_size, size in zip(axes, full.shape, data.shape, strict=False):
        if axis in placed(axes):
            unshrunk = calibration.pixel_size.get(axis, 1.0)
            pixel_size[axis] = unshrunk * full_size / size
            translation[axis] = (pixel_size[axis] - unshrunk) / 2  # the levels begin at one corner
    channels = 0 if "s" in axes else full.shape[axes.index("c")] if "c" in axes else 1
    return ImageSource(
        data=data,
        axes=axes,
        pixel_size=pixel_size,
        units={axis: calibration.units.get(axis) for axis in placed(axes)},
        translation=translation,
        channel_names=_one_each(calibration.channel_names, channels),
        channel_colors=_one_each(calibration.channel_colors, channels),
        path=path,
        kind=_KINDS.get(full.kind, "TIFF"),
        icc_profile=fitting_profile(profile, data.shape[axes.index("s")] if "s" in axes else 1),
    )


def _axes(path: str, letters: str) -> str:
    """Return tifffile's axes as ours; an axis that is none of ours is taken as z, or t where there is a z."""
    known = {"T": "t", "Z": "z", "C": "c", "Y": "y", "X": "x", "S": "s"}
    axes = [known.get(letter, "?") for letter in letters]
    for free in ("z", "t"):
        if "?" in axes and free not in axes:
            axes[axes.index("?")] = free
    if "?" in axes or not {"y", "x"} <= set(axes) or len(set(axes)) < len(axes):
        raise SourceError(
            f"{path}: has the axes {letters}, which are not t, z, c, y and x; say what they are with axes=."
        )
    return "".join(axes)


def _one_each(values: Sequence[str], channels: int) -> tuple[str, ...] | None:
    """Return ``values`` if there is one for each channel."""
    return tuple(values) if values and all(values) and len(values) == channels else None


@dataclass
class _Calibration:
    """What a file says of its full-resolution image; what it does not say is left out."""

    pixel_size: dict[str, float] = field(default_factory=dict)
    units: dict[str, str | None] = field(default_factory=dict)
    channel_names: list[str] = field(default_factory=list)
    channel_colors: list[str] = field(default_factory=list)

    def put(self, axis: str, size: object, unit: object) -> None:
        """Note the pixel size of ``axis`` if it is a length at all."""
        try:
            number = float(size)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return
        if math.isfinite(number) and number > 0:
            self.pixel_size[axis] = number
            self.units[axis] = long_unit(unit)


def _calibration(tif: tifffile.TiffFile, images: tifffile.TiffPageSeries, axes: str, series: int) -> _Calibration:
    try:
        if images.kind == "ome" and tif.ome_metadata:
            return _from_ome(_ome_image(tif, images, series))
        if images.kind == "imagej":
            return _from_imagej(tif.imagej_metadata or {}, images.keyframe, axes)
        if images.kind == "svs":
            return _from_aperio(images.keyframe.description)
        if images.keyframe.is_geotiff:
            return _from_geotiff(images.keyframe.geotiff_tags or {})
        return _from_resolution(images.keyframe)
    except (ET.ParseError, LookupError, ValueError, TypeError):
        return _Calibration()  # a damaged note on the pixel size spoils no pixel


def _ome_image(tif: tifffile.TiffFile, images: tifffile.TiffPageSeries, series: int) -> ET.Element:
    """Return what OME-XML says of an image; tifffile leaves out images without pixels, so their count may differ."""
    described = [element for element in ET.fromstring(tif.ome_metadata or "") if element.tag.endswith("}Image")]
    if len(described) == len(tif.series):
        return described[series]
    (only,) = (element for element in described if element.get("Name", "") == images.name)
    return only


def _from_ome(image: ET.Element) -> _Calibration:
    pixels = next(element for element in image if element.tag.endswith("}Pixels"))
    found = _Calibration()
    for axis in "xyz":
        name = f"PhysicalSize{axis.upper()}"
        found.put(axis, pixels.get(name), pixels.get(name + "Unit", "µm"))
    found.put("t", pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    channels = [element for element in pixels if element.tag.endswith("}Channel")]
    found.channel_names = [channel.get("Name", "") for channel in channels]
    if all(channel.get("Color") for channel in channels):  # a signed 32-bit RGBA
        found.channel_colors = [f"{int(channel.get('Color', '0')) >> 8 & 0xFFFFFF:06X}" for channel in channels]
    return found


def _from_imagej(metadata: dict[str, Any], page: tifffile.TiffPage, axes: str) -> _Calibration:
    found = _Calibration()
    unit = metadata.get("unit")
    for axis, tag in (("x", "XResolution"), ("y", "YResolution")):
        per_unit = _rational(page, tag)
        if per_unit and not (long_unit(unit) == "inch" and is_screen_resolution(per_unit)):
            found.put(axis, 1 / per_unit, unit)
    found.put("z", metadata.get("spacing"), metadata.get("zunit", unit))
    found.put("t", metadata.get("finterval"), metadata.get("tunit", "sec"))
    if "z" not in axes and "t" not in axes:  # with them, there is a label for each plane instead of each channel
        found.channel_names = list(metadata.get("Labels") or ())
    if "c" in axes:
        found.channel_colors = [_brightest(table) for table in metadata.get("LUTs") or ()]
    return found


def _brightest(lookup_table: Pixels) -> str:
    red, green, blue = (int(value) for value in lookup_table[:, -1])
    return f"{red:02X}{green:02X}{blue:02X}"


def _from_aperio(description: str) -> _Calibration:
    found = _Calibration()
    match = re.search(r"\bMPP = ([\d.]+)", description)  # micrometres per pixel
    for axis in "yx":
        found.put(axis, match and match[1], "micrometer")
    return found


def _from_geotiff(tags: Mapping[str, Any]) -> _Calibration:
    found = _Calibration()
    if tags.get("GTModelTypeGeoKey") == _PROJECTED:  # others count in degrees, which are no length
        unit = _LINEAR_UNITS.get(tags.get("ProjLinearUnitsGeoKey", 0))
        for axis, size in zip("xy", tags["ModelPixelScale"], strict=False):
            found.put(axis, size, unit)
    return found


def _from_resolution(page: tifffile.TiffPage) -> _Calibration:
    found = _Calibration()
    unit = page.tags.get("ResolutionUnit")
    micrometers = _MICROMETERS_PER_RESOLUTION_UNIT.get(int(unit.value)) if unit is not None else None
    for axis, tag in (("x", "XResolution"), ("y", "YResolution")):
        per_unit = _rational(page, tag)
        if micrometers and per_unit and not is_screen_resolution(per_unit * 25400 / micrometers):
            found.put(axis, micrometers / per_unit, "micrometer")
    return found


def _rational(page: tifffile.TiffPage, name: str) -> float | None:
    tag = page.tags.get(name)
    if tag is None or not isinstance(tag.value, tuple) or not all(tag.value):
        return None
    numerator, denominator = tag.value
    return float(numerator / denominator)
