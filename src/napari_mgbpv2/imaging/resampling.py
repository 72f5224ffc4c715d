"""Bicubic resampling S_f, equal to Pillow's float BICUBIC (a = -0.5, antialiased when it shrinks).

One kernel in two forms. `bicubic_resize` resizes whole images and is differentiable, for training and scoring.
`ResamplingWeights` upscales any window by an integer factor, for tiles: the value of a target pixel depends on its
position alone and not on the window, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mgbpv2.errors import ImageError

KERNEL_SIZE = 4  # source pixels of the cubic kernel, two to either side

ToDevice = Callable[[npt.NDArray[Any]], Tensor]  # copies an array to the device of an image


def bicubic_resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, H, W) float images to ``height`` x ``width``, antialiased if smaller. Values are not clipped."""
    if width == 1 != height:  # torch 2.13 repeats the first row; transposed, it is right
        return bicubic_resize(image.transpose(-2, -1).contiguous(), width, height).transpose(-2, -1)
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False)


def bicubic_resize_array(image: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """Resize an image in memory bicubically, in float64, rounded once at the end.

    Scores compare models with this upscaling. Pillow's filter for 8 bits rounds after the rows and again after the
    columns, which costs 1.8 dB on `skimage.data.cell` at 2 times.

    Parameters
    ----------
    image
        (H, W) or (H, W, C), integers or floats, all finite.
    height, width
        Size of the result in pixels.

    Returns
    -------
    ndarray
        (height, width) or (height, width, C), of the dtype of ``image``. Integers are rounded and clipped to their
        dtype, floats are not.
    """
    planes = np.moveaxis(np.atleast_3d(image), -1, 0)[None].astype(np.float64)
    resized = bicubic_resize(torch.from_numpy(planes), height, width)[0].numpy()
    values = np.moveaxis(resized, 0, -1).reshape(height, width, *image.shape[2:])
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(image.dtype)


def shrink(image: Tensor, factor: int) -> Tensor:
    """Downscale (B, C, H, W) images by an integer ``factor`` that divides their size: S_f of the paper."""
    if factor == 1:
        return image
    height, width = image.shape[-2:]
    return bicubic_resize(image, height // factor, width // factor)


@dataclass(frozen=True)
class ResamplingWeights:
    """Source positions and their bicubic weights for target positions along one axis.

    Attributes
    ----------
    indices
        (T, 4) int64, source positions.
    weights
        (T, 4) float32, each row sums to one; 0 for positions outside the image.
    """

    indices: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, targets: npt.NDArray[np.int64], scale: int, source_size: int) -> ResamplingWeights:
        """Return the weights of target positions. At image borders the kernel is cut and renormalised, as in Pillow.

        Parameters
        ----------
        targets
            (T,) int64 positions in [0, scale * source_size), in any order, repeated or not.
        scale
            Upscaling factor.
        source_size
            Source pixels along the axis.
        """
        phase_offsets = (np.arange(scale) + 0.5) / scale  # centre of each phase from the left edge of its source pixel
        first = np.floor(phase_offsets - 1.5).astype(np.int64)
        steps = first[:, None] + np.arange(KERNEL_SIZE)
        kernel = _cubic(steps + 0.5 - phase_offsets[:, None])
        indices = (targets // scale)[:, None] + steps[targets % scale]
        inside = (indices >= 0) & (indices < source_size)
        weights = np.where(inside, kernel[targets % scale], 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        return cls(np.clip(indices, 0, source_size - 1), weights.astype(np.float32))

    @property
    def window(self) -> slice:
        """Source positions that the weights refer to."""
        return slice(int(self.indices.min()), int(self.indices.max()) + 1)

    def apply(self, image: Tensor, axis: int, to_device: ToDevice = torch.from_numpy) -> Tensor:
        """Resample one axis of an image that consists of the pixels of `window` along that axis.

        Parameters
        ----------
        image
            Any shape, float.
        axis
            The axis, not negative.
        to_device
            Copies arrays to the device of ``image``; by default that is the CPU.
        """
        indices, weights = to_device(self.indices - self.window.start), to_device(self.weights)
        shape = [1] * image.ndim
        shape[axis] = -1
        result = image.index_select(axis, indices[:, 0])
        result *= weights[:, 0].reshape(shape)
        shifted = torch.empty_like(result)  # one buffer for all terms: new memory would cost more than the arithmetic
        for term in range(1, KERNEL_SIZE):
            # A fixed order of single multiplications and additions gives the same bits in every window.
            torch.index_select(image, axis, indices[:, term], out=shifted)
            shifted *= weights[:, term].reshape(shape)
            result += shifted
        return result


def upscale_window(
    image: Tensor, rows: ResamplingWeights, columns: ResamplingWeights, to_device: ToDevice = torch.from_numpy
) -> Tensor:
    """Upscale (..., h, w), the source pixels of the windows of the weights, to (..., len(rows), len(columns)).

    ``to_device`` copies arrays to the device of ``image``; by default that is the CPU.
    """
    return rows.apply(columns.apply(image, image.ndim - 1, to_device), image.ndim - 2, to_device)


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Keys' cubic convolution kernel with a = -0.5."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def cut_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Crop (B, C, H, W) at the right and bottom to a height and width that ``multiple`` divides.

    Raises
    ------
    ImageError
        The image is smaller than ``multiple``.
    """
    height, width = image.shape[-2:]
    if min(height, width) < multiple:
        raise ImageError(f"a patch is {height} x {width} px; training needs at least {multiple} x {multiple} px.")
    return image[..., : height // multiple * multiple, : width // multiple * multiple]


Taps = ResamplingWeights  # the former public name, for one release
