"""A bar, a line of text and a Cancel button: there while a job runs."""

from __future__ import annotations

import re

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

ZERO_WIDTH_SPACE = "\u200b"
_STEPS = 1000


class ProgressView(QWidget):
    """Shows how far a job has come.

    Parameters
    ----------
    stop
        What the button says.
    """

    cancel_requested = Signal()

    def __init__(self, stop: str = "Cancel") -> None:
        super().__init__()
        self.bar, self.text, self.cancel = QProgressBar(), QLabel(), QPushButton(stop)
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.text.setWordWrap(True)
        self.text.hide()
        row = QHBoxLayout()
        row.addWidget(self.bar, stretch=1)
        row.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.text)
        self.cancel.clicked.connect(lambda: self._cancel())
        self.set_running(False)

    def set_running(self, running: bool) -> None:
        """Appear, empty, or leave only the last line of text."""
        self.bar.setVisible(running)
        self.cancel.setVisible(running)
        self.cancel.setEnabled(running)
        if running:
            self.show_step(0.0, "starting …")

    def show_step(self, share: float, text: str) -> None:
        """Show how much is done, 0 to 1, and say so."""
        self.bar.setValue(round(_STEPS * share))
        self.say(text)

    def say(self, text: str) -> None:
        """Show a line of text; paths in it may be broken where they have folders."""
        self.text.setText(re.sub(r"(?<=[/\\_])", ZERO_WIDTH_SPACE, text))
        self.text.setVisible(bool(text))

    @property
    def said(self) -> str:
        """The line of text."""
        return str(self.text.text()).replace(ZERO_WIDTH_SPACE, "")

    def _cancel(self) -> None:
        self.cancel.setEnabled(False)
        self.say("stopping …")
        self.cancel_requested.emit()
