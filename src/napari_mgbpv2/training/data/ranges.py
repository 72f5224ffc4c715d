"""Choose black and white for images whose type does not define them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.io.readers import ArrayLike

CommonRange = tuple[float, float] | Mapping[str, tuple[float, float]]  # of all types, or by the name of the type

_WINDOWS, _WINDOW = 256, 64  # a million pixels at the most, however large the images
_PERCENTILE = 99.9  # ignores a few hot pixels
_ALPHA_SAMPLES = (2, 4)


def uses_full_range(dtype: np.dtype[Any]) -> bool:
    """Return whether images of a type use its full range: booleans and 8 bits do, 16 bits and floats rarely."""
    return dtype.itemsize == 1


def value_map(dtype: np.dtype[Any], given: tuple[float, float] | None, common: CommonRange | None) -> ValueMap:
    """Return an image's value map: from the range ``given``, else its type, else the common range of its type."""
    if given is None and not uses_full_range(dtype):
        given = common.get(dtype.name) if isinstance(common, Mapping) else common
    return ValueMap.of(dtype, given)


def common_ranges(images: Sequence[tuple[str, ArrayLike]], known: CommonRange | None = None) -> CommonRange | None:
    """Return black and white per type, for images whose type does not define them.

    Each type has its own range: a camera's counts and floats from 0 to 1 differ in their white.

    Parameters
    ----------
    images
        Axes and pixels of each.
    known
        Ranges chosen before: one for all types, or one per type.

    Returns
    -------
    tuple, mapping or None
        The range for all types if it was known, else one per type by its name; None if all types define theirs.

    Raises
    ------
    ImageError
        Nothing in the images of a type is brighter than 0.
    """
    if isinstance(known, tuple):
        return known
    deep = [image for image in images if not uses_full_range(np.dtype(image[1].dtype))]
    found = dict(known or {})
    return {**found, **estimate_range([image for image in deep if image[1].dtype.name not in found])} or None


def as_range(value_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Check a range from the user; raise `ImageError` unless it is two finite numbers, the lower one first."""
    if value_range is None:
        return None
    checked = ValueMap.of("f8", value_range)
    return checked.low, checked.high


def estimate_range(images: Sequence[tuple[str, ArrayLike]]) -> dict[str, tuple[float, float]]:
    """Estimate black and white per type of images from a sample that depends only on the images.

    Parameters
    ----------
    images
        Axes and pixels of each.

    Returns
    -------
    dict
        Black and white by the name of the type: 0 and the 99.9th percentile of a coarse sample of its images.

    Raises
    ------
    ImageError
        Nothing in the sample of a type is brighter than 0.
    """
    by_type: dict[str, list[tuple[str, ArrayLike]]] = {}
    for axes, data in images:
        by_type.setdefault(np.dtype(data.dtype).name, []).append((axes, data))
    return {name: _estimate_range(alike) for name, alike in by_type.items()}


def _estimate_range(images: Sequence[tuple[str, ArrayLike]]) -> tuple[float, float]:
    """Choose black and white of images of one type."""
    generator = np.random.default_rng(0)
    sizes = np.array([math.prod(data.shape) for _, data in images], dtype=np.float64)
    chosen = np.sort(generator.choice(len(images), _WINDOWS, p=sizes / sizes.sum()))  # sorted: each file is opened once
    sample = np.concatenate([_sample_window(images[int(number)], generator) for number in chosen])
    sample = sample[np.isfinite(sample)]
    for white in (float(np.percentile(sample, _PERCENTILE)), float(sample.max())) if sample.size else ():
        if white > 0:
            return 0.0, white
    raise ImageError("nothing in the images is brighter than 0; give the values of black and white as value_range.")


def _sample_window(image: tuple[str, ArrayLike], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Read a random window of a random plane, without alpha."""
    axes, data = image
    window = []
    for axis, size in zip(axes, data.shape, strict=True):
        if axis == "s":
            window.append(slice(0, size - (size in _ALPHA_SAMPLES)))
        else:
            length = min(_WINDOW if axis in "yx" else 1, size)
            start = int(generator.integers(size - length + 1))
            window.append(slice(start, start + length))
    return np.asarray(data[tuple(window)], dtype=np.float64).ravel()
