"""Axes, pixel size and units of an image as somebody says who knows them better than its file."""

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
    """Return the same pixels under another description; what is not given stays as it is.

    Parameters
    ----------
    source
        The image.
    axes
        One letter for each axis, as `napari_mgbpv2.upscale` takes them. Pixel sizes go with their letter, channel
        names and colours with "c" if that stays the same axis.
    pixel_size
        A number for y and x, or one for each axis that is named. The image's position is kept in pixels.
    unit
        "micrometer", "nm", "s", ... in any usual spelling, or one for each axis that is named. A time is that of t, a
        length that of the axes that ``pixel_size`` gives, without it of all in space. Sizes that are given without a
        unit are in that of the file.

    Raises
    ------
    ImageError
        The axes do not fit the image, a size is not above 0, a unit is unknown or not one of its axis, or there is
        no such axis.
    """
    if axes is not None:
        source = _renamed(source, check_axes(axes, source.data.shape))
    if not isinstance(pixel_size, Mapping):
        pixel_size = {} if pixel_size is None else dict.fromkeys("yx", pixel_size)
    sizes = {axis: _size_of(axis, said) for axis, said in pixel_size.items()}
    _check_axes_are_there(source, sizes)
    if isinstance(unit, str):
        length = not is_time(_known(unit))
        unit = dict.fromkeys(
            [axis for axis in sizes or calibrated_axes(source.axes) if axis != "t"] if length else "t", unit
        )
    units: dict[str, str | None] = {axis: _unit_of(axis, said) for axis, said in (unit or {}).items()}
    _check_axes_are_there(source, units)
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


def _check_axes_are_there(source: ImageSource, said: Mapping[str, object]) -> None:
    known = tuple(calibrated_axes(source.axes))
    for axis in said:
        if axis not in known:
            raise ImageError(f"{source.path}: has no axis {axis!r} with a pixel size; it has {', '.join(known)}.")


def _size_of(axis: str, said: float) -> float:
    try:
        size = float(said)
    except (TypeError, ValueError):
        size = math.nan
    if not LEAST_LENGTH <= size <= MOST_LENGTH:
        raise ImageError(f"the pixel size of {axis} is {said!r}; give a finite number above 0.")
    return size


def _known(said: str) -> str:
    unit = long_unit(said)
    if unit is None:
        raise ImageError(f"unit {said!r} is unknown; give one such as micrometer, nanometer, millimeter or second.")
    return unit


def _unit_of(axis: str, said: str) -> str:
    unit = _known(said)
    if axis in "tzyx" and is_time(unit) != (axis == "t"):
        wanted = "a time, such as second" if axis == "t" else "a length, such as micrometer"
        raise ImageError(f"the unit of {axis} is {said!r}; it must be {wanted}.")
    return unit
