"""Downsampling of pyramid levels by the mean of each 2 x 2 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.imaging.alpha import ALPHA_SAMPLES

Pixels = npt.NDArray[Any]


def halve_visible(image: Pixels, samples: int) -> Pixels:
    """Halve an image with alpha as its last sample; colours are weighted by alpha.

    If the four pixels have the same alpha, the result equals that of `halve` bit for bit.

    Parameters
    ----------
    image
        Shape (..., y, x), of an integer or float type.
    samples
        Index of the axis of the samples, before y and x.

    Returns
    -------
    ndarray
        Shape (..., ceil(y / 2), ceil(x / 2)), of the same type.
    """
    result = halve(image)
    *colours, alpha = np.moveaxis(image, samples, 0)
    weights = _quarters(alpha.astype(np.float64))
    with np.errstate(invalid="ignore", over="ignore"):
        total = sum(weights)
        mixed = (total > 0) & ~np.logical_and.reduce([weight == weights[0] for weight in weights])
        if not mixed.any():
            return result
        means = []
        for colour in colours:
            parts = zip(weights, _quarters(colour.astype(np.float64)), strict=True)
            mean = sum(np.where(weight > 0, weight * part, 0.0) for weight, part in parts) / np.where(mixed, total, 1.0)
            means.append(mean if image.dtype.kind == "f" else np.floor(mean + 0.5))
    for target, values in zip(np.moveaxis(result, samples, 0)[:-1], means, strict=True):
        target[mixed] = values[mixed].astype(image.dtype)
    return result


def _quarters(image: Pixels) -> list[Pixels]:
    """Return the four pixels of each mean; at an odd edge, the last row or column is repeated."""
    height, width = image.shape[-2:]
    if height % 2 or width % 2:  # repeating a row or column keeps the mean of the existing pixels
        image = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(0, height % 2), (0, width % 2)], mode="edge")
    return [image[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]


def halve(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the mean of each 2 x 2 pixels over the last two axes; at an odd edge, of the existing pixels.

    Integers: the exact mean, with halves rounded up. Floats: summed in float64 for float64, else in float32; NaN
    propagates.

    Parameters
    ----------
    image
        Shape (..., y, x), of an integer or float type.

    Returns
    -------
    ndarray
        Shape (..., ceil(y / 2), ceil(x / 2)), of the same type.
    """
    first, *others = _quarters(image)
    if image.dtype.kind == "f":
        wide = np.promote_types(image.dtype, np.float32)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, as intended
            # division by 4 is exact, and the sum of quarters cannot overflow
            total: npt.NDArray[Any] = np.multiply(first, 0.25, dtype=wide)
            for other in others:
                total += np.multiply(other, 0.25, dtype=wide)
        return total.astype(image.dtype, copy=False)
    quarters: npt.NDArray[Any] = first >> 2
    rest = first & 3  # value = 4 * quarter + rest; sums of either fit into the type
    for other in others:
        quarters += other >> 2
        rest += other & 3
    quarters += (rest + 2) >> 2
    return quarters


def is_half(half: Pixels, image: Pixels) -> bool:
    """Return whether pixels equal a halved image, with or without alpha weighting.

    Parameters
    ----------
    half
        Shape (..., ceil(y / 2), ceil(x / 2)).
    image
        Shape (..., y, x), of an integer or float type. ``half`` has the same type or a wider one.
    """
    samples = [axis for axis, size in enumerate(image.shape[:-2]) if size in ALPHA_SAMPLES]
    for halved in (halve(image), *(halve_visible(image, axis) for axis in samples)):
        if np.array_equal(halved.astype(half.dtype), half, equal_nan=half.dtype.kind == "f"):
            return True
    return False
