"""The losses of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from napari_mgbpv2.resampling import shrink

MULTISCALE_FACTORS = (1, 2, 4, 8, 16)


def multiscale_l1(output: Tensor, target: Tensor, factors: Sequence[int] = MULTISCALE_FACTORS) -> Tensor:
    """Multi-scale L1, equation 1: the sum over f of mean |S_f(output) - S_f(target)|.

    Parameters
    ----------
    output, target
        (B, C, H, W). The right and bottom remainder that the largest factor does not divide is left out
        at every scale, so that each S_f sees the same pixels.
    factors
        Shrinking factors f; each S_f is computed from full resolution.

    Returns
    -------
    Tensor
        A scalar.
    """
    largest = max(factors)
    height, width = (size // largest * largest for size in output.shape[-2:])
    output, target = output[..., :height, :width], target[..., :height, :width]
    losses = [F.l1_loss(shrink(output, factor), shrink(target, factor)) for factor in factors]
    return sum(losses[1:], start=losses[0])
