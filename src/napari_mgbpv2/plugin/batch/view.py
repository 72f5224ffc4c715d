"""The view of the widget "Batch": files with their states, a folder, options; asks, and never acts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mgbpv2.plugin.model_view import ModelView
from napari_mgbpv2.plugin.parts_view import flow_of, row_of, set_tab_order
from napari_mgbpv2.plugin.progress_view import ProgressView
from napari_mgbpv2.plugin.settings import Defaults

NAME_WIDTH = 120


class BatchView(QWidget):
    """A table of files, where the results go, how, and how far they are.

    Parameters
    ----------
    defaults
        What to begin with.
    """

    files_chosen = Signal(list)
    folder_chosen = Signal(Path)
    clear_requested = Signal()
    start_requested = Signal(Path)

    def __init__(self, defaults: Defaults) -> None:
        super().__init__()
        self.files = QTableWidget(0, 2)
        self.add_files, self.add_folder = QPushButton("Add files …"), QPushButton("Add folder …")
        self.clear, self.start = QPushButton("Clear"), QPushButton("Start")
        self.destination, self.browse = QLineEdit(), QPushButton("…")
        self.options, self.progress = ModelView(defaults), ProgressView()
        self.resume = QCheckBox("Resume")
        self.resume.setChecked(True)
        self.resume.setToolTip("Leave what is complete, and go on with what is not; else all is begun anew.")
        self.files.setHorizontalHeaderLabels(["File", "State"])
        self.files.verticalHeader().hide()
        self.files.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.files.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.files.horizontalHeader().resizeSection(0, NAME_WIDTH)
        self.files.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.files.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.files.setMinimumHeight(120)
        self.destination.setPlaceholderText("folder for the results")
        self.browse.setToolTip("Choose the folder for the results.")

        layout = QVBoxLayout(self)
        layout.addWidget(self.files, stretch=1)
        layout.addWidget(flow_of(self.add_files, self.add_folder, self.clear))
        layout.addWidget(row_of(self.destination, self.browse))
        for each in (self.options, row_of(self.start, self.resume), self.progress):
            layout.addWidget(each)
        set_tab_order(self)

        self.add_files.clicked.connect(lambda: self._ask_for_files())
        self.add_folder.clicked.connect(lambda: self._ask_for_folder())
        self.browse.clicked.connect(lambda: self._ask_for_destination())
        self.clear.clicked.connect(lambda: self.clear_requested.emit())
        self.start.clicked.connect(lambda: self.start_requested.emit(Path(self.destination.text()).expanduser()))
        self.destination.textChanged.connect(lambda _: self._enable())
        self._running = False
        self._enable()

    def set_files(self, names: Sequence[str], states: Sequence[str]) -> None:
        """Show files."""
        self.files.setRowCount(len(names))
        for row, (name, state) in enumerate(zip(names, states, strict=True)):
            item = QTableWidgetItem(name)
            item.setToolTip(name)
            self.files.setItem(row, 0, item)
            self.show_state(row, state)
        self._enable()

    def show_state(self, row: int, text: str) -> None:
        """Say how far a file is."""
        item = QTableWidgetItem(text)
        item.setToolTip(text)
        self.files.setItem(row, 1, item)

    def set_running(self, running: bool) -> None:
        """Show progress and Cancel while files are converted."""
        self._running = running
        self.progress.set_running(running)
        self._enable()

    def asks_to_replace(self, results: int) -> bool:
        """Ask whether results that are there already may be replaced."""
        text = f"{results} of the results are there already, complete or not, and will be replaced. Start anew?"
        return bool(QMessageBox.question(self, "Start anew", text) == QMessageBox.StandardButton.Yes)

    def _enable(self) -> None:
        for each in (self.add_files, self.add_folder, self.clear, self.resume):
            each.setEnabled(not self._running)
        has_all = self.files.rowCount() > 0 and bool(self.destination.text().strip())
        self.start.setEnabled(not self._running and has_all)

    def _ask_for_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Images to upscale")
        if names:
            self.files_chosen.emit([Path(name) for name in names])

    def _ask_for_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A folder of images, or an OME-Zarr")
        if name:
            self.folder_chosen.emit(Path(name))

    def _ask_for_destination(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if name:
            self.destination.setText(name)
