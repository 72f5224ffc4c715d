"""The values of black and white where nobody gives them: the type's, or measured where a model could not do with those.

A model that follows offsets gives f(x + b) = f(x) + b: it needs no range. Others know values from black on, and where
they have biases, up to white. The amplitude of noise is a share of the range, for any model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.alpha import has_alpha
from napari_mgbpv2.imaging.values import ValueMap

MEASURED_BYTES = 256 * 2**20  # of an array in memory, which is measured whole; more would take seconds
MOST_PIXELS = 2**24  # of an array in memory, or of a coarse level, that are looked at
WINDOWS, WINDOW = 64, 128  # of a sample, and their side in pixels: about a million pixels, however large the image
MOST_PLANES = 16  # that a sample looks at; more would leave each of them with less than its four corners
MARGIN = 1 / 16  # of the span, added at both ends where only a sample has been measured


class Extremes(NamedTuple):
    """The lowest and the highest value of an image.

    Attributes
    ----------
    lowest, highest
        Finite.
    is_complete
        Whether all pixels have been looked at, not only a sample.
    """

    lowest: float
    highest: float
    is_complete: bool


Measure = Callable[[], Extremes | None]  # None where there is no pixel that counts


class ChosenRange(NamedTuple):
    """The map that an image's values go through.

    Attributes
    ----------
    values
        The map.
    is_known
        Whether black and white were given, measured, or do not matter.
    note
        What has been measured, for people; empty where nothing has.
    """

    values: ValueMap
    is_known: bool
    note: str


def choose_range(
    image: Any,
    value_range: tuple[float, float] | None,
    *,
    model: str,
    follows_offsets: bool,
    is_homogeneous: bool,
    noise: float,
    measure: Measure | None,
) -> ChosenRange:
    """Choose the values of black and white.

    Parameters
    ----------
    image
        An array; its pixels are read only if it is a NumPy array in memory, of up to `MEASURED_BYTES`.
    value_range
        As it was given.
    model
        Its name.
    follows_offsets, is_homogeneous
        Whether the model gives f(x + b) = f(x) + b, and f(a x) = a f(x) for a > 0.
    noise
        Amplitude of the noise.
    measure
        Measures the image where that is needed. Without it, only an array in memory is measured.

    Raises
    ------
    ImageError
        The range is none, or the image is of a signed type and nobody can say what is black.
    """
    values = ValueMap.of(image.dtype, value_range)
    kind, size = values.dtype.kind, values.dtype.itemsize
    below = kind in "if" and not follows_offsets
    above = kind == "f" and not (follows_offsets or is_homogeneous)
    noisy = bool(noise) and (kind == "f" or (kind in "iu" and size > 1))
    if value_range is not None or not (below or above or noisy):
        return ChosenRange(values, True, "")
    found = measure() if measure is not None else extremes_in_memory(image)
    if found is None and measure is None:
        if below and kind == "i":
            raise ImageError(
                f"the image holds {values.dtype} values, which may be negative, and the model {model} knows those from "
                "black to white alone: give value_range=(black, white) that includes all that occur, such as "
                "(-1024, 3071) for CT numbers, or a model that follows any offset."
            )
        return ChosenRange(values, not (below or above), "")
    ends = None if found is None else _ends(values, found, below=below, above=above, noisy=noisy)
    if ends is None:
        return ChosenRange(values, True, "")
    assert found is not None
    note = (
        f"black is {ends[0]:.10g} and white is {ends[1]:.10g}, as measured on "
        f"{'all pixels' if found.is_complete else 'a sample of the pixels'} "
        f"({found.lowest:.10g} to {found.highest:.10g}); a value range that is given wins"
    )
    return ChosenRange(ValueMap.of(values.dtype, ends), True, note)


def _ends(values: ValueMap, found: Extremes, *, below: bool, above: bool, noisy: bool) -> tuple[float, float] | None:
    """Return black and white for what has been measured; None where those of the type will do."""
    low, high = found.lowest, found.highest
    if values.dtype.kind in "iu":
        # of a camera of 12 bits, white is 4095
        white = min(float(2 ** max(int(high), 1).bit_length() - 1), values.high)
    else:
        white = max(high, 1.0)
    if not ((below or noisy) and low < 0):
        needed = white != values.high and (noisy or above)
        return (0.0, white) if needed else None
    if not found.is_complete:
        margin = MARGIN * (high - low)
        low, high = low - margin, high + margin
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        low, high = max(float(np.floor(low)), float(limits.min)), min(float(np.ceil(high)), float(limits.max))
    return low, high if high > low else low + 1


def extremes_in_memory(image: Any) -> Extremes | None:
    """Measure a NumPy array in memory; None for anything else, which would have to be read or computed."""
    if not isinstance(image, np.ndarray) or image.nbytes > MEASURED_BYTES or _is_mapped(image):
        return None
    return extremes_of([image], is_complete=True)


def extremes_of(parts: Any, *, is_complete: bool, nodata: float | None = None) -> Extremes | None:
    """Measure arrays together: their finite values that are neither masked nor ``nodata``; None where there is none."""
    lowest, highest = np.inf, -np.inf
    for part in parts:
        pixels = np.ma.getdata(part)
        counted = np.isfinite(pixels) & ~np.ma.getmaskarray(part)
        if nodata is not None:
            counted &= pixels != nodata
        if counted.any():
            chosen = pixels[counted]
            lowest, highest = min(lowest, float(chosen.min())), max(highest, float(chosen.max()))
    return Extremes(lowest, highest, is_complete) if lowest <= highest else None


def sampled_extremes(image: Any, axes: str, coarser: Sequence[Any] = ()) -> Extremes | None:
    """Measure an image, or a sample of it that depends on its shape alone; None where no pixel counts.

    An array in memory is measured whole or by every n-th row and column. Of a pyramid, a coarse level is read. Any
    other small image is read whole, and a larger one by windows that are spread over its planes and over each of
    them, to its edges.

    Parameters
    ----------
    image
        Gives pixels for one slice per axis. Its attribute ``nodata``, if it has one, is the value of missing pixels.
    axes
        Letters of its axes. Alpha is left out.
    coarser
        Lower resolutions of the same image, finest first, if there are any.
    """
    from napari_mgbpv2.upscaling.lazy import lazy_source

    nodata = getattr(image, "nodata", None)
    shape = tuple(int(size) for size in image.shape)
    if isinstance(image, np.ndarray) and not _is_mapped(image):
        step = math.ceil(math.sqrt(image.size / MOST_PIXELS))
        every = tuple(slice(None, None, step if axis in "yx" else None) for axis in axes)
        return extremes_of([_without_alpha(image, axes)[every]], is_complete=step <= 1, nodata=nodata)
    coarse = next((level for level in coarser if math.prod(level.shape) <= MOST_PIXELS), None)
    if coarse is not None:
        return extremes_of([_without_alpha(_pixels_of(coarse), axes)], is_complete=False, nodata=nodata)
    if coarser:
        image = coarser[-1]
        shape = tuple(int(size) for size in image.shape)
    is_complete = math.prod(shape) <= WINDOWS * WINDOW**2
    windows = iter([tuple(slice(0, size) for size in shape)]) if is_complete else _windows(shape, axes)
    source = lazy_source(image)
    found = (_without_alpha(_pixels_of(source[window]), axes) for window in windows)
    return extremes_of(found, is_complete=is_complete and not coarser, nodata=nodata)


def _windows(shape: Sequence[int], axes: str) -> Iterator[tuple[slice, ...]]:
    """Spread windows evenly over the planes of an image, and over y and x of each."""
    carried = [size for size, axis in zip(shape, axes, strict=True) if axis not in "yxs"]
    count = math.prod(carried)
    planes = np.unique(np.linspace(0, count - 1, min(count, MOST_PLANES)).round().astype(np.int64))
    per_side = max(2, math.isqrt(WINDOWS // len(planes)))
    starts = [
        np.unique(np.linspace(0, max(0, size - WINDOW), per_side).astype(np.int64))
        for size, axis in zip(shape, axes, strict=True)
        if axis in "yx"
    ]
    for plane in planes:
        for corner in itertools.product(*starts):
            position, sides = iter(np.unravel_index(int(plane), carried) if carried else ()), iter(corner)
            window = []
            for axis, size in zip(axes, shape, strict=True):
                start = 0 if axis == "s" else int(next(sides if axis in "yx" else position))
                length = size if axis == "s" else WINDOW if axis in "yx" else 1
                window.append(slice(start, min(size, start + length)))
            yield tuple(window)


def _pixels_of(part: Any) -> Any:
    """Return what an array has given as NumPy's; a masked array stays one."""
    return part if isinstance(part, np.ma.MaskedArray) else np.asarray(part)


def _without_alpha(pixels: Any, axes: str) -> Any:
    """Leave out the last sample of colours where it is alpha."""
    if not has_alpha(axes, pixels.shape):
        return pixels
    colours = [slice(None)] * pixels.ndim
    colours[axes.index("s")] = slice(0, -1)
    return pixels[tuple(colours)]


def _is_mapped(image: Any) -> bool:
    """Tell whether the pixels of an array lie in a file."""
    while image is not None:
        if isinstance(image, np.memmap):
            return True
        image = getattr(image, "base", None)
    return False
