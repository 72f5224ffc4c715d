"""Convolutions without padding: of the image, and from each level to the one below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mgbpv2.runtime.inference.gemm import convolutions_are_faster, convolve, has_onednn
from napari_mgbpv2.runtime.inference.workspace import Workspace, as_image, is_exact_on_cpu, pixels

# For results of fewer pixels, torch divides the sums between threads; the rounding then depends on their number.
FEW_PIXELS = 1024
# The allocator reuses memory for results of up to so many numbers, and gets new memory for larger ones.
STRIP_NUMBERS = 1_000_000


class _Strip(NamedTuple):
    """Rows of a result from ``start`` up to but not including ``stop``, (1, C, rows, w)."""

    start: int
    stop: int
    values: Tensor


@dataclass(frozen=True)
class Convolution:
    """A convolution without padding.

    Attributes
    ----------
    weight
        (C', C, K, K), stored channels last.
    bias
        (C',), or None.
    stride
        Pixels from one result to the next, along both axes.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int

    def __call__(self, image: Tensor, workspace: Workspace, name: str) -> Tensor:
        """Convolve (1, C, h, w). A large result is the workspace's buffer of that name."""
        channels, height, width = self._shape(image)
        if self._strip_count(image) == 1:
            (strip,) = self._strips(image)
            return strip.values
        result = workspace.take(name, height, width, channels, like=image)
        for start, stop, values in self._strips(image):
            result[start:stop] = pixels(values)
        return as_image(result)

    def rectify_into(self, image: Tensor, out: Tensor, factor: float = 1.0) -> None:
        """Convolve, multiply by ``factor``, apply a ReLU, and write to ``out``, which has the shape of the result."""
        for start, stop, values in self._strips(image):
            scaled = values if factor == 1 else values.mul_(factor)
            torch.clamp_min(scaled, 0, out=out[:, :, start:stop])

    def pointwise(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        """Convolve with a kernel of one pixel as a matrix product, into ``out`` of (h, w, C') if given."""
        if is_exact_on_cpu(image) and convolutions_are_faster():
            result = convolve(image, self.weight, self.bias)
            return result if out is None else as_image(out.copy_(pixels(result)))
        values, weight = pixels(image).flatten(0, 1), self.weight[:, :, 0, 0].t()
        flat = None if out is None else out.flatten(0, 1)
        if self.bias is None:
            result = torch.mm(values, weight, out=flat)
        else:
            result = torch.addmm(self.bias, values, weight, out=flat)
        return as_image(result.view(*image.shape[2:], -1))

    def _shape(self, image: Tensor) -> tuple[int, int, int]:
        channels, _, side, _ = self.weight.shape
        height, width = ((size - side) // self.stride + 1 for size in image.shape[2:])
        return channels, height, width

    def _strip_count(self, image: Tensor) -> int:
        channels, height, width = self._shape(image)
        if image.device.type != "cpu":
            return 1
        return min(height, max(1, channels * height * width // STRIP_NUMBERS))

    def _strips(self, image: Tensor) -> Iterator[_Strip]:
        _, height, width = self._shape(image)
        if height * width < FEW_PIXELS and is_exact_on_cpu(image) and has_onednn():
            yield _Strip(0, height, self._by_gemm(image))
            return
        count, side = self._strip_count(image), self.weight.shape[-1]
        for start, stop in pairwise(height * strip // count for strip in range(count + 1)):
            rows = image[:, :, self.stride * start : self.stride * (stop - 1) + side]
            yield _Strip(start, stop, F.conv2d(rows, self.weight, self.bias, self.stride))

    def _by_gemm(self, image: Tensor) -> Tensor:
        """Convolve by a matrix product of the patches that the pixels of the result depend on."""
        side, stride = self.weight.shape[-1], self.stride
        patches = image[0].unfold(1, side, stride).unfold(2, side, stride).permute(1, 2, 3, 4, 0)
        kernel = self.weight.permute(0, 2, 3, 1).flatten(1)[:, :, None, None]
        return convolve(as_image(patches.flatten(2)), kernel, self.bias)
