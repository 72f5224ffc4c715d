"""User overrides for the axes, pixel size and unit of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.axes import check_axes
from napari_mgbpv2.io.image import LEAST_LENGTH, MOST_LENGTH, ImageSource, calibrated_axes
from napari_mgbpv2.io.units import is_time, long_unit


def with_metadata(
    source: ImageSource,
    *,
    axes: str | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
    unit: str | Mapping[str, str] | None = None,
) -> ImageSource:
    """Override the axes, pixel size and unit of an image; None leaves them unchanged.

    Parameters
    ----------
    source
        The image.
    axes
        One letter per axis, out of "tzcyxs". Pixel sizes follow their letter. Channel names and colours are kept if
        "c" remains the same axis.
    pixel_size
        Pixel size of y and x, or a mapping from axis to pixel size. The position of the image in pixels is kept.
    unit
        "micrometer", "nm", "s", ... in any common spelling, or a mapping from axis to unit. A unit of time applies to
        t. A unit of length applies to the axes in ``pixel_size``, or without it to all spatial axes. Pixel sizes
        without a unit are in the unit of the file.

    Raises
    ------
    ImageError
        The axes do not match the image, a size is not above 0, a unit is unknown or does not suit its axis, or an axis
        does not exist.
    """
    if axes is not None:
        source = _renamed(source, check_axes(axes, source.data.shape))
    if not isinstance(pixel_size, Mapping):
        pixel_size = {} if pixel_size is None else dict.fromkeys("yx", pixel_size)
    sizes = {axis: _check_size(axis, value) for axis, value in pixel_size.items()}
    _check_axes_exist(source, sizes)
    if isinstance(unit, str):
        length = not is_time(_parse_unit(unit))
        unit = dict.fromkeys(
            [axis for axis in sizes or calibrated_axes(source.axes) if axis != "t"] if length else "t", unit
        )
    units: dict[str, str | None] = {axis: _check_unit(axis, value) for axis, value in (unit or {}).items()}
    _check_axes_exist(source, units)
    return replace(
        source,
        pixel_size=source.pixel_size | sizes,
        units=source.units | units,
        translation={
            axis: position * sizes.get(axis, source.pixel_size[axis]) / source.pixel_size[axis]
            for axis, position in source.translation.items()
        },
    )


def _renamed(source: ImageSource, axes: str) -> ImageSource:
    same_channels = "c" in axes and source.axes.find("c") == axes.index("c")
    single_channel = "c" not in axes and "c" not in source.axes and ("s" in axes) == ("s" in source.axes)
    return replace(
        source,
        axes=axes,
        pixel_size={axis: source.pixel_size.get(axis, 1.0) for axis in calibrated_axes(axes)},
        units={axis: source.units.get(axis) for axis in calibrated_axes(axes)},
        translation={axis: source.translation.get(axis, 0.0) for axis in calibrated_axes(axes)},
        channel_names=source.channel_names if same_channels or single_channel else None,
        channel_colors=source.channel_colors if same_channels or single_channel else None,
    )


def _check_axes_exist(source: ImageSource, given: Mapping[str, object]) -> None:
    known = tuple(calibrated_axes(source.axes))
    for axis in given:
        if axis not in known:
            raise ImageError(f"{source.path}: has no axis {axis!r} with a pixel size; it has {', '.join(known)}.")


def _check_size(axis: str, value: float) -> float:
    try:
        size = float(value)
    except (TypeError, ValueError):
        size = math.nan
    if not LEAST_LENGTH <= size <= MOST_LENGTH:
        raise ImageError(f"the pixel size of {axis} is {value!r}; give a finite number above 0.")
    return size


def _parse_unit(value: str) -> str:
    unit = long_unit(value)
    if unit is None:
        raise ImageError(f"unit {value!r} is unknown; give one such as micrometer, nanometer, millimeter or second.")
    return unit


def _check_unit(axis: str, value: str) -> str:
    unit = _parse_unit(value)
    if axis in "tzyx" and is_time(unit) != (axis == "t"):
        expected = "a time, such as second" if axis == "t" else "a length, such as micrometer"
        raise ImageError(f"the unit of {axis} is {value!r}; it must be {expected}.")
    return unit
