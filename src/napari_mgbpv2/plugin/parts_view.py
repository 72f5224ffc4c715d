"""Small parts that the views put together."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QHBoxLayout, QSizePolicy, QWidget


def row_of(*widgets: QWidget) -> QWidget:
    """Put widgets side by side; the first takes what space there is."""
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for number, widget in enumerate(widgets):
        layout.addWidget(widget, stretch=1 if number == 0 else 0)
    return row


def keep_narrow(combo: QComboBox) -> None:
    """Let long names not make a dock wide."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
