"""Samples of images and synthetic ones in one set: real textures, and lines and letters, which photographs lack."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from napari_mgbpv2.training.data.degradation import Pair
from napari_mgbpv2.training.data.samples import ENDLESS, CropSamples
from napari_mgbpv2.training.data.synthetic_samples import SyntheticSamples

_STREAM = 2  # distinguishes these draws from those of the two sets


class MixedSamples(Dataset[Pair]):
    """An endless set of pairs, each from images or synthetic; a function of (seed, index).

    Parameters
    ----------
    images
        Pairs from images. They are also what is held out for validation.
    synthetic
        Synthetic pairs of the same scale, patch size and number of channels.
    share
        Share of synthetic pairs, 0 to 1.
    seed
        The same seed gives the same samples.
    """

    def __init__(self, images: CropSamples, synthetic: SyntheticSamples, share: float, seed: int) -> None:
        self.images, self.synthetic, self.share, self.seed = images, synthetic, share, seed

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Pair:
        """Return sample ``index``: input and target, (channels, patch, patch) each."""
        is_synthetic = np.random.default_rng((self.seed, _STREAM, index)).random() < self.share
        return self.synthetic[index] if is_synthetic else self.images[index]
