"""A layer that shows a map: computed where it is looked at, refreshed as its blocks come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.inspecting.map_level import MapLevel, map_levels
from napari_mgbpv2.plugin.inspecting.working import axis_factors
from napari_mgbpv2.plugin.jobs import sentence_of
from napari_mgbpv2.plugin.place import upscaled_place
from napari_mgbpv2.plugin.showing import REFRESH_MS

if TYPE_CHECKING:
    from napari_mgbpv2.plugin.inspecting.working import Map

MAP_BYTES = 256 * 2**20  # of computed blocks


class MapLayer(QObject):
    """A lazy layer of a map; it lives as long as its layer.

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

    removed = Signal()
    _came = Signal()
    _went_wrong = Signal(object)

    def __init__(self, viewer: Any, source: Any, shown: Map, colormap: Any) -> None:
        super().__init__(QApplication.instance())
        self._viewer, self._signed = viewer, shown.signed
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._refresh)
        self._came.connect(self._refresh_soon)
        self._went_wrong.connect(self._on_went_wrong)
        self.feed = Feed(MAP_BYTES, lambda: self._tell(self._came), lambda error: self._tell(self._went_wrong, error))
        levels = map_levels(shown.image, shown.axes, self.feed, shown.side)
        self._levels = [level for level in levels if isinstance(level, MapLevel)]
        self.layer: Any = viewer.add_image(
            levels,
            name=f"{source.name} ({shown.name})",
            multiscale=True,
            cache=False,
            rgb=False,
            colormap=colormap,
            contrast_limits=self._limits(shown.expected),
            blending="translucent" if shown.signed else "additive",
            metadata={"mgbpv2": {"inspection": shown.name}},
            **upscaled_place(source, axis_factors(shown.axes, shown.factor)),
        )
        self._own_limits = list(self.layer.contrast_limits)
        viewer.layers.events.removed.connect(self._on_removed)
        self.layer.events.visible.connect(self._on_visible)
        QApplication.instance().aboutToQuit.connect(self.close)

    def close(self, timeout: float = 0.0) -> None:
        """Compute no more."""
        self._timer.stop()
        self.feed.close(timeout)

    def _tell(self, signal: Any, *what: Any) -> None:
        """Tell the thread of the GUI; called by the feed's."""
        try:
            signal.emit(*what)
        except RuntimeError:  # the application has ended
            self.feed.close()

    def _refresh_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _refresh(self) -> None:
        """Show what has come; the contrast follows the values until somebody sets it."""
        if self.layer not in self._viewer.layers:
            return
        largest = max(level.largest for level in self._levels)
        if largest and list(self.layer.contrast_limits) == self._own_limits:
            self.layer.contrast_limits = self._limits(largest)
            self._own_limits = list(self.layer.contrast_limits)
        self.layer.refresh(thumbnail=False, extent=False)

    def _limits(self, largest: float) -> tuple[float, float]:
        return (-largest if self._signed else 0.0), largest

    def _on_visible(self, event: object = None) -> None:
        """Compute nothing for a layer that is hidden."""
        if not self.layer.visible:
            for level in self._levels:
                self.feed.forget_wishes(level)

    def _on_went_wrong(self, error: Exception) -> None:
        show_warning(f"{self.layer.name}: {sentence_of(error)}")

    def _on_removed(self, event: Any) -> None:
        if event.value != self.layer:
            return
        self.close()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self.removed.emit()
        self.deleteLater()
