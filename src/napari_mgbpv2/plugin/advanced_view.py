"""What few people change, folded away: tiles, precision, window, values, seed and axes."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QSpinBox, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.plugin.parts_view import keep_narrow
from napari_mgbpv2.plugin.settings import Defaults
from napari_mgbpv2.upscaling.options import option_fields

SPIN_WIDTH = 110


class AdvancedView(QWidget):
    """A folded form.

    Parameters
    ----------
    defaults
        What to begin with.
    """

    changed = Signal()

    def __init__(self, defaults: Defaults) -> None:
        super().__init__()
        self.tile, self.overlap, self.seed = (_number_box(name) for name in ("tile", "overlap", "seed"))
        self.precision, self.blending = (_choice_box(name) for name in ("precision", "window"))
        self.black, self.white, self.axes = QLineEdit(), QLineEdit(), QLineEdit()
        for box, value in ((self.tile, defaults.tile), (self.overlap, defaults.overlap)):
            box.setValue(value or 0)
        for line, text in ((self.black, "black"), (self.white, "white"), (self.axes, "as the image says")):
            line.setPlaceholderText(text)
        self.tile.setToolTip("Largest tile in pixels of the result; smaller ones need less memory.")
        self.overlap.setToolTip("Least overlap of neighbouring tiles, guards included.")
        self.black.setToolTip("Value that the network takes for black; empty: as the image says.")
        self.white.setToolTip("Value that the network takes for white; empty: as the image says.")
        self.axes.setToolTip('One letter per axis, such as "zyx" or "cyx"; y and x are upscaled.')
        self.precision.setToolTip("Of the network's numbers. float32 is exact; the others are faster on some devices.")
        self.blending.setToolTip("How neighbouring tiles are blended where they overlap.")
        self.seed.setToolTip("Of the noise: another seed draws other detail, where the model has a noise input.")

        content = QWidget()
        form = QFormLayout(content)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for label, widget in (
            (_label("tile"), self.tile),
            (_label("overlap"), self.overlap),
            (_label("precision"), self.precision),
            (_label("window"), self.blending),
            ("Black", self.black),
            ("White", self.white),
            (_label("seed"), self.seed),
            (_label("axes"), self.axes),
        ):
            form.addRow(label, widget)
        folded = QCollapsible("Tiles, values, axes")
        folded.addWidget(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(folded)
        for spin in (self.tile, self.overlap, self.seed):
            spin.valueChanged.connect(lambda _: self.changed.emit())
        for combo in (self.precision, self.blending):
            combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        for line in (self.black, self.white, self.axes):
            line.editingFinished.connect(self.changed)

    def values(self) -> dict[str, Any]:
        """Return the values by the names of `UpscaleOptions`.

        Raises
        ------
        ImageError
            Black and white are not two numbers.
        """
        precision = self.precision.currentText()
        return {
            "tile": self.tile.value() or None,
            "overlap": self.overlap.value() or None,
            "precision": None if precision == self.precision.itemText(0) else precision,
            "window": self.blending.currentText(),
            "value_range": _range_of(self.black.text(), self.white.text()),
            "seed": self.seed.value(),
            "axes": self.axes.text().strip() or None,
        }


def _label(name: str) -> str:
    return option_fields()[name].option.label


def _number_box(name: str) -> QSpinBox:
    """Return a box for a whole number; 0 leaves an option without a default to the library."""
    field, box = option_fields()[name], QSpinBox()
    if field.default is None:
        box.setSpecialValueText("automatic")
    box.setRange(0, int(field.option.high or 0))
    if field.option.unit:
        box.setSuffix(f" {field.option.unit}")
    box.setMinimumWidth(SPIN_WIDTH)  # else it takes that of the largest number
    return box


def _choice_box(name: str) -> QComboBox:
    """Return a box with the values that an option may have."""
    box = QComboBox()
    box.addItems(list(option_fields()[name].option.choices))
    keep_narrow(box)
    return box


def _range_of(black: str, white: str) -> tuple[float, float] | None:
    """Return two numbers; None where both are empty."""
    if not (black.strip() or white.strip()):
        return None
    try:
        return float(black), float(white)
    except ValueError:
        raise ImageError(
            f"Black is {black.strip() or 'empty'} and White is {white.strip() or 'empty'}: give a number for each, or "
            "leave both empty."
        ) from None
