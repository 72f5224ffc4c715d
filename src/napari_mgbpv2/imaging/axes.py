"""Axes of an image, as one letter per axis.

"y" and "x" are upscaled. "s" holds the samples of a colour pixel (RGB, RGBA), which the network takes together.
"c" holds independent channels. It is carried along plane by plane, as are "z", "t" and all other axes.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from napari_mgbpv2.errors import ImageError

AXIS_ORDER = "tczyx"  # order of the axes of OME-Zarr and OME-TIFF
_LEADING = AXIS_ORDER[:-2]
_KNOWN_LETTERS = frozenset(AXIS_ORDER + "s")
_COLOUR_SAMPLES = (3, 4)
_MOST_SAMPLES = 4  # of a colour pixel: RGB and alpha
# Names of dimensions in microscopy, remote sensing, climate science and photography -> letter.
AXIS_NAMES = {
    "time": "t", "times": "t", "timepoint": "t", "frame": "t", "frames": "t", "date": "t", "datetime": "t",
    "depth": "z", "plane": "z", "planes": "z", "slice": "z", "slices": "z", "section": "z", "level": "z", "lev": "z",
    "altitude": "z", "elevation": "z", "pressure": "z",
    "channel": "c", "channels": "c", "ch": "c", "band": "c", "bands": "c", "wavelength": "c", "wavelengths": "c",
    "row": "y", "rows": "y", "line": "y", "lines": "y", "height": "y", "lat": "y", "latitude": "y", "northing": "y",
    "yc": "y", "y_coordinate": "y", "projection_y_coordinate": "y", "south_north": "y",
    "column": "x", "columns": "x", "col": "x", "cols": "x", "width": "x", "lon": "x", "long": "x", "longitude": "x",
    "easting": "x", "xc": "x", "x_coordinate": "x", "projection_x_coordinate": "x", "west_east": "x",
    "rgb": "s", "rgba": "s", "sample": "s", "samples": "s", "color": "s", "colour": "s",
}  # fmt: skip


def guess_axes(shape: Sequence[int]) -> str:
    """Guess the axes of an array from its shape alone.

    A last axis of 3 or 4 after larger ones holds the samples of a colour image. The other axes are (t, c, z,) y, x.

    >>> guess_axes((10, 512, 512))
    'zyx'
    >>> guess_axes((512, 512, 3))
    'yxs'

    Raises
    ------
    ImageError
        There are fewer than 2 or more than 5 axes besides colour samples.
    """
    colour = len(shape) > 2 and shape[-1] in _COLOUR_SAMPLES and min(shape[-3:-1]) > max(_COLOUR_SAMPLES)
    spatial = len(shape) - colour
    if not 2 <= spatial <= 2 + len(_LEADING):
        raise ImageError(
            f"the image has {len(shape)} axes, shape {tuple(shape)}; it must have 2 (y, x) to "
            f"{2 + len(_LEADING)} (t, c, z, y, x), or colour samples after them; name them with axes=."
        )
    return {2: "", 3: "z", 4: "cz", 5: "tcz"}[spatial] + "yx" + "s" * colour


def check_axes(axes: str, shape: Sequence[int]) -> str:
    """Check axes given by the user, and return them in lower case.

    Raises
    ------
    ImageError
        The axes are not one distinct letter per axis, with "y" and "x" among them.
    """
    letters = axes.lower()
    if len(letters) != len(shape):
        raise ImageError(
            f"axes {axes!r} has {len(letters)} letters for an image of {len(shape)} axes {tuple(shape)}; "
            "give one for each."
        )
    if len(set(letters)) != len(letters) or not letters.isalpha() or not {"y", "x"} <= set(letters):
        raise ImageError(f'axes {axes!r} must be one distinct letter for each axis, with "y" and "x" among them.')
    return letters


def dimension_names(image: Any) -> tuple[str, ...] | None:
    """Return the names of the dimensions of an xarray or Zarr array, or None without names.

    Default names of libraries, such as xarray's "dim_0", are not names.
    """
    names = getattr(image, "dims", None) or getattr(getattr(image, "metadata", None), "dimension_names", None)
    if names is None and hasattr(image, "metadata"):  # xarray's convention for version 2 of Zarr
        names = getattr(image, "attrs", {}).get("_ARRAY_DIMENSIONS")
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != len(image.shape):
        return None
    if all(name is None or re.fullmatch(r"(dim_?|phony_dim_?|axis_?)?\d*", str(name)) for name in names):
        return None
    return tuple(str(name) for name in names)


def axes_from_names(names: Sequence[str], shape: Sequence[int]) -> str:
    """Return one letter per named dimension.

    Names are compared as a whole. A dimension with an unknown name gets an unused letter.

    Parameters
    ----------
    names
        Names of the dimensions, such as ("time", "lat", "lon").
    shape
        Size of each dimension. An axis of colour samples has at most 4.

    Raises
    ------
    ImageError
        The names do not identify y and x.
    """
    lower = [name.strip().lower() for name in names]
    letters = [""] * len(lower)
    # A single letter is the most reliable name and "height" the least: ("height", "lat", "lon") are levels of a map.
    ranks = [0 if len(name) == 1 else 2 if name in ("height", "width") else 1 for name in lower]
    for number in sorted(range(len(lower)), key=ranks.__getitem__):
        name = lower[number]
        letter = name if name in _KNOWN_LETTERS else AXIS_NAMES.get(name, "")
        if letter not in letters and (letter != "s" or _holds_samples(name, number, shape)):
            letters[number] = letter
    if not {"y", "x"} <= set(letters):
        raise ImageError(
            f"the dimensions are named {', '.join(names)}, and y and x cannot be identified among them: give their "
            'axes with axes=, such as "zyx".'
        )
    for number, name in enumerate(lower):
        if letters[number]:
            continue
        if name == "height" and "z" not in letters:
            letters[number] = "z"
            continue
        free = [each for each in (*name, *string.ascii_lowercase) if each in string.ascii_lowercase]
        letters[number] = next(each for each in free if each not in letters and each not in _KNOWN_LETTERS)
    return "".join(letters)


def _holds_samples(name: str, number: int, shape: Sequence[int]) -> bool:
    """Return whether a dimension holds the samples of a colour pixel. "sample" also names measurements."""
    return shape[number] <= _MOST_SAMPLES and (name not in ("sample", "samples") or number == len(shape) - 1)
