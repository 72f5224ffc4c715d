"""The axes of an image as one letter each.

"y" and "x" are upscaled. "s" holds the samples of a colour pixel (RGB, RGBA), which go through the network together.
"c" holds channels that know nothing of each other; it is carried along plane by plane, like "z", "t" and any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from napari_mgbpv2.errors import ImageError

_LEADING = "tcz"
_COLOUR_SAMPLES = (3, 4)


def guess_axes(shape: Sequence[int]) -> str:
    """Name the axes of an array by its shape alone.

    A last axis of 3 or 4 behind larger ones is taken for the samples of a colour image; the others are (t, c, z,) y, x.

    Raises
    ------
    ImageError
        There are fewer than 2 axes or more than 5, colour samples not counted.
    """
    colour = len(shape) > 2 and shape[-1] in _COLOUR_SAMPLES and min(shape[-3:-1]) > max(_COLOUR_SAMPLES)
    spatial = len(shape) - colour
    if not 2 <= spatial <= 2 + len(_LEADING):
        raise ImageError(
            f"the image has {len(shape)} axes, shape {tuple(shape)}; it must have 2 (y, x) to "
            f"{2 + len(_LEADING)} (t, c, z, y, x), or colour samples behind them; say which with axes=."
        )
    return {2: "", 3: "z", 4: "cz", 5: "tcz"}[spatial] + "yx" + "s" * colour


def check_axes(axes: str, shape: Sequence[int]) -> str:
    """Check axes that somebody gives, and return them in small letters.

    Raises
    ------
    ImageError
        They are not one distinct letter for each axis with "y" and "x" among them.
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
