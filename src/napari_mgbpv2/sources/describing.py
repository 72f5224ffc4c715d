"""Axes, pixel size and units of an image as somebody says who knows them better than its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from napari_mgbpv2.axes import check_axes
from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.sources.image import ImageSource, placed
from napari_mgbpv2.sources.units import is_time, long_unit

_Said = TypeVar("_Said", float, str)


def described_as(
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
        "micrometer", "nm", "s", ... in any usual spelling: for the axes that ``pixel_size`` gives, without it for
        all in space; or one for each axis that is named. Sizes that are given without a unit are in that of the file.

    Raises
    ------
    ImageError
        The axes do not fit the image, a size is not above 0, a unit is unknown or not one of its axis, or there is
        no such axis.
    """
    if axes is not None:
        source = _renamed(source, check_axes(axes, source.data.shape))
    sizes = {axis: _size_of(axis, said) for axis, said in _by_axis(pixel_size, "yx").items()}
    _check_axes_are_there(source, sizes)
    units = _by_axis(unit, "".join(sizes) or "".join(axis for axis in placed(source.axes) if axis != "t"))
    _check_axes_are_there(source, units)
    return replace(
        source,
        pixel_size=source.pixel_size | sizes,
        units=source.units | {axis: _unit_of(axis, said) for axis, said in units.items()},
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
        pixel_size={axis: source.pixel_size.get(axis, 1.0) for axis in placed(axes)},
        units={axis: source.units.get(axis) for axis in placed(axes)},
        translation={axis: source.translation.get(axis, 0.0) for axis in placed(axes)},
        channel_names=source.channel_names if same_channels or single_channel else None,
        channel_colors=source.channel_colors if same_channels or single_channel else None,
    )


def _by_axis(given: _Said | Mapping[str, _Said] | None, axes: str) -> dict[str, _Said]:
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else dict.fromkeys(axes, given)


def _check_axes_are_there(source: ImageSource, said: Mapping[str, object]) -> None:
    for axis in said:
        if axis not in set(placed(source.axes)):
            raise ImageError(
                f"{source.path}: has no axis {axis!r} with a pixel size; it has {', '.join(placed(source.axes))}."
            )


def _size_of(axis: str, said: float) -> float:
    try:
        size = float(said)
    except (TypeError, ValueError):
        size = math.nan
    if not 0 < size < math.inf:
        raise ImageError(f"the pixel size of {axis} is {said!r}; give a finite number above 0.")
    return size


def _unit_of(axis: str, said: str) -> str:
    unit = long_unit(said)
    if unit is None:
        raise ImageError(f"unit {said!r} is unknown; give one such as micrometer, nanometer, millimeter or second.")
    if axis in "tzyx" and is_time(unit) != (axis == "t"):
        wanted = "a time, such as second" if axis == "t" else "a length, such as micrometer"
        raise ImageError(f"the unit of {axis} is {said!r}; it must be {wanted}.")
    return unit
