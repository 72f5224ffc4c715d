"""Training pairs: sharp patches and what is left of them after bicubic shrinking.

Every sample is a function of (seed, index): the data sets are endless, index 7 is the same pair today and after a
resume, in the first loader worker and in the third, in one process and in eight. Caches save time and nothing else.
A pair is (input, target), each (C, patch, patch) float32, 0 black to 1 white, both at target resolution; nothing is
clipped.
"""

from __future__ import annotations

from napari_mgbpv2.training.data.degradation import Pair
from napari_mgbpv2.training.data.discovery import find_images
from napari_mgbpv2.training.data.loading import sample_loader
from napari_mgbpv2.training.data.pairs import PairedSamples
from napari_mgbpv2.training.data.prepared_folder import prepare
from napari_mgbpv2.training.data.samples import ImageSamples
from napari_mgbpv2.training.data.synthetic_samples import SyntheticSamples
from napari_mgbpv2.training.data.validation import validation_images

__all__ = [
    "ImageSamples",
    "Pair",
    "PairedSamples",
    "SyntheticSamples",
    "find_images",
    "prepare",
    "sample_loader",
    "validation_images",
]
