"""The coordinator of the widget "Batch": files in, a job, states out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info

from napari_mgbpv2.conversion.destinations import destinations_of
from napari_mgbpv2.conversion.oom import has_partial_output
from napari_mgbpv2.errors import MGBPv2Error
from napari_mgbpv2.io.readers import find_sources
from napari_mgbpv2.plugin.batch.view import BatchView
from napari_mgbpv2.plugin.batch.working import FileState, State, run_batch
from napari_mgbpv2.plugin.docked_widget import DockedWidget
from napari_mgbpv2.plugin.running import Job
from napari_mgbpv2.plugin.settings import read_defaults
from napari_mgbpv2.plugin.upscaling.saving import How


class BatchWidget(DockedWidget):
    """The widget "Batch to OME-Zarr (MGBPv2)".

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    view: BatchView

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer, BatchView(read_defaults()))
        self._states: dict[Path, FileState] = {}
        self.view.files_chosen.connect(self._add)
        self.view.folder_chosen.connect(self._add_folder)
        self.view.clear_requested.connect(self._clear)
        self.view.start_requested.connect(self._start)
        self.offer_options(self.view.options)

    # --- which files

    def _add(self, paths: list[Path]) -> None:
        for path in paths:
            self._states.setdefault(path, FileState(path, State.WAITING, State.WAITING.value))
        self._show_all()

    def _add_folder(self, folder: Path) -> None:
        """Look for images in a folder, which may take long on the network."""
        looking = Job(lambda tell, cancelled: find_sources(folder), self, title=f"looking into {folder.name}")
        looking.succeeded.connect(lambda found: self._add([Path(path) for path in found]))
        looking.start()

    def _clear(self) -> None:
        self._states.clear()
        self._show_all()

    def _show_all(self) -> None:
        self.view.set_files([path.name for path in self._states], [state.text for state in self._states.values()])

    # --- converting

    def _start(self, folder: Path) -> None:
        try:
            choices = self.view.options.choices()
        except MGBPv2Error as error:
            show_error(str(error))
            return
        left = [path for path, state in self._states.items() if state.state is not State.DONE]
        if choices is None or self.is_running or not left:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            results = dict(zip(self._states, destinations_of(list(self._states), folder, choices.scale), strict=True))
        except (MGBPv2Error, OSError) as error:
            show_error(str(error))
            return
        wanted = {path: results[path] for path in left}
        how = How.RESUME if self.view.resume.isChecked() else How.ANEW
        there = sum(result.exists() or has_partial_output(result) for result in wanted.values())
        if how is How.ANEW and there and not self.view.asks_to_replace(there):
            return
        self.run_job(
            lambda tell, cancelled: run_batch(wanted, choices, how, tell, cancelled),
            title=f"upscaling {len(left)} files",
            told=lambda state: self._on_told(state, left),
            succeeded=lambda failures: self._on_done(len(left), failures),
            cancelled=lambda: self.view.progress.say("Cancelled; Start goes on with the rest."),
            failed=self.view.progress.say,
        )

    def _on_told(self, state: FileState, files: list[Path]) -> None:
        self._states[state.source] = state
        self.view.show_state(list(self._states).index(state.source), state.text)
        number = files.index(state.source)
        share = state.step.share if state.step is not None else float(state.state in (State.DONE, State.FAILED))
        text = f"{state.source.name} ({number + 1} of {len(files)})"
        self.view.progress.show_step((number + share) / len(files), text)
        if state.device:
            self.view.options.device.show_in_use(state.device)

    def _on_done(self, files: int, failures: int) -> None:
        if failures:
            show_error(f"{failures} of {files} files failed.")
            self.view.progress.say(f"{files - failures} of {files} files are upscaled; the table says why not all.")
        else:
            show_info(f"{files} files are upscaled.")
            self.view.progress.say(f"{files} files are upscaled.")
