"""Mix samples of images with synthetic ones, which add the lines and letters that photographs lack."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from napari_mgbpv2.training.data.degradation import Pair
from napari_mgbpv2.training.data.samples import ENDLESS, CropSamples
from napari_mgbpv2.training.data.synthetic_samples import SyntheticSamples

_STREAM = 2  # distinguishes these draws from those of the two sets


class MixedSamples(Dataset[Pair]):
    """Endless set of pairs, each from an image or synthetic, as a function of (seed, index).

    Parameters
    ----------
    images
        Pairs from images. Validation uses their held-out part.
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
