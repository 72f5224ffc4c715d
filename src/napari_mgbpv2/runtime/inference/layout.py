"""How features lie in memory: one image, channels last."""

from __future__ import annotations

import torch
from torch import Tensor


def pixels(features: Tensor) -> Tensor:
    """View (1, C, h, w) features as (h, w, C)."""
    return features[0].permute(1, 2, 0)


def as_image(values: Tensor) -> Tensor:
    """View (h, w, C) pixels as a (1, C, h, w) image, channels last."""
    return values[None].permute(0, 3, 1, 2)


def is_exact_on_cpu(values: Tensor) -> bool:
    """Tell whether these are numbers of full precision on a CPU, for which there are ways of its own."""
    return values.device.type == "cpu" and values.dtype == torch.float32
