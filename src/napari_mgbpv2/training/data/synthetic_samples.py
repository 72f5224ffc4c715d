"""Cut samples from synthetic images, for models that are trained without any photograph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.training.data.degradation import Orientation, Pair, crop_span, degraded_crop
from napari_mgbpv2.training.data.samples import ENDLESS, check_numbers
from napari_mgbpv2.training.data.temp_directory import TempDirectory
from napari_mgbpv2.training.synthetic import KINDS, numbered_image

_STREAM = 0


class SyntheticSamples(Dataset[Pair]):
    """An endless set of pairs from synthetic images, each a function of (seed, index).

    Sample ``index`` is cut from one of the last ``pool`` images up to number ``first_images + index // uses``. The
    low-resolution image is rounded to the type of the sharp one.

    Parameters
    ----------
    kind
        One of `napari_mgbpv2.training.synthetic.KINDS`.
    scale
        Shrinking factor.
    patch
        Height and width of a sample at target resolution. Its first row and column are multiples of ``scale``.
    seed
        The same seed gives the same images and samples.
    channels
        3, grey as three equal channels; or 1, red, green or blue of colours.
    augment
        Whether samples are turned and mirrored, 8 ways.
    pool
        Largest number of images to choose from.
    uses
        Number of samples after which a new image is added; a full pool then loses its oldest image.
    first_images
        Number of images that the first samples are drawn from.
    image_size
        Height and width of an image in pixels.
    """

    def __init__(
        self,
        kind: str,
        scale: int,
        patch: int,
        seed: int,
        *,
        channels: int = 3,
        augment: bool = True,
        pool: int = 160,
        uses: int = 64,
        first_images: int = 24,
        image_size: int = 512,
    ) -> None:
        check_numbers(scale, patch, seed)
        if channels not in (1, 3):
            raise ImageError(f"synthetic images have 3 channels or 1, not {channels}.")
        if min(pool, uses, first_images) < 1:
            raise ImageError("pool, uses and first_images must be at least 1.")
        self._size = image_size // scale * scale
        if self._size < patch:
            raise ImageError(f"a patch of {patch} px does not fit into synthetic images of {image_size} px.")
        self.kind, self.scale, self.patch, self.seed, self.channels = kind, scale, patch, seed, channels
        self.augment = augment
        self.pool, self.uses, self.first_images, self.image_size = pool, uses, first_images, image_size
        self._store = TempDirectory()

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Pair:
        """Return sample ``index``: input and target, (channels, patch, patch) each."""
        if not 0 <= index < ENDLESS:
            raise IndexError(f"sample {index}: samples are numbered from 0")
        generator = np.random.default_rng((self.seed, _STREAM, index))
        frontier = self.first_images + index // self.uses
        image = self._image(int(generator.integers(max(0, frontier - self.pool), frontier)))
        channel = int(generator.integers(3))
        orientation = Orientation.random(generator) if self.augment else Orientation()
        whole = Span(0, self._size)
        rows, columns = (
            crop_span(whole, self.patch, self.scale, reverse, generator) for reverse in orientation.reverses
        )
        return orientation.apply(self._pair(image, channel, rows, columns))

    def validation(self, count: int, size: int) -> list[Pair]:
        """Return the centres of images that no sample is cut from."""
        size = min(size, self._size)
        start = (self._size - size) // 2 // self.scale * self.scale
        middle = Span(start, start + size)
        images = (numbered_image(self.kind, self.seed, n, self.image_size, held_out=True) for n in range(count))
        return [
            Orientation().apply(self._pair(image, number % 3, middle, middle)) for number, image in enumerate(images)
        ]

    def _pair(self, image: npt.NDArray[Any], channel: int, rows: Span, columns: Span) -> Pair:
        values = KINDS[self.kind].values(image)
        one_of_three = (image.shape[2], self.channels) == (3, 1)
        samples = slice(channel, channel + 1) if one_of_three else slice(None)

        def read(high: slice, wide: slice) -> Tensor:
            pixels = values.to_unit(np.ascontiguousarray(image[high, wide, samples].transpose(2, 0, 1)))
            return torch.from_numpy(pixels).expand(self.channels, -1, -1)

        size = (self._size, self._size)
        return degraded_crop(read, size, self.scale, rows, columns, stored_as=values)

    def _image(self, number: int) -> npt.NDArray[Any]:
        """Load an image that a loader worker has drawn and stored, or draw and store it."""
        path = self._path(number)
        try:
            kept: npt.NDArray[Any] = np.load(path, mmap_mode="r")
            return kept
        except (OSError, ValueError):
            image = numbered_image(self.kind, self.seed, number, self.image_size)
        partial = path.with_suffix(f".{os.getpid()}")
        try:
            with open(partial, "wb") as file:
                np.save(file, image)
            os.replace(partial, path)
            self._path(number - 2 * self.pool).unlink(missing_ok=True)  # workers are closer together than that
        except OSError:  # a full disk costs time, not the run
            partial.unlink(missing_ok=True)
        return image

    def _path(self, number: int) -> Path:
        return self._store.path / f"{number}.npy"
