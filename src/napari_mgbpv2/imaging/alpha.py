"""Alpha: replace the colours of invisible pixels, which must not mix with those of visible ones.

A file may have any colour where alpha is 0: black, white, or the colours of an erased background. Resampling and a
network mix neighbouring pixels, so such a colour would show as a fringe. It is therefore replaced by the colours of the
visible pixels around it before pixels are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

ALPHA_SAMPLES = (2, 4)  # numbers of samples with alpha as the last one: grey + alpha, RGBA

_LEVELS = 5  # number of means of increasing width, over 3 to 63 pixels
REACH = 2**_LEVELS - 1  # the colour of an invisible pixel comes from pixels up to this distance
_TRUSTED_SHARE = 1 / 8  # of the alpha around a pixel; below it, 8 bits store too little of the pixel's own colour


def has_alpha(axes: str, shape: Sequence[int]) -> bool:
    """Return whether the last sample of an image is alpha, because axis "s" has 2 or 4 samples."""
    return "s" in axes and shape[axes.index("s")] in ALPHA_SAMPLES


def opaque_value(dtype: npt.DTypeLike) -> int | float:
    """Return the alpha of an opaque pixel: the largest value of an integer type, else 1."""
    dtype = np.dtype(dtype)
    return int(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def visible_colours(image: Any, axes: str) -> Any:
    """Wrap an image with alpha in `VisibleColours`. Return an image without alpha unchanged."""
    return VisibleColours(image, axes) if has_alpha(axes, image.shape) else image


@dataclass(frozen=True)
class VisibleColours:
    """An image with alpha whose invisible colours are replaced on reading.

    The pixels depend on the image alone, bit for bit, and not on the window. Alpha is unchanged, and so are the colours
    of pixels except those that are almost invisible compared with their neighbours.

    Parameters
    ----------
    image
        The image, read by one slice of step 1 per axis.
    axes
        One letter per axis, with "s" of 2 or 4 samples.
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
        """Value of missing pixels, or None."""
        return getattr(self.image, "nodata", None)

    def __getitem__(self, window: tuple[slice, ...]) -> Pixels:
        """Read the pixels of one slice per axis, and replace the invisible colours among them."""
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
    if missing.any():  # Missing pixels are unchanged, and do not colour others.
        weight[missing] = 0
    fields = np.concatenate([weight[np.newaxis], np.where(weight > 0, colours, 0) * weight])
    around, scale = _spread(fields)
    found = around[0] > 0
    # A pixel with an alpha of few steps has few steps of colour, too. Trust it by its alpha relative to its neighbours.
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
    """Return a sum of means of increasing width over y and x, narrow ones with more weight, and the sum of the weights.

    Each mean is a sum of shifted values in a fixed order, with zeros beyond the ends. It therefore has the same bits in
    every window with a margin of `REACH` pixels.
    """
    total, scale, share = np.zeros_like(fields), 0.0, 1.0
    for level in range(_LEVELS):
        for axis in (-2, -1):
            fields = _smoothed(fields, axis, 2**level)
        total += fields.dtype.type(share) * fields
        scale, share = scale + share, share / 4
    return total, scale


def _smoothed(fields: Floats, axis: int, step: int) -> Floats:
    """Return the means of each value, twice, and of those at a distance of ``step`` on either side."""
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
    if int(highest) > limits.max:  # Floats cannot represent the largest 64-bit integers.
        highest = np.nextafter(highest, values.dtype.type(0))
    return np.clip(np.rint(values), values.dtype.type(limits.min), highest).astype(dtype)
