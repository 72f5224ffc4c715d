"""Source and result beside each other, under one camera, and nothing else, until that ends."""

from __future__ import annotations

from typing import Any


class SideBySide:
    """napari's grid with two layers; the others are hidden meanwhile.

    Parameters
    ----------
    viewer
        Whose layers.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._before: dict[Any, bool] = {}  # which layers were visible
        self._stride: int | None = None

    @property
    def is_shown(self) -> bool:
        """Whether it is under way."""
        return self._stride is not None

    def show(self, source: Any, result: Any) -> None:
        """Show two layers beside each other; a source that has been removed is left out."""
        grid, layers = self._viewer.canvas.grid, self._viewer.layers
        if not self.is_shown:
            self._before = {layer.unique_id: bool(layer.visible) for layer in layers}
            self._stride = grid.stride
        for layer in layers:
            layer.visible = layer in (source, result)
        grid.stride = 1
        grid.enabled = True

    def end(self) -> None:
        """Show what was visible before, and layers that have come since."""
        if self._stride is None:
            return
        grid = self._viewer.canvas.grid
        grid.enabled, grid.stride, self._stride = False, self._stride, None
        for layer in self._viewer.layers:
            layer.visible = self._before.get(layer.unique_id, True)
