"""A layer of a viewer that fills itself: refreshed when something comes, at rest when it is gone, and comparable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_mgbpv2.plugin.filling.coarse_level import ThumbnailLevel
from napari_mgbpv2.plugin.filling.comparable import Comparable
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.jobs import sentence_of
from napari_mgbpv2.plugin.listening import Connections

REFRESH_MS = 150  # least time between two looks at what has come in
SWIPE_MS = 30  # the same while a border is moved
PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")  # what says where a layer lies


_shown: list[LazyLayer] = []  # all that are in a viewer, in the order in which they have been added


def results_in(viewer: Any) -> list[LazyLayer]:
    """Return what can be compared in a viewer, the newest last, whichever widget has made it."""
    return [each for each in _shown if each.is_comparable and each.layer in viewer.layers]


def result_about(layer: Any, viewer: Any) -> LazyLayer | None:
    """Return the result that a layer is, or else the newest result of it, one that is visible first; None without."""
    results = results_in(viewer)
    own = [each for each in results if each.layer == layer]
    made_of_it = sorted((each for each in results if each.source == layer), key=lambda each: bool(each.layer.visible))
    found = own or made_of_it
    return found[-1] if found else None


class LazyLayer(QObject):
    """A layer and what fills it. It lives as long as its layer, not as the widget that made it.

    Parameters
    ----------
    viewer
        Where the layer is added.
    source
        The layer that it is made of.

    Attributes
    ----------
    layer
        The layer.
    source
        The layer that it is made of, which may have been removed since.
    """

    failed = Signal(object)
    removed = Signal()
    _came = Signal()
    _went_wrong = Signal(object)

    def __init__(self, viewer: Any, source: Any) -> None:
        super().__init__(QApplication.instance())
        self._viewer, self.source = viewer, source
        self.layer: Any = None
        self._connections = Connections()
        self._hidden: list[Any] = []  # layers that are hidden as long as this one is there
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

    @property
    def is_comparable(self) -> bool:
        """Whether the result can be compared with bicubic upscaling."""
        return bool(self._comparable)

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
        """Return the feeds that fill the layer at the moment."""
        raise NotImplementedError

    def _add(self, levels: Sequence[Any], **options: Any) -> None:
        """Add the layer; options as ``add_image`` has them."""
        several, layers = len(levels) > 1, self._viewer.layers
        self._comparable = [level for level in levels if isinstance(level, Comparable)]
        self.layer = self._viewer.add_image(
            list(levels) if several else levels[0], multiscale=several, cache=False, **options
        )
        for level in levels:
            if isinstance(level, ThumbnailLevel):
                level.is_taken = True
        self._camera = self._viewer.scene.camera
        for emitter, callback in (
            (layers.events.removed, self._on_removed),
            (self._camera.events, self._on_moved),
            (self.layer.events.visible, self._on_moved),
        ):
            self._connections.connect(emitter, callback)
        QApplication.instance().aboutToQuit.connect(self.close)
        _shown.append(self)

    def _replace_source(self, place: Callable[[], dict[str, Any]]) -> None:
        """Stand for the source in the view: directly above it and instead of it, where it lies and wherever it moves.

        With additive blending, which channels have, the sum of both would be shown otherwise.

        Parameters
        ----------
        place
            Gives the spatial arguments of ``add_image`` that put the layer on its source.
        """
        layers = self._viewer.layers
        older = [each.layer for each in results_in(self._viewer) if each.source == self.source and each is not self]
        self._hidden = [layer for layer in (self.source, *older) if layer in layers and layer.visible]
        for layer in self._hidden:
            layer.visible = False
        if self.source in layers:
            layers.move(layers.index(self.layer), layers.index(self.source) + 1)
        if not self.layer.rgb:  # the slider may go wherever that of the source may
            self.layer.contrast_limits_range = self.source.contrast_limits_range
        self._place, self._placed = place, self._own_place()
        for name in PLACE:
            self._connections.connect(getattr(self.source.events, name), self._on_source_moved)

    def _own_place(self) -> dict[str, Any]:
        own: dict[str, Any] = {name: np.asarray(getattr(self.layer, name)) for name in PLACE if name != "affine"}
        return own | {"affine": np.asarray(self.layer.affine.affine_matrix)}

    def _on_source_moved(self, event: object = None) -> None:
        """Follow the source, until somebody moves this layer itself."""
        if self.source.ndim != self.layer.ndim:  # other data, of which this is not the result
            return
        now = self._own_place()
        if all(np.array_equal(now[name], self._placed[name]) for name in PLACE):
            for name, value in self._place().items():
                setattr(self.layer, name, value)
            self._placed = self._own_place()

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
        self._connections.end()
        _shown.remove(self)
        self.removed.emit()
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True
        self.deleteLater()
