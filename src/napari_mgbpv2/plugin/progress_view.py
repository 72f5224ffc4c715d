"""A bar, a line of text and a Cancel button: there while a job runs."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_mgbpv2.plugin.parts_view import WrappedLabel

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
        self.bar, self.text, self.cancel = QProgressBar(), WrappedLabel(), QPushButton(stop)
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.text.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for each in (self.bar, self.cancel, self.text):
            layout.addWidget(each)
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
        """Show a line of text."""
        self.text.setText(text)
        self.text.setVisible(bool(text))

    @property
    def said(self) -> str:
        """The line of text."""
        return self.text.text()

    def _cancel(self) -> None:
        self.cancel.setEnabled(False)
        self.say("stopping …")
        self.cancel_requested.emit()
