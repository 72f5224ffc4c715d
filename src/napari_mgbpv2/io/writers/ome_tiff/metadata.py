"""What OME-XML says of an image: sizes with units, positions, channels, how it came to be.

https://www.openmicroscopy.org/Schemas/OME/2016-06/
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mgbpv2._version import __version__

CREATOR = f"napari-mgbpv2 {__version__}"
NAMESPACE = "napari_mgbpv2"  # of the annotation that holds the provenance

_PREFIXES = {
    "yotta": "Y", "zetta": "Z", "exa": "E", "peta": "P", "tera": "T", "giga": "G", "mega": "M", "kilo": "k",
    "hecto": "h", "deca": "da", "": "", "deci": "d", "centi": "c", "milli": "m", "micro": "µ", "nano": "n",
    "pico": "p", "femto": "f", "atto": "a", "zepto": "z", "yocto": "y",
}  # fmt: skip
_LENGTHS = {long + "meter": short + "m" for long, short in _PREFIXES.items()} | {
    "angstrom": "Å", "foot": "ft", "inch": "in", "mile": "mi", "parsec": "pc", "yard": "yd",
}  # fmt: skip
_TIMES = {long + "second": short + "s" for long, short in _PREFIXES.items()} | {
    "minute": "min", "hour": "h", "day": "d",
}  # fmt: skip
_NO_LENGTH = "pixel"  # OME's word for a length of which nothing else is known; left out, it would be a micrometre
_PER_CENTIMETRE = {"meter": 1e2, "centimeter": 1.0, "millimeter": 1e-1, "micrometer": 1e-4, "nanometer": 1e-7}
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Description:
    """What is known of an image besides its pixels; the attributes are the parameters of `write_ome_tiff`.

    Raises
    ------
    ValueError
        If they do not fit together.
    TypeError
        If the provenance is not JSON-able.
    """

    shape: tuple[int, ...]
    axes: str
    colour: bool
    pixel_size: tuple[float, ...]
    units: tuple[str | None, ...]
    translation: tuple[float, ...]
    name: str
    channel_names: tuple[str, ...] | None
    channel_colors: tuple[str, ...] | None
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if not re.fullmatch("t?c?z?yx", self.axes):
            raise ValueError(f'axes must be letters of "tczyx" in that order with y and x, not {self.axes!r}')
        if {len(self.shape), len(self.pixel_size), len(self.units), len(self.translation)} != {len(self.axes)}:
            raise ValueError("shape, pixel_size, units and translation must have one entry per axis")
        if min(self.shape) < 1:
            raise ValueError(f"an image of shape {self.shape} has no pixels")
        if not all(0 < size < math.inf for size in self.pixel_size) or not all(map(math.isfinite, self.translation)):
            raise ValueError("pixel sizes must be positive and translations finite")
        channels = self.shape[self.axes.index("c")] if "c" in self.axes else 1
        if self.colour and ("c" not in self.axes or channels not in (2, 3, 4)):
            raise ValueError("a colour image has the channels grey and alpha, R, G, B or R, G, B, A")
        for per_channel in (self.channel_names, self.channel_colors):
            if per_channel is not None and len(per_channel) != channels:
                raise ValueError(f"{len(per_channel)} channel names or colours for {channels} channels")
        if not all(re.fullmatch("[0-9A-Fa-f]{6}", color) for color in self.channel_colors or ()):
            raise ValueError('channel colours must be "RRGGBB"')
        json.dumps(dict(self.provenance), allow_nan=False)

    @property
    def page_axes(self) -> str:
        """Axes along which an image is cut into pages: all but y, x and the samples of a colour pixel."""
        return self.axes[:-2].replace("c", "") if self.colour else self.axes[:-2]

    def to_tifffile(self) -> dict[str, Any]:
        """Return the metadata as `tifffile.OmeXml` takes them; equal for equal descriptions."""
        content = json.dumps([self.shape, self.name, dict(self.provenance)], sort_keys=True)
        provenance = {_xml_text(key): _xml_text(_readable(value)) for key, value in self.provenance.items()}
        return {
            "axes": (self.page_axes + "yx" + "s" * self.colour).upper(),
            "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, content)),  # by default it would tell machine and moment
            "Creator": CREATOR,
            "Name": _xml_text(self.name),
            "Channel": self._channels(),
            "Plane": self._planes(),
            "MapAnnotation": {"Namespace": NAMESPACE, "Value": provenance} if provenance else None,
            **self._pixel_size(),
        }

    def resolution(self, level_shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the TIFF resolution of a level for programs that read no OME-XML, or nothing if it is not known."""
        if not {self.units[-2], self.units[-1]} <= _PER_CENTIMETRE.keys():
            return {}
        x, y = (  # TIFF has x first
            level_shape[i] / self.shape[i] / (self.pixel_size[i] * _PER_CENTIMETRE[str(self.units[i])])
            for i in (-1, -2)
        )
        fits = all(1e-3 < each < 1e9 for each in (x, y))  # in a ratio of 32-bit integers
        return {"resolution": (x, y), "resolutionunit": "CENTIMETER"} if fits else {}

    def _pixel_size(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for axis, size, unit in zip(self.axes, self.pixel_size, self.units, strict=True):
            if axis == "t" and unit in _TIMES:
                found |= {"TimeIncrement": float(size), "TimeIncrementUnit": _TIMES[unit]}
            elif axis in "zyx":
                name = f"PhysicalSize{axis.upper()}"
                found |= {name: float(size), f"{name}Unit": _LENGTHS.get(unit or "", _NO_LENGTH)}
        return found

    def _channels(self) -> dict[str, list[Any]]:
        """Return names and colours by channel; a colour image is a single one."""
        found: dict[str, list[Any]] = {}
        if self.channel_names is not None and not self.colour:
            found["Name"] = [_xml_text(name) for name in self.channel_names]
        if self.channel_colors is not None and not self.colour:
            found["Color"] = [_signed_rgba(color) for color in self.channel_colors]
        return found

    def _planes(self) -> dict[str, list[Any]]:
        """Return the position of each page: of the centre of its first pixel, at its z and t."""
        found: dict[str, list[Any]] = {}
        if not any(self.translation):
            return found
        counts = [self.shape[self.axes.index(axis)] for axis in self.page_axes]
        for axis, start, size, unit in zip(self.axes, self.translation, self.pixel_size, self.units, strict=True):
            if axis == "c" or (axis == "t" and unit not in _TIMES):
                continue
            along = np.zeros(counts)
            if axis in self.page_axes:
                along += np.indices(counts, sparse=True)[self.page_axes.index(axis)]
            name = "DeltaT" if axis == "t" else f"Position{axis.upper()}"
            found[name] = (start + size * along).ravel().tolist()
            symbol = _TIMES[str(unit)] if axis == "t" else _LENGTHS.get(unit or "", _NO_LENGTH)
            found[f"{name}Unit"] = [symbol] * along.size
        return found


def _readable(value: Any) -> str:
    """Return a text as it is unless it would be read as JSON, and anything else as JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False)


def _xml_text(text: object) -> str:
    return _NOT_XML.sub("\ufffd", str(text))


def _signed_rgba(color: str) -> int:
    """Return "RRGGBB", opaque, as OME writes it: a signed 32-bit integer."""
    return int.from_bytes(bytes.fromhex(color + "FF"), "big", signed=True)
