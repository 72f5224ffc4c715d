"""OME metadata of an image: calibration, channel names and display settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_mgbpv2.io.writers.ome_zarr.layout import ImageLayout

Ranges = Mapping[int, tuple[float, float]]

_AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_PALETTE = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0080FF", "FF8000", "8000FF")
_SAMPLES = (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF"), ("Alpha", "FFFFFF"))
_GREY_SAMPLES = (("Gray", "FFFFFF"), ("Alpha", "FFFFFF"))


def ome_attributes(layout: ImageLayout, ranges: Ranges) -> dict[str, Any]:
    """Return the OME-NGFF 0.5 or 0.4 attributes of an image; empty for a plain Zarr array.

    Parameters
    ----------
    layout
        Layout of the image.
    ranges
        Lowest and highest finite value of each channel, by its number, if known.
    """
    if layout.format == "zarr":
        return {}
    axes = [
        {"name": axis, "type": _AXIS_TYPES[axis]} | ({"unit": unit} if unit else {})
        for axis, unit in zip(layout.axes, layout.units, strict=True)
    ]
    datasets = [
        {"path": str(level), "coordinateTransformations": _transformations(layout, 2**level)}
        for level in range(len(layout.level_shapes()))
    ]
    multiscale = {"name": layout.name, "axes": axes, "datasets": datasets, "type": "mean"}
    omero = {"channels": [_channel(layout, number, ranges.get(number)) for number in range(layout.channels)]}
    channels = {"omero": omero} if layout.channels else {}  # readers fail on channels without a channel axis
    if layout.format == "0.4":
        return {"multiscales": [{"version": "0.4", **multiscale}], **channels}
    return {"ome": {"version": "0.5", "multiscales": [multiscale], **channels}}


def _transformations(layout: ImageLayout, factor: int) -> list[dict[str, Any]]:
    factors = [factor if axis in "yx" else 1 for axis in layout.axes]
    scale = [float(size * times) for size, times in zip(layout.pixel_size, factors, strict=True)]
    # Positions refer to pixel centres: `factor` pixels have their centre (factor - 1) / 2 pixels beyond the first one.
    translation = [
        float(start + size * (times - 1) / 2)
        for start, size, times in zip(layout.translation, layout.pixel_size, factors, strict=True)
    ]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]


def _channel(layout: ImageLayout, number: int, values: tuple[float, float] | None) -> dict[str, Any]:
    label, color = f"Channel {number}", _PALETTE[number % len(_PALETTE)] if layout.channels > 1 else "FFFFFF"
    if layout.colour:
        label, color = (_GREY_SAMPLES if layout.channels == 2 else _SAMPLES)[number]
    if layout.channel_names is not None:
        label = layout.channel_names[number]
    if layout.channel_colors is not None:
        color = layout.channel_colors[number]
    start, end = lowest, highest = (0.0, 1.0) if layout.dtype.kind == "f" else _integer_range(layout.dtype)
    if (
        values is not None and values[0] < values[1]
    ):  # otherwise 16-bit images that use 2 % of the range would look black
        start, end = values
    window = {"start": start, "end": end, "min": min(start, lowest), "max": max(end, highest)}
    alpha = layout.has_alpha and number == layout.channels - 1  # shown as a channel, alpha would turn the image white
    return {"label": label, "color": color.upper(), "window": window, "active": not alpha}


def _integer_range(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)
