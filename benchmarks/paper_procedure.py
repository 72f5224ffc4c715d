"""The paper's own way to upscale an image, from its description: the network, and overlapping patches of the output.

Sections 3 and 4 of arXiv 1909.12983. Everything is done as it is written down: contiguous float32, concatenation, a
transposed convolution of the rectified stack, a new tensor for every sum; the enlarged image, the sum of the weighted
patches and the sum of the weights are in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mgbpv2.model.network import MGBPv2, module_label

Forward = Callable[[Tensor], Tensor]


class PaperNetwork(nn.Module):
    """Algorithm 1 without noise, with the convolutions of a network."""

    def __init__(self, network: MGBPv2) -> None:
        super().__init__()
        self.config, self.parts = network.config, network

    def forward(self, image: Tensor) -> Tensor:
        levels = self.config.levels
        analysed = [self.part(f"Analysis_{level}")(image) for level in range(levels)]
        noise = [features.new_zeros(1, self.config.noise_channels, *features.shape[2:]) for features in analysed]
        u = self.back_project(analysed[-1], levels - 1, analysed, noise, (0,) * (levels - 1))
        return self.part("Synthesis")(u)

    def back_project(
        self, u: Tensor, level: int, analysed: list[Tensor], noise: list[Tensor], counters: tuple[int, ...]
    ) -> Tensor:
        if level == 0:
            return u
        for step in range(self.config.steps):
            counters = (*counters[: level - 1], step, *counters[level:])
            label = module_label(level, counters, self.config.steps)
            below = self.part(f"Downscale_{label}")(u)
            below = self.back_project(below, level - 1, analysed, noise, counters)
            stack = torch.cat([analysed[level - 1], below, noise[level - 1]], dim=1)
            u = u + self.part(f"Upscale_{label}")[1](F.relu(stack))
        return u

    def part(self, name: str) -> nn.Module:
        return self.parts.get_submodule(name)


def average_of_patches(image: Tensor, forward: Forward, patch: int, stride: int) -> Tensor:
    """Upscale an enlarged (1, C, H, W) image by the Hamming-weighted mean of patches that are ``stride`` px apart."""
    height, width = image.shape[-2:]
    window = torch.hamming_window(patch, periodic=False)
    weight = window[:, None] * window[None, :]
    total, weights = torch.zeros_like(image), torch.zeros_like(image[:, :1])
    for top in _corners(height, patch, stride):
        for left in _corners(width, patch, stride):
            place = (..., slice(top, top + patch), slice(left, left + patch))
            total[place] += weight * forward(image[place])
            weights[place] += weight
    return total / weights


def _corners(size: int, patch: int, stride: int) -> list[int]:
    steps = max(1, -(-(size - patch) // stride))
    return [round(step * (size - patch) / steps) for step in range(steps + 1)]
