"""Grid of overlapping tiles, blending weights, and the order of shards."""

from napari_mgbpv2.tiling.grid import TileAxis, TileGrid, plan_grid

__all__ = ["TileAxis", "TileGrid", "plan_grid"]
