"""A layer that shows a map: computed where it is looked at, refreshed as its blocks come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.inspecting.map_level import MapLevel, map_levels
from napari_mgbpv2.plugin.inspecting.working import axis_factors
from napari_mgbpv2.plugin.place import upscaled_place
from napari_mgbpv2.plugin.roles import INSPECTION, marked
from napari_mgbpv2.plugin.showing import LazyLayer

if TYPE_CHECKING:
    from napari_mgbpv2.plugin.inspecting.working import Map

MAP_BYTES = 256 * 2**20  # of computed blocks


class MapLayer(LazyLayer):
    """A lazy layer of a map.

    Parameters
    ----------
    viewer
        Where it is added.
    source
        The layer that it is about.
    shown
        The map.
    colormap
        What its values look like; 0 is at its middle for a map of both signs, else at its beginning.
    """

    def __init__(self, viewer: Any, source: Any, shown: Map, colormap: Any) -> None:
        super().__init__(viewer, source)
        self._signed = shown.signed
        self.feed = Feed(MAP_BYTES, self._tell_it_came, self._tell_it_failed)
        levels = map_levels(shown.image, shown.axes, self.feed, shown.side)
        self._levels = [level for level in levels if isinstance(level, MapLevel)]
        self._add(
            levels,
            name=f"{source.name} ({shown.name})",
            rgb=False,
            colormap=colormap,
            contrast_limits=self._limits(shown.expected),
            blending="translucent" if shown.signed else "additive",
            metadata=marked(INSPECTION, inspection=shown.name),
            **upscaled_place(source, axis_factors(shown.axes, shown.factor)),
        )
        self._own_limits = list(self.layer.contrast_limits)

    def _feeds(self) -> Sequence[Feed]:
        return (self.feed,)

    def _refresh(self) -> None:
        """Show what has come; the contrast follows the values until somebody sets it."""
        largest = max(level.largest for level in self._levels)
        if largest and list(self.layer.contrast_limits) == self._own_limits:
            self.layer.contrast_limits = self._limits(largest)
            self._own_limits = list(self.layer.contrast_limits)
        super()._refresh()

    def _limits(self, largest: float) -> tuple[float, float]:
        return (-largest if self._signed else 0.0), largest

    def _on_moved(self, event: object = None) -> None:
        """Compute nothing for a layer that is hidden."""
        super()._on_moved(event)
        if not self.layer.visible:
            for level in self._levels:
                self.feed.forget_wishes(level)
