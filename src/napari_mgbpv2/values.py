"""Pixel values: the linear map between an image's own values and the network's 0 to 1, and back.

One map serves the whole image. Nothing is clipped on the way in. On the way back, integers are rounded and clipped to
their type, floats are left as they are. NaN and infinity cannot go through a network, which would spread them over
everything in reach: they go in as the range's ends (NaN and -infinity as the low one, +infinity as the high one) and
come back at their own place, on all target pixels of their source pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import ImageError, SourceError

Pixels = npt.NDArray[Any]


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
        dtype = np.dtype(dtype)
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

    @property
    def _wide(self) -> type[np.float32] | type[np.float64]:
        """Float type that holds the image's values; the network itself has the 24 bits of float32."""
        exact = self.dtype.itemsize <= 2 or self.dtype == np.float32
        return np.float32 if exact else np.float64
