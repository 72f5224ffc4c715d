"""Scale, model with its card, noise and device: what every widget that upscales lets one choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from napari_mgbpv2.model.zoo import ModelCard, default_model, list_models
from napari_mgbpv2.plugin.advanced_view import AdvancedView
from napari_mgbpv2.plugin.device_view import DeviceView
from napari_mgbpv2.plugin.parts_view import WrappedLabel, keep_narrow, row_of
from napari_mgbpv2.plugin.settings import Defaults
from napari_mgbpv2.upscaling import UpscaleOptions

SCALES = (2, 3, 4, 8, 16)  # for models that do not say theirs


class ModelView(QWidget):
    """A form, and below it the options that few people change, folded away.

    Parameters
    ----------
    defaults
        What to begin with.

    Attributes
    ----------
    form
        The form, for those who have more to ask.
    """

    changed = Signal()
    model_file_chosen = Signal(Path)

    def __init__(self, defaults: Defaults) -> None:
        super().__init__()
        self._cards: tuple[ModelCard, ...] = ()
        self._channels = 3  # of the model that an image gets where nobody chooses one
        self._is_chosen = False  # whether somebody has
        self.scale, self.model, self.device = QComboBox(), QComboBox(), DeviceView(defaults)
        self.open_model, self.card = QPushButton("Open …"), WrappedLabel()
        self.noise = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.advanced = AdvancedView(defaults)
        self.noise.setRange(0.0, 1.0)
        self.noise.setDecimals(2)
        self.noise.setToolTip("0: true to the image; 1: pleasing detail. Only for models with a noise input.")
        self.scale.setToolTip("How many pixels of the result a pixel of the image becomes along each side.")
        self.model.setToolTip("The network. The list has those for the scale; the text below says what each is.")
        self.open_model.setToolTip("Choose the file of a model, as mgbpv2-finetune writes it (.safetensors).")
        for combo in (self.scale, self.model):
            keep_narrow(combo)

        self.form = form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Scale", self.scale)
        form.addRow("Model", row_of(self.model, self.open_model))
        form.addRow(self.card)
        form.addRow("Noise W", self.noise)
        form.addRow("Device", self.device)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.advanced)

        self.scale.currentIndexChanged.connect(lambda _: self._offer_models(None))
        self.model.currentIndexChanged.connect(lambda _: self._model_chosen())
        self.model.activated.connect(lambda _: self._note_choice())
        self.noise.valueChanged.connect(lambda _: self.changed.emit())
        self.device.changed.connect(self.changed)
        self.advanced.changed.connect(self.changed)
        self.open_model.clicked.connect(lambda: self._ask_for_a_model())

    def choices(self) -> UpscaleOptions | None:
        """Return what is chosen; None while there is no model.

        Raises
        ------
        ImageError
            Black and white are not two numbers.
        """
        card = self.model.currentData()
        if card is None:
            return None
        return UpscaleOptions(
            model=card.path,
            scale=self.scale.currentData(),
            noise=round(self.noise.value(), 2) if card.noise else 0.0,
            device=self.device.chosen(),
            **self.advanced.values(),
        )

    @property
    def has_model(self) -> bool:
        """Whether a model is chosen."""
        return self.model.currentData() is not None

    def set_models(self, cards: Sequence[ModelCard]) -> None:
        """Offer models; those chosen stay chosen, and at first it is the one that the library takes."""
        model = self.model.currentData() or default_model(None, self._channels)
        scale = self.scale.currentData() or model.scale
        self._cards = tuple(cards)
        scales = {card.scale for card in cards if card.scale}
        if any(card.scale is None for card in cards):
            scales.update(SCALES)
        self.scale.blockSignals(True)
        self.scale.clear()
        for each in sorted(scales):
            self.scale.addItem(f"x {each}", each)
        self.scale.setCurrentIndex(max(0, self.scale.findData(scale)))
        self.scale.blockSignals(False)
        self._offer_models(model.path)

    def prefer(self, channels: int) -> None:
        """Choose the model for images of a kind, as the library does, unless somebody has chosen one.

        Parameters
        ----------
        channels
            Of the network: 3 for photographs, 1 for other images.
        """
        if channels == self._channels:
            return
        self._channels = channels
        if not self._is_chosen and self._cards:
            self._offer_models(None)

    def choose_model(self, path: Path) -> None:
        """Choose a model that is offered."""
        self._is_chosen = True
        card = next(card for card in self._cards if card.path == path)
        if card.scale:
            self.scale.setCurrentIndex(self.scale.findData(card.scale))
        self._offer_models(path)

    def _offer_models(self, chosen: Path | None) -> None:
        scale = self.scale.currentData()
        if chosen is None and scale in {card.scale for card in list_models()}:
            chosen = default_model(scale, self._channels).path
        self.model.blockSignals(True)
        self.model.clear()
        for card in self._cards:
            if card.scale in (None, scale):
                self.model.addItem(card.name, card)
                if card.path == chosen:
                    self.model.setCurrentIndex(self.model.count() - 1)
        self.model.blockSignals(False)
        self._model_chosen()

    def _note_choice(self) -> None:
        self._is_chosen = True

    def _model_chosen(self) -> None:
        card = self.model.currentData()
        self.card.setText("" if card is None else card_text(card))
        self.noise.setEnabled(card is not None and card.noise)
        self.changed.emit()

    def _ask_for_a_model(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.safetensors)")
        if name:
            self.model_file_chosen.emit(Path(name))


def card_text(card: ModelCard) -> str:
    """Say what is known about a model in a few words."""
    text = f"{card.parameters / 1e6:.2g} million parameters"
    if card.trained_on:
        text += f"\ntrained on {card.trained_on}"
    for of, name in (("photographs", "photographs_gain_db"), ("microscopy fields", "fields_gain_db")):
        if name in card.scores:
            text += f"\n{card.scores[name]:+.2f} dB over bicubic on {of}"
    if "gain" in card.scores:
        text += f"\n{card.scores['gain']:+.2f} dB over bicubic when it was trained"
    return text
