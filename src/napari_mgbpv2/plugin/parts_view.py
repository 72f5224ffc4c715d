"""Small parts that the views put together: they fit into a narrow dock, in any theme."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QPixmap, QResizeEvent
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QLayout, QLayoutItem, QSizePolicy, QWidget
from superqt import QFlowLayout

ZERO_WIDTH_SPACE = "\u200b"
LONGEST_WORD = 12  # characters that are never broken: paths, hashes and numbers are longer
NARROWEST_COMBO = 1  # characters; it takes what width there is

# Text on a dark and on a light background, with a contrast of at least 4.5 : 1 (WCAG 2.2, level AA).
WARNING_COLORS = {True: "#ff9f43", False: "#8a4500"}


def row_of(*widgets: QWidget) -> QWidget:
    """Put widgets side by side; the first takes what space there is."""
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for number, widget in enumerate(widgets):
        layout.addWidget(widget, stretch=1 if number == 0 else 0)
    return row


def flow_of(*widgets: QWidget) -> QWidget:
    """Put widgets side by side, and those for which there is no room below them."""
    flow = QWidget()
    layout = QFlowLayout(flow)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return flow


def keep_narrow(combo: QComboBox) -> None:
    """Let long names not make a dock wide."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(NARROWEST_COMBO)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


class WrappedLabel(QLabel):
    """A text that is always seen whole: it is as high as its width needs, and breaks long words anywhere.

    A form's row does not ask a label how high it has to be at its width, so the label says it itself.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setText(text)

    def setText(self, text: str) -> None:
        """Show a text."""
        super().setText(re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: ZERO_WIDTH_SPACE.join(word[0]), text))
        self._fit()

    def text(self) -> str:
        """Return the text."""
        return str(super().text()).replace(ZERO_WIDTH_SPACE, "")

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Become as high as the new width needs."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        self.setMinimumHeight(max(0, self.heightForWidth(self.width())))


class WarningLabel(WrappedLabel):
    """A text that stands out, and can be read on a dark and on a light background."""

    def __init__(self) -> None:
        super().__init__()
        self.set_dark(True)

    def set_dark(self, dark: bool) -> None:
        """Say whether the background is dark."""
        self.setStyleSheet(f"color: {WARNING_COLORS[dark]};")


class PictureLabel(QLabel):
    """A picture that is shrunk to the width that there is."""

    def __init__(self) -> None:
        super().__init__()
        self._picture = QPixmap()
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)

    def show_picture(self, picture: QPixmap) -> None:
        """Show a picture."""
        self._picture = picture
        self._fit()

    def minimumSizeHint(self) -> QSize:
        """Take any width."""
        return QSize(1, 1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Shrink the picture to the new width."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._fit()

    def _fit(self) -> None:
        if self._picture.isNull():
            return
        width = min(self.width(), self._picture.width())
        shrunk = self._picture.scaledToWidth(width, Qt.TransformationMode.SmoothTransformation)
        self.setMinimumHeight(shrunk.height())
        self.setPixmap(shrunk)


def set_tab_order(view: QWidget) -> None:
    """Let the Tab key go through a view as one reads it, not in the order in which its parts have been made."""
    before = None
    for widget in _focusable(view.layout()):
        if before is not None:
            QWidget.setTabOrder(before, widget)
        before = widget


def _focusable(layout: QLayout) -> Iterator[QWidget]:
    for item in _items(layout):
        widget, inner = item.widget(), item.layout()
        if inner is not None:
            yield from _focusable(inner)
        elif widget is not None:
            if widget.focusPolicy() != Qt.FocusPolicy.NoFocus:
                yield widget
            if widget.layout() is not None:  # a group, or a slider with its value
                yield from _focusable(widget.layout())


def _items(layout: QLayout) -> Iterator[QLayoutItem]:
    """Give the items of a layout as they are seen; a form counts them as they have been added."""
    if isinstance(layout, QFormLayout):
        roles = (QFormLayout.ItemRole.LabelRole, QFormLayout.ItemRole.FieldRole, QFormLayout.ItemRole.SpanningRole)
        found = (layout.itemAt(row, role) for row in range(layout.rowCount()) for role in roles)
    else:
        found = (layout.itemAt(number) for number in range(layout.count()))
    yield from (item for item in found if item is not None)
