"""The widget "Batch to OME-Zarr" in a real viewer, used through its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import Machine
from qtpy.QtWidgets import QMessageBox
from user import WAIT

from examples import an_image
from napari_mgbpv2 import upscale
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.plugin.batch.widget import BatchWidget


@pytest.fixture
def widget(viewer: Any) -> BatchWidget:
    _, widget = viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Batch to OME-Zarr (MGBPv2)")
    return widget


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images and one that is none between them, one of them in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    np.save(folder / "a.npy", an_image(30, 20))
    (folder / "b.tif").write_bytes(b"II*\0 this is no image")
    np.save(folder / "more" / "c.npy", an_image(30, 20, seed=1))
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def files(widget: BatchWidget, folder: Path, results: Path, qtbot: Any) -> BatchWidget:
    """The widget with the images of the folder, and with a place for their results."""
    widget.view.folder_chosen.emit(folder)
    widget.view.destination.setText(str(results))
    qtbot.waitUntil(lambda: widget.view.files.rowCount() == 3, timeout=WAIT)
    return widget


def column(widget: BatchWidget, number: int) -> list[str]:
    table = widget.view.files
    return [table.item(row, number).text() for row in range(table.rowCount())]


def states(widget: BatchWidget) -> list[str]:
    return column(widget, 1)


def start(widget: BatchWidget, qtbot: Any) -> None:
    widget.view.start.click()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)


class TestFiles:
    def test_a_folder_offers_the_images_below_it(self, files: BatchWidget) -> None:
        assert column(files, 0) == ["a.npy", "b.tif", "c.npy"]
        assert states(files) == ["waiting"] * 3

    def test_a_folder_without_images_is_said_to_have_none(
        self, widget: BatchWidget, results: Path, qtbot: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        results.mkdir()
        widget.view.folder_chosen.emit(results)
        qtbot.waitUntil(lambda: "holds no image" in capsys.readouterr().out, timeout=WAIT)

    def test_nothing_starts_without_a_folder_for_the_results(self, files: BatchWidget) -> None:
        files.view.destination.clear()
        assert not files.view.start.isEnabled()


class TestBatch:
    def test_a_file_that_fails_does_not_stop_the_rest(self, files: BatchWidget, qtbot: Any) -> None:
        start(files, qtbot)
        first, second, third = states(files)
        assert (first, third) == ("a_x4.ome.zarr", "c_x4.ome.zarr")
        assert second.startswith("failed: ")
        assert files.view.progress.said == "2 of 3 files are upscaled; the table says why not all."

    def test_the_results_are_those_of_the_library(
        self, files: BatchWidget, folder: Path, results: Path, qtbot: Any
    ) -> None:
        start(files, qtbot)
        stored = open_source(results / "a_x4.ome.zarr")
        expected = upscale(np.load(folder / "a.npy"), 4).compute()
        np.testing.assert_array_equal(np.asarray(stored.data[:]), expected)

    def test_the_device_in_use_is_shown(self, files: BatchWidget, qtbot: Any) -> None:
        start(files, qtbot)
        assert files.view.options.device.in_use.text().startswith("in use: c")

    def test_start_goes_on_with_what_is_not_done(self, files: BatchWidget, folder: Path, qtbot: Any) -> None:
        start(files, qtbot)
        np.save(folder / "b.npy", an_image(30, 20))
        (folder / "b.npy").replace(folder / "b.tif")
        start(files, qtbot)
        assert states(files) == ["a_x4.ome.zarr", "b_x4.ome.zarr", "c_x4.ome.zarr"]


class TestRunningAFolderAgain:
    @pytest.fixture
    def again(self, files: BatchWidget, folder: Path, qtbot: Any) -> BatchWidget:
        """The widget with the folder chosen anew, when its images have been upscaled before."""
        (folder / "b.tif").unlink()
        start(files, qtbot)
        files.view.clear.click()
        files.view.folder_chosen.emit(folder)
        qtbot.waitUntil(lambda: files.view.files.rowCount() == 2, timeout=WAIT)
        return files

    def test_what_is_complete_is_left(self, again: BatchWidget, results: Path, qtbot: Any) -> None:
        before = (results / "a_x4.ome.zarr" / "zarr.json").stat().st_mtime_ns
        start(again, qtbot)
        assert states(again) == [f"complete already: {name}_x4.ome.zarr" for name in "ac"]
        assert (results / "a_x4.ome.zarr" / "zarr.json").stat().st_mtime_ns == before

    def test_what_was_made_with_other_settings_is_told_and_kept(self, again: BatchWidget, qtbot: Any) -> None:
        again.view.options.advanced.seed.setValue(7)
        start(again, qtbot)
        assert all("seed was 0 and is 7" in state for state in states(again))

    @pytest.mark.parametrize("answer", ["Yes", "No"])
    def test_without_resume_all_is_replaced_but_not_unasked(
        self, again: BatchWidget, results: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch, answer: str
    ) -> None:
        asked: list[str] = []
        button = QMessageBox.StandardButton[answer]
        monkeypatch.setattr(QMessageBox, "question", lambda parent, title, text: asked.append(text) or button)
        before = (results / "a_x4.ome.zarr" / "zarr.json").stat().st_mtime_ns
        again.view.resume.click()
        start(again, qtbot)
        assert asked[0].startswith("2 of the results are there already")
        assert ((results / "a_x4.ome.zarr" / "zarr.json").stat().st_mtime_ns > before) == (answer == "Yes")


class TestCancelling:
    def test_it_keeps_what_is_done_and_start_goes_on(
        self, files: BatchWidget, folder: Path, machine: Machine, qtbot: Any
    ) -> None:
        np.save(folder / "a.npy", an_image(300, 200))
        (folder / "b.tif").unlink()
        machine.waits = True
        files.view.start.click()
        qtbot.waitUntil(lambda: machine.stored > 0, timeout=WAIT)
        files.view.progress.cancel.click()
        qtbot.waitUntil(lambda: not files.is_running, timeout=WAIT)
        assert states(files) == ["cancelled; what is done is kept", "waiting", "waiting"]
        assert files.view.progress.said == "Cancelled; Start goes on with the rest."
        machine.waits = False
        start(files, qtbot)
        assert states(files)[::2] == ["a_x4.ome.zarr", "c_x4.ome.zarr"]
