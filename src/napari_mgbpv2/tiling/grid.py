"""The tile grid: aligned tiles of natural size, their guards, and the window that blends their cores.

A network of strided convolutions is not shift-invariant. A tile gives the output of the whole image only if its corner
is on the grid of the network's lowest level, counted on the padded image, and only inside its *guard*, the outer pixels
that the tile's own border affects. Tiles are therefore aligned, and lose their guard where they have a neighbour. The
rest, their *cores*, is blended by a window that sums to one along each axis. The grid is a product of two axes.

Positions are target pixels of the image along one axis. The reflected border has negative positions, and positions
beyond the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.errors import TilingError
from napari_mgbpv2.model.config import ModelConfig

Weights = npt.NDArray[np.floating[Any]]

MIN_BLEND = 8  # least default number of pixels over which neighbours are blended, enough to hide rounding
DEFAULT_TILE_SIDE = 1280  # default tiles have as many pixels as a square of this side, or more for large overlaps
MAX_COMPUTED_SHARE = 1.5  # default tiles grow until at most this many pixels are computed per output pixel
LARGEST_SIDE = 2**28  # target pixels along an axis; the positions of more tiles would take minutes to plan
MAX_TILE_SIDE = 2048  # default tiles have at most the pixels of a square of this side, and are no longer
CANDIDATE_SHAPES = 9  # number of shapes of default tiles that are compared
ROW_STEP = 1024  # pixels from one row of default tiles to the next, if the cost allows: shards end there, too
TALL_IMAGE = 4096  # pixels above which rows of tiles should end with rows of shards, to retain little between them
COST_TOLERANCE = 1.04  # of the least cost
CONSTANT_TILE_CACHE_SIZE = 4  # cached results for tiles of one colour; inner tiles have two sizes per axis


class Span(NamedTuple):
    """Positions from ``start`` up to but not including ``stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.stop - self.start


def _hamming(phase: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 0.54 - 0.46 cos(2 pi phase), 0.08 at both ends and 1 in the middle: the paper's choice."""
    return 0.54 - 0.46 * np.cos(2 * np.pi * phase)


def _triangle(phase: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a linear rise and fall: the choice of the authors' code."""
    return 1.0 - np.abs(2 * phase - 1)


def _flat(phase: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return equal weights: the mean of overlapping tiles."""
    return np.ones_like(phase)


WINDOWS: dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
    "hamming": _hamming,
    "triangle": _triangle,
    "flat": _flat,
}


@dataclass(frozen=True)
class TileAxis:
    """The tiles along one axis of an image.

    Parameters
    ----------
    size
        Pixels of the image at target resolution.
    tile
        Length of a tile in target pixels: a natural size, or that of the whole padded image.
    starts
        First position of each tile, ascending; negative within the reflected border.
    guard
        Target pixels that a tile loses at each end where it has a neighbour.
    window
        Name of the blending window, one of `WINDOWS`.
    end
        Position of the end of the image's reflected border, which also ends the last tile.
    """

    size: int
    tile: int
    starts: tuple[int, ...]
    guard: int
    window: str
    end: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def overlap(self) -> int:
        """Least number of pixels that neighbours share, guards included. 0 for a single tile."""
        steps = [after - before for before, after in itertools.pairwise(self.starts)]
        return self.tile - max(steps) if steps else 0

    def span(self, index: int) -> Span:
        """Return all positions that a tile computes, its guard and the image's border included."""
        return Span(self.starts[index], min(self.starts[index] + self.tile, self.end))

    @property
    def computed(self) -> int:
        """Number of positions of all tiles together."""
        return self.tile * len(self) - (self.starts[-1] + self.tile - self.end)

    def core(self, index: int) -> Span:
        """Return the positions that a tile contributes to, without its guard and the image's border."""
        start, stop = self.span(index)
        first = 0 if index == 0 else start + self.guard
        last = self.size if index == len(self) - 1 else stop - self.guard
        return Span(max(0, first), min(self.size, last))

    def touching(self, span: Span) -> range:
        """Return the indices of the tiles whose cores overlap ``span``, a part of the image."""
        starts, stops = self._core_ends
        return range(
            int(np.searchsorted(stops, span.start, side="right")), int(np.searchsorted(starts, span.stop, side="left"))
        )

    def starting_in(self, span: Span) -> range:
        """Return the indices of the tiles whose cores start in ``span``. Disjoint spans share no tile."""
        starts, _ = self._core_ends
        return range(
            int(np.searchsorted(starts, span.start, side="left")), int(np.searchsorted(starts, span.stop, side="left"))
        )

    def weights(self, index: int, dtype: npt.DTypeLike = np.float32) -> Weights:
        """Return the weight of one tile at the positions of its core.

        The weights of all tiles at a position add up to exactly one in their dtype, in the order of the tiles.

        Parameters
        ----------
        index
            Index of the tile.
        dtype
            float32, or float64 for tiles of that type.

        Returns
        -------
        ndarray
            (core size,) in [0, 1].
        """
        core = self.core(index)
        positions = np.arange(core.start, core.stop)
        neighbours = self.touching(core)
        raw = np.stack([self._raw(other, positions) for other in neighbours])
        shares = (raw / raw.sum(axis=0)).astype(dtype)
        rows = np.arange(len(neighbours))[:, None]
        last = np.where(raw > 0, rows, -1).max(axis=0)
        before = np.zeros(len(positions), dtype)
        for row in range(len(neighbours)):
            # The last tile at a position gets the remainder, because a rounding error would show as a seam.
            shares[row] = np.where(last == row, shares.dtype.type(1) - before, shares[row])
            before += shares[row]
        own: Weights = shares[index - neighbours.start]
        return own

    def _raw(self, index: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the window of one tile at any positions: 0 outside its core, the end value where that is extended."""
        first, last = self.starts[index] + self.guard, self.starts[index] + self.tile - self.guard
        phase = (positions - first + 0.5) / max(1, last - first)
        ends = 0.5 / max(1, last - first)
        core = self.core(index)
        inside = (positions >= core.start) & (positions < core.stop)
        return np.where(inside, WINDOWS[self.window](np.clip(phase, ends, 1 - ends)), 0.0)

    @cached_property
    def _core_ends(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        cores = [self.core(index) for index in range(len(self))]
        return np.array([core.start for core in cores]), np.array([core.stop for core in cores])


@dataclass(frozen=True)
class TileGrid:
    """The tiles of an image: each pair of a tile of ``rows`` and a tile of ``columns``."""

    rows: TileAxis
    columns: TileAxis

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def computed_pixels(self) -> int:
        """Number of pixels of all tiles together, overlaps counted for each tile."""
        return self.rows.computed * self.columns.computed

    @property
    def computed_share(self) -> float:
        """Computed pixels per pixel of the image."""
        return self.computed_pixels / (self.rows.size * self.columns.size)

    def touching(self, rows: Span, columns: Span) -> Iterator[tuple[int, int]]:
        """Return (row, column) of each tile whose core overlaps a part of the image, in a fixed order."""
        across = self.columns.touching(columns)
        return ((row, column) for row in self.rows.touching(rows) for column in across)


def plan_grid(
    height: int,
    width: int,
    configs: Sequence[ModelConfig],
    *,
    guard: int,
    tile: int | None = None,
    overlap: int | None = None,
    window: str = "hamming",
) -> TileGrid:
    """Cover an image with aligned tiles.

    Parameters
    ----------
    height, width
        Size of the image in target pixels.
    configs
        Configurations of the network, or of all members of an ensemble. The grid is aligned to the first; the others
        use the aligned windows around its tiles.
    guard
        Target pixels at each end of a tile that its border affects.
    tile
        Longest side of a tile in target pixels. Tiles are equal, and as small as their number allows. By default they
        are so large that overlaps cost little, and of the cheapest shape.
    overlap
        Least number of target pixels that neighbours share, guards included. By default twice the guard, `MIN_BLEND`,
        and the pixels that alignment and natural sizes add.
    window
        Name of the blending window: "hamming", "triangle" or "flat".

    Raises
    ------
    TilingError
        The overlap does not fit into the tile, the guards do not fit into the overlap, the tile is smaller than the
        network allows, a number is negative, the window is unknown, or the image has more than 2^28 target pixels
        along an axis.
    """
    if max(height, width) > LARGEST_SIDE:
        raise TilingError(
            f"the result would have {height:,} x {width:,} px; at most {LARGEST_SIDE:,} px along an axis can be tiled: "
            "upscale a part of the image."
        )
    if window not in WINDOWS:
        raise TilingError(f"window is {window!r}; choose one of {', '.join(map(repr, WINDOWS))}.")
    overlap = _choose_overlap(configs[0], guard, tile, overlap)
    if tile is None:
        return _cheapest_grid(height, width, configs, overlap, guard, window)
    largest = _largest_tile(configs, tile, overlap)
    rows, columns = (_AxisTiling.of(size, configs[0], largest, overlap).axis(guard, window) for size in (height, width))
    return TileGrid(rows, columns)


def _choose_overlap(config: ModelConfig, guard: int, tile: int | None, overlap: int | None) -> int:
    """Check guard and overlap, and return the default overlap if none is given."""
    if guard < 0:
        raise TilingError(f"guard is {guard} px; it must not be negative.")
    if overlap is None:
        least = 2 * guard + MIN_BLEND
        overlap = least + (config.smallest - least) % config.alignment
        if tile is not None:  # A small tile may lack space for blending, but needs it for the guards.
            overlap = max(2 * guard, min(overlap, tile // 2))
    if overlap < 2 * guard:
        raise TilingError(
            f"overlap is {overlap} px, less than two guards of {guard} px: the tiles would leave gaps; "
            f"use an overlap of at least {2 * guard} px or a smaller guard."
        )
    return overlap


def _largest_tile(configs: Sequence[ModelConfig], tile: int, overlap: int) -> int:
    """Return the largest natural size of at most ``tile`` pixels, after checking that the overlap fits."""
    config, smallest = configs[0], max(config.smallest for config in configs)
    if tile < smallest:
        raise TilingError(f"tile is {tile} px; this model needs at least {smallest} px.")
    largest = config.natural_down(tile)
    if overlap > largest - config.alignment:
        raise TilingError(
            f"overlap is {overlap} px, too much for tiles of {largest} px, which must advance by at least "
            f"{config.alignment} px; use a tile of at least {config.natural_up(overlap + config.alignment)} px or "
            f"an overlap of at most {largest - config.alignment} px."
        )
    return largest


def _cheapest_grid(
    height: int, width: int, configs: Sequence[ModelConfig], overlap: int, guard: int, window: str
) -> TileGrid:
    """Return the cheapest of the grids whose tiles have the default number of pixels and are square or wide.

    The network computes fewer guard rows from step to step, so overlaps above and below a tile cost less than overlaps
    to its sides. Wide tiles are therefore cheaper, most of all if one is as wide as the image. For tall images, rows of
    tiles `ROW_STEP` apart are preferred if they cost little more: few of their pixels are beyond the border of a shard
    and must be retained until the next row of shards.
    """
    config = configs[0]
    smallest = max(config.smallest for config in configs)
    # Choose a side such that (side / (side - overlap))^2 is small enough, within limits of memory.
    side = min(max(DEFAULT_TILE_SIDE, overlap / (1 - MAX_COMPUTED_SHARE**-0.5)), max(MAX_TILE_SIDE, 2 * overlap))
    least, longest = max(smallest, config.natural_up(overlap + config.alignment)), max(MAX_TILE_SIDE, int(side))
    stepped = _AxisTiling.apart(height, config, ROW_STEP, overlap)
    found: list[tuple[float, _AxisTiling, _AxisTiling]] = []
    for length in np.linspace(side, longest, CANDIDATE_SHAPES):
        columns = _AxisTiling.of(width, config, max(least, int(length)), overlap)
        largest = max(least, min(int(side * side) // columns.tile, longest))
        for rows, factor in ((_AxisTiling.of(height, config, largest, overlap), COST_TOLERANCE), (stepped, 1.0)):
            if rows is not stepped or (rows.tile <= largest and height > TALL_IMAGE):
                needed = rows.computed - 2 * (rows.count - 1) * _skipped_guard_rows(config, guard)
                found.append((factor * columns.computed * needed, rows, columns))
    _, rows, columns = min(found, key=lambda each: each[0])
    return TileGrid(rows.axis(guard, window), columns.axis(guard, window))


def _skipped_guard_rows(config: ModelConfig, guard: int) -> float:
    """Return the number of guard rows that are not computed, averaged over all steps.

    The rows that a step computes beyond the core shrink evenly from the network's reach to zero.
    """
    affected = min(guard, config.reach)
    return guard - affected + affected**2 / (2 * config.reach)


@dataclass(frozen=True)
class _AxisTiling:
    """Number and length of the tiles on an axis of ``size`` pixels, evenly spaced or ``step`` pixels apart."""

    size: int
    config: ModelConfig
    count: int
    tile: int
    step: int | None = None

    @classmethod
    def of(cls, size: int, config: ModelConfig, largest: int, overlap: int) -> _AxisTiling:
        """Return as few tiles as possible of at most ``largest`` pixels, equal and as small as their number allows."""
        padded, largest, unit = config.natural_up(size), config.natural_down(largest), config.alignment
        if padded <= largest:
            return cls(size, config, 1, padded)
        steps = _ceil((padded - largest) // unit, (largest - overlap) // unit)
        # Steps are multiples of the alignment, which may cost some pixels more.
        tile = config.natural_up(_ceil(padded + steps * overlap, steps + 1))
        while _ceil((padded - tile) // unit, steps) * unit > tile - overlap:
            tile += unit
        return cls(size, config, steps + 1, tile)

    @classmethod
    def apart(cls, size: int, config: ModelConfig, step: int, overlap: int) -> _AxisTiling:
        """Return tiles ``step`` pixels apart. The last one may be shorter."""
        padded, tile = config.natural_up(size), config.natural_up(step + overlap)
        return cls(size, config, 1 + max(0, _ceil(padded - tile, step)), min(tile, padded), step)

    @property
    def computed(self) -> int:
        """Number of positions of all tiles together."""
        return self.axis(0, "flat").computed

    def axis(self, guard: int, window: str) -> TileAxis:
        """Return the tiles with their positions."""
        before, _ = self.config.border(self.size)
        padded, unit = self.config.natural_up(self.size), self.config.alignment
        if self.step is None:
            units = (padded - self.tile) // unit
            starts = [units * index // max(1, self.count - 1) * unit - before for index in range(self.count)]
        else:
            starts = [self.step * index - before for index in range(self.count)]
        return TileAxis(self.size, self.tile, tuple(starts), guard, window, padded - before)


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
