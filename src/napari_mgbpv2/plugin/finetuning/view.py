"""The view of the widget "Fine-tune": what to learn from, how long, and how it goes; asks, and never acts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mgbpv2.model.zoo import ModelCard, default_model
from napari_mgbpv2.plugin.device_view import DeviceView
from napari_mgbpv2.plugin.finetuning.curve_view import CurveView
from napari_mgbpv2.plugin.model_view import card_text
from napari_mgbpv2.plugin.parts_view import PictureLabel, WrappedLabel, keep_narrow, row_of, set_tab_order
from napari_mgbpv2.plugin.progress_view import ProgressView
from napari_mgbpv2.plugin.settings import Defaults


class FinetuneView(QWidget):
    """Layers and a folder above, then the model, then the run.

    Parameters
    ----------
    defaults
        What to begin with.
    """

    start_requested = Signal()

    def __init__(self, defaults: Defaults) -> None:
        super().__init__()
        self.layers, self.folder, self.browse = QListWidget(), QLineEdit(), QPushButton("…")
        self.base, self.card, self.minutes, self.device = (
            QComboBox(),
            WrappedLabel(),
            QDoubleSpinBox(),
            DeviceView(defaults),
        )
        self.output, self.start = QLineEdit(), QPushButton("Start")
        self.curve, self.sheet, self.progress = CurveView(), PictureLabel(), ProgressView("Stop and keep the best")
        self.layers.setMaximumHeight(90)
        self.layers.setToolTip("Sharp images to learn from: they are shrunk, and the network learns to undo it.")
        self.folder.setPlaceholderText("and a folder or a file, if you like")
        self.sheet.setToolTip("Images that are only scored, left to right: shrunk, bicubic, network, sharp.")
        self.minutes.setRange(0.1, 100_000)
        self.minutes.setDecimals(1)
        self.minutes.setValue(10)
        self.minutes.setSuffix(" min")
        self.browse.setToolTip("Choose a folder of sharp images.")
        self.base.setToolTip("The model to start from; the new one has its scale and size.")
        self.minutes.setToolTip("How long to train. The best model so far is kept when you stop earlier.")
        self.output.setToolTip("File of the new model. Those in the folder of your models are offered by all widgets.")
        self.start.setToolTip("Train in the background.")
        keep_narrow(self.base)

        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Layers", self.layers)
        form.addRow("Files", row_of(self.folder, self.browse))
        form.addRow("Start from", self.base)
        form.addRow(self.card)
        form.addRow("Time", self.minutes)
        form.addRow("Device", self.device)
        form.addRow("New model", self.output)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        for each in (self.start, self.progress, self.curve, self.sheet):
            layout.addWidget(each)
        layout.addStretch()
        set_tab_order(self)

        self.browse.clicked.connect(lambda: self._ask_for_folder())
        self.start.clicked.connect(lambda: self.start_requested.emit())
        self.base.currentIndexChanged.connect(lambda _: self._show_card())

    def set_layers(self, names: Sequence[str], chosen: Sequence[bool]) -> None:
        """Offer layers; those chosen have a tick."""
        self.layers.clear()
        for name, is_chosen in zip(names, chosen, strict=True):
            item = QListWidgetItem(name)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if is_chosen else Qt.CheckState.Unchecked)
            self.layers.addItem(item)

    def chosen_layers(self) -> list[bool]:
        """Return which of the layers have a tick."""
        items = (self.layers.item(row) for row in range(self.layers.count()))
        return [item.checkState() == Qt.CheckState.Checked for item in items]

    def set_models(self, cards: Sequence[ModelCard]) -> None:
        """Offer models to start from; the one chosen stays chosen, and at first it is the library's default."""
        before = self.base.currentData() or default_model(None)
        self.base.blockSignals(True)
        self.base.clear()
        for card in cards:
            self.base.addItem(card.name, card)
            if card.path == before.path:
                self.base.setCurrentIndex(self.base.count() - 1)
        self.base.blockSignals(False)
        self._show_card()

    def show_sheet(self, path: Path) -> None:
        """Show a contact sheet."""
        picture = QPixmap(str(path))
        if not picture.isNull():
            self.sheet.show_picture(picture)

    def set_running(self, running: bool) -> None:
        """Show progress and Stop while a run is on."""
        self.progress.set_running(running)
        self.start.setEnabled(not running)

    def _show_card(self) -> None:
        card = self.base.currentData()
        self.card.setText("" if card is None else card_text(card))

    def _ask_for_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A folder of sharp images")
        if name:
            self.folder.setText(name)
