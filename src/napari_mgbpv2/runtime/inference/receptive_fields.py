"""Which rows the steps of the recursion must compute, when not all rows of a tile are wanted.

A tile loses its guard: its outer rows are computed for what lies further in alone, and the later a step, the fewer of
them. Going backwards from the rows that are wanted, each step needs what its upscaling reads, and what the steps below
make of that. Columns could be left out likewise; but parts of rows must be moved together for convolutions and matrix
products, which on a CPU costs what they save.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from napari_mgbpv2.model.config import ModelConfig


class Extent(NamedTuple):
    """Rows of one level from ``start`` up to but not including ``stop``."""

    start: int
    stop: int

    def of(self, image: Tensor, first: int = 0) -> Tensor:
        """View these rows of (1, C, h, w) ones, of which the first has the number ``first``."""
        return image[:, :, self.start - first : self.stop - first]


class StepExtents(NamedTuple):
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

    read: Extent
    incoming: Extent
    below: tuple[StepExtents, ...]
    stacked: Extent
    refined: Extent


@lru_cache(maxsize=64)  # the tiles of an image have few sizes
def plan_extents(config: ModelConfig, size: int, wanted: Extent) -> list[tuple[StepExtents, ...]]:
    """Find what each step of each cycle must compute.

    Parameters
    ----------
    config
        The network's.
    size
        Rows of the tile, a natural size.
    wanted
        Those of its output that are wanted.
    """
    sizes = [size]
    for _ in range(config.levels - 1):
        sizes.insert(0, (sizes[0] - config.kernel) // 2 + 1)
    cycles: list[tuple[StepExtents, ...]] = []
    for _ in range(config.cycles):
        wanted, steps = _steps(config.kernel, config.steps, sizes, wanted)
        cycles.insert(0, steps)
    return cycles


def _steps(kernel: int, count: int, sizes: Sequence[int], wanted: Extent) -> tuple[Extent, tuple[StepExtents, ...]]:
    """Find the features needed before the steps of the highest of some levels, and what these compute."""
    steps: list[StepExtents] = []
    *lower, _ = sizes
    for _ in range(count if lower else 0):
        # target position t has taps of the source positions s with 0 <= t - 2 s < kernel
        stacked = Extent(max(0, (wanted.start - kernel + 2) // 2), min(lower[-1], (wanted.stop + 1) // 2))
        incoming, below = _steps(kernel, count, lower, stacked)
        read, refined = (Extent(2 * each.start, 2 * (each.stop - 1) + kernel) for each in (incoming, stacked))
        steps.insert(0, StepExtents(read, incoming, below, stacked, refined))
        wanted = Extent(min(wanted.start, read.start), max(wanted.stop, read.stop))
    return wanted, tuple(steps)
