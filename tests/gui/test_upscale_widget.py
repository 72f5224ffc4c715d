"""The widget "Upscale" in a real viewer, used through its controls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr

import napari_mgbpv2.plugin.upscaling.saving as saving
from examples import a_network, an_image
from napari_mgbpv2 import list_models, upscale
from napari_mgbpv2.checkpoints import save_model
from napari_mgbpv2.config import ModelConfig
from napari_mgbpv2.plugin.showing import FilledLayer
from napari_mgbpv2.plugin.upscaling.widget import UpscaleWidget
from napari_mgbpv2.sources import open_source

WAIT = 60_000


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def open_widget(viewer: Any, qtbot: Any) -> Callable[[], UpscaleWidget]:
    """Dock the widget as napari's menu does, and wait for its first estimate."""

    def opened() -> UpscaleWidget:
        _, widget = viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Upscale (MGBPv2)")
        settle(widget, qtbot)
        return widget

    return opened


def settle(widget: UpscaleWidget, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: widget.is_settled, timeout=WAIT)


def filled_of(widget: UpscaleWidget) -> FilledLayer:
    assert isinstance(widget._result, FilledLayer)
    return widget._result


def look_at(viewer: Any, layer: Any, qtbot: Any) -> None:
    """Zoom in until the network's level is shown, and wait until it is filled."""
    viewer.scene.camera.zoom = 4
    layer = getattr(layer, "__wrapped__", layer)
    layer._update_draw(1.0, np.array([[0, 0], [200, 200]]), (150, 150))
    qtbot.wait(50)


def layer_data(kind: str) -> tuple[Any, dict[str, Any]]:
    """The data and options of a layer."""
    limits = {"contrast_limits": (0, 255)}
    match kind:
        case "Dask":
            return da.from_array(an_image(30, 20), chunks=16), limits
        case "Zarr":
            return zarr.array(an_image(30, 20), chunks=(16, 16)), limits
        case "xarray":
            return pytest.importorskip("xarray").DataArray(an_image(30, 20), dims=("y", "x")), limits
        case "pyramid":
            return [an_image(60, 40), an_image(30, 20)], limits | {"multiscale": True}
        case "rgb":
            return an_image(30, 20, 3), {"rgb": True}
        case "channels":
            return an_image(2, 30, 20), limits | {"axis_labels": ("c", "y", "x")}
        case "time and depth":
            return an_image(2, 3, 30, 20), limits | {"axis_labels": ("t", "z", "y", "x")}
        case "16 bits":
            return an_image(30, 20, dtype="u2") // 50, {}
    return an_image(30, 20), {}


class TestChoices:
    def test_without_a_layer_it_asks_for_one(self, open_widget: Callable[[], UpscaleWidget]) -> None:
        view = open_widget().view
        assert "Open an image" in view.estimate.text()
        assert not view.add.isEnabled()

    def test_only_image_layers_are_offered(self, viewer: Any, open_widget: Callable[[], UpscaleWidget]) -> None:
        viewer.add_labels(np.zeros((20, 20), int))
        viewer.add_image(an_image(20, 20), name="cells")
        viewer.add_shapes()
        view = open_widget().view
        assert [view.layers.itemText(number) for number in range(view.layers.count())] == ["cells"]

    def test_a_layer_that_comes_later_is_offered_and_estimated(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        widget = open_widget()
        viewer.add_image(an_image(40, 30), name="cells")
        settle(widget, qtbot)
        assert "160 x 120 px" in widget.view.estimate.text()

    def test_the_model_of_another_scale_can_be_chosen(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        cards = list_models()
        options = open_widget().view.options
        for card in cards:
            options.scale.setCurrentIndex(options.scale.findData(card.scale))
            assert options.model.findText(card.name) >= 0
            assert options.choices().scale == card.scale

    def test_the_packaged_model_is_offered_with_its_card(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget]
    ) -> None:
        view = open_widget().view
        assert view.options.model.currentText() == "x4"
        assert "parameters" in view.options.card.text()

    def test_the_device_in_use_is_shown(self, viewer: Any, open_widget: Callable[[], UpscaleWidget]) -> None:
        viewer.add_image(an_image(40, 30))
        assert open_widget().view.options.device_in_use.text() in {"in use: cpu", "in use: cuda", "in use: mps"}

    def test_what_cannot_be_is_said_in_a_sentence(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(40, 30))
        widget = open_widget()
        widget.view.options.advanced.tile.setValue(7)
        settle(widget, qtbot)
        assert "tile is 7 px" in widget.view.warning.text()

    def test_a_result_that_does_not_fit_is_warned_of(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget]
    ) -> None:
        levels = [da.zeros((400_000, 400_000), dtype="u1", chunks=4000), np.zeros((4000, 4000), "u1")]
        viewer.add_image(levels, multiscale=True, contrast_limits=(0, 255))
        assert "disk" in open_widget().view.warning.text()


class TestAddingALayer:
    def test_it_lies_on_its_source_and_looks_like_it(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        source = viewer.add_image(
            an_image(40, 30), scale=(0.5, 0.2), rotate=30, translate=(3, 4), units=("um", "um"), colormap="magma"
        )
        open_widget().view.add.click()
        qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=WAIT)
        result = viewer.layers[1]
        ends = np.array([(-0.5, -0.5), (39.5, 29.5)])
        for end in ends:
            np.testing.assert_allclose(
                result.data_to_world(tuple((end + 0.5) * 4 - 0.5)), source.data_to_world(tuple(end)), atol=1e-10
            )
        assert (result.units, result.colormap.name) == (source.units, "magma")

    @pytest.mark.parametrize(
        "kind", ["NumPy", "Dask", "Zarr", "xarray", "pyramid", "rgb", "channels", "time and depth", "16 bits"]
    )
    def test_layers_of_every_kind_are_upscaled(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any, kind: str
    ) -> None:
        data, options = layer_data(kind)
        source = viewer.add_image(data, **options)
        widget = open_widget()
        widget.view.add.click()
        finest = filled_of(widget).pyramid.finest
        np.asarray(finest[(0,) * (source.ndim - 2)])
        qtbot.waitUntil(lambda: filled_of(widget).pyramid.is_idle, timeout=WAIT)
        plane = np.asarray(finest[(0,) * (source.ndim - 2)])
        pixels = np.asarray(data[0] if kind == "pyramid" else data)[(0,) * (source.ndim - 2)]
        limits = tuple(source.contrast_limits_range) if kind == "16 bits" else None
        expected = upscale(pixels, 4, axes="yxs" if kind == "rgb" else "yx", value_range=limits)
        np.testing.assert_array_equal(plane, expected.compute())

    def test_a_gigapixel_layer_is_added_at_once_and_runs_no_tile(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        full = da.random.randint(0, 255, (40_000, 40_000), chunks=4000, dtype="u1")
        viewer.add_image([full, an_image(2500, 2500)], multiscale=True, contrast_limits=(0, 255))
        widget = open_widget()
        began = time.monotonic()
        widget.view.add.click()
        assert time.monotonic() - began < 2
        qtbot.wait(100)
        assert filled_of(widget).pyramid.network.is_idle

    def test_closing_the_viewer_ends_the_filling(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(60, 50))
        widget = open_widget()
        widget.view.add.click()
        pyramid = filled_of(widget).pyramid
        np.asarray(pyramid.levels[0][:, :])
        viewer.close()
        assert pyramid.network.is_closed
        qtbot.waitUntil(lambda: pyramid.is_idle, timeout=WAIT)

    def test_it_runs_no_tile_until_somebody_zooms_in(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(800, 800))
        widget = open_widget()
        widget.view.add.click()
        filled = filled_of(widget)
        qtbot.wait(100)
        assert filled.pyramid.network.is_idle
        assert filled.layer.data_level > 0

    def test_what_is_looked_at_becomes_the_network_s(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        image = an_image(60, 50)
        viewer.add_image(image)
        widget = open_widget()
        widget.view.add.click()
        filled = filled_of(widget)
        look_at(viewer, filled.layer, qtbot)
        qtbot.waitUntil(lambda: filled.pyramid.is_idle, timeout=WAIT)
        shown = np.asarray(filled.pyramid.levels[0][:100, :100])
        np.testing.assert_array_equal(shown, upscale(image, 4)[:100, :100].compute())

    def test_flipping_shows_bicubic_and_back(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(60, 50))
        widget = open_widget()
        widget.view.add.click()
        level = filled_of(widget).pyramid.finest
        np.asarray(level[:, :])
        qtbot.waitUntil(lambda: filled_of(widget).pyramid.is_idle, timeout=WAIT)
        network = np.asarray(level[:, :])
        widget.view.flip.click()
        assert not np.array_equal(np.asarray(level[:, :]), network)
        widget.view.flip.click()
        np.testing.assert_array_equal(np.asarray(level[:, :]), network)

    def test_zooming_out_forgets_the_tiles_that_were_wanted(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(800, 800))
        widget = open_widget()
        widget.view.add.click()
        filled = filled_of(widget)
        np.asarray(filled.pyramid.levels[0][:, :])
        assert filled.pyramid.network._wanted
        viewer.scene.camera.zoom = 0.1
        assert filled.layer.data_level > 0
        assert not filled.pyramid.network._wanted

    def test_removing_the_layer_ends_its_work(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(60, 50))
        widget = open_widget()
        widget.view.add.click()
        pyramid = filled_of(widget).pyramid
        viewer.layers.remove(viewer.layers[1])
        assert pyramid.network.is_closed
        assert not widget.view.flip.isEnabled()

    def test_running_out_of_memory_goes_on_with_smaller_tiles(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(200, 200))
        widget = open_widget()
        widget.view.add.click()
        filled = filled_of(widget)
        tile = filled.plan.layout.grid.rows.tile
        filled._tell_it_failed(RuntimeError("CUDA out of memory"))
        qtbot.waitUntil(lambda: filled.plan.layout.grid.rows.tile < tile, timeout=WAIT)


class TestPreview:
    def test_it_appears_and_goes_with_its_box(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(60, 50), name="cells")
        view = open_widget().view
        view.preview.click()
        assert [layer.name for layer in viewer.layers] == ["cells", "cells (preview)"]
        view.preview.click()
        assert [layer.name for layer in viewer.layers] == ["cells"]

    def test_it_follows_the_choices(self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any) -> None:
        viewer.add_image(an_image(60, 50))
        widget = open_widget()
        widget.view.preview.click()
        filled = filled_of(widget)
        before = filled.plan
        widget.view.options.advanced.seed.setValue(7)
        settle(widget, qtbot)
        assert filled_of(widget) is filled
        assert filled.plan is not before

    def test_it_follows_the_noise_slider_without_a_new_layer(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any, tmp_path: Path
    ) -> None:
        network = a_network(ModelConfig(features=(6, 4), steps=1, noise_channels=1), scale=4)
        path = save_model(network, tmp_path / "noisy.safetensors", scale=4, guard=16)
        viewer.add_image(an_image(60, 50, 3), rgb=True)
        widget = open_widget()
        assert not widget.view.options.noise.isEnabled()
        widget.view.options.model_file_chosen.emit(path)
        settle(widget, qtbot)
        widget.view.preview.click()
        filled = filled_of(widget)
        widget.view.options.noise.setValue(0.5)
        settle(widget, qtbot)
        assert filled_of(widget) is filled
        assert filled.plan.compute_tile.noise == 0.5

    def test_removing_its_layer_clears_the_box(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(60, 50))
        view = open_widget().view
        view.preview.click()
        viewer.layers.pop()
        assert not view.preview.isChecked()


class TestSaving:
    def test_the_file_is_the_result_and_opens_as_a_layer(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any, tmp_path: Path
    ) -> None:
        image = an_image(100, 80, 3)
        source = viewer.add_image(image, rgb=True, scale=(0.5, 0.5), units=("um", "um"), name="cells")
        widget = open_widget()
        widget.view.save_requested.emit(tmp_path / "cells_x4.ome.zarr")
        qtbot.waitUntil(lambda: not widget.is_saving, timeout=WAIT)
        stored = open_source(tmp_path / "cells_x4.ome.zarr")
        np.testing.assert_array_equal(np.moveaxis(np.asarray(stored.data[:]), 0, 2), upscale(image, 4).compute())
        assert stored.pixel_size == {"y": 0.125, "x": 0.125}
        assert stored.units == {"y": "micrometer", "x": "micrometer"}
        result = viewer.layers["cells_x4"]
        assert (result.rgb, result.data[0].shape, result.units) == (True, (400, 320, 3), source.units)
        np.testing.assert_array_equal(np.asarray(result.data[0][5, :7]), upscale(image, 4)[5, :7].compute())

    def test_cancel_stops_within_one_tile_and_leaves_nothing(
        self,
        viewer: Any,
        open_widget: Callable[[], UpscaleWidget],
        qtbot: Any,
        tmp_path: Path,
    ) -> None:
        viewer.add_image(an_image(400, 400))
        widget = open_widget()
        widget.view.save_requested.emit(tmp_path / "cells.ome.zarr")
        widget._saving.told.connect(lambda step: widget.view.progress.cancel.click())
        qtbot.waitUntil(lambda: not widget.is_saving, timeout=WAIT)
        assert widget.view.progress.text.text() == "Cancelled."
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_file_is_not_replaced(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "cells.ome.zarr").mkdir()
        viewer.add_image(an_image(40, 40))
        widget = open_widget()
        widget.view.save_requested.emit(tmp_path / "cells.ome.zarr")
        qtbot.waitUntil(lambda: not widget.is_saving, timeout=WAIT)
        assert "exists" in widget.view.progress.text.text()

    def test_running_out_of_memory_goes_on_with_smaller_tiles(
        self,
        viewer: Any,
        open_widget: Callable[[], UpscaleWidget],
        qtbot: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run, tiles = saving.run, []

        def out_of_memory_once(prepared: Any, *rest: Any) -> Any:
            tiles.append(prepared.plan.layout.grid.rows.tile)
            if len(tiles) == 1:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return run(prepared, *rest)

        monkeypatch.setattr(saving, "run", out_of_memory_once)
        viewer.add_image(an_image(200, 200))
        widget = open_widget()
        widget.view.save_requested.emit(tmp_path / "cells.ome.zarr")
        qtbot.waitUntil(lambda: not widget.is_saving, timeout=WAIT)
        assert (tmp_path / "cells.ome.zarr").is_dir()
        assert tiles[1] < tiles[0]

    def test_closing_the_viewer_meanwhile_stops_cleanly(
        self, viewer: Any, open_widget: Callable[[], UpscaleWidget], qtbot: Any, tmp_path: Path
    ) -> None:
        viewer.add_image(an_image(400, 400))
        widget = open_widget()
        began = threading.Event()
        widget.view.save_requested.emit(tmp_path / "cells.ome.zarr")
        worker = widget._saving._worker
        widget._saving.told.connect(lambda step: began.set())
        qtbot.waitUntil(began.is_set, timeout=WAIT)
        viewer.close()
        qtbot.waitUntil(lambda: not worker.is_running, timeout=WAIT)
        assert list(tmp_path.iterdir()) == []
