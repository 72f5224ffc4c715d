"""Cut samples from images: draw an image, a plane, a position and an orientation, and make the pair there."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.imaging.values import ValueMap
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.training.data.degradation import Orientation, Pair, crop_span, degraded_crop, reach
from napari_mgbpv2.training.data.discovery import Paths, find_images
from napari_mgbpv2.training.data.image_set import ImageSet, Progress, Skipped, load_images, warn_skipped
from napari_mgbpv2.training.data.prepared_folder import prepare
from napari_mgbpv2.training.data.splitting import Region, cells, split

ENDLESS = 2**48
_STREAM = 1  # separates these draws from those of synthetic images
_ATTEMPTS = 100
SMOOTH_SIGMAS = (0.3, 2.0)  # low-resolution pixels: standard deviations of the blur of smooth samples


def check_numbers(scale: int, patch: int, seed: int) -> None:
    """Raise `ImageError` unless scale and patch are at least 1 and the seed at least 0."""
    for name, value, least in (("scale", scale, 1), ("patch", patch, 1), ("seed", seed, 0)):
        if value != int(value) or value < least:
            raise ImageError(f"{name} is {value!r}; it must be a whole number of at least {least}.")


class _Draw(NamedTuple):
    region: Region
    plane: int
    rows: Span
    columns: Span
    orientation: Orientation
    blur: float = 0.0


class CropSamples(Dataset[Pair], ABC):
    """An endless set of pairs cut from images, each a function of (seed, index).

    Parameters
    ----------
    images
        The sharp images.
    skipped
        Path and reason of images that cannot be used.
    scale
        Upscaling factor.
    patch
        Height and width of a sample at target resolution, in pixels.
    seed
        The same seed gives the same samples.
    augment
        Whether samples are flipped and rotated, 8 ways.
    hold_out
        Share that is held out for validation, from 0 to below 1.
    smooth_share
        Share of samples whose sharp image is blurred, 0 to 1.
    """

    def __init__(
        self,
        images: ImageSet,
        skipped: Sequence[Skipped],
        scale: int,
        patch: int,
        seed: int,
        *,
        augment: bool,
        hold_out: float,
        smooth_share: float = 0.0,
    ) -> None:
        self.smooth_share = smooth_share
        self.images, self.skipped = images, list(skipped)
        self.scale, self.patch, self.seed, self.augment = scale, patch, seed, augment
        self.used, self.held_out = split(images.planes, hold_out, patch, reach(scale), scale)
        weights = [region.columns.size * region.rows.size * region.planes for region in self.used]
        self._ends = np.cumsum(weights, dtype=np.int64)

    @property
    def value_range(self) -> tuple[float, float]:
        """Values of black and white of all images, or of those whose type does not say them."""
        return self.images.value_range

    @property
    def value_maps(self) -> dict[str, ValueMap]:
        """The map between values and [0, 1] of each image, by its path."""
        return {planes.path: planes.values for planes in self.images.planes}

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Pair:
        """Return sample ``index``: input and target, (channels, patch, patch) each."""
        if not 0 <= index < ENDLESS:
            raise IndexError(f"sample {index}: samples are numbered from 0")
        generator = np.random.default_rng((self.seed, _STREAM, index))
        for attempt in range(_ATTEMPTS):
            draw = self._draw(generator)
            try:
                pair = self.pair(draw.region.image, draw.plane, draw.rows, draw.columns, blur=draw.blur)
            except SourceError as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                # The damage shows only now. The next draw is as much a function of the index.
                warnings.warn(f"a sample was drawn again: {error}", stacklevel=2)
                continue
            return draw.orientation.apply(pair)
        raise AssertionError

    @abstractmethod
    def pair(self, image: int, plane: int, rows: Span, columns: Span, *, blur: float = 0.0) -> Pair:
        """Return input and target of a crop of a plane of an image, (channels, rows, columns) each."""

    def validation(self, count: int, size: int) -> list[Pair]:
        """Return crops of the held-out images or parts, or of all where nothing is held out."""
        chosen = cells(self.held_out or self.used, count, size, self.scale)
        pairs = (self.pair(cell.region.image, cell.plane, cell.rows, cell.columns) for cell in chosen)
        return [Orientation().apply(pair) for pair in pairs]

    def _draw(self, generator: np.random.Generator) -> _Draw:
        pixel = int(generator.integers(self._ends[-1]))
        region = self.used[int(np.searchsorted(self._ends, pixel, side="right"))]
        plane = int(generator.integers(region.planes))
        orientation = Orientation.random(generator) if self.augment else Orientation()
        rows, columns = (
            crop_span(span, self.patch, self.scale, reverse, generator)
            for span, reverse in zip((region.rows, region.columns), orientation.reverses, strict=True)
        )
        return _Draw(region, plane, rows, columns, orientation, self._draw_blur(generator))

    def _draw_blur(self, generator: np.random.Generator) -> float:
        """Draw the standard deviation of a blur in target pixels, 0 for most samples."""
        # Without a share nothing is drawn, so older runs resume bit for bit.
        if not self.smooth_share or generator.random() >= self.smooth_share:
            return 0.0
        return self.scale * float(np.exp(generator.uniform(*np.log(SMOOTH_SIGMAS))))


class ImageSamples(CropSamples):
    """Pairs from sharp images, which are shrunk bicubically.

    The input of a crop is that of the whole image, shrunk and upscaled, but only a window is read for it. Every
    plane along z, t and c is an image; an image is drawn in proportion to its pixels.

    Parameters
    ----------
    paths
        Files, folders, patterns, prepared folders or open images, see `find_images`.
    scale
        Shrinking factor; images are cut to multiples of it at the bottom and on the right.
    patch
        Height and width of a sample at target resolution. Its first row and column are multiples of ``scale``.
    seed
        The same seed gives the same samples.
    channels
        Number of channels of the network. Three: colours unchanged, grey as three equal channels. One: grey, and red,
        green and blue as separate images, because upscaling runs them through such a network one by one. Another
        number: images with as many samples per pixel. Alpha is left out of the first two.
    value_range
        Values of black and white. By default those of the type for 8 bits and booleans; for all other images
        together 0 and the 99.9th percentile of a coarse sample.
    round_to_8_bits
        Whether the low-resolution image is rounded to 256 values, as one that was saved is.
    augment
        Whether samples are turned and mirrored, 8 ways.
    hold_out
        Share that samples never touch, for `validation_images`: of five images or more, that share of the images;
        of fewer, the right-hand part of each that is large enough.
    prepared
        A folder for patches: made by `prepare` if it is not there, and read instead of the images. Without one,
        images without random access (PNG, JPEG, some TIFF) are decoded into a temporary folder first.
    like
        Samples whose values of black and white are to be used, whatever ``value_range`` says: those of training, where
        these ones are for validation.
    progress
        Called with the number of images opened and of all.
    record_paths
        Whether a prepared folder that is made holds the whole paths of the images, not their names alone.
    smooth_share
        Share of samples whose sharp image is blurred by a Gaussian of 0.3 to 2 low-resolution pixels, 0 to 1: a network
        that has seen smooth images does not take the rounding of one for detail.

    Attributes
    ----------
    skipped : list of (str, str)
        Paths of images that cannot be used, and why.

    Raises
    ------
    SourceError
        A path does not exist, or no image is found.
    ImageError
        No image can be used: all are damaged or smaller than a patch, or nothing is left when a part is held out.
    DestinationError
        The folder for patches holds something else, or the disk is full.
    """

    def __init__(
        self,
        paths: Paths,
        scale: int,
        patch: int,
        seed: int,
        *,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
        round_to_8_bits: bool = False,
        augment: bool = True,
        hold_out: float = 0.0,
        prepared: str | Path | None = None,
        like: CropSamples | None = None,
        progress: Progress | None = None,
        record_paths: bool = False,
        smooth_share: float = 0.0,
    ) -> None:
        check_numbers(scale, patch, seed)
        if prepared is not None:
            paths = prepare(paths, prepared, value_range=value_range, progress=progress, record_paths=record_paths)
        found = find_images(paths)
        images, skipped = load_images(
            found,
            scale,
            channels,
            least=patch,
            value_range=value_range,
            like=None if like is None else like.images,
            window=patch + 2 * reach(scale),
            progress=progress if prepared is None else None,
        )
        warn_skipped(skipped, len(images.planes), found.others)
        super().__init__(
            images, skipped, scale, patch, seed, augment=augment, hold_out=hold_out, smooth_share=smooth_share
        )
        self.round_to_8_bits = round_to_8_bits

    def pair(self, image: int, plane: int, rows: Span, columns: Span, *, blur: float = 0.0) -> Pair:
        """Return input and target of a crop of a plane of an image, (channels, rows, columns) each."""
        planes, data = self.images.planes[image], self.images.data[image]
        return degraded_crop(
            lambda high, wide: planes.read(data, plane, high, wide),
            planes.size,
            self.scale,
            rows,
            columns,
            stored_as=ValueMap.of(np.uint8, None) if self.round_to_8_bits else None,
            blur=blur,
        )
