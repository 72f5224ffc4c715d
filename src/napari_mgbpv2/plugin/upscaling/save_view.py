"""The part of the view "Upscale" that saves: a button, what to do about what is there already, and progress."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QMessageBox, QPushButton, QVBoxLayout, QWidget

from napari_mgbpv2.plugin.parts_view import WrappedLabel, flow_of
from napari_mgbpv2.plugin.progress_view import ProgressView

ENDINGS = {"OME-Zarr (*.ome.zarr)": ".ome.zarr", "OME-TIFF (*.ome.tif)": ".ome.tif"}


class SaveView(QWidget):
    """Asks where to save, and whether to go on with what has been begun there."""

    save_requested = Signal(Path)
    resume_requested = Signal()
    anew_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.save, self.progress = QPushButton("Save to OME-Zarr …"), ProgressView()
        self.found = WrappedLabel()
        self.resume, self.anew = QPushButton("Resume"), QPushButton("Start anew …")
        self.suggestion = "upscaled"
        self.save.setToolTip("Upscale all of it in the background, into an OME-Zarr or an OME-TIFF.")
        self.resume.setToolTip("Go on with what is done already; the file will be as if it had never been stopped.")
        self.anew.setToolTip("Drop what is there, and begin from the start.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._choice = flow_of(self.resume, self.anew)
        for each in (self.save, self.progress, self.found, self._choice):
            layout.addWidget(each)
        self.save.clicked.connect(lambda: self._ask_where())
        self.resume.clicked.connect(lambda: self.resume_requested.emit())
        self.anew.clicked.connect(lambda: self._ask_whether_to_drop())
        self._dropped = ""
        self.offer()

    def set_running(self, running: bool) -> None:
        """Show progress and Cancel while a file is written."""
        self.progress.set_running(running)
        if running:
            self.offer()

    def offer(self, found: str = "", *, resume: bool = False, drops: str = "") -> None:
        """Offer to go on with what is there, or to begin anew.

        Parameters
        ----------
        found
            What is there.
        resume
            Whether it can be gone on with.
        drops
            What is lost when one begins anew; empty where there is nothing.
        """
        self._dropped = drops
        self.found.setText(found)
        self.found.setVisible(bool(found))
        self.resume.setVisible(resume)
        self.anew.setVisible(bool(drops))
        self._choice.setVisible(resume or bool(drops))

    def _ask_where(self) -> None:
        name, kind = QFileDialog.getSaveFileName(
            self,
            "Save the upscaled image",
            self.suggestion,
            ";;".join(ENDINGS),
            options=QFileDialog.Option.DontConfirmOverwrite,  # it is asked for when it is known what is there
        )
        if name:
            known = name.lower().endswith((".zarr", ".tif", ".tiff"))
            self.save_requested.emit(Path(name if known else name + ENDINGS.get(kind, ".ome.zarr")))

    def _ask_whether_to_drop(self) -> None:
        answer = QMessageBox.question(self, "Start anew", f"{self._dropped} Start anew?")
        if answer == QMessageBox.StandardButton.Yes:
            self.anew_requested.emit()
