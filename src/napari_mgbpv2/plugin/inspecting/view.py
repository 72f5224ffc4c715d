"""The view of the widget "Inspect": what to look at, and what was found; asks, and never acts."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_mgbpv2.plugin.inspecting.working import Kind
from napari_mgbpv2.plugin.layers_view import LayersView
from napari_mgbpv2.plugin.model_view import ModelView
from napari_mgbpv2.plugin.parts_view import WrappedLabel, flow_of, keep_narrow, set_tab_order
from napari_mgbpv2.plugin.progress_view import ProgressView
from napari_mgbpv2.plugin.settings import Defaults

_HEARS_NOISE = (
    "Compute, where you look, what the noise of the model changes: spread over draws, and W = 1 against W = 0."
)
_HEARS_NONE = "This model has no noise input: nothing of its result is drawn by chance."


class InspectView(QWidget):
    """Layer and model above, the filter of a clicked pixel below, then the maps.

    Parameters
    ----------
    defaults
        What to begin with.
    layers
        Offers the layers.
    """

    picking_toggled = Signal(bool)
    consistency_requested = Signal()
    hallucination_requested = Signal(int)

    def __init__(self, defaults: Defaults, layers: LayersView) -> None:
        super().__init__()
        self.layers, self.options, self.kind = layers, ModelView(defaults), QComboBox()
        self.pick, self.found = QPushButton("Click pixels"), WrappedLabel()
        self.consistency, self.hallucination = QPushButton("Consistency map"), QPushButton("Hallucination maps")
        self.draws, self.progress = QSpinBox(), ProgressView()
        for kind in Kind:
            self.kind.addItem(kind.value, kind)
        keep_narrow(self.kind)
        self.pick.setCheckable(True)
        self.pick.setToolTip("While this is down, a click on the image computes the filter of that pixel.")
        self.found.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.consistency.setToolTip("Compute, where you look, how far the result, shrunk again, is from the image.")
        self.draws.setRange(2, 100)
        self.draws.setValue(8)
        self.draws.setSuffix(" draws")

        self.options.form.insertRow(0, "Layer", self.layers)
        self.kind.setToolTip("Which filter of a pixel that is clicked.")
        self.draws.setToolTip("How often the noise is drawn for the spread.")
        layout = QVBoxLayout(self)
        maps = flow_of(self.hallucination, self.draws)
        for each in (
            self.options,
            QLabel("Filter of a pixel"),
            self.kind,
            self.pick,
            self.found,
            self.consistency,
            maps,
            self.progress,
        ):
            layout.addWidget(each)
        layout.addStretch()
        set_tab_order(self)

        self.layers.offered.connect(self._enable)
        self.options.changed.connect(self._enable)
        self.pick.toggled.connect(self.picking_toggled)
        self.consistency.clicked.connect(lambda: self.consistency_requested.emit())
        self.hallucination.clicked.connect(lambda: self.hallucination_requested.emit(self.draws.value()))
        self._running = False
        self._enable()

    def set_running(self, running: bool) -> None:
        """Show that something is being computed; pixels can be clicked all the time, the newest counts."""
        self._running = running
        self.progress.set_running(running)
        self._enable()

    def _enable(self) -> None:
        card = self.options.model.currentData()
        ready = self.layers.count() > 0 and card is not None
        hears_noise = card is not None and card.noise
        if not ready:
            self.pick.setChecked(False)
        self.pick.setEnabled(ready)
        self.consistency.setEnabled(ready and not self._running)
        self.hallucination.setEnabled(ready and hears_noise and not self._running)
        self.draws.setEnabled(ready and hears_noise)
        self.hallucination.setToolTip(_HEARS_NOISE if hears_noise else _HEARS_NONE)
