"""Transposed convolutions of stride 2, features + Upscale([a, b]): the steps that take most of the time.

Kernel element (a, b) takes source pixel (i, j) to target pixel (2i + a, 2j + b). All kernel elements of a source pixel
are one row of the matrix product (pixels x channels) (channels x kernel elements). The target rows of one parity are a
convolution of the source rows; `toom_cook` saves products there if they dominate the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mgbpv2.runtime.inference.gemm import make_gemm
from napari_mgbpv2.runtime.inference.toom_cook import toom_cook
from napari_mgbpv2.runtime.inference.workspace import Workspace, pixels

TILE_ROWS = 3  # m of `toom_cook`: a larger m saves less than it costs in additions and in rounding
UNCHANGED_ROWS = ((0, 1.0),)  # source rows that are multiplied without a sum before
STRIP_NUMBERS = 2_000_000  # a product of so many inputs and outputs is still in a cache when it is accumulated
ACCESS_COST = 15  # multiplications in the time that reading or writing one number of a feature takes


class TransposedConvolution(Protocol):
    """Adds the output of one upscaling to the features of the level above."""

    def add_to(self, features: Tensor, stack: Tensor, workspace: Workspace) -> None:
        """Add Upscale(``stack``) to ``features``, in place.

        Parameters
        ----------
        features
            (1, C, 2h + K - 2, 2w + K - 2), channels last.
        stack
            (1, S', h, w), channels last, rectified. If the weights have more channels, their last ones are left out.
        workspace
            Memory of the forward pass, for intermediate results.
        """


class DirectTransposedConvolution:
    """A transposed convolution by `torch.nn.functional.conv_transpose2d`.

    Parameters
    ----------
    weight
        (S, C, K, K), the layout of `torch.nn.ConvTranspose2d`.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.contiguous(memory_format=torch.channels_last)

    def add_to(self, features: Tensor, stack: Tensor, workspace: Workspace) -> None:
        """Add Upscale(``stack``) to ``features`` in place, see `TransposedConvolution`."""
        features += F.conv_transpose2d(stack, self._weight[: stack.shape[1]], stride=2)


class _Share(NamedTuple):
    """Share of a product in a target row: ``factor`` times part ``part``, if ``needs`` is a source row.

    Rows are counted from the first of the tile; ``needs`` may be beyond its last row.
    """

    row: int
    needs: int
    part: int
    factor: float


class _Product(NamedTuple):
    """Product of a weighted sum of source ``rows`` and (parts, K) ``filters`` of the kernel rows."""

    rows: tuple[tuple[int, float], ...]
    filters: npt.NDArray[np.float64]
    shares: tuple[_Share, ...]


class _Phase(NamedTuple):
    """Products for all target rows, or for those of one parity, which are ``extra`` more than the source rows.

    A tile consists of ``height`` source rows and the target rows that start with them.
    """

    height: int
    extra: int
    products: tuple[_Product, ...]

    @property
    def parts(self) -> int:
        """Largest number of parts of a product."""
        return max(len(product.filters) for product in self.products)


class GemmTransposedConvolution:
    """A transposed convolution by matrix products, for CPUs.

    Parameters
    ----------
    weight
        (S, C, K, K), float32, the layout of `torch.nn.ConvTranspose2d`.
    fast
        Whether to save products by `toom_cook`. By default, do so if it is expected to save time.
    """

    def __init__(self, weight: Tensor, *, fast: bool | None = None) -> None:
        terms, self._channels, self._kernel, _ = weight.shape
        choices = [_whole_kernel(self._kernel)], [_fast_phase(self._kernel, parity) for parity in (0, 1)]
        if fast is None:
            fast = _cost(choices[1], terms, self._channels) < _cost(choices[0], terms, self._channels)
        self._phases = choices[fast]
        columns = weight.detach().double().permute(2, 0, 3, 1).flatten(2)  # K kernel rows of (S, K C)
        self._multiply = [
            [make_gemm(_combine(product.filters, columns)) for product in phase.products] for phase in self._phases
        ]

    def add_to(self, features: Tensor, stack: Tensor, workspace: Workspace) -> None:
        """Add Upscale(``stack``) to ``features`` in place, see `TransposedConvolution`."""
        target, source = pixels(features), pixels(stack)
        height, width, terms = source.shape
        for phase, multiply in zip(self._phases, self._multiply, strict=True):
            tiles = -(-(height + phase.extra) // phase.height)
            columns = phase.parts * self._kernel * self._channels
            strips = min(tiles, max(1, tiles * width * (terms + columns) // STRIP_NUMBERS))
            for first, last in pairwise(tiles * strip // strips for strip in range(strips + 1)):
                for product, by_weights in zip(phase.products, multiply, strict=True):
                    if product.rows == UNCHANGED_ROWS and phase.height == 1:
                        rows = source[first:last]
                    else:
                        rows = workspace.take("rows", last - first, width, terms, like=target)
                        _sum_rows(source, product.rows, phase.height, range(first, last), rows)
                    results = by_weights(rows.view(-1, terms), workspace)
                    results = results.view(last - first, width, len(product.filters), self._kernel * self._channels)
                    step = 2 * phase.height
                    for row, needs, part, factor in product.shares:
                        count = max(0, min(last, -(-(height + phase.extra - needs) // phase.height)) - first)
                        start = step * first + row
                        own = target[start : start + step * count : step]
                        self._add_columns(own, results[:count, :, part], factor)

    def _add_columns(self, target: Tensor, parts: Tensor, factor: float) -> None:
        """Add (rows, w, K x C) parts to every other pixel of (rows, W, C), two neighbouring columns at once."""
        rows, width, _ = parts.shape
        channels, last = self._channels, self._kernel - 1
        for column in range(0, last, 2):
            pairs = target[:, column : column + 2 * width].view(rows, width, 2 * channels)
            pairs.add_(parts[:, :, column * channels : (column + 2) * channels], alpha=factor)
        target[:, last : last + 2 * width : 2].add_(parts[:, :, last * channels :], alpha=factor)


def _sum_rows(source: Tensor, rows: Sequence[tuple[int, float]], height: int, tiles: range, total: Tensor) -> None:
    """Write weighted sums of each tile's source rows to ``total``, (tiles, w, S'). Rows outside the source are zero."""
    known = [range(-(row // height), -(-(len(source) - row) // height)) for row, _ in rows]
    complete = range(max(tiles.start, *(each.start for each in known)), min(tiles.stop, *(each.stop for each in known)))
    if complete and complete != tiles:
        for part in (range(tiles.start, complete.start), complete, range(complete.stop, tiles.stop)):
            if part:
                _sum_rows(source, rows, height, part, total[part.start - tiles.start : part.stop - tiles.start])
        return
    terms = []
    for (row, factor), each in zip(rows, known, strict=True):
        if found := range(max(tiles.start, each.start), min(tiles.stop, each.stop)):
            values = source[found.start * height + row : (found.stop - 1) * height + row + 1 : height]
            terms.append((total[found.start - tiles.start : found.stop - tiles.start], values, factor))
    if not complete:
        total.zero_()
    else:
        (_, first, _), (_, second, factor) = terms[:2]  # the first factor is one
        torch.add(first, second, alpha=factor, out=total)
        del terms[:2]
    for own, values, factor in terms:
        own.add_(values, alpha=factor)


def _whole_kernel(kernel: int) -> _Phase:
    """Return one product with the whole kernel; each kernel row has its own target row."""
    shares = tuple(_Share(row, 0, row, 1.0) for row in range(kernel))
    return _Phase(1, 0, (_Product(UNCHANGED_ROWS, np.eye(kernel), shares),))


def _fast_phase(kernel: int, parity: int) -> _Phase:
    """Return target rows of one parity as a convolution of the source rows with every other kernel row, last first."""
    own_rows = np.arange(kernel)[parity::2][::-1]
    count = len(own_rows)
    if count == 1:
        return _Phase(1, 0, (_Product(UNCHANGED_ROWS, np.eye(kernel)[own_rows], (_Share(parity, 0, 0, 1.0),)),))
    inputs, filters, outputs = toom_cook(TILE_ROWS, count)
    products = []
    for row in range(len(inputs)):
        # The polynomial of the inputs has the leading coefficient 1; that row comes first in the sum.
        rows = tuple((int(at) + 1 - count, inputs[row, at]) for at in np.flatnonzero(inputs[row])[::-1])
        kernel_rows = np.zeros((1, kernel))
        kernel_rows[0, own_rows] = filters[row]
        targets = np.flatnonzero(outputs[:, row])
        shares = tuple(_Share(2 * int(at) + parity, int(at), 0, outputs[at, row]) for at in targets)
        products.append(_Product(rows, kernel_rows, shares))
    return _Phase(TILE_ROWS, count - 1, tuple(products))


def _cost(phases: list[_Phase], terms: int, channels: int) -> float:
    """Return the expected time for one source pixel, in multiplications."""
    total = 0.0
    for phase in phases:
        for product in phase.products:
            results = product.filters.size * channels
            moved = 3 * terms * (len(product.rows) - 1) + 3 * len(product.shares) * product.filters.shape[1] * channels
            total += (terms * results + ACCESS_COST * moved) / phase.height
    return total


def _combine(filters: npt.NDArray[np.float64], columns: Tensor) -> Tensor:
    """Return the weights of a product, (S, parts x K x C), from (K, S, K x C)."""
    weights = torch.einsum("pk,ksx->spx", torch.from_numpy(filters).to(columns.device), columns)
    return weights.flatten(1).float().contiguous()
