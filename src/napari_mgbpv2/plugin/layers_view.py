"""A box that offers the image layers of a viewer; what is chosen stays chosen while layers come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox

from napari_mgbpv2.plugin.parts_view import keep_narrow


class LayersView(QComboBox):
    """The image layers of a viewer, by name: labels, shapes and points are no images.

    Parameters
    ----------
    viewer
        Whose layers.
    offers
        Whether an image layer is to be offered.
    """

    offered = Signal()  # after the list has changed
    chosen = Signal()  # when it is another layer

    def __init__(self, viewer: Any, offers: Callable[[Any], bool] = lambda layer: True) -> None:
        super().__init__()
        self._viewer, self._offers = viewer, offers
        self._layers: list[Any] = []
        keep_narrow(self)
        events = (viewer.layers.events.inserted, viewer.layers.events.removed)
        refill = self._refill
        for event in events:
            event.connect(refill)
        self.destroyed.connect(lambda: [event.disconnect(refill) for event in events])
        self.currentIndexChanged.connect(lambda _: self.chosen.emit())
        self._refill()

    @property
    def layer(self) -> Any:
        """The chosen layer; None while there is none."""
        number = self.currentIndex()
        return self._layers[number] if 0 <= number < len(self._layers) else None

    def _refill(self, event: object = None) -> None:
        """Offer what there is now; at first the active layer is chosen, else the topmost."""
        before, active = self.layer, self._viewer.layers.selection.active
        self._layers = [layer for layer in self._viewer.layers if isinstance(layer, Image) and self._offers(layer)]
        chosen = next((layer for layer in (before, active) if layer in self._layers), None)
        self.blockSignals(True)  # between being cleared and filled, nothing is chosen
        self.clear()
        self.addItems([layer.name for layer in self._layers])
        self.setCurrentIndex(self._layers.index(chosen) if chosen is not None else len(self._layers) - 1)
        self.blockSignals(False)
        self.offered.emit()
        if self.layer != before:
            self.chosen.emit()
