"""The range of values of a layer: napari sets its contrast slider by one view, and networks know none below black."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.upscaling.ranges import MARGIN, sampled_extremes


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
    found = sampled_extremes(image.data, image.axes, image.coarser)
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
