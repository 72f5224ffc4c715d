"""The coordinator of the widget "Batch": files in, a job, states out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.plugin.batch.view import BatchView
from napari_mgbpv2.plugin.batch.working import FileState, State, images_in, run_batch
from napari_mgbpv2.plugin.models import MODELS
from napari_mgbpv2.plugin.running import Job
from napari_mgbpv2.plugin.settings import read_defaults


class BatchWidget(QWidget):
    """The widget "Batch to OME-Zarr (MGBPv2)".

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.view = BatchView(read_defaults())
        self._states: dict[Path, FileState] = {}
        self._job: Job | None = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.view)
        self.view.files_chosen.connect(self._add)
        self.view.folder_chosen.connect(self._add_folder)
        self.view.clear_requested.connect(self._clear)
        self.view.start_requested.connect(self._start)
        self.view.progress.cancel_requested.connect(self._cancel)
        self.view.options.model_file_chosen.connect(self._open_model)
        self.view.options.set_models(MODELS.cards)
        view = self.view
        self.destroyed.connect(MODELS.listen(lambda: view.options.set_models(MODELS.cards)))

    @property
    def is_running(self) -> bool:
        """Whether files are being converted."""
        return self._job is not None

    def _add(self, paths: list[Path]) -> None:
        for path in paths:
            self._states.setdefault(path, FileState(path, State.WAITING, State.WAITING.value))
        self._show_all()

    def _add_folder(self, folder: Path) -> None:
        self._add([folder] if folder.suffix == ".zarr" else images_in(folder))

    def _clear(self) -> None:
        self._states.clear()
        self._show_all()

    def _show_all(self) -> None:
        self.view.set_files([path.name for path in self._states], [state.text for state in self._states.values()])

    def _open_model(self, path: Path) -> None:
        try:
            card = MODELS.add(path)
        except MGBPv2Error as error:
            show_error(str(error))
            return
        self.view.options.choose_model(card.path)

    def _start(self, folder: Path) -> None:
        choices = self.view.options.choices()
        left = [path for path, state in self._states.items() if state.state is not State.DONE]
        if choices is None or self._job is not None or not left:
            return
        self._job = Job(lambda tell, cancelled: run_batch(left, folder, choices, tell, cancelled), self)
        self._job.told.connect(lambda state: self._on_told(state, left))
        self._job.succeeded.connect(lambda failures: self._on_done(len(left), failures))
        self._job.cancelled.connect(lambda: self.view.progress.text.setText("Cancelled; Start goes on with the rest."))
        self._job.failed.connect(self.view.progress.text.setText)
        self._job.ended.connect(self._on_ended)
        self.view.set_running(True)
        self._job.start()

    def _on_told(self, state: FileState, files: list[Path]) -> None:
        self._states[state.source] = state
        text = f"failed: {state.text}" if state.state is State.FAILED else state.text
        self.view.show_state(list(self._states).index(state.source), text)
        number = files.index(state.source)
        share = state.step.share if state.step is not None else float(state.state in (State.DONE, State.FAILED))
        text = f"{state.source.name} ({number + 1} of {len(files)})"
        self.view.progress.show_step((number + share) / len(files), text)

    def _on_done(self, files: int, failures: int) -> None:
        text = f"{files - failures} of {files} files upscaled."
        self.view.progress.text.setText(text)
        (show_error if failures else show_info)(text)

    def _on_ended(self) -> None:
        self._job = None
        self.view.set_running(False)

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()
