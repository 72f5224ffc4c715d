"""A box that offers the image layers of a viewer, and follows them: what is active, what changes, what is removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox

from napari_mgbpv2.plugin.listening import Connections
from napari_mgbpv2.plugin.parts_view import keep_narrow
from napari_mgbpv2.plugin.roles import is_source, role_of

# events of a layer after which it is another image, lies elsewhere, or has another range of values
CHANGES = (
    "data",
    "scale",
    "translate",
    "rotate",
    "shear",
    "affine",
    "units",
    "axis_labels",
    "contrast_limits_range",
    "name",
)


class LayersView(QComboBox):
    """The image layers of a viewer, by name: labels, shapes, points, previews and maps are no images to upscale.

    The layer that becomes active in the viewer is chosen, unless it is a result of the plugin: those have to be chosen
    in the box itself.

    Parameters
    ----------
    viewer
        Whose layers.
    offers
        Whether an image layer is to be offered.
    """

    offered = Signal()  # after the list has changed
    chosen = Signal()  # when it is another layer
    changed = Signal(str)  # when the chosen layer itself has changed, with the name of what has

    def __init__(self, viewer: Any, offers: Callable[[Any], bool] = is_source) -> None:
        super().__init__()
        self._viewer, self._offers = viewer, offers
        self._layers: list[Any] = []
        self._names, self._chosen_layer = Connections(), Connections()
        self._current: Any = None  # the layer that is listened to
        self._last_active: Any = viewer.layers.selection.active  # of those that can be chosen
        keep_narrow(self)
        self.setToolTip("The image layer to work on. It follows the layer that is active in the viewer.")
        layers, list_of_layers = viewer.layers, Connections()
        for event in (layers.events.inserted, layers.events.removed, layers.events.reordered):
            list_of_layers.connect(event, self._refill)
        list_of_layers.connect(layers.selection.events.active, self._follow)
        for connections in (list_of_layers, self._names, self._chosen_layer):
            self.destroyed.connect(connections.end)
        self.currentIndexChanged.connect(lambda _: self._on_chosen())
        self._refill()

    @property
    def layer(self) -> Any:
        """The chosen layer; None while there is none."""
        number = self.currentIndex()
        return self._layers[number] if 0 <= number < len(self._layers) else None

    def choose(self, layer: Any) -> None:
        """Choose a layer that is offered; any other is ignored."""
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def _refill(self, event: object = None) -> None:
        """Offer what there is now; at first the active layer is chosen, else the topmost."""
        before, active = self.layer, self._viewer.layers.selection.active
        self._layers = [layer for layer in self._viewer.layers if isinstance(layer, Image) and self._offers(layer)]
        self._names.end()
        for layer in self._layers:
            self._names.connect(layer.events.name, self._rename)
        chosen = next((layer for layer in (before, active) if layer in self._layers), None)
        self.blockSignals(True)  # between being cleared and filled, nothing is chosen
        self.clear()
        self.addItems([layer.name for layer in self._layers])
        self.setCurrentIndex(self._layers.index(chosen) if chosen is not None else len(self._layers) - 1)
        self.blockSignals(False)
        self.offered.emit()
        if self.layer != before:
            self._on_chosen()

    def _rename(self, event: object = None) -> None:
        for number, layer in enumerate(self._layers):
            self.setItemText(number, layer.name)

    def _follow(self, event: Any) -> None:
        """Choose the layer that has become active, unless it only is so again after a layer that cannot be chosen."""
        layer = event.value
        if layer is not None and layer in self._layers and not role_of(layer):
            if layer != self._last_active:  # either may be napari's proxy of the layer
                self.choose(layer)
            self._last_active = layer

    def _on_chosen(self) -> None:
        self._current = self.layer
        self._chosen_layer.end()
        if self._current is not None:
            for name in CHANGES:
                self._chosen_layer.connect(getattr(self._current.events, name), self._on_changed)
        self.chosen.emit()

    def _on_changed(self, event: Any) -> None:
        self.changed.emit(event.type)
