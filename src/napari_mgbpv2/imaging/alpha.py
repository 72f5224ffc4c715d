"""Alpha: the colour of pixels that nobody sees is no part of the picture, and is kept out of those that are seen.

A file may have any colour where alpha is 0: black, white, or what was there before a background was erased. Resampling
and a network mix neighbouring pixels, so that such a colour would show as a fringe. Before pixels are used, it is
replaced by the colours of the visible pixels around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

ALPHA_SAMPLES = (2, 4)  # samples of a colour pixel whose last one is alpha: grey + alpha, RGBA

_LEVELS = 5  # of ever wider means, over 3 to 63 pixels
REACH = 2**_LEVELS - 1  # pixels to either side that the colour of an invisible pixel may come from
_TRUSTED_SHARE = 1 / 8  # of the alpha around it; below that, 8 bits hold too little of a pixel's own colour


def has_alpha(axes: str, shape: Sequence[int]) -> bool:
    """Return whether the last sample of an image is alpha: where axis "s" has 2 samples or 4."""
    return "s" in axes and shape[axes.index("s")] in ALPHA_SAMPLES


def opaque_value(dtype: npt.DTypeLike) -> int | float:
    """Return the alpha of an opaque pixel: the largest value of an integer type, else 1."""
    dtype = np.dtype(dtype)
    return int(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def visible_colours(image: Any, axes: str) -> Any:
    """Return an image that is read with visible colours alone, as `VisibleColours`; itself if it has no alpha."""
    return VisibleColours(image, axes) if has_alpha(axes, image.shape) else image


@dataclass(frozen=True)
class VisibleColours:
    """Pixels of an image with alpha whose invisible colours are replaced when they are read.

    What is read depends on the image alone, bit for bit, and not on the window. The colour of a pixel that is not
    almost invisible beside its neighbours stays as it is, and so does alpha.

    Parameters
    ----------
    image
        Gives pixels for one slice an axis, step 1.
    axes
        Letters of its axes, with "s" of 2 or 4 samples.
    """

    image: Any
    axes: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return tuple(int(size) for size in self.image.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        dtype: np.dtype[Any] = np.dtype(self.image.dtype)
        return dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.image.shape)

    @property
    def nodata(self) -> Any:
        """Value that stands for missing pixels, or None."""
        return getattr(self.image, "nodata", None)

    def __getitem__(self, window: tuple[slice, ...]) -> Pixels:
        """Read the pixels of one slice an axis, with what is around them."""
        y, x, s = (self.axes.index(axis) for axis in "yxs")
        samples, alpha = window[s], self.shape[s] - 1
        if samples.start >= alpha or any(part.start >= part.stop for part in window):
            return np.asarray(self.image[window])
        wide, inside = list(window), [slice(None)] * len(window)
        for axis in (y, x):
            part = window[axis]
            start, stop = max(0, part.start - REACH), min(self.shape[axis], part.stop + REACH)
            wide[axis], inside[axis] = slice(start, stop), slice(part.start - start, part.stop - start)
        wide[s] = slice(samples.start, alpha + 1)
        pixels = np.asarray(self.image[tuple(wide)])
        filled = _filled(np.moveaxis(pixels, (s, y, x), (0, -2, -1)), self.nodata)
        inside[s] = slice(0, samples.stop - samples.start)
        result: Pixels = np.moveaxis(filled, (0, -2, -1), (s, y, x))[tuple(inside)]
        return result


def _filled(pixels: Pixels, nodata: Any) -> Pixels:
    """Return (samples, ..., y, x) pixels, the last sample alpha, with the colours of invisible pixels replaced."""
    *_, alpha = pixels
    opaque = opaque_value(pixels.dtype)
    if (alpha >= opaque).all():
        return pixels
    wide = np.float32 if pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32 else np.float64
    colours = pixels[:-1].astype(wide)
    with np.errstate(invalid="ignore"):
        weight = np.clip(np.nan_to_num(alpha.astype(wide) / wide(opaque)), 0, 1)
    missing = ~np.isfinite(colours).all(axis=0)
    if nodata is not None:
        missing |= (pixels[:-1] == nodata).any(axis=0)
    if missing.any():  # such a pixel stays as it is, and is no colour for others
        weight[missing] = 0
    fields = np.concatenate([weight[np.newaxis], np.where(weight > 0, colours, 0) * weight])
    around, scale = _spread(fields)
    found = around[0] > 0
    # an alpha of a few steps has few steps of colour, too: it is trusted as far as it is seen beside its neighbours
    trust = np.minimum(
        1, np.divide(weight * wide(scale / _TRUSTED_SHARE), around[0], out=np.zeros_like(weight), where=found)
    )
    replaced = (trust < 1) & ~missing
    if not replaced.any():
        return pixels
    mean = np.divide(around[1:], around[0], out=np.zeros_like(colours), where=found)
    mixed = mean + trust * (np.where(weight > 0, colours, 0) - mean)
    result = pixels.copy()
    for target, values in zip(result[:-1], mixed, strict=True):
        target[replaced] = _as_type(values[replaced], pixels.dtype)
    return result


def _spread(fields: Floats) -> tuple[Floats, float]:
    """Add up ever wider means over y and x, the narrow ones with more weight; also returns the sum of the weights.

    Each is made of shifted sums in one order, with nothing beyond the ends: equal bits in any window that has `REACH`
    pixels around.
    """
    total, scale, share = np.zeros_like(fields), 0.0, 1.0
    for level in range(_LEVELS):
        for axis in (-2, -1):
            fields = _smoothed(fields, axis, 2**level)
        total += fields.dtype.type(share) * fields
        scale, share = scale + share, share / 4
    return total, scale


def _smoothed(fields: Floats, axis: int, step: int) -> Floats:
    """Return means of each value (twice) and those at a distance of ``step`` on either side."""
    result = 2 * fields
    if fields.shape[axis] > step:
        before, after = [slice(None)] * fields.ndim, [slice(None)] * fields.ndim
        before[axis], after[axis] = slice(None, -step), slice(step, None)
        result[tuple(after)] += fields[tuple(before)]
        result[tuple(before)] += fields[tuple(after)]
    result *= fields.dtype.type(0.25)
    return result


def _as_type(values: Floats, dtype: np.dtype[Any]) -> Pixels:
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    highest = values.dtype.type(limits.max)
    if int(highest) > limits.max:  # the largest 64-bit integers are no floats
        highest = np.nextafter(highest, values.dtype.type(0))
    return np.clip(np.rint(values), values.dtype.type(limits.min), highest).astype(dtype)
