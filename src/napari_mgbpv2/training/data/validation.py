"""Choose the pairs that a training run is scored on."""

from __future__ import annotations

from typing import Protocol

from napari_mgbpv2.training.data.degradation import Pair


class HasValidation(Protocol):
    """Samples with a held-out part."""

    def validation(self, count: int, size: int) -> list[Pair]:
        """Return up to ``count`` pairs of at most ``size`` px."""


def validation_images(samples: HasValidation, *, count: int = 8, size: int = 512) -> list[Pair]:
    """Choose pairs for validation, the same at every call.

    Parameters
    ----------
    samples
        `ImageSamples` or `PairedSamples` give evenly spread crops from their held-out share, or from all images if
        nothing is held out. Pass separate validation images as samples of their own that are ``like`` those of
        training. `SyntheticSamples` give images that training never uses.
    count
        Largest number of pairs.
    size
        Largest height and width of a pair in pixels; smaller images are taken whole.

    Returns
    -------
    list of tuple of Tensor
        Inputs and targets, (C, H, W) float32 each, degraded like the samples.
    """
    return samples.validation(count, size)
