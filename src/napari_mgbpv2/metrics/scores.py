"""Scores of upscaled images: PSNR, SSIM, RMSE on luma and NIQE over scales.

Images are tensors or arrays with channels before height and width, and values in [0, 1]. Scores do not clip them: clip
images first if they will be stored clipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.resampling import cut_to_multiple, shrink
from napari_mgbpv2.metrics.niqe import PristineModel, niqe

Image = Tensor | npt.NDArray[Any]

PIRM_SHAVE = 4  # width in pixels of the border that the PIRM challenge ignores
NIQE_FACTORS = (1, 2, 4)  # of equation 6
SSIM_SIGMA, SSIM_WINDOW = 1.5, 11


def psnr(output: Image, target: Image) -> float:
    """Return the peak signal-to-noise ratio in dB for a peak of 1: -10 log10 of the mean squared error of equation 2.

    Parameters
    ----------
    output, target
        Any equal shape, in [0, 1]. The error is averaged over all images of a batch before the logarithm.

    Returns
    -------
    float
        Infinity for equal images.
    """
    output, target = _same_shape(output, target)
    error = float(np.mean((output - target) ** 2))
    return -10 * math.log10(error) if error != 0 else math.inf


def ssim(output: Image, target: Image) -> float:
    """Return the structural similarity of Z. Wang et al. (2004), with their Gaussian window of 11 pixels and sigma 1.5.

    Parameters
    ----------
    output, target
        (..., C, H, W) of equal shape, in [0, 1], at least 11 pixels high and wide.

    Returns
    -------
    float
        Mean over channels and images; 1 for equal images.

    Raises
    ------
    ImageError
        The shapes differ, or the images are smaller than the window.
    """
    from skimage.metrics import structural_similarity  # type: ignore[import-untyped, unused-ignore]

    output, target = _same_shape(output, target)
    height, width = output.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise ImageError(f"the image is {height} x {width} px; SSIM needs at least {SSIM_WINDOW} x {SSIM_WINDOW} px.")
    planes = zip(output.reshape(-1, height, width), target.reshape(-1, height, width), strict=True)
    scores = [
        structural_similarity(  # type: ignore[no-untyped-call, unused-ignore]
            *pair, data_range=1.0, gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False
        )
        for pair in planes
    ]
    return float(np.mean(scores))


def luma(image: Image) -> npt.NDArray[np.uint8]:
    """Return Y of ITU-R BT.601, equal to MATLAB's rgb2ycbcr for 8-bit images: 16 for black to 235 for white.

    Parameters
    ----------
    image
        (..., 3, H, W) RGB or (..., 1, H, W) grey in [0, 1], rounded to 8 bits first. Grey is returned as 0 to 255.

    Returns
    -------
    ndarray
        (..., H, W) uint8.

    Raises
    ------
    ImageError
        The image has another number of channels.
    """
    values = np.rint(255 * np.clip(_array(image), 0, 1))
    channels = values.shape[-3] if values.ndim >= 3 else 0
    if channels == 1:
        grey: npt.NDArray[np.uint8] = values[..., 0, :, :].astype(np.uint8)
        return grey
    if channels != 3:
        raise ImageError(f"luma needs 1 or 3 channels before height and width; this image is {values.shape}.")
    red, green, blue = np.moveaxis(values, -3, 0)
    y: npt.NDArray[np.uint8] = np.rint(16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255).astype(np.uint8)
    return y


def rmse_y(outputs: Iterable[Image], targets: Iterable[Image]) -> float:
    """Return the root mean squared error of luma in 0..255 over images, without a border of 4 px, as in PIRM 2018.

    Parameters
    ----------
    outputs, targets
        Images (C, H, W) in [0, 1], the same number and pairwise of equal size; or two batches (B, C, H, W).

    Raises
    ------
    ImageError
        There are no images, their sizes differ, or an image is smaller than its border.
    """
    errors = []
    for output, target in zip(outputs, targets, strict=True):
        _same_shape(output, target)
        difference = luma(output).astype(np.float64) - luma(target)
        inner = difference[..., PIRM_SHAVE:-PIRM_SHAVE, PIRM_SHAVE:-PIRM_SHAVE]
        if inner.size == 0:
            height, width = difference.shape[-2:]
            raise ImageError(f"an image is {height} x {width} px; without a border of 4 px nothing is left.")
        errors.append(np.mean(inner**2))
    if not errors:
        raise ImageError("there is no image to score.")
    return float(np.sqrt(np.mean(errors)))


def niqe_over_scales(images: Image, model: PristineModel | None = None) -> float:
    """Return the score of the perceptual track, equation 6: the mean of NIQE(Y) + NIQE(S_2 Y) + NIQE(S_4 Y).

    Parameters
    ----------
    images
        (B, C, H, W) in [0, 1], Y_{W=1}. A quarter of the size must contain two blocks of 96 x 96 px, so the least size
        is 384 x 768 px.
    model
        Statistics of good images; the official ones by default.

    Raises
    ------
    ImageError
        The images are too small.
    """
    batch = cut_to_multiple(torch.as_tensor(_array(images)), max(NIQE_FACTORS))
    scores = [[niqe(plane, model) for plane in luma(shrink(batch, factor))] for factor in NIQE_FACTORS]
    return float(np.sum(scores, axis=0).mean())


def _same_shape(output: Image, target: Image) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if tuple(output.shape) != tuple(target.shape):
        raise ImageError(f"output and target differ in shape: {tuple(output.shape)} and {tuple(target.shape)}.")
    return _array(output), _array(target)


def _array(image: Image) -> npt.NDArray[np.float64]:
    """Return the values of a tensor on any device, or of an array, in float64."""
    if isinstance(image, Tensor):
        image = image.detach().to("cpu", torch.float64).numpy()
    return image.astype(np.float64)
