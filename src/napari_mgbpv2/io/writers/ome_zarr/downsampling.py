"""The mean of each 2 x 2 pixels: how one level of a pyramid follows from the one before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.imaging.alpha import ALPHA_SAMPLES

Pixels = npt.NDArray[Any]


def halve_visible(image: Pixels, samples: int) -> Pixels:
    """Halve as `halve` does an image whose last sample is alpha: a colour counts as much as it is seen.

    Where the pixels of a mean are equally opaque, and where none is seen, it is the mean of `halve`, bit for bit.

    Parameters
    ----------
    image
        (..., y, x) of an integer or float type.
    samples
        Number of the axis of the samples, before y and x.

    Returns
    -------
    ndarray
        (..., ceil(y / 2), ceil(x / 2)) of the same type.
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
    """Return the four pixels of each mean; at an odd edge, one that exists stands for one that does not."""
    height, width = image.shape[-2:]
    if height % 2 or width % 2:  # a row or column given twice leaves the mean of the existing ones
        image = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(0, height % 2), (0, width % 2)], mode="edge")
    return [image[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]


def halve(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean of each 2 x 2 pixels over the last two axes; at an odd edge, of those that exist.

    Integers: the exact mean, halves rounded up. Floats: summed in float64 for float64, else float32; NaN spreads.

    Parameters
    ----------
    image
        (..., y, x) of an integer or float type.

    Returns
    -------
    ndarray
        (..., ceil(y / 2), ceil(x / 2)) of the same type.
    """
    first, *others = _quarters(image)
    if image.dtype.kind == "f":
        wide = np.promote_types(image.dtype, np.float32)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, and that is meant
            # quarters are exact, and their sum cannot overflow
            total: npt.NDArray[Any] = np.multiply(first, 0.25, dtype=wide)
            for other in others:
                total += np.multiply(other, 0.25, dtype=wide)
        return total.astype(image.dtype, copy=False)
    quarters: npt.NDArray[Any] = first >> 2
    rest = first & 3  # a value is 4 quarters + rest, and no sum of these leaves the type
    for other in others:
        quarters += other >> 2
        rest += other & 3
    quarters += (rest + 2) >> 2
    return quarters


def is_half(half: Pixels, image: Pixels) -> bool:
    """Whether pixels are what halving an image gives, whichever of its axes holds samples with alpha, if one does.

    Parameters
    ----------
    half
        (..., ceil(y / 2), ceil(x / 2))
    image
        (..., y, x) of any type that `halve` takes; ``half`` has the same, or a wider one.
    """
    samples = [axis for axis, size in enumerate(image.shape[:-2]) if size in ALPHA_SAMPLES]
    for halved in (halve(image), *(halve_visible(image, axis) for axis in samples)):
        if np.array_equal(halved.astype(half.dtype), half, equal_nan=half.dtype.kind == "f"):
            return True
    return False
