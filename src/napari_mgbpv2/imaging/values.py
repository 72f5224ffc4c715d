"""Pixel values: the linear map between an image's own values and the network's 0 to 1, and back.

One map serves the whole image. Nothing is clipped on the way in. On the way back, integers are rounded and clipped to
their type, floats are left as they are. NaN and infinity cannot go through a network, which would spread them over
everything in reach: `ValueMap.to_unit` gives the range's ends (NaN and -infinity the low one, +infinity the high one),
and what computes tiles replaces missing pixels by their neighbours with `fill_missing`.

float32 has 24 bits. An image whose offset is large against its contrast would lose the contrast in them, so a tile may
have a `TileFrame`: an offset and an extent of its own, taken off and added back in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import ImageError, SourceError

Pixels = npt.NDArray[Any]

SAFE_EXPONENT = 40  # values up to 2^40 extents are far from the ends of float32, whatever a network adds up


def check_pixels(what: str, pixels: Pixels, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise `SourceError` unless an array gives what it has said it would: this shape, and values of its type.

    What says another shape would leave pixels of the result undefined, and what says another type, without a meaning. A
    float of another width has one.
    """
    if pixels.shape != shape:
        raise SourceError(f"{what} has the shape {pixels.shape} and not {shape} as it says; mend what makes it.")
    both_floats = pixels.dtype.kind == dtype.kind == "f"
    if not both_floats and not np.can_cast(pixels.dtype, dtype):
        raise SourceError(f"{what} holds {pixels.dtype} values and not {dtype} as it says; mend what makes it.")


def fill_missing(
    pixels: npt.NDArray[np.floating[Any]], missing: npt.NDArray[np.bool_], steps: int
) -> npt.NDArray[np.floating[Any]]:
    """Replace missing pixels by means of their neighbours, so that no edge stands around them.

    In each step, a missing pixel with known neighbours becomes their mean. A filled value depends on the pixels within
    ``steps`` of it alone: it is the same, bit for bit, in every window that holds them.

    Parameters
    ----------
    pixels
        (C, h, w); what stands at missing pixels is not used.
    missing
        (C, h, w).
    steps
        Pixels from the next known one up to which missing ones are filled so. Those farther away become the middle
        between the lowest and the highest known value, or 0 where none is known.

    Returns
    -------
    ndarray
        A copy of the pixels, all of them known.
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
    """Add up the 3 x 3 pixels around each pixel of a (C, h, w) image, always in the same order."""
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
    """Takes a tile's values to those that a network gets, ``(value - offset) / extent``.

    Parameters
    ----------
    offset, extent
        In the image's values; the extent is above 0.
    """

    offset: float
    extent: float

    def to_network(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Map an image's values to float64, of which float32 holds what matters."""
        values: npt.NDArray[np.float64] = np.subtract(pixels, self.offset, dtype=np.float64, casting="unsafe")
        values /= self.extent
        return values


@dataclass(frozen=True)
class ValueMap:
    """Takes ``low`` to 0 and ``high`` to 1.

    Parameters
    ----------
    dtype
        Type of the image: boolean, integer, or float.
    low, high
        Finite, low < high.
    """

    dtype: np.dtype[Any]
    low: float
    high: float

    @classmethod
    def of(cls, dtype: npt.DTypeLike, value_range: tuple[float, float] | None) -> ValueMap:
        """Make the map of an image.

        Parameters
        ----------
        dtype
            Type of the image.
        value_range
            Values of black and white. By default 0 and the largest value of an integer type; 0 and 1 for floats
            and booleans.

        Raises
        ------
        ImageError
            The type is not of numbers that can be upscaled, or the range is not two finite, ascending numbers.
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
            extent = values._wide(high - low)
        if not 0 < extent < np.inf:
            raise ImageError(f"value_range is {value_range!r}, too narrow or too wide for {dtype} arithmetic.")
        return values

    def to_unit(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Map an image's values to float32, ``low`` to 0 and ``high`` to 1; not finite ones as the module says."""
        # cast piece by piece within the subtraction: another large array would cost more than the arithmetic
        wide: Pixels = np.subtract(pixels, self._wide(self.low), dtype=self._wide, casting="unsafe")
        wide /= self._wide(self.high - self.low)
        unit: npt.NDArray[np.float32] = wide.astype(np.float32, copy=False)
        if self.dtype.kind == "f":
            np.nan_to_num(unit, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
        return unit

    def from_unit(self, unit: npt.NDArray[np.float32]) -> Pixels:
        """Map network values back to the image's own and to its type; the argument is used as working memory."""
        values: Pixels = unit.astype(self._wide, copy=False)
        values *= self._wide(self.high - self.low)
        values += self._wide(self.low)
        if self.dtype.kind == "f":
            return values.astype(self.dtype, copy=False)
        if self.dtype.kind == "b":
            return np.greater_equal(values, 0.5 * (self.low + self.high))
        limits = np.iinfo(self.dtype)
        np.rint(values, out=values)
        # the largest 64-bit integers are no floats: clipping to the next float below keeps the cast inside the type
        highest = self._wide(limits.max)
        if int(highest) > limits.max:
            highest = np.nextafter(highest, self._wide(0))
        np.clip(values, self._wide(limits.min), highest, out=values)
        return values.astype(self.dtype)

    def choose_frame(
        self, pixels: Pixels, missing: npt.NDArray[np.bool_] | None, *, follows_offsets: bool, follows_scaling: bool
    ) -> TileFrame:
        """Choose the frame of a tile from its own source pixels, so that it depends on nothing else.

        Parameters
        ----------
        pixels
            Source pixels of the tile, in the image's own values.
        missing
            Which of them do not count; None where all do.
        follows_offsets
            Whether the network gives f(x + b) = f(x) + b. Then the middle of the values is the offset.
        follows_scaling
            Whether the network gives f(a x) = a f(x) for a > 0. Then values that are very large or very small for
            float32 are scaled by a power of two, which changes no bit of others.
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
    def is_wide(self) -> bool:
        """Whether the type holds values that float32 does not: integers of more than 16 bits, floats of 64."""
        return self._wide is np.float64

    @property
    def _wide(self) -> type[np.float32] | type[np.float64]:
        """Float type that holds the image's values; the network itself has the 24 bits of float32."""
        exact = self.dtype.itemsize <= 2 or self.dtype == np.float32
        return np.float32 if exact else np.float64
