"""The view of the widget "Upscale": shows what there is to choose and what is going on; asks, and never acts."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_mgbpv2.plugin.layers_view import LayersView
from napari_mgbpv2.plugin.model_view import ModelView
from napari_mgbpv2.plugin.parts_view import WarningLabel, WrappedLabel, flow_of, set_tab_order
from napari_mgbpv2.plugin.progress_view import ProgressView
from napari_mgbpv2.plugin.settings import Defaults
from napari_mgbpv2.plugin.upscaling.save_view import SaveView

_WHOLE = 1000  # steps of the slider


class UpscaleView(QWidget):
    """Choices above, an estimate below them, three ways to go.

    Parameters
    ----------
    defaults
        What to begin with.
    layers
        A box to choose the layer from.
    flip_key
        The key that does what the button "Flip" does.
    """

    preview_toggled = Signal(bool)
    add_requested = Signal()
    share_changed = Signal(float)
    side_by_side_toggled = Signal(bool)

    def __init__(self, defaults: Defaults, layers: LayersView, flip_key: str) -> None:
        super().__init__()
        self.layers, self.options = layers, ModelView(defaults)
        self.estimate, self.warning = WrappedLabel(), WarningLabel()
        self.preview = QCheckBox("Preview what is visible")
        self.add, self.saving = QPushButton("Add as layer"), SaveView()
        self.flip, self.side_by_side = QPushButton(f"Flip to bicubic ({flip_key})"), QPushButton("Side by side")
        self.swipe = QSlider(Qt.Orientation.Horizontal)

        self.preview.setToolTip("Upscale the visible region, and again whenever the view or a choice changes.")
        self.add.setToolTip("A layer that the network fills in where you look. Adding it runs nothing.")
        self.flip.setToolTip("Show bicubic upscaling in the place of the result, and back.")
        self.swipe.setToolTip("The result on the left of this position in the view, bicubic upscaling on the right.")
        self.swipe.setRange(0, _WHOLE)
        self.swipe.setValue(_WHOLE)
        self.side_by_side.setToolTip("Show the source and its result beside each other, under one camera.")
        for button in (self.flip, self.side_by_side):
            button.setCheckable(True)
        self.warning.hide()
        self._lay_out()

        self.layers.offered.connect(self._enable)
        self.options.changed.connect(self._enable)
        self.preview.toggled.connect(self.preview_toggled)
        self.add.clicked.connect(lambda: self.add_requested.emit())
        self.flip.toggled.connect(lambda _: self.share_changed.emit(self.share))
        self.swipe.valueChanged.connect(lambda _: self.share_changed.emit(self.share))
        self.side_by_side.toggled.connect(self.side_by_side_toggled)
        self._running = False
        self.set_comparable(False)
        self._enable()

    @property
    def progress(self) -> ProgressView:
        """Of what is saved."""
        return self.saving.progress

    @property
    def share(self) -> float:
        """How much of the view is to show the result, 0 to 1 from the left; bicubic upscaling the rest."""
        return 0.0 if self.flip.isChecked() else self.swipe.value() / _WHOLE

    def show_estimate(self, text: str, warning: str = "") -> None:
        """Say what the choices will take, and what will not fit."""
        self.estimate.setText(text)
        self.warning.setText(f"⚠ {warning}" if warning else "")
        self.warning.setVisible(bool(warning))

    def set_running(self, running: bool) -> None:
        """Show progress and Cancel while a job runs, and let no second one begin."""
        self._running = running
        self.saving.set_running(running)
        self._enable()

    def set_comparable(self, comparable: bool) -> None:
        """Say whether there is a result to compare."""
        if not comparable:
            self.show_result()
        self.flip.setEnabled(comparable)
        self.swipe.setEnabled(comparable)
        self.side_by_side.setEnabled(comparable or self.side_by_side.isChecked())

    def show_result(self) -> None:
        """Show the result, and nothing but the result."""
        self.flip.setChecked(False)
        self.swipe.setValue(_WHOLE)

    def _lay_out(self) -> None:
        self.options.form.insertRow(0, "Layer", self.layers)
        layout = QVBoxLayout(self)
        for each in (self.options, self.estimate, self.warning, self.preview, self.add, self.saving):
            layout.addWidget(each)
        layout.addWidget(flow_of(self.flip, self.side_by_side))
        swipe = QFormLayout()
        swipe.addRow("Swipe", self.swipe)
        layout.addLayout(swipe)
        layout.addStretch()
        set_tab_order(self)

    def _enable(self) -> None:
        ready = self.layers.count() > 0 and self.options.has_model
        self.preview.setEnabled(ready)
        self.add.setEnabled(ready)
        for each in (self.saving.save, self.saving.resume, self.saving.anew):
            each.setEnabled(ready and not self._running)
