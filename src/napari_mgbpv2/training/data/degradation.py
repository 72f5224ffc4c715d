"""Degrade crops of sharp images: shrink and upscale them bicubically, as for the whole image.

Only a window is read and resampled. It is wide enough that the low-resolution pixels equal those of S_f of the whole
image, and their upscaling equals that of the whole low-resolution image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_mgbpv2.imaging.resampling import ResamplingWeights, shrink, upscale_window
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.tiling.grid import Span

Pair = tuple[Tensor, Tensor]
Read = Callable[[slice, slice], Tensor]

_SHRINK_HALO = 2  # low-resolution pixels at a cut that S_f spoils: its kernel spans two of them to either side


def reach(scale: int) -> int:
    """Return the largest number of target pixels beyond a crop that its input depends on."""
    return (2 + _SHRINK_HALO + 1) * scale  # two weights, the halo, and the alignment to source pixels


def degraded_crop(
    read: Read,
    shape: tuple[int, int],
    scale: int,
    rows: Span,
    columns: Span,
    *,
    stored_as: ValueMap | None,
    blur: float = 0.0,
) -> Pair:
    """Make the pair of one crop.

    Parameters
    ----------
    read
        Gives (C, h, w) float32 pixels of the sharp image, 0 to 1, for slices of its rows and columns.
    shape
        Height and width of the image, multiples of ``scale``.
    scale
        Shrinking factor.
    rows, columns
        The crop. It may begin anywhere; networks are trained on crops whose first row and column, after any flip and
        rotation, are multiples of ``scale`` (`crop_span`).
    stored_as
        Rounds the low-resolution image to its type and clips it, as one that was saved is; None leaves it as it is.
    blur
        Standard deviation in target pixels of a Gaussian blur of the sharp image; 0 for none.

    Returns
    -------
    tuple of Tensor
        Input and target, (C, rows, columns) each.
    """
    low_rows, low_columns = (size // scale for size in shape)
    row_weights, column_weights = (
        resampling_weights(rows, scale, low_rows),
        resampling_weights(columns, scale, low_columns),
    )
    high, wide = (
        _sharp_window(row_weights.window, scale, low_rows),
        _sharp_window(column_weights.window, scale, low_columns),
    )
    pixels = gaussian_blur(read(high, wide), blur)
    low = shrink(pixels[None], scale)[0]
    low = low[
        :, _relative(row_weights.window, high.start // scale), _relative(column_weights.window, wide.start // scale)
    ]
    if stored_as is not None:
        low = torch.from_numpy(stored_as.to_unit(stored_as.from_unit(low.numpy())))
    target = pixels[:, _relative(slice(*rows), high.start), _relative(slice(*columns), wide.start)]
    return upscale_window(low, row_weights, column_weights), target


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (C, H, W) pixels with a Gaussian of standard deviation ``sigma`` pixels, reflected at the border."""
    if sigma <= 0:
        return image
    from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

    return torch.from_numpy(gaussian_filter(image.numpy(), (0, sigma, sigma)))


def crop_span(span: Span, patch: int, scale: int, reverse: bool, generator: np.random.Generator) -> Span:
    """Draw the position of a crop along one axis, aligned to the source's pixels.

    A network learns one alignment between its grid and the source's pixels, and inference uses the same one
    (`ModelConfig.border_multiple`).

    Parameters
    ----------
    span
        Positions to choose from, in target pixels; both ends are multiples of ``scale``.
    patch
        Target pixels of the crop.
    scale
        Upscaling factor.
    reverse
        Whether the crop is read backwards: then its end, and otherwise its start, is a multiple of ``scale``.
    generator
        Source of randomness.
    """
    first = -patch % scale if reverse else 0
    count = (span.size - patch - first) // scale + 1
    start = span.start + first + scale * int(generator.integers(count))
    return Span(start, start + patch)


def resampling_weights(span: Span, scale: int, low_size: int) -> ResamplingWeights:
    """Return bicubic weights of the target pixels ``span`` along an axis of ``low_size`` low-resolution pixels."""
    return ResamplingWeights.of(np.arange(*span, dtype=np.int64), scale, low_size)


def _sharp_window(low: slice, scale: int, low_size: int) -> slice:
    """Return the sharp pixels that S_f needs for the low-resolution pixels ``low``."""
    return slice(max(0, low.start - _SHRINK_HALO) * scale, min(low_size, low.stop + _SHRINK_HALO) * scale)


def _relative(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)


@dataclass(frozen=True)
class Orientation:
    """One of the 8 flips and rotations: a mirror image or not, then quarter turns."""

    turns: int = 0
    flipped: bool = False

    @classmethod
    def random(cls, generator: np.random.Generator) -> Orientation:
        """Draw one of the 8 with equal chances."""
        return cls(int(generator.integers(4)), bool(generator.integers(2)))

    @property
    def reverses(self) -> tuple[bool, bool]:
        """Whether rows and columns of the image are read backwards, before any swap of the axes."""
        return self.turns in (2, 3), self.flipped != (self.turns in (1, 2))

    def apply(self, pair: Pair) -> Pair:
        """Turn input and target alike; the results are contiguous and own their memory."""
        image, target = (self._turned(each) for each in pair)
        return image, target

    def _turned(self, image: Tensor) -> Tensor:
        flipped = image.flip(2) if self.flipped else image
        # a view would send the whole window through the loader's queue
        return torch.rot90(flipped, self.turns, (1, 2)).clone(memory_format=torch.contiguous_format)
