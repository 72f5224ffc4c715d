"""The range of values of a layer: napari sets its contrast slider by one view, and networks know none below black.

A whole image would take too long to read, so arrays in memory are measured whole or by every n-th pixel, pyramids by a
coarse level, and others by windows that are spread over all planes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.plugin.layer_image import LayerImage

MOST_PIXELS = 2**24  # that are looked at
WINDOW = 256  # side of the windows, in pixels
MOST_PLANES = 8  # that are looked at, of a stack that is not in memory
MARGIN = 1 / 16  # of the span, added beyond a sample: it may have missed the extremes


class Extremes(NamedTuple):
    """The lowest and highest finite value, and whether all pixels have been looked at."""

    lowest: float
    highest: float
    is_complete: bool


class MeasuredImage(NamedTuple):
    """An image with a range of values that holds what occurs.

    Attributes
    ----------
    image
        The image.
    note
        Which range was measured, for people; empty where that of the layer will do.
    warning
        What lies below the black that the user has set; empty where nothing does.
    """

    image: LayerImage
    note: str = ""
    warning: str = ""


def with_measured_range(image: LayerImage, chosen: tuple[float, float] | None) -> MeasuredImage:
    """Widen the range of values of an image to what is measured, unless somebody has set it.

    Parameters
    ----------
    image
        The image of a layer.
    chosen
        Black and white as the user has named them; None where they have not.

    Raises
    ------
    SourceError, OSError
        It cannot be read.
    """
    dtype = np.dtype(image.data.dtype)
    if dtype.kind not in "uif" or dtype == np.uint8 or "s" in image.axes or image.shown is not None:
        return MeasuredImage(image)  # the type says it, or the pixels are yet to be computed
    found = measure(image)
    if found is None:
        return MeasuredImage(image)
    given = chosen or (image.value_range if image.is_range_given else None)
    if given is not None:
        below = f"Values down to {found.lowest:.6g} lie below black, which is {given[0]:.6g}."
        return MeasuredImage(image, warning=below if found.lowest < given[0] else "")
    usual = (0.0, float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0)
    low, high = image.value_range or usual
    if dtype.kind == "i" and (image.value_range is None or low <= np.iinfo(dtype).min):
        low, high = math.inf, -math.inf  # the type's range says nothing about where black is
    if found.lowest >= low and found.highest <= high:
        return MeasuredImage(image)
    margin = 0.0 if found.is_complete else MARGIN * (found.highest - found.lowest)
    low = min(low, found.lowest - margin) if found.lowest < low else low
    high = max(high, found.highest + margin) if found.highest > high else high
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        low, high = max(math.floor(low), int(limits.min)), min(math.ceil(high), int(limits.max))
        low = min(low, high - 1)
    if image.value_range is None and dtype.kind == "f" and low >= 0:
        low = 0.0
    of = "all pixels" if found.is_complete else "a sample of the pixels"
    note = f"black is {low:.6g} and white is {high:.6g}, as measured on {of}"
    return MeasuredImage(replace(image, value_range=(float(low), float(high))), note)


def measure(image: LayerImage) -> Extremes | None:
    """Find the lowest and highest value of an image, or of a sample of it; None where no pixel is finite."""
    if isinstance(image.data, np.ndarray):
        step = math.ceil(image.data.size / MOST_PIXELS)
        return _extremes_of([image.data.reshape(-1)[::step] if step > 1 else image.data], is_complete=step == 1)
    coarse = next((level for level in image.coarser if math.prod(level.shape) <= MOST_PIXELS), None)
    if coarse is not None:
        return _extremes_of([np.asarray(coarse)], is_complete=False)
    from napari_mgbpv2.lazy import lazy_source

    source = lazy_source(image.coarser[-1] if image.coarser else image.data)
    shape = tuple(int(size) for size in source.shape)
    is_complete = math.prod(shape) <= MOST_PIXELS
    windows = iter([tuple(slice(0, size) for size in shape)]) if is_complete else _windows(shape, image.axes)
    return _extremes_of((np.asarray(source[window]) for window in windows), is_complete=is_complete)


def _windows(shape: tuple[int, ...], axes: str) -> Iterator[tuple[slice, ...]]:
    """Spread windows over planes, and over y and x of each."""
    carried = [size for size, axis in zip(shape, axes, strict=True) if axis not in "yx"]
    count = math.prod(carried)
    planes = np.unique(np.linspace(0, count - 1, min(count, MOST_PLANES)).round().astype(np.int64))
    sides = [
        np.unique(np.linspace(0, max(0, size - WINDOW), 3).astype(np.int64))
        for size, axis in zip(shape, axes, strict=True)
        if axis in "yx"
    ]
    for plane in planes:
        position = iter(np.unravel_index(int(plane), carried) if carried else ())
        fixed = [None if axis in "yx" else int(next(position)) for axis in axes]
        for corner in itertools.product(*sides):
            starts = iter(corner)
            yield tuple(
                slice(start := int(next(starts)), min(size, start + WINDOW)) if at is None else slice(at, at + 1)
                for at, size in zip(fixed, shape, strict=True)
            )


def _extremes_of(parts: Any, *, is_complete: bool) -> Extremes | None:
    lowest, highest = math.inf, -math.inf
    for part in parts:
        pixels: npt.NDArray[Any] = part
        if pixels.dtype.kind == "f":
            pixels = pixels[np.isfinite(pixels)]
        if pixels.size:
            lowest, highest = min(lowest, float(pixels.min())), max(highest, float(pixels.max()))
    return Extremes(lowest, highest, is_complete) if lowest <= highest else None
