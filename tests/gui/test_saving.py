"""Saving with the widget "Upscale" in a real viewer: progress, Cancel, going on, and what is never lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import Machine
from qtpy.QtWidgets import QFileDialog, QMessageBox
from user import User

from examples import a_network, an_image
from napari_mgbpv2 import upscale
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.model.checkpoints import save_model

Answers = Callable[[QMessageBox.StandardButton], list[str]]

TILE = 400
SIDE = 264  # of a source whose result has four shards, and some more in the next levels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(a_network(scale=4), tmp_path_factory.mktemp("models") / "tiny.safetensors", scale=4, guard=16)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder / "cells_x4.ome.zarr"


@pytest.fixture
def user(user: User, model: Path) -> User:
    """Somebody who is about to save an image, with a small network and in small tiles."""
    user.viewer.add_image(an_image(SIDE, SIDE), name="cells")
    user.view.options.model_file_chosen.emit(model)
    user.view.options.advanced.tile.setValue(TILE)
    user.settles()
    return user


@pytest.fixture
def begun(user: User, machine: Machine, destination: Path) -> Path:
    """A destination of which a part is done when somebody presses Cancel."""
    machine.waits = True
    user.view.saving.save_requested.emit(destination)
    user.waits_until(lambda: machine.stored > 0)
    user.view.progress.cancel.click()
    user.waits_for_the_end()
    machine.waits = False
    machine.tiles.clear()
    return destination


@pytest.fixture
def expected(model: Path) -> Callable[..., np.ndarray]:
    """What the library makes of an image."""

    def upscaled(image: np.ndarray | None = None, **options: Any) -> np.ndarray:
        image = an_image(SIDE, SIDE) if image is None else image
        return upscale(image, 4, model=model, **{"tile": TILE, **options}).compute()

    return upscaled


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Answer questions that open a window; what has been asked is noted."""

    def answered(button: QMessageBox.StandardButton) -> list[str]:
        asked: list[str] = []
        monkeypatch.setattr(QMessageBox, "question", lambda parent, title, text: asked.append(text) or button)
        return asked

    return answered


def pixels_in(destination: Path) -> np.ndarray:
    return np.asarray(open_source(destination).data[:])


class TestSaving:
    def test_the_file_is_the_result_and_opens_as_a_layer(
        self, user: User, tmp_path: Path, expected: Callable[..., np.ndarray]
    ) -> None:
        image = an_image(100, 80, 3)
        source = user.viewer.add_image(image, rgb=True, scale=(0.5, 0.5), units=("um", "um"), name="colours")
        user.view.layers.setCurrentText("colours")
        user.saves(tmp_path / "colours_x4.ome.zarr")
        stored = open_source(tmp_path / "colours_x4.ome.zarr")
        np.testing.assert_array_equal(np.moveaxis(np.asarray(stored.data[:]), 0, 2), expected(image))
        assert stored.pixel_size == {"y": 0.125, "x": 0.125}
        assert stored.units == {"y": "micrometer", "x": "micrometer"}
        result = user.viewer.layers["colours_x4"]
        assert (result.rgb, result.data[0].shape, result.units) == (True, (400, 320, 3), source.units)
        np.testing.assert_array_equal(np.asarray(result.data[0][5, :7]), expected(image)[5, :7])

    @pytest.mark.parametrize("ending", ["ome.zarr", "ome.tif"])
    def test_a_flipped_layer_is_saved_where_it_lies(
        self, user: User, tmp_path: Path, ending: str, expected: Callable[..., np.ndarray]
    ) -> None:
        image = an_image(100, 80)
        source = user.viewer.add_image(
            image, scale=(-0.5, 0.5), translate=(100, 20), units=("um", "um"), name="flipped"
        )
        user.view.layers.setCurrentText("flipped")
        user.saves(tmp_path / f"flipped_x4.{ending}")
        stored = open_source(tmp_path / f"flipped_x4.{ending}")
        np.testing.assert_array_equal(np.asarray(stored.data[:]), expected(image[::-1]))
        assert stored.pixel_size == {"y": 0.125, "x": 0.125}
        first = source.data_to_world((99, 0))  # the last row lies at the top
        if ending == "ome.zarr":
            assert stored.translation["y"] == pytest.approx(first[0] - 0.1875)
        result = user.viewer.layers["flipped_x4"]
        np.testing.assert_allclose(result.data_to_world((-0.5, -0.5)), source.data_to_world((99.5, -0.5)))

    @pytest.mark.parametrize("shape", [(100, 80), (100, 80, 3)], ids=["grey", "rgb"])
    def test_a_name_that_ends_in_tif_gives_an_ome_tiff(
        self, user: User, tmp_path: Path, shape: tuple[int, ...], expected: Callable[..., np.ndarray]
    ) -> None:
        image = an_image(*shape)
        user.viewer.add_image(image, rgb=len(shape) == 3, name="small")
        user.view.layers.setCurrentText("small")
        user.saves(tmp_path / "small_x4.ome.tif")
        assert open_source(tmp_path / "small_x4.ome.tif").kind == "OME-TIFF"
        shown = np.asarray(user.viewer.layers["small_x4"].data[0][:90])
        np.testing.assert_array_equal(shown, expected(image)[:90])

    @pytest.mark.parametrize(
        ("name", "kind", "path"),
        [
            ("a", "OME-Zarr (*.ome.zarr)", "a.ome.zarr"),
            ("a", "OME-TIFF (*.ome.tif)", "a.ome.tif"),
            ("a.zarr", "OME-TIFF (*.ome.tif)", "a.zarr"),
            ("a.tif", "OME-Zarr (*.ome.zarr)", "a.tif"),
        ],
    )
    def test_the_dialog_offers_both_formats(
        self, user: User, qtbot: Any, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, path: str
    ) -> None:
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *arguments, **options: (name, kind))
        view = user.view.saving
        view.save_requested.disconnect()
        with qtbot.waitSignal(view.save_requested) as asked:
            view.save.click()
        assert asked.args == [Path(path)]
        assert view.suggestion == "cells_x4"

    def test_progress_tells_rate_time_left_and_bytes(self, user: User, machine: Machine, destination: Path) -> None:
        machine.pause = 0.1
        said: list[str] = []
        user.view.saving.save_requested.emit(destination)
        user.waits_until(lambda: said.append(user.reads()) or not user.widget.is_running)
        assert any(re.fullmatch(r"\d+ of \d+ tiles, [\d.e+-]+ Mpx/s, .+ left, .+B written", line) for line in said)
        assert user.reads() == f"{destination} is saved."

    def test_closing_the_viewer_meanwhile_stops_and_keeps_what_is_done(
        self, user: User, machine: Machine, destination: Path
    ) -> None:
        machine.waits = True
        user.view.saving.save_requested.emit(destination)
        worker = user.widget._job._worker
        user.waits_until(lambda: machine.stored > 0)
        user.viewer.close()
        user.waits_until(lambda: not worker.is_running)
        assert [path.name for path in destination.parent.iterdir()] == [f"{destination.name}.partial"]


class TestCancelling:
    def test_before_anything_is_stored_nothing_is_left(self, user: User, machine: Machine, destination: Path) -> None:
        machine.pause = 0.2
        user.saves(destination, cancels=True)
        assert user.reads() == "Cancelled: nothing is left of it."
        assert list(destination.parent.iterdir()) == []
        assert not user.view.saving.resume.isVisibleTo(user.view)

    def test_it_keeps_what_is_done_says_where_and_resume_goes_on(
        self, user: User, begun: Path, expected: Callable[..., np.ndarray]
    ) -> None:
        assert user.reads() == f"Cancelled: what is done is kept in {begun}.partial."
        assert not begun.exists()
        user.resumes()
        assert user.reads() == f"{begun} is saved."
        assert [path.name for path in begun.parent.iterdir()] == [begun.name]
        np.testing.assert_array_equal(pixels_in(begun), expected())


class TestWhatIsThereAlready:
    def test_unfinished_work_of_these_settings_can_be_gone_on_with(self, user: User, begun: Path) -> None:
        user.saves(begun)
        found = user.view.saving.found.text()
        assert re.fullmatch(r"\d+% of cells_x4.ome.zarr is done already, with these settings.", found)
        assert user.view.saving.resume.isVisibleTo(user.view)
        user.resumes()
        assert user.reads() == f"{begun} is saved."

    def test_starting_anew_asks_first(self, user: User, begun: Path, answers: Answers) -> None:
        user.saves(begun)
        asked = answers(QMessageBox.StandardButton.No)
        user.view.saving.anew.click()
        assert asked == ["What is done of cells_x4.ome.zarr will be dropped. Start anew?"]
        assert not user.widget.is_running
        answers(QMessageBox.StandardButton.Yes)
        user.view.saving.anew.click()
        user.waits_for_the_end()
        assert user.reads() == f"{begun} is saved."

    def test_that_of_other_settings_is_told_with_the_difference(self, user: User, begun: Path) -> None:
        user.view.options.advanced.seed.setValue(7)
        user.saves(begun)
        assert "seed was 0 and is 7" in user.reads()
        assert user.view.saving.anew.isVisibleTo(user.view)
        assert Path(f"{begun}.partial").is_dir()

    def test_what_is_complete_is_not_done_again(self, user: User, destination: Path) -> None:
        user.saves(destination)
        user.saves(destination)
        assert user.reads() == f"{destination} was complete already."

    def test_another_file_is_replaced_only_on_demand(
        self, user: User, destination: Path, answers: Answers, expected: Callable[..., np.ndarray]
    ) -> None:
        user.saves(destination)
        advanced = user.view.options.advanced
        advanced.black.setText("10")
        advanced.white.setText("200")
        user.saves(destination)
        assert "value range was [0.0, 255.0] and is [10.0, 200.0]" in user.reads()
        asked = answers(QMessageBox.StandardButton.Yes)
        user.view.saving.anew.click()
        user.waits_for_the_end()
        assert asked == ["cells_x4.ome.zarr will be replaced as soon as the new image is complete. Start anew?"]
        np.testing.assert_array_equal(pixels_in(destination), expected(value_range=(10, 200)))

    def test_what_is_no_image_is_never_replaced(self, user: User, destination: Path, answers: Answers) -> None:
        destination.mkdir()
        (destination / "letter.txt").write_text("dear")
        user.saves(destination)
        assert "exists already" in user.reads()
        answers(QMessageBox.StandardButton.Yes)
        user.view.saving.anew.click()
        user.waits_for_the_end()
        assert "not overwritten" in user.reads()
        assert (destination / "letter.txt").read_text() == "dear"


class TestRunningOutOfMemory:
    def test_at_first_it_begins_with_smaller_tiles(
        self, user: User, machine: Machine, destination: Path, expected: Callable[..., np.ndarray]
    ) -> None:
        machine.fails_at = [0]
        user.saves(destination)
        assert machine.tiles[1] < machine.tiles[0]
        np.testing.assert_array_equal(pixels_in(destination), expected(tile=machine.tiles[0] // 2))

    def test_later_it_tries_again_and_keeps_what_is_done(
        self, user: User, machine: Machine, destination: Path, expected: Callable[..., np.ndarray]
    ) -> None:
        machine.fails_at = [1]
        user.saves(destination)
        assert machine.tiles == 2 * machine.tiles[:1]
        np.testing.assert_array_equal(pixels_in(destination), expected())

    def test_what_this_run_has_done_is_dropped_for_smaller_tiles(
        self, user: User, machine: Machine, destination: Path
    ) -> None:
        machine.fails_at = [1, 0]
        user.saves(destination)
        assert machine.tiles[2] < machine.tiles[1] == machine.tiles[0]
        assert user.reads() == f"{destination} is saved."

    def test_what_an_earlier_run_has_done_is_not(self, user: User, machine: Machine, begun: Path) -> None:
        machine.fails_at = [0]
        user.resumes()
        assert len(machine.tiles) == 1
        assert "not enough memory" in user.reads()
        user.resumes()
        assert user.reads() == f"{begun} is saved."

    def test_an_old_file_stays_until_the_new_one_is_complete(
        self, user: User, machine: Machine, destination: Path, answers: Answers
    ) -> None:
        user.saves(destination)
        old = pixels_in(destination)
        user.view.options.advanced.seed.setValue(7)
        user.saves(destination)
        answers(QMessageBox.StandardButton.Yes)
        machine.fails_at = [1, 1, *[0] * 8]  # for as many halvings of the tile as the model allows
        user.view.saving.anew.click()
        user.waits_for_the_end()
        assert "not enough memory" in user.reads()
        np.testing.assert_array_equal(pixels_in(destination), old)

    def test_resuming_keeps_to_the_smaller_tile(self, user: User, machine: Machine, destination: Path) -> None:
        machine.fails_at, machine.waits = [0], True
        user.view.saving.save_requested.emit(destination)
        user.waits_until(lambda: machine.stored > 0)
        user.view.progress.cancel.click()
        user.waits_for_the_end()
        machine.waits = False
        user.resumes()
        assert machine.tiles[2] == machine.tiles[1] < machine.tiles[0]
        user.saves(destination)
        assert user.reads() == f"{destination} was complete already."
