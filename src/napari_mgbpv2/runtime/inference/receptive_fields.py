"""Which rows the steps of the recursion must compute, when not all rows of a tile are output_rows.

A tile loses its guard: its outer rows are computed for what lies further in alone, and the later a step, the fewer of
them. Going backwards from the output rows, each step needs what its upscaling reads, and what the steps below make of
that. Columns could be left out likewise; but parts of rows must be moved together for convolutions and matrix
products, which on a CPU costs what they save.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from napari_mgbpv2.model.config import ModelConfig


class RowRange(NamedTuple):
    """Rows of one level from ``start`` up to but not including ``stop``."""

    start: int
    stop: int

    def of(self, image: Tensor, first: int = 0) -> Tensor:
        """View these rows of (1, C, h, w) ones, of which the first has the number ``first``."""
        return image[:, :, self.start - first : self.stop - first]


class StepRows(NamedTuple):
    """What one step of the recursion computes.

    Attributes
    ----------
    read
        Features of its own level that the downscaling reads.
    incoming
        Features of the level below that it gives, all that the steps below need.
    below
        What those steps compute.
    stacked
        Features of the level below that the upscaling reads.
    refined
        Features of its own level that the upscaling adds to; the outer ones are not complete, and not needed.
    """

    read: RowRange
    incoming: RowRange
    below: tuple[StepRows, ...]
    stacked: RowRange
    refined: RowRange


@lru_cache(maxsize=64)  # the tiles of an image have few sizes
def plan_receptive_rows(config: ModelConfig, size: int, output_rows: RowRange) -> list[tuple[StepRows, ...]]:
    """Find what each step of each cycle must compute.

    Parameters
    ----------
    config
        The network's.
    size
        Rows of the tile, a natural size.
    output_rows
        Those of its output that are output_rows.
    """
    sizes = [size]
    for _ in range(config.levels - 1):
        sizes.insert(0, (sizes[0] - config.kernel) // 2 + 1)
    cycles: list[tuple[StepRows, ...]] = []
    for _ in range(config.cycles):
        output_rows, steps = _steps(config.kernel, config.steps, sizes, output_rows)
        cycles.insert(0, steps)
    return cycles


def _steps(
    kernel: int, count: int, sizes: Sequence[int], output_rows: RowRange
) -> tuple[RowRange, tuple[StepRows, ...]]:
    """Find the features needed before the steps of the highest of some levels, and what these compute."""
    steps: list[StepRows] = []
    *lower, _ = sizes
    for _ in range(count if lower else 0):
        # target position t has taps of the source positions s with 0 <= t - 2 s < kernel
        stacked = RowRange(max(0, (output_rows.start - kernel + 2) // 2), min(lower[-1], (output_rows.stop + 1) // 2))
        incoming, below = _steps(kernel, count, lower, stacked)
        read, refined = (RowRange(2 * each.start, 2 * (each.stop - 1) + kernel) for each in (incoming, stacked))
        steps.insert(0, StepRows(read, incoming, below, stacked, refined))
        output_rows = RowRange(min(output_rows.start, read.start), max(output_rows.stop, read.stop))
    return output_rows, tuple(steps)
