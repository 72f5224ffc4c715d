"""The kinds of synthetic images, by the names that stand in the place of image files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.training.synthetic.fields import random_exposed_field
from napari_mgbpv2.training.synthetic.scenes import random_scene

_USED, _HELD_OUT = 0, 1  # two series of images for each seed


@dataclass(frozen=True)
class Kind:
    """A kind of synthetic images.

    Attributes
    ----------
    description
        What they are, in words.
    channels
        3 for colours, or 1.
    round_to_8_bits
        Whether they stand for images that are saved with 256 values.
    draw
        Draws one of a generator and a size: (size, size, channels), uint8, or float32 with 0 for black and 1 for
        white.
    """

    description: str
    channels: int
    round_to_8_bits: bool
    draw: Callable[[np.random.Generator, int], npt.NDArray[Any]]


KINDS = {
    "scenes": Kind("dead leaves with edges, textures, stripes and letters", 3, True, random_scene),
    "microscopy": Kind("blobs, filaments and membranes, with a camera's noise", 1, False, random_exposed_field),
}


def numbered_image(kind: str, seed: int, number: int, size: int = 512, *, held_out: bool = False) -> npt.NDArray[Any]:
    """Draw an image by its number, from a generator of its own.

    Parameters
    ----------
    kind
        One of `KINDS`.
    seed, number
        Not negative.
    size
        Height and width in pixels.
    held_out
        Whether it is one of another series, for validation.

    Returns
    -------
    ndarray
        As the kind draws it.
    """
    return KINDS[kind].draw(numbered_generator(seed, number, held_out=held_out), size)


def numbered_generator(seed: int, number: int, *, held_out: bool = False) -> np.random.Generator:
    """Make the generator of an image; arguments as `numbered_image` has them."""
    return np.random.default_rng((seed, _HELD_OUT if held_out else _USED, number))
