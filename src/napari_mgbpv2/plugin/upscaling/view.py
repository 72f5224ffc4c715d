"""The view of the widget "Upscale": shows what there is to choose and what is going on; asks, and never acts.

It knows neither napari nor layers: names go in, choices and requests come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mgbpv2.plugin.model_view import ModelView, keep_narrow, row_of
from napari_mgbpv2.plugin.progress_view import ProgressView
from napari_mgbpv2.plugin.settings import Defaults


class UpscaleView(QWidget):
    """Choices above, an estimate below them, three ways to go.

    Parameters
    ----------
    defaults
        What to begin with.
    """

    layer_chosen = Signal()
    preview_toggled = Signal(bool)
    add_requested = Signal()
    save_requested = Signal(Path)
    flip_toggled = Signal(bool)
    side_by_side_toggled = Signal(bool)

    def __init__(self, defaults: Defaults) -> None:
        super().__init__()
        self.layers, self.options = QComboBox(), ModelView(defaults)
        self.estimate, self.warning = QLabel(), QLabel()
        self.preview = QCheckBox("Preview what is visible")
        self.add, self.save = QPushButton("Add as layer"), QPushButton("Save to OME-Zarr …")
        self.flip, self.side_by_side = QPushButton("Flip to bicubic"), QPushButton("Side by side")
        self.progress = ProgressView()

        keep_narrow(self.layers)
        self.layers.setToolTip("The image layer to upscale.")
        self.preview.setToolTip("Upscale the visible region, and again whenever the view or a choice changes.")
        self.add.setToolTip("A layer that the network fills in where you look. Adding it runs nothing.")
        self.save.setToolTip("Upscale all of it in the background, into a file that opens in every OME-Zarr tool.")
        self.flip.setToolTip("Show bicubic upscaling in the place of the result, and back.")
        self.side_by_side.setToolTip("Show the layers beside each other, under one camera.")
        for button in (self.flip, self.side_by_side):
            button.setCheckable(True)
        for label in (self.estimate, self.warning):
            label.setWordWrap(True)
        self.warning.setStyleSheet("color: #ff9f43;")
        self.warning.hide()
        self._lay_out()

        self.layers.currentIndexChanged.connect(lambda _: self.layer_chosen.emit())
        self.options.changed.connect(self._enable)
        self.preview.toggled.connect(self.preview_toggled)
        self.add.clicked.connect(lambda: self.add_requested.emit())
        self.save.clicked.connect(lambda: self._ask_where_to_save())
        self.flip.toggled.connect(self.flip_toggled)
        self.side_by_side.toggled.connect(self.side_by_side_toggled)
        self._running = False
        self.set_comparable(False)
        self._enable()

    def set_layers(self, names: Sequence[str], current: int) -> None:
        """Offer layers; ``current`` is the number of the one to choose, -1 for none."""
        self.layers.blockSignals(True)
        self.layers.clear()
        self.layers.addItems(list(names))
        self.layers.setCurrentIndex(current)
        self.layers.blockSignals(False)
        self._enable()

    def show_estimate(self, text: str, warning: str = "") -> None:
        """Say what the choices will take, and what will not fit."""
        self.estimate.setText(text)
        self.warning.setText(f"⚠ {warning}" if warning else "")
        self.warning.setVisible(bool(warning))

    def set_running(self, running: bool) -> None:
        """Show progress and Cancel while a job runs, and let no second one begin."""
        self._running = running
        self.progress.set_running(running)
        self._enable()

    def set_comparable(self, comparable: bool) -> None:
        """Say whether there is a result to compare."""
        if not comparable:
            self.flip.setChecked(False)
        self.flip.setEnabled(comparable)
        self.side_by_side.setEnabled(comparable or self.side_by_side.isChecked())

    def _lay_out(self) -> None:
        self.options.form.insertRow(0, "Layer", self.layers)
        layout = QVBoxLayout(self)
        for each in (self.options, self.estimate, self.warning, self.preview, self.add, self.save):
            layout.addWidget(each)
        layout.addWidget(row_of(self.flip, self.side_by_side))
        layout.addWidget(self.progress)
        layout.addStretch()

    def _enable(self) -> None:
        ready = self.layers.count() > 0 and self.options.choices() is not None
        self.preview.setEnabled(ready)
        self.add.setEnabled(ready)
        self.save.setEnabled(ready and not self._running)

    def _ask_where_to_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save to OME-Zarr", "", "OME-Zarr (*.ome.zarr)")
        if name:
            self.save_requested.emit(Path(name if name.endswith(".zarr") else f"{name}.ome.zarr"))
