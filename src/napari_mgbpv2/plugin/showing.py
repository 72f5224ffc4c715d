"""A layer of a viewer that fills itself: refreshed when something comes, at rest when it is gone, and comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_mgbpv2.plugin.filling.comparable import Comparable
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.jobs import sentence_of

REFRESH_MS = 150  # least time between two looks at what has come in
SWIPE_MS = 30  # the same while a border is moved


class LazyLayer(QObject):
    """A layer and what fills it. It lives as long as its layer, not as the widget that made it.

    Parameters
    ----------
    viewer
        Where the layer is added.

    Attributes
    ----------
    layer
        The layer.
    """

    failed = Signal(object)
    removed = Signal()
    _came = Signal()
    _went_wrong = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__(QApplication.instance())
        self._viewer = viewer
        self.layer: Any = None
        self._comparable: list[Comparable] = []
        self._share = 1.0  # of the view that shows the result
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._refresh)
        self._came.connect(self._refresh_soon)
        self._went_wrong.connect(self._on_went_wrong)

    def compare(self, share: float) -> None:
        """Show the result in a share of the view, 0 to 1 from the left, and bicubic upscaling in the rest."""
        self._share = share
        if 0 < share < 1:
            self._refresh_soon(SWIPE_MS)
        else:
            self._refresh()

    def remove(self) -> None:
        """Take the layer out of its viewer."""
        if self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def close(self, timeout: float = 0.0) -> None:
        """Fill no more."""
        self._timer.stop()
        for feed in self._feeds():
            feed.close(timeout)

    def _feeds(self) -> Sequence[Feed]:
        """Feeds that fill it at the moment."""
        raise NotImplementedError

    def _add(self, levels: Sequence[Any], **options: Any) -> None:
        """Add the layer; options as ``add_image`` has them."""
        several = len(levels) > 1
        self._comparable = [level for level in levels if isinstance(level, Comparable)]
        self.layer = self._viewer.add_image(
            list(levels) if several else levels[0], multiscale=several, cache=False, **options
        )
        self._viewer.layers.events.removed.connect(self._on_removed)
        self._camera = self._viewer.scene.camera
        self._camera.events.connect(self._on_moved)
        self.layer.events.visible.connect(self._on_moved)
        QApplication.instance().aboutToQuit.connect(self.close)

    def _tell_it_came(self) -> None:
        """Tell the thread of the GUI; called by a feed's."""
        try:
            self._came.emit()
        except RuntimeError:  # the application has ended
            self.close()

    def _tell_it_failed(self, error: Exception) -> None:
        try:
            self._went_wrong.emit(error)
        except RuntimeError:
            return

    def _refresh_soon(self, milliseconds: int = REFRESH_MS) -> None:
        if not self._timer.isActive() or self._timer.remainingTime() > milliseconds:
            self._timer.start(milliseconds)

    def _refresh(self) -> None:
        if self.layer not in self._viewer.layers:
            return
        share = self._share_of_the_width()
        for level in self._comparable:
            level.share = share
        self.layer.refresh(thumbnail=False, extent=False)

    def _share_of_the_width(self) -> float:
        """Turn a share of what is visible into one of the image."""
        if self._share in (0, 1) or not self._comparable:
            return self._share
        viewer, layer = self._viewer, self.layer
        width = viewer.canvas.viewbox_size(viewer.layers)[1] / self._camera.zoom
        point = np.array(viewer.dims.point, dtype=np.float64)
        point[list(viewer.dims.displayed[-2:])] = self._camera.center[-2:]
        point[viewer.dims.displayed[-1]] += (self._share - 0.5) * width
        column = layer.world_to_data(point[-layer.ndim :])[-1] + 0.5
        return float(np.clip(column / self._comparable[0].shape[layer.ndim - 1], 0, 1))

    def _on_moved(self, event: object = None) -> None:
        """Let the border stay where it is in the view."""
        if 0 < self._share < 1:
            self._refresh_soon(SWIPE_MS)

    def _on_went_wrong(self, error: Exception) -> None:
        show_warning(f"{self.layer.name}: {sentence_of(error)}")
        self.failed.emit(error)

    def _on_removed(self, event: Any) -> None:
        if event.value != self.layer:
            return
        self.close()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._camera.events.disconnect(self._on_moved)
        self.removed.emit()
        self.deleteLater()
