"""The widget "Batch to OME-Zarr" in a real viewer, used through its controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import an_image
from napari_mgbpv2 import upscale
from napari_mgbpv2.plugin.batch.widget import BatchWidget
from napari_mgbpv2.sources import open_source

WAIT = 60_000


@pytest.fixture
def widget(make_napari_viewer_proxy: Callable[..., Any]) -> BatchWidget:
    _, widget = make_napari_viewer_proxy().window.add_plugin_dock_widget("napari-mgbpv2", "Batch to OME-Zarr (MGBPv2)")
    return widget


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images and one that is none between them."""
    folder = tmp_path / "images"
    folder.mkdir()
    np.save(folder / "a.npy", an_image(30, 20))
    (folder / "b.tif").write_bytes(b"II*\0 this is no image")
    np.save(folder / "c.npy", an_image(30, 20, seed=1))
    (folder / "notes.txt").write_text("not an image")
    return folder


def states(widget: BatchWidget) -> list[str]:
    table = widget.view.files
    return [table.item(row, 1).text() for row in range(table.rowCount())]


def start(widget: BatchWidget, folder: Path, destination: Path, qtbot: Any) -> None:
    widget.view.folder_chosen.emit(folder)
    widget.view.destination.setText(str(destination))
    widget.view.start.click()
    qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)


class TestBatch:
    def test_a_folder_offers_its_images(self, widget: BatchWidget, folder: Path) -> None:
        widget.view.folder_chosen.emit(folder)
        names = [widget.view.files.item(row, 0).text() for row in range(widget.view.files.rowCount())]
        assert names == ["a.npy", "b.tif", "c.npy"]

    def test_a_file_that_fails_does_not_stop_the_rest(
        self, widget: BatchWidget, folder: Path, tmp_path: Path, qtbot: Any
    ) -> None:
        start(widget, folder, tmp_path / "results", qtbot)
        first, second, third = states(widget)
        assert (first, third) == ("a_x4.ome.zarr", "c_x4.ome.zarr")
        assert second.startswith("failed: ")
        assert widget.view.progress.text.text() == "2 of 3 files upscaled."

    def test_the_results_are_those_of_the_library(
        self, widget: BatchWidget, folder: Path, tmp_path: Path, qtbot: Any
    ) -> None:
        start(widget, folder, tmp_path / "results", qtbot)
        stored = open_source(tmp_path / "results" / "a_x4.ome.zarr")
        expected = upscale(np.load(folder / "a.npy"), 4).compute()
        np.testing.assert_array_equal(np.asarray(stored.data[:]), expected)

    def test_start_goes_on_with_what_is_not_done(
        self, widget: BatchWidget, folder: Path, tmp_path: Path, qtbot: Any
    ) -> None:
        start(widget, folder, tmp_path / "results", qtbot)
        np.save(folder / "b.npy", an_image(30, 20))
        (folder / "b.npy").replace(folder / "b.tif")
        widget.view.start.click()
        qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)
        assert states(widget) == ["a_x4.ome.zarr", "b_x4.ome.zarr", "c_x4.ome.zarr"]

    def test_cancel_ends_the_batch_and_start_goes_on(
        self, widget: BatchWidget, folder: Path, tmp_path: Path, qtbot: Any
    ) -> None:
        np.save(folder / "a.npy", an_image(400, 400))
        widget.view.folder_chosen.emit(folder)
        widget.view.destination.setText(str(tmp_path / "results"))
        widget.view.start.click()
        widget._job.told.connect(lambda state: widget.view.progress.cancel.click() if state.step else None)
        qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)
        assert states(widget) == ["cancelled", "waiting", "waiting"]
        assert widget.view.start.isEnabled()

    def test_nothing_starts_without_a_folder_for_the_results(self, widget: BatchWidget, folder: Path) -> None:
        widget.view.folder_chosen.emit(folder)
        assert not widget.view.start.isEnabled()
