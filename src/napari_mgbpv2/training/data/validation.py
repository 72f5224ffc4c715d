"""What a training run is scored on."""

from __future__ import annotations

from typing import Protocol

from napari_mgbpv2.training.data.degradation import Pair


class HasValidation(Protocol):
    """Samples that know what they hold out."""

    def validation(self, count: int, size: int) -> list[Pair]:
        """Return up to ``count`` pairs of at most ``size`` px."""


def validation_images(samples: HasValidation, *, count: int = 8, size: int = 512) -> list[Pair]:
    """Choose what to score on, the same at every call.

    Parameters
    ----------
    samples
        `ImageSamples` or `PairedSamples` that hold out a share: crops from it, evenly spread. If they hold out
        nothing, crops from all of their images; so are separate validation images given, as samples of their own that
        are ``like`` those of training. `SyntheticSamples`: images that are none of theirs.
    count
        Pairs at the most.
    size
        Height and width of a pair at the most; smaller images are taken whole.

    Returns
    -------
    list of tuple of Tensor
        Inputs and targets, (C, H, W) float32 each, made as those of the samples.
    """
    return samples.validation(count, size)
