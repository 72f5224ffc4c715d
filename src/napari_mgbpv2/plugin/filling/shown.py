"""The blend of what is there: weighted tiles, and the placeholder for the share of those that are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling.lazy import TiledImage

Unit = npt.NDArray[np.float32]
Plane = tuple[int, ...]


class Level(Protocol):
    """Where tiles and placeholders come from."""

    def tile(self, part: tuple[Plane, int, int, int]) -> Unit | None:
        """Return a weighted tile if it is there."""

    def placeholder(self, plane: Plane, group: int, rows: Span, columns: Span) -> Unit:
        """Give what stands for missing tiles."""


@dataclass
class Shown(TiledImage):
    """A tiled image of which some tiles may be missing.

    Where all tiles of a pixel are there it has the very bits that the complete image has.

    Parameters
    ----------
    level
        Gives the tiles.
    """

    level: Level | None = None

    def blend(self, plane: Plane, group: int, rows: Span, columns: Span, samples: int) -> Unit:
        """Add up the tiles that are there, in their order, and fill what they leave."""
        assert self.level is not None
        grid = self.layout.grid
        tiles = {place: self.level.tile((plane, group, *place)) for place in grid.touching(rows, columns)}
        if all(tile is None for tile in tiles.values()):
            return self.level.placeholder(plane, group, rows, columns)
        dtype = next(tile.dtype for tile in tiles.values() if tile is not None)
        blended = np.zeros((samples, rows.size, columns.size), dtype)
        missing = np.zeros((rows.size, columns.size), np.float32)
        is_complete = True
        for (row, column), tile in tiles.items():
            inside, outside = [], []
            for core, span in ((grid.rows.core(row), rows), (grid.columns.core(column), columns)):
                first, last = max(core.start, span.start), min(core.stop, span.stop)
                inside.append(slice(first - core.start, last - core.start))
                outside.append(slice(first - span.start, last - span.start))
            if tile is None:
                is_complete = False
                shares = grid.rows.weights(row)[inside[0], np.newaxis] * grid.columns.weights(column)[inside[1]]
                missing[outside[0], outside[1]] += shares
            else:
                blended[:, outside[0], outside[1]] += tile[:, inside[0], inside[1]]
        if not is_complete:
            blended += missing * self.level.placeholder(plane, group, rows, columns)
        return blended
