"""The step that takes most of the time, features + Upscale([a, b]), by matrix products or the device's convolution.

A transposed convolution of stride 2 gives target pixel (2i + a, 2j + b) the share of tap (a, b) of source pixel (i, j).
All taps of a source pixel are one row of the product (pixels x channels) (channels x taps). And the target rows of one
parity are a convolution of the source rows, where `toom_cook` saves products if these are wide enough to be what costs.
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
from napari_mgbpv2.runtime.inference.layout import pixels
from napari_mgbpv2.runtime.inference.toom_cook import toom_cook
from napari_mgbpv2.runtime.inference.workspace import Workspace

TILE_ROWS = 3  # m of `toom_cook`: more save less than they cost in additions and in rounding
AS_THEY_ARE = ((0, 1.0),)  # source rows that are multiplied without being added up
STRIP_NUMBERS = 2_000_000  # a product that reads and gives so many is still in a cache when it is added up
ACCESS_COST = 15  # multiplications in the time in which one number of a feature is read or written


class TransposedConvolution(Protocol):
    """Adds what one upscaling gives to the features above it."""

    def add_to(self, features: Tensor, stack: Tensor, workspace: Workspace) -> None:
        """Add Upscale(``stack``) to ``features``, in place.

        Parameters
        ----------
        features
            (1, C, 2h + K - 2, 2w + K - 2), channels last.
        stack
            (1, S', h, w), channels last, rectified. If the weights have more channels, the last ones are left out.
        workspace
            Memory of the forward pass, for what stands between the two.
        """


class DirectTransposedConvolution:
    """The step by the transposed convolution that the device has.

    Parameters
    ----------
    weight
        (S, C, K, K), as `torch.nn.ConvTranspose2d` has it.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.contiguous(memory_format=torch.channels_last)

    def add_to(self, features: Tensor, stack: Tensor, workspace: Workspace) -> None:
        """Add Upscale(``stack``) to ``features``, see `TransposedConvolution`."""
        features += F.conv_transpose2d(stack, self._weight[: stack.shape[1]], stride=2)


class _Share(NamedTuple):
    """Target row ``row`` of a tile takes ``factor`` times part ``part`` of a product, if ``needs`` is a source row.

    Rows are counted from the first of the tile, ``needs`` beyond the last one as far as there are target rows for it.
    """

    row: int
    needs: int
    part: int
    factor: float


class _Product(NamedTuple):
    """Source ``rows`` times their factors, added up, and multiplied by (parts, K) ``filters`` of a column's taps."""

    rows: tuple[tuple[int, float], ...]
    filters: npt.NDArray[np.float64]
    shares: tuple[_Share, ...]


class _Phase(NamedTuple):
    """Products that give all target rows, or those of one parity, of which there are ``extra`` more than source rows.

    A tile are ``height`` source rows and the target rows that begin with them.
    """

    height: int
    extra: int
    products: tuple[_Product, ...]

    @property
    def parts(self) -> int:
        """Parts of the product that has most of them."""
        return max(len(product.filters) for product in self.products)


class GemmTransposedConvolution:
    """The step by matrix products, for CPUs.

    Parameters
    ----------
    weight
        (S, C, K, K), float32, as `torch.nn.ConvTranspose2d` has it.
    fast
        Whether to save products by `toom_cook`; by default, if that is expected to save time.
    """

    def __init__(self, weight: Tensor, *, fast: bool | None = None) -> None:
        terms, self._channels, self._kernel, _ = weight.shape
        choices = [_every_tap(self._kernel)], [_fast_phase(self._kernel, parity) for parity in (0, 1)]
        if fast is None:
            fast = _cost(choices[1], terms, self._channels) < _cost(choices[0], terms, self._channels)
        self._phases = choices[fast]
        columns = weight.detach().double().permute(2, 0, 3, 1).flatten(2)  # K taps of (S, K C)
        self._multiply = [
            [make_gemm(_combine(product.filters, columns)) for product in phase.products] for phase in self._phases
        ]

    def add_to(self, features: Tensor, stack: Tensor, workspace: Workspace) -> None:
        """Add Upscale(``stack``) to ``features``, see `TransposedConvolution`."""
        target, source = pixels(features), pixels(stack)
        height, width, terms = source.shape
        for phase, multiply in zip(self._phases, self._multiply, strict=True):
            tiles = -(-(height + phase.extra) // phase.height)
            columns = phase.parts * self._kernel * self._channels
            strips = min(tiles, max(1, tiles * width * (terms + columns) // STRIP_NUMBERS))
            for first, last in pairwise(tiles * strip // strips for strip in range(strips + 1)):
                for product, by_weights in zip(phase.products, multiply, strict=True):
                    if product.rows == AS_THEY_ARE and phase.height == 1:
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
        """Add (rows, w, K x C) parts to every other pixel of (rows, W, C); neighbouring columns at once."""
        rows, width, _ = parts.shape
        channels, last = self._channels, self._kernel - 1
        for column in range(0, last, 2):
            pairs = target[:, column : column + 2 * width].view(rows, width, 2 * channels)
            pairs.add_(parts[:, :, column * channels : (column + 2) * channels], alpha=factor)
        target[:, last : last + 2 * width : 2].add_(parts[:, :, last * channels :], alpha=factor)


def _sum_rows(source: Tensor, rows: Sequence[tuple[int, float]], height: int, tiles: range, total: Tensor) -> None:
    """Sum of some source rows of every tile, into (tiles, w, S'); those outside the source are zero."""
    there = [range(-(row // height), -(-(len(source) - row) // height)) for row, _ in rows]
    complete = range(max(tiles.start, *(each.start for each in there)), min(tiles.stop, *(each.stop for each in there)))
    if complete and complete != tiles:
        for part in (range(tiles.start, complete.start), complete, range(complete.stop, tiles.stop)):
            if part:
                _sum_rows(source, rows, height, part, total[part.start - tiles.start : part.stop - tiles.start])
        return
    terms = []
    for (row, factor), each in zip(rows, there, strict=True):
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


def _every_tap(kernel: int) -> _Phase:
    """One product with all taps, of which each column of them has its target row."""
    shares = tuple(_Share(tap, 0, tap, 1.0) for tap in range(kernel))
    return _Phase(1, 0, (_Product(AS_THEY_ARE, np.eye(kernel), shares),))


def _fast_phase(kernel: int, parity: int) -> _Phase:
    """The target rows of one parity as a convolution of the source rows with every other tap, the last one first."""
    own_taps = np.arange(kernel)[parity::2][::-1]
    count = len(own_taps)
    if count == 1:
        return _Phase(1, 0, (_Product(AS_THEY_ARE, np.eye(kernel)[own_taps], (_Share(parity, 0, 0, 1.0),)),))
    inputs, filters, outputs = toom_cook(TILE_ROWS, count)
    products = []
    for row in range(len(inputs)):
        # the polynomial of the inputs has the leading coefficient 1: that row is the first to be summed up
        rows = tuple((int(at) + 1 - count, inputs[row, at]) for at in np.flatnonzero(inputs[row])[::-1])
        taps = np.zeros((1, kernel))
        taps[0, own_taps] = filters[row]
        targets = np.flatnonzero(outputs[:, row])
        shares = tuple(_Share(2 * int(at) + parity, int(at), 0, outputs[at, row]) for at in targets)
        products.append(_Product(rows, taps, shares))
    return _Phase(TILE_ROWS, count - 1, tuple(products))


def _cost(phases: list[_Phase], terms: int, channels: int) -> float:
    """Expected time for one source pixel, in multiplications."""
    total = 0.0
    for phase in phases:
        for product in phase.products:
            results = product.filters.size * channels
            moved = 3 * terms * (len(product.rows) - 1) + 3 * len(product.shares) * product.filters.shape[1] * channels
            total += (terms * results + ACCESS_COST * moved) / phase.height
    return total


def _combine(filters: npt.NDArray[np.float64], columns: Tensor) -> Tensor:
    """Weights of a product, (S, parts x K x C), from (K, S, K x C)."""
    weights = torch.einsum("pk,ksx->spx", torch.from_numpy(filters).to(columns.device), columns)
    return weights.flatten(1).float().contiguous()
