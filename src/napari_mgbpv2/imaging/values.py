"""Pixel values: the linear map between an image's values and the network's 0 to 1, and back.

One map serves the whole image. Values are not clipped on the way to the network. On the way back, integers are rounded
and clipped to their type, and floats are unchanged. A network would spread NaN and infinity over its whole receptive
field. `ValueMap.to_unit` therefore maps them to the ends of the range (NaN and -infinity to the low one, +infinity to
the high one), and `fill_missing` replaces missing pixels of a tile by their neighbours.

float32 has 24 bits. An image whose offset is large compared with its contrast would lose the contrast, so a tile may
have its own `TileFrame`: an offset and an extent, subtracted and added back in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import ImageError, SourceError

Pixels = npt.NDArray[Any]

SAFE_EXPONENT = 40  # values up to 2^40 extents stay far from the limits of float32 in any network


def check_pixels(what: str, pixels: Pixels, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that pixels have the shape and dtype that their source has declared.

    With another shape, pixels of the result would be undefined; with another type, meaningless. A float of another
    width is accepted.

    Parameters
    ----------
    what
        Name of the source in error messages.
    pixels
        The pixels read.
    shape
        The declared shape.
    dtype
        The declared dtype.

    Raises
    ------
    SourceError
        The shape or the dtype differs.
    """
    if pixels.shape != shape:
        raise SourceError(
            f"{what} has the shape {pixels.shape} and not {shape} as declared; fix the code that computes it."
        )
    both_floats = pixels.dtype.kind == dtype.kind == "f"
    if not both_floats and not np.can_cast(pixels.dtype, dtype):
        raise SourceError(
            f"{what} holds {pixels.dtype} values and not {dtype} as declared; fix the code that computes it."
        )


def fill_missing(
    pixels: npt.NDArray[np.floating[Any]], missing: npt.NDArray[np.bool_], steps: int
) -> npt.NDArray[np.floating[Any]]:
    """Replace missing pixels by means of their neighbours, to avoid an edge around them.

    In each step, a missing pixel with known neighbours becomes their mean. A filled value depends only on the pixels
    within ``steps`` of it, and has the same bits in every window that contains them.

    Parameters
    ----------
    pixels
        (C, h, w), float. Values at missing pixels are not used.
    missing
        (C, h, w) bool.
    steps
        Largest distance in pixels from a known pixel for means. Pixels farther away become the middle between the
        lowest and the highest known value, or 0 if no pixel is known.

    Returns
    -------
    ndarray
        (C, h, w), a copy without missing pixels.
    """
    known = ~missing
    filled = np.where(known, pixels, 0)
    if not known.any():
        return filled
    middle = 0.5 * filled.min(where=known, initial=np.inf) + 0.5 * filled.max(where=known, initial=-np.inf)
    for _ in range(steps):
        if known.all():
            return filled
        counts = _sum_of_neighbours(known.astype(filled.dtype))
        reached = ~known & (counts > 0)
        if not reached.any():
            break
        totals = _sum_of_neighbours(filled)
        filled[reached] = totals[reached] / counts[reached]
        known |= reached
    filled[~known] = middle
    return filled


def _sum_of_neighbours(pixels: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return the sum of the 3 x 3 pixels around each pixel of a (C, h, w) image, in a fixed order."""
    for axis in (1, 2):
        total = pixels.copy()
        ends = [slice(None)] * 3
        starts = [slice(None)] * 3
        ends[axis], starts[axis] = slice(1, None), slice(None, -1)
        total[tuple(ends)] += pixels[tuple(starts)]
        total[tuple(starts)] += pixels[tuple(ends)]
        pixels = total
    return pixels


@dataclass(frozen=True)
class TileFrame:
    """The map from a tile's values to the input of a network, ``(value - offset) / extent``.

    Parameters
    ----------
    offset
        In the image's values.
    extent
        In the image's values, above 0.
    """

    offset: float
    extent: float

    def to_network(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Map an image's values to float64 values that float32 represents well enough."""
        values: npt.NDArray[np.float64] = np.subtract(pixels, self.offset, dtype=np.float64, casting="unsafe")
        values /= self.extent
        return values


@dataclass(frozen=True)
class ValueMap:
    """The linear map from ``low`` to 0 and from ``high`` to 1.

    Parameters
    ----------
    dtype
        Type of the image: boolean, integer, or float.
    low
        Value of black, finite.
    high
        Value of white, finite and above ``low``.
    """

    dtype: np.dtype[Any]
    low: float
    high: float

    @classmethod
    def of(cls, dtype: npt.DTypeLike, value_range: tuple[float, float] | None) -> ValueMap:
        """Return the map for an image.

        Parameters
        ----------
        dtype
            Type of the image.
        value_range
            Values of black and white. By default 0 and the largest value of an integer type, or 0 and 1 for floats and
            booleans.

        Raises
        ------
        ImageError
            The type is not one of numbers that can be upscaled, or the range is not two finite, ascending numbers.
        """
        try:
            dtype = np.dtype(dtype)
        except TypeError:  # of another library's arrays
            raise ImageError(
                f"the image holds {dtype} values, which NumPy does not know; convert it to a NumPy or Dask array."
            ) from None
        if dtype.kind not in "buif" or dtype.itemsize > 8:
            raise ImageError(
                f"the image holds {dtype} values; it must hold booleans, integers or floats up to 64 bits."
            )
        if value_range is None:
            return cls(dtype, 0.0, float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0)
        try:
            low, high = (float(end) for end in value_range)
        except (TypeError, ValueError):
            raise ImageError(f"value_range is {value_range!r}; give two numbers: black and white.") from None
        if not (np.isfinite([low, high]).all() and low < high):
            raise ImageError(f"value_range is {value_range!r}; give two finite numbers, the lower one first.")
        values = cls(dtype, low, high)
        with np.errstate(all="ignore"):
            extent = values._float_type(high - low)
        if not 0 < extent < np.inf:
            raise ImageError(f"value_range is {value_range!r}, too narrow or too wide for {dtype} arithmetic.")
        return values

    def to_unit(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Map an image's values to float32, ``low`` and NaN to 0, ``high`` to 1, and infinities to 0 and 1."""
        # The subtraction casts in blocks. Another large array would cost more than the arithmetic.
        wide: Pixels = np.subtract(pixels, self._float_type(self.low), dtype=self._float_type, casting="unsafe")
        wide /= self._float_type(self.high - self.low)
        unit: npt.NDArray[np.float32] = wide.astype(np.float32, copy=False)
        if self.dtype.kind == "f":
            np.nan_to_num(unit, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
        return unit

    def from_unit(self, unit: npt.NDArray[np.float32]) -> Pixels:
        """Map network output back to the image's values and dtype. ``unit`` is used as working memory."""
        values: Pixels = unit.astype(self._float_type, copy=False)
        values *= self._float_type(self.high - self.low)
        values += self._float_type(self.low)
        if self.dtype.kind == "f":
            return values.astype(self.dtype, copy=False)
        if self.dtype.kind == "b":
            return np.greater_equal(values, 0.5 * (self.low + self.high))
        limits = np.iinfo(self.dtype)
        np.rint(values, out=values)
        # Floats cannot represent the largest 64-bit integers. The next float below keeps the cast inside the type.
        highest = self._float_type(limits.max)
        if int(highest) > limits.max:
            highest = np.nextafter(highest, self._float_type(0))
        np.clip(values, self._float_type(limits.min), highest, out=values)
        return values.astype(self.dtype)

    def choose_frame(
        self, pixels: Pixels, missing: npt.NDArray[np.bool_] | None, *, follows_offsets: bool, follows_scaling: bool
    ) -> TileFrame:
        """Return the frame of a tile, which depends only on the tile's own source pixels.

        Parameters
        ----------
        pixels
            Source pixels of the tile, any shape, in the image's values.
        missing
            Mask of pixels to ignore, of the shape of ``pixels``; None for none.
        follows_offsets
            Whether the network satisfies f(x + b) = f(x) + b. The middle of the values is then the offset.
        follows_scaling
            Whether the network satisfies f(a x) = a f(x) for a > 0. Values that are very large or very small for
            float32 are then scaled by a power of two, which does not change the bits of others.
        """
        counted = pixels if missing is None else pixels[~missing]
        if counted.size == 0:
            return TileFrame(self.low, self.high - self.low)
        lowest, highest = float(counted.min()), float(counted.max())
        offset, extent = self.low, self.high - self.low
        if follows_offsets:
            offset = 0.5 * lowest + 0.5 * highest
            offset = float(np.rint(offset) if self.dtype.kind in "uib" else np.float32(offset))
            if not np.isfinite(offset):  # beyond float32
                offset = 0.5 * lowest + 0.5 * highest
        largest = max(abs(0.5 * highest - 0.5 * offset), abs(0.5 * lowest - 0.5 * offset))
        exponent = int(np.frexp(largest)[1]) - int(np.frexp(extent)[1])
        if follows_scaling and largest > 0 and abs(exponent) > SAFE_EXPONENT:
            extent = float(np.ldexp(extent, exponent))
        return TileFrame(offset, extent)

    @property
    def needs_float64(self) -> bool:
        """True if float32 cannot represent all values of the dtype: integers of more than 16 bits, floats of 64."""
        return self._float_type is np.float64

    @property
    def _float_type(self) -> type[np.float32] | type[np.float64]:
        """Float type for the image's values. The network itself computes in float32."""
        exact = self.dtype.itemsize <= 2 or self.dtype == np.float32
        return np.float32 if exact else np.float64
