"""Rows that each step of the recursion must compute for a part of the rows of a tile.

A tile loses its guard: its outer rows serve only rows further inside, and later steps need fewer of them. Going
backwards from the output rows, each step needs the rows that its upscaling reads, and those that the steps below need
in turn. Columns could be left out in the same way, but convolutions and matrix products then need parts of rows to be
copied together, which costs on a CPU what it saves.
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
        """View these rows of a (1, C, h, w) tensor whose first row has the index ``first``."""
        return image[:, :, self.start - first : self.stop - first]


class StepRows(NamedTuple):
    """Rows that one step of the recursion reads and computes.

    Attributes
    ----------
    read
        Features of the step's own level that the downscaling reads.
    incoming
        Features of the level below that the downscaling computes, all that the steps below need.
    below
        Rows of the steps below.
    stacked
        Features of the level below that the upscaling reads.
    refined
        Features of the step's own level that the upscaling adds to. The outer ones are incomplete, and not needed.
    """

    read: RowRange
    incoming: RowRange
    below: tuple[StepRows, ...]
    stacked: RowRange
    refined: RowRange


@lru_cache(maxsize=64)  # The tiles of an image have few sizes.
def plan_receptive_rows(config: ModelConfig, size: int, output_rows: RowRange) -> list[tuple[StepRows, ...]]:
    """Return the rows of each step of each cycle.

    Parameters
    ----------
    config
        Configuration of the network.
    size
        Rows of the tile, a natural size.
    output_rows
        Rows of the output to compute.
    """
    sizes = [size]
    for _ in range(config.levels - 1):
        sizes.insert(0, (sizes[0] - config.kernel) // 2 + 1)
    cycles: list[tuple[StepRows, ...]] = []
    for _ in range(config.cycles):
        output_rows, steps = _plan_steps(config.kernel, config.steps, sizes, output_rows)
        cycles.insert(0, steps)
    return cycles


def _plan_steps(
    kernel: int, count: int, sizes: Sequence[int], output_rows: RowRange
) -> tuple[RowRange, tuple[StepRows, ...]]:
    """Return the features needed before the steps of the highest of some levels, and the rows of these steps."""
    steps: list[StepRows] = []
    *lower, _ = sizes
    for _ in range(count if lower else 0):
        # Target position t depends on the source positions s with 0 <= t - 2 s < kernel.
        stacked = RowRange(max(0, (output_rows.start - kernel + 2) // 2), min(lower[-1], (output_rows.stop + 1) // 2))
        incoming, below = _plan_steps(kernel, count, lower, stacked)
        read, refined = (RowRange(2 * each.start, 2 * (each.stop - 1) + kernel) for each in (incoming, stacked))
        steps.insert(0, StepRows(read, incoming, below, stacked, refined))
        output_rows = RowRange(min(output_rows.start, read.start), max(output_rows.stop, read.stop))
    return output_rows, tuple(steps)
