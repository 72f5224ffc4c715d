"""The kinds of synthetic images, by the names that stand in the place of image files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.training.synthetic.fields import random_field, random_micrograph
from napari_mgbpv2.training.synthetic.scenes import random_scene

_USED, _HELD_OUT = 0, 1  # two series of images for each seed


@dataclass(frozen=True)
class SyntheticKind:
    """A kind of synthetic images.

    Attributes
    ----------
    description
        What they are, in words.
    channels
        3 for colours, or 1.
    draw
        Draws one of a generator and a size: (size, size, channels) of an unsigned type.
    white
        Percentile of an image's values that is called white; None for the largest value of the type.
    """

    description: str
    channels: int
    draw: Callable[[np.random.Generator, int], npt.NDArray[Any]]
    white: float | None = None

    def values(self, image: npt.NDArray[Any]) -> ValueMap:
        """Make the map between the values of an image and [0, 1]."""
        white = None if self.white is None else (0.0, max(1.0, float(np.percentile(image, self.white))))
        return ValueMap.of(image.dtype, white)


KINDS = {
    "scenes": SyntheticKind("dead leaves with edges, textures, stripes and letters", 3, random_scene),
    # white is where fine-tuning puts it for images of 16 bits
    "microscopy": SyntheticKind("blobs, filaments and membranes, with a camera's noise", 1, random_field, white=99.9),
    "micrographs": SyntheticKind(
        "blobs, filaments and membranes, smooth pictures of 8 bits among them", 1, random_micrograph, white=99.9
    ),
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
