"""The widget "Fine-tune" in a real viewer, used through its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from qtpy.QtCore import Qt
from user import WAIT

from examples import a_network
from napari_mgbpv2 import list_models
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.plugin.finetuning.widget import FinetuneWidget
from napari_mgbpv2.plugin.models import FOLDER_VARIABLE, MODELS
from napari_mgbpv2.plugin.sample_data import astronaut


@pytest.fixture
def viewer(viewer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A viewer with the sample, and a folder of models with a tiny one."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "models"))
    monkeypatch.setattr(MODELS, "_added", {})
    (tmp_path / "models").mkdir()
    network = a_network(ModelConfig(features=(6, 4), steps=1, channels=3, noise_channels=0), scale=2)
    save_model(network, tmp_path / "models" / "tiny.safetensors", scale=2, guard=16)
    [(pixels, options, _)] = astronaut()
    viewer.add_image(pixels, **options)
    return viewer


@pytest.fixture
def widget(viewer: Any) -> FinetuneWidget:
    _, widget = viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Fine-tune (MGBPv2)")
    widget.view.base.setCurrentText("tiny")
    widget.view.minutes.setValue(0.1)
    return widget


def tick(widget: FinetuneWidget) -> None:
    widget.view.layers.item(0).setCheckState(Qt.CheckState.Checked)


class TestFinetuning:
    def test_a_run_draws_its_curve_and_its_model_is_offered_at_once(
        self, viewer: Any, widget: FinetuneWidget, qtbot: Any
    ) -> None:
        _, upscale = viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Upscale (MGBPv2)")
        tick(widget)
        widget.view.start.click()
        qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)
        assert widget.view.curve.losses
        assert widget.view.device.in_use.text().startswith("in use: c")
        assert len(widget.view.curve.gains) >= 2
        assert not widget.view.sheet.pixmap().isNull()
        [card] = [card for card in upscale.view.options._cards if card.name == "mine"]
        assert card.trained_on == "1 image of astronaut.npy"  # the layer, and no folder that is gone

    def test_stopping_keeps_the_best(self, widget: FinetuneWidget, qtbot: Any) -> None:
        widget.view.minutes.setValue(60)
        tick(widget)
        widget.view.start.click()
        qtbot.waitUntil(lambda: bool(widget.view.curve.losses), timeout=WAIT)
        widget.view.progress.cancel.click()
        qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)
        assert "the best until it was stopped" in widget.view.progress.said
        assert "mine" in {card.name for card in MODELS.cards}

    def test_a_folder_can_be_learnt_from_and_its_model_goes_where_it_is_to_go(
        self, widget: FinetuneWidget, tmp_path: Path, qtbot: Any
    ) -> None:
        (tmp_path / "sharp").mkdir()
        [(pixels, _, _)] = astronaut()
        Image.fromarray(pixels).save(tmp_path / "sharp" / "a.png")
        widget.view.folder.setText(str(tmp_path / "sharp"))
        widget.view.output.setText(str(tmp_path / "models" / "learnt"))
        widget.view.start.click()
        qtbot.waitUntil(lambda: bool(widget.view.curve.losses), timeout=WAIT)
        widget.view.progress.cancel.click()
        qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)
        assert (tmp_path / "models" / "learnt.safetensors").is_file()

    def test_closing_the_viewer_meanwhile_stops_the_run(self, viewer: Any, widget: FinetuneWidget, qtbot: Any) -> None:
        widget.view.minutes.setValue(60)
        tick(widget)
        widget.view.start.click()
        qtbot.waitUntil(lambda: bool(widget.view.curve.losses), timeout=WAIT)
        worker = widget._job._worker
        viewer.close()
        qtbot.waitUntil(lambda: not worker.is_running, timeout=WAIT)
        assert "mine" in {card.name for card in MODELS.cards}

    def test_without_images_it_says_so(self, widget: FinetuneWidget, qtbot: Any) -> None:
        widget.view.start.click()
        qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)
        assert "no images" in widget.view.progress.said

    def test_packaged_models_and_own_ones_can_be_started_from(self, widget: FinetuneWidget) -> None:
        offered = {widget.view.base.itemText(row) for row in range(widget.view.base.count())}
        assert offered == {card.name for card in list_models()} | {"tiny"}
