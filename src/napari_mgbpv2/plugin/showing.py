"""A layer of a viewer that the network fills in: refreshed when tiles come, and at rest when nobody looks."""

from __future__ import annotations

from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_mgbpv2.plugin.filling import Pyramid, fill
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.jobs import sentence_of
from napari_mgbpv2.plugin.layer_image import LayerImage
from napari_mgbpv2.plugin.place import same_looks, upscaled_place
from napari_mgbpv2.upscaling import UpscalePlan

REFRESH_MS = 150  # least time between two looks at what has come in


class FilledLayer(QObject):
    """An upscaled layer and what fills it. It lives as long as its layer, not as the widget that made it.

    Parameters
    ----------
    viewer
        Where the layer is added.
    source
        The layer that is upscaled.
    image
        Of the source.
    plan
        How it is upscaled.
    name
        Of the new layer.
    cache_bytes
        Memory for its tiles.
    """

    failed = Signal(object)
    removed = Signal()
    _came = Signal()
    _went_wrong = Signal(object)

    def __init__(
        self, viewer: Any, source: Any, image: LayerImage, plan: UpscalePlan, *, name: str, cache_bytes: int
    ) -> None:
        super().__init__(QApplication.instance())
        self._viewer, self._cache_bytes = viewer, cache_bytes
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._refresh)
        self._came.connect(self._refresh_soon)
        self._went_wrong.connect(self._on_went_wrong)
        self.plan = plan
        self.pyramid: Pyramid = fill(
            image, plan, cache_bytes=cache_bytes, changed=self._tell_it_came, failed=self._tell_it_failed
        )
        self.layer: Any = viewer.add_image(
            list(self.pyramid.levels),
            name=name,
            multiscale=True,
            cache=False,
            metadata={"mgbpv2": {"model": plan.model, "scale": plan.scale, "noise": plan.compute_tile.noise}},
            **same_looks(source),
            **upscaled_place(source, image.factors(plan.scale)),
        )
        self.layer.thumbnail = source.thumbnail
        viewer.layers.events.removed.connect(self._on_removed)
        self._camera = getattr(viewer, "scene", viewer).camera  # napari 0.9 moved it
        self._camera.events.connect(self._on_moved)
        self.layer.events.visible.connect(self._on_moved)
        QApplication.instance().aboutToQuit.connect(self.close)

    def can_use(self, plan: UpscalePlan) -> bool:
        """Whether another plan gives an image of the same shape and type."""
        return (plan.layout.shape, plan.layout.dtype) == (self.plan.layout.shape, self.plan.layout.dtype)

    def use(self, plan: UpscalePlan) -> None:
        """Go over to another plan of the same shape and type; what is looked at is filled anew."""
        network = self.pyramid.network
        if network.is_closed:
            network = Feed(self._cache_bytes, self._tell_it_came, self._tell_it_failed)
            self.pyramid = Pyramid(self.pyramid.levels, network, self.pyramid.source)
        self.plan = plan
        self.pyramid.finest.use(plan, network)
        self._refresh()

    def show_bicubic(self, shows: bool) -> None:
        """Show bicubic upscaling in the place of the network's, or the network's again."""
        self.pyramid.finest.shows_bicubic = shows
        self._refresh()

    def remove(self) -> None:
        """Take the layer out of its viewer."""
        if self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def close(self, timeout: float = 0.0) -> None:
        """Fill no more."""
        self._timer.stop()
        self.pyramid.close(timeout)

    def _tell_it_came(self) -> None:
        """Tell the thread of the GUI; called by a feed's."""
        try:
            self._came.emit()
        except RuntimeError:  # the application has ended
            self.pyramid.close()

    def _tell_it_failed(self, error: Exception) -> None:
        try:
            self._went_wrong.emit(error)
        except RuntimeError:
            return

    def _refresh_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def _refresh(self) -> None:
        if self.layer in self._viewer.layers:
            self.layer.refresh(thumbnail=False, extent=False)

    def _on_went_wrong(self, error: Exception) -> None:
        show_warning(f"{self.layer.name}: {sentence_of(error)}")
        self.failed.emit(error)

    def _on_moved(self, event: object = None) -> None:
        """Run no tile for a view that has been left: zoomed out of, or hidden."""
        if not self.layer.visible or self.layer.data_level != 0:
            self.pyramid.finest.forget_wishes()

    def _on_removed(self, event: Any) -> None:
        if event.value != self.layer:
            return
        self.close()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._camera.events.disconnect(self._on_moved)
        self.removed.emit()
        self.deleteLater()
