"""Kinds of synthetic images by name. The names are used in place of image files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.training.synthetic.fields import random_field, random_micrograph
from napari_mgbpv2.training.synthetic.scenes import random_scene

_USED, _HELD_OUT = 0, 1  # two series of images per seed


@dataclass(frozen=True)
class SyntheticKind:
    """Kind of synthetic images.

    Attributes
    ----------
    description
        Description for model cards.
    channels
        3 for colours, or 1.
    draw
        Function of a generator and a size that draws (size, size, channels) of an unsigned type.
    white
        Percentile of an image's values that becomes white; None for the largest value of the type.
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
    # the same percentile as fine-tuning uses for 16-bit images
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
        Whether to draw from the series for validation.

    Returns
    -------
    ndarray
        (size, size, channels) of the kind's unsigned type.
    """
    return KINDS[kind].draw(numbered_generator(seed, number, held_out=held_out), size)


def numbered_generator(seed: int, number: int, *, held_out: bool = False) -> np.random.Generator:
    """Make the generator of image ``number`` of the training or the held-out series of a seed."""
    return np.random.default_rng((seed, _HELD_OUT if held_out else _USED, number))
