"""NIQE: the distance of an image's local statistics from those of natural images, without a reference image.

A. Mittal, R. Soundararajan, A. C. Bovik: "Making a Completely Blind Image Quality Analyzer", IEEE Signal Processing
Letters 2013. The numbers agree with the authors' MATLAB release; lower is better.

An image is locally normalised, at full and at half size, and divided into blocks. Each block has 36 features: the
shapes of the distributions of its values and of products of neighbours. Their mean and covariance over the blocks are
compared with those over the sharp blocks of pristine images. The statistics of the release are in this folder with
their notice. `PristineModel.fit` measures them for images other than photographs.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.paths import write_atomically

Numbers = npt.NDArray[np.float64]

BLOCK = 96  # height and width of a block at full size
SCALES = 2
FEATURES = 36  # per block: 18 at each scale
SHARP_SHARE = 0.75  # of the contrast of an image's sharpest block; pristine blocks have more

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_PRISTINE = Path(__file__).with_name("niqe_pristine.npz")


@dataclass(frozen=True, eq=False)
class PristineModel:
    """Normal distribution of the features of good images.

    Parameters
    ----------
    mean
        (36,).
    covariance
        (36, 36), symmetric.
    """

    mean: Numbers
    covariance: Numbers

    @classmethod
    def official(cls) -> PristineModel:
        """Return the model of the release, of 125 photographs. Copyright (c) 2011 The University of Texas at Austin."""
        return _official()

    @classmethod
    def fit(cls, images: Iterable[npt.NDArray[Any]]) -> PristineModel:
        """Measure the model on your own sharp images, by the sharp blocks of each.

        Parameters
        ----------
        images
            (H, W) luma in 0..255, of at least one block of 96 x 96 px each. Scores are unreliable with fewer than a
            hundred sharp blocks in all images together.

        Raises
        ------
        ImageError
            An image is too small or not of two dimensions, or fewer than two sharp blocks have any structure.
        """
        sharp_blocks = []
        for image in images:
            features, contrast = _features(_whole_blocks(image, at_least=1))
            sharp_blocks.append(features[contrast > SHARP_SHARE * contrast.max()])
        features = np.concatenate([np.empty((0, FEATURES)), *sharp_blocks])
        if np.isfinite(features).all(axis=1).sum() < 2:
            raise ImageError("a pristine model needs at least two blocks of 96 x 96 px that are not flat.")
        return cls(*_normal_distribution(features))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PristineModel:
        """Read a file that `save` has written.

        Raises
        ------
        ModelError
            The file is missing, or does not contain a pristine model.
        """
        try:
            with np.load(path) as file:  # refuses pickles
                mean, covariance = (np.asarray(file[name], dtype=np.float64) for name in ("mu", "cov"))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error}).") from error
        except (BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{path}: is not a pristine model of NIQE; write one with `PristineModel.save`."
            ) from error
        if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
            raise ModelError(f"{path}: has arrays of {mean.shape} and {covariance.shape}, not of (36,) and (36, 36).")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ModelError(f"{path}: holds NaN or infinity; fit the pristine model again.")
        return cls(mean, covariance)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``mu`` and ``cov`` to a NumPy file (``.npz``) atomically.

        Raises
        ------
        ModelError
            The file cannot be written.
        """
        path = Path(path)
        content = io.BytesIO()
        np.savez(content, mu=self.mean, cov=self.covariance)
        try:
            write_atomically(path, content.getvalue())
        except OSError as error:
            raise ModelError(f"{path}: cannot be written ({error.strerror}).") from error
        return path


def niqe(image: npt.NDArray[Any], model: PristineModel | None = None) -> float:
    """Return the NIQE score of an image.

    Parameters
    ----------
    image
        (H, W) luma in 0..255, of any type; see `napari_mgbpv2.metrics.scores.luma`. It is cropped at the right and
        bottom to multiples of 96 px.
    model
        Statistics of good images; the official ones by default.

    Returns
    -------
    float
        0 at best; 2 to 5 for good photographs. NaN if fewer than two blocks have any structure.

    Raises
    ------
    ImageError
        The image is not (H, W), or has fewer than two blocks of 96 x 96 px.
    """
    model = model or PristineModel.official()
    features, _ = _features(_whole_blocks(image, at_least=2))
    if np.isfinite(features).all(axis=1).sum() < 2:
        return math.nan
    mean, covariance = _normal_distribution(features)
    difference = model.mean - mean
    rounding = FEATURES * np.finfo(np.float64).eps
    inverse = np.linalg.pinv((model.covariance + covariance) / 2, rcond=rounding)
    return math.sqrt(max(0.0, float(difference @ inverse @ difference)))


@lru_cache(maxsize=1)
def _official() -> PristineModel:
    return PristineModel.load(_PRISTINE)


def _whole_blocks(image: npt.NDArray[Any], at_least: int) -> Numbers:
    """Return an (H, W) image cropped to whole blocks, in float64."""
    if image.ndim != 2:
        raise ImageError(f"NIQE scores a luma of two dimensions, height and width; this image is {image.shape}.")
    rows, columns = (size // BLOCK for size in image.shape)
    if rows * columns < at_least:
        height, width = image.shape
        raise ImageError(
            f"the image is {height} x {width} px; NIQE needs at least {at_least} block{'s' * (at_least > 1)} "
            f"of {BLOCK} x {BLOCK} px."
        )
    return image[: rows * BLOCK, : columns * BLOCK].astype(np.float64)


def _features(image: Numbers) -> tuple[Numbers, Numbers]:
    """Return (blocks, 36) features, NaN among those of flat blocks, and (blocks,) mean local contrasts."""
    features, contrasts = [], []
    for scale in range(SCALES):
        normal, contrast = _normalise(image)
        features.append(_block_features(_blocks(normal, BLOCK >> scale)))
        contrasts.append(_blocks(contrast, BLOCK >> scale).mean(axis=(1, 2)))
        if scale < SCALES - 1:
            image = _halve(image)
    return np.concatenate(features, axis=1), contrasts[0]


def _normalise(image: Numbers) -> tuple[Numbers, Numbers]:
    """Return (image - local mean) / (local deviation + 1), and the local deviation, for a Gaussian of 7x7 pixels."""
    kernel = np.array([math.exp(-(distance**2) / (2 * (7 / 6) ** 2)) for distance in range(-3, 4)])
    kernel /= kernel.sum()
    mean = _filter(image, kernel, mode="edge")
    deviation = np.sqrt(np.abs(_filter(image**2, kernel, mode="edge") - mean**2))
    return (image - mean) / (deviation + 1), deviation


def _halve(image: Numbers) -> Numbers:
    """Return MATLAB's imresize by 0.5: the bicubic kernel stretched to eight pixels, with symmetric borders.

    `resampling.shrink` renormalises at borders instead, and differs in the outer three pixels.
    """
    x = np.abs(np.arange(8) - 3.5) / 2
    kernel = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    return _filter(image, kernel / kernel.sum(), mode="symmetric", stride=2)


def _filter(image: Numbers, kernel: Numbers, mode: Any, stride: int = 1) -> Numbers:
    """Correlate both axes with a symmetric kernel, every ``stride`` pixels, with a border of three pixels.

    In a saturated area the normalised values are rounding errors, but their signs count: they change the score of a
    photograph with a black corner by 0.03. The order of additions is therefore part of the definition. It is that of
    the reference scores: the middle, then pairs from the outside in.
    """
    half = len(kernel) // 2
    for axis in (0, 1):
        padded = np.pad(image, [(3, 3) if each == axis else (0, 0) for each in (0, 1)], mode=mode)
        last = padded.shape[axis] - len(kernel) + 1
        windows = [
            padded[(slice(None),) * axis + (slice(first, first + last, stride),)] for first in range(len(kernel))
        ]
        image = windows[half] * kernel[half] if len(kernel) % 2 else np.zeros_like(windows[0])
        for index in range(half):
            image += (windows[index] + windows[-1 - index]) * kernel[index]
    return image


def _blocks(image: Numbers, side: int) -> Numbers:
    """Divide (H, W) into (blocks, side, side)."""
    rows, columns = (size // side for size in image.shape)
    return image.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _block_features(blocks: Numbers) -> Numbers:
    """Return (blocks, 18) features of (blocks, side, side) normalised values."""
    shape, left, right, _ = _fit_asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for neighbour in _NEIGHBOURS:  # within the block: it wraps around
        shape, left, right, mean = _fit_asymmetric_gaussian(blocks * np.roll(blocks, neighbour, axis=(1, 2)))
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def _fit_asymmetric_gaussian(blocks: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Fit an asymmetric generalised Gaussian. Return shape, left and right width, and mean, (blocks,) each.

    The widths are NaN for a block without values on one side of zero. Its shape is then the least one, as in the
    release, where the minimum of NaN alone is the first.
    """
    values = blocks.reshape(len(blocks), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (_root_mean_square(values, side) for side in (values < 0, values > 0))
        ratio = left / right
        flatness = np.abs(values).mean(axis=1) ** 2 / (values**2).mean(axis=1)
        flatness *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, flatnesses, width_of_deviation, mean_of_width = _shape_table()
    above = np.clip(np.searchsorted(flatnesses, flatness), 1, len(shapes) - 1)
    nearest = np.where(flatness - flatnesses[above - 1] <= flatnesses[above] - flatness, above - 1, above)
    nearest[np.isnan(flatness)] = 0
    left, right = left * width_of_deviation[nearest], right * width_of_deviation[nearest]
    return shapes[nearest], left, right, (right - left) * mean_of_width[nearest]


def _root_mean_square(values: Numbers, taken: npt.NDArray[np.bool_]) -> Numbers:
    """Return the (blocks,) root mean square of the values selected by ``taken``; NaN without any."""
    squares = np.where(taken, values, 0.0) ** 2
    root: Numbers = np.sqrt(squares.sum(axis=1) / taken.sum(axis=1))
    return root


@lru_cache(maxsize=1)
def _shape_table() -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return shapes a, G(2/a)^2 / (G(1/a) G(3/a)) which rises with a, sqrt(G(1/a) / G(3/a)), and G(2/a) / G(1/a)."""
    shapes = np.arange(200, 10_001) / 1000
    one, two, three = (np.array([math.lgamma(order / shape) for shape in shapes]) for order in (1, 2, 3))
    return shapes, np.exp(2 * two - one - three), np.exp((one - three) / 2), np.exp(two - one)


def _normal_distribution(features: Numbers) -> tuple[Numbers, Numbers]:
    """Return the mean of the finite features, and the covariance of rows with finite features alone."""
    mean: Numbers = np.nanmean(features, axis=0)
    covariance: Numbers = np.cov(features[np.isfinite(features).all(axis=1)], rowvar=False)
    return mean, covariance
