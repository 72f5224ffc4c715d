"""What TIFF files of every flavour say about their images: axes, pixel size, units, channels."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tifffile

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.io.colour_profiles import fitting_profile
from napari_mgbpv2.io.image import ImageSource, Pixels, axes_with_override, calibrated_axes
from napari_mgbpv2.io.oriented import read_orientation
from napari_mgbpv2.io.readers.tiff.colours import samples_are_colours
from napari_mgbpv2.io.readers.tiff.geotiff import MapPlacement, map_placement
from napari_mgbpv2.io.readers.tiff.ome_xml import OmeImage
from napari_mgbpv2.io.readers.tiff.pixels import MISSING, missing_planes, open_pixels, opened
from napari_mgbpv2.io.readers.tiff.series import OmeSeries, PageSeries
from napari_mgbpv2.io.units import is_screen_resolution, long_unit

_KINDS = {"ome": "OME-TIFF", "imagej": "ImageJ TIFF", "svs": "Aperio SVS", "ndpi": "Hamamatsu NDPI", "lsm": "Zeiss LSM"}
_MICROMETERS_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}  # inch, centimetre; 1 is none


def open_tiff(path: str, series: int, level: int, axes_override: str | None, missing: str = "refuse") -> ImageSource:
    """Open one image of a TIFF file, or of the files that a companion file names.

    Parameters
    ----------
    path
        The file.
    series, level
        Which image, and which of its resolutions.
    axes_override
        Its axes, where the file does not say them.
    missing
        What is done about planes that are announced and not there, one of `MISSING`.

    Raises
    ------
    SourceError
        The file is damaged or cut short, has no such series or level, or has axes that are none of an image's.
    """
    if missing not in MISSING:
        raise ImageError(f"missing={missing!r} is unknown; choose one of {', '.join(MISSING)}.")
    with opened(path) as file:
        data = open_pixels(path, file, series, level, missing)
        full = file.images[series]
        coloured = samples_are_colours(full.keyframe)
        letters = full.axes if coloured else full.axes.replace("S", "C")
        axes = axes_with_override(axes_override, full.shape, lambda: _axes(path, letters))
        calibration = _calibration(full, axes)
        swapped = read_orientation(full.keyframe)[0]
        if turn := full.keyframe.tags.valueof(274) if any(read_orientation(full.keyframe)) else None:
            calibration.notes.append(f"its orientation ({turn}) is not upright: it has been turned")
        calibration.notes += _scaling_note(full.keyframe)
        if not coloured and "c" in axes:
            calibration.channel_names = _band_names(full.keyframe)
            calibration.channel_colors = []
        if count := missing_planes(full):
            calibration.notes.append(f"{count:,} of its {len(full):,} planes are missing and left blank")
        if any(image.keyframe.subfiletype & 4 for image in file.images if image is not full):
            calibration.notes.append("its transparency mask is not used")
        profile = full.keyframe.iccprofile
    if swapped:
        calibration.swap()
    axes += "s" * (data.ndim - len(axes))  # of a palette
    sizes = dict(zip(axes, full.shape, strict=False))
    if swapped:
        sizes |= {"y": sizes["x"], "x": sizes["y"]}
    if calibration.map_placement is not None:
        calibration.put_map(calibration.map_placement)
    pixel_size, translation = {}, {}
    for axis, size in zip(axes, data.shape, strict=True):
        if axis in calibrated_axes(axes):
            unshrunk = calibration.pixel_size.get(axis, 1.0)
            pixel_size[axis] = unshrunk * sizes[axis] / size
            shift = (pixel_size[axis] - unshrunk) / 2  # the levels begin at one corner
            translation[axis] = calibration.position.get(axis, 0.0) + shift
    channels = 0 if "s" in axes else sizes["c"] if "c" in axes else 1
    return ImageSource(
        data=data,
        axes=axes,
        pixel_size=pixel_size,
        units={axis: calibration.units.get(axis) for axis in calibrated_axes(axes)},
        translation=translation,
        channel_names=_one_each(calibration.channel_names, channels),
        channel_colors=_one_each(calibration.channel_colors, channels),
        path=path,
        kind=_KINDS.get(full.kind, "TIFF"),
        icc_profile=fitting_profile(profile, data.shape[axes.index("s")] if "s" in axes else 1),
        notes=(*file.notes, *calibration.notes),
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


def _band_names(page: tifffile.TiffPage) -> list[str]:
    """Return the name of each band: as GDAL has it, or what it is by the tags of TIFF."""
    names = [f"Band {number + 1}" for number in range(page.samplesperpixel)]
    if page.photometric == tifffile.PHOTOMETRIC.RGB:
        names[:3] = ["Red", "Green", "Blue"]
    first_extra = page.samplesperpixel - len(page.extrasamples)
    for number, kind in enumerate(page.extrasamples):
        if kind in (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA):
            names[first_extra + number] = "Alpha"
    for number, role, text in _gdal_items(page):
        if role == "description" and 0 <= number < len(names) and text:
            names[number] = text
    return names


def _gdal_items(page: tifffile.TiffPage) -> list[tuple[int, str, str]]:
    """Return number of the band, role and text of each item of GDAL's metadata; none if they are damaged."""
    text = page.tags.valueof(42112)
    try:
        items = ET.fromstring(text.strip("\0 \n") if isinstance(text, str) else "<none/>").iter("Item")
        return [(int(item.get("sample", "-1")), item.get("role", ""), (item.text or "").strip()) for item in items]
    except (ET.ParseError, ValueError):
        return []  # damaged metadata spoil no pixel


def _scaling_note(page: tifffile.TiffPage) -> tuple[str, ...]:
    """Return a sentence on values that are packed by GDAL's scale and offset; none for others."""
    said = {role: text for number, role, text in _gdal_items(page) if role in ("scale", "offset") and number <= 0}
    packed = {role: text for role, text in said.items() if text not in ("", {"scale": "1", "offset": "0"}[role])}
    if not packed:
        return ()
    line = ", ".join(f"{role} {text}" for role, text in packed.items())
    return (f"its values are packed ({line}) and are carried as they are stored: the same applies to the result",)


def _one_each(values: Sequence[str], channels: int) -> tuple[str, ...] | None:
    """Return ``values`` if there is one for each channel."""
    return tuple(values) if values and all(values) and len(values) == channels else None


@dataclass
class _Calibration:
    """What a file says of its full-resolution image; what it does not say is left out."""

    pixel_size: dict[str, float] = field(default_factory=dict)
    units: dict[str, str | None] = field(default_factory=dict)
    position: dict[str, float] = field(default_factory=dict)
    channel_names: Sequence[str] = field(default_factory=list)
    channel_colors: Sequence[str] = field(default_factory=list)
    map_placement: MapPlacement | None = None
    notes: list[str] = field(default_factory=list)

    def put(self, axis: str, size: object, unit: object) -> None:
        """Note the pixel size of ``axis`` if it is a length at all."""
        try:
            number = float(size)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return
        if math.isfinite(number) and number > 0:
            self.pixel_size[axis] = number
            self.units[axis] = long_unit(unit)
        elif number:  # 0 is what writers fill in
            self.notes.append(f"its pixel size along {axis} ({number:g}) cannot be one and is not used")

    def put_map(self, place: MapPlacement) -> None:
        """Note the place of a map, which is that of the image as it is seen."""
        self.pixel_size |= place.pixel_size
        self.units |= dict.fromkeys("yx", place.unit)
        self.position |= place.position
        self.notes += place.notes

    def swap(self) -> None:
        """Exchange y and x, of an image that is turned on its side."""
        for known in (self.pixel_size, self.units, self.position):
            values: dict[str, Any] = {{"y": "x", "x": "y"}.get(axis, axis): value for axis, value in known.items()}
            known.clear()
            known.update(values)


def _calibration(images: PageSeries, axes: str) -> _Calibration:
    page = images.keyframe
    try:
        if isinstance(images, OmeSeries):
            return _from_ome(images.described)
        if images.kind == "imagej":
            return _from_imagej(page.parent.imagej_metadata or {}, page, axes)
        if images.kind == "svs":
            return _from_aperio(page.description)
        if page.is_geotiff and (place := map_placement(page)) is not None:
            if place.pixel_size:
                return _Calibration(map_placement=place)
            found = _from_resolution(page)
            found.notes += place.notes
            return found
        return _from_resolution(page)
    except (ET.ParseError, LookupError, ValueError, TypeError):
        return _Calibration()  # a damaged note on the pixel size spoils no pixel


def _from_ome(image: OmeImage) -> _Calibration:
    found = _Calibration(channel_names=image.channel_names, channel_colors=image.channel_colors)
    found.notes += image.notes
    for axis, (size, unit) in image.pixel_size.items():
        found.put(axis, size, unit)
    for axis, (number, unit) in image.position.items():
        place = image.translation(axis)
        if place is not None:
            found.position[axis] = place
        elif number:
            found.notes.append(
                f"its position along {axis} ({number:g}, {unit}) has no unit of length and is not carried"
            )
    if image.moves and any(found.position.get(axis) for axis in "yx"):
        found.notes.append("its planes lie at different positions: that of the first one is taken")
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
    for axis in "xyz":  # in pixels
        origin = metadata.get(f"{axis}origin")
        if isinstance(origin, (int, float)) and math.isfinite(origin) and axis in found.pixel_size:
            found.position[axis] = -origin * found.pixel_size[axis] + 0.0  # no minus zero
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
