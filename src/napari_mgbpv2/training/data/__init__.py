"""Make training pairs: sharp patches, and the same patches shrunk and upscaled bicubically.

Every sample is a function of (seed, index). The data sets are endless. Index 7 is the same pair after a resume, in any
loader worker and for any number of processes. Caches only save time.
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
