"""The widget "Upscale" in a real viewer, used through its controls: choices, layers that fill themselves, preview."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from user import User

from examples import a_network, an_image
from napari_mgbpv2 import list_models, runtime, upscale
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.config import ModelConfig


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
    def test_without_a_layer_it_asks_for_one(self, user: User) -> None:
        assert "Open an image" in user.view.estimate.text()
        assert not user.view.add.isEnabled()

    def test_only_image_layers_are_offered(self, user: User) -> None:
        user.viewer.add_labels(np.zeros((20, 20), int))
        user.viewer.add_image(an_image(20, 20), name="cells")
        user.viewer.add_shapes()
        layers = user.view.layers
        assert [layers.itemText(number) for number in range(layers.count())] == ["cells"]

    def test_a_layer_that_comes_later_is_offered_and_estimated(self, user: User) -> None:
        assert "px" not in user.view.estimate.text()
        user.viewer.add_image(an_image(40, 30), name="cells")
        user.settles()
        assert "160 x 120 px" in user.view.estimate.text()

    def test_the_model_of_another_scale_can_be_chosen(self, user: User) -> None:
        options = user.view.options
        for card in list_models():
            options.scale.setCurrentIndex(options.scale.findData(card.scale))
            assert options.model.findText(card.name) >= 0
            assert options.choices().scale == card.scale

    def test_the_packaged_model_is_offered_with_its_card(self, user: User) -> None:
        assert user.view.options.model.currentText() == "x4"
        assert "parameters" in user.view.options.card.text()

    def test_the_model_goes_with_the_kind_of_image_until_one_is_chosen(self, user: User) -> None:
        model = user.view.options.model
        user.viewer.add_image(an_image(40, 30, dtype="u2"), name="micrograph")
        assert model.currentText() == "microscopy-x4"
        user.viewer.add_image(an_image(40, 30, 3), name="photograph", rgb=True)
        user.view.layers.setCurrentIndex(1)
        assert model.currentText() == "x4"
        model.activated.emit(model.currentIndex())  # a user picks it
        user.view.layers.setCurrentIndex(0)
        assert model.currentText() == "x4"

    def test_the_device_in_use_is_shown(self, user: User) -> None:
        user.viewer.add_image(an_image(40, 30))
        assert user.view.options.device.in_use.text().startswith("in use: c")

    def test_what_cannot_be_is_said_in_a_sentence(self, user: User) -> None:
        user.viewer.add_image(an_image(40, 30))
        user.view.options.advanced.tile.setValue(7)
        user.settles()
        assert "tile is 7 px" in user.view.warning.text()

    def test_a_result_that_does_not_fit_is_warned_of(self, user: User) -> None:
        levels = [da.zeros((400_000, 400_000), dtype="u1", chunks=4000), np.zeros((4000, 4000), "u1")]
        user.viewer.add_image(levels, multiscale=True, contrast_limits=(0, 255))
        assert "disk" in user.view.warning.text()


class TestAddingALayer:
    def test_it_lies_on_its_source_and_looks_like_it(self, user: User) -> None:
        source = user.viewer.add_image(
            an_image(40, 30), scale=(0.5, 0.2), rotate=30, translate=(3, 4), units=("um", "um"), colormap="magma"
        )
        user.adds_layer()
        result = user.viewer.layers[1]
        ends = np.array([(-0.5, -0.5), (39.5, 29.5)])
        for end in ends:
            np.testing.assert_allclose(
                result.data_to_world(tuple((end + 0.5) * 4 - 0.5)), source.data_to_world(tuple(end)), atol=1e-10
            )
        assert (result.units, result.colormap.name) == (source.units, "magma")

    @pytest.mark.parametrize(
        "kind", ["NumPy", "Dask", "Zarr", "xarray", "pyramid", "rgb", "channels", "time and depth", "16 bits"]
    )
    def test_layers_of_every_kind_are_upscaled(self, user: User, kind: str) -> None:
        data, options = layer_data(kind)
        source = user.viewer.add_image(data, **options)
        first = (0,) * (source.ndim - 2)
        user.adds_layer()
        limits = tuple(source.contrast_limits_range) if kind == "16 bits" else None
        pixels = np.asarray(data[0] if kind == "pyramid" else data)[first]
        model = "microscopy-x4" if kind in ("channels", "16 bits") else "x4"
        expected = upscale(pixels, 4, model=model, axes="yxs" if kind == "rgb" else "yx", value_range=limits)
        np.testing.assert_array_equal(user.sees(*first, ...), expected.compute())

    def test_an_upscaled_layer_can_be_upscaled_again(self, user: User) -> None:
        image = an_image(12, 10)
        user.viewer.add_image(image)
        user.adds_layer()
        user.view.layers.setCurrentIndex(1)
        user.settles()
        user.adds_layer()
        twice = upscale(upscale(image, 4), 4)
        np.testing.assert_array_equal(user.sees(slice(0, 100), slice(0, 100)), twice[:100, :100].compute())

    def test_it_runs_no_tile_until_somebody_zooms_in(self, user: User) -> None:
        user.viewer.add_image(an_image(800, 800))
        filled = user.adds_layer()
        user.waits()
        assert filled.pyramid.network.is_idle
        assert filled.layer.data_level > 0

    def test_what_is_looked_at_becomes_the_network_s(self, user: User) -> None:
        image = an_image(60, 50)
        user.viewer.add_image(image)
        filled = user.adds_layer()
        user.viewer.scene.camera.zoom = 8
        filled.layer.__wrapped__._update_draw(1.0, np.array([[0, 0], [200, 200]]), (150, 150))  # no window is shown
        user.waits_until(lambda: filled.pyramid.finest.tile(((), 0, 0, 0)) is not None)
        np.testing.assert_array_equal(user.sees(slice(100), slice(100)), upscale(image, 4)[:100, :100].compute())

    def test_zooming_out_forgets_the_tiles_that_were_wanted(self, user: User) -> None:
        user.viewer.add_image(an_image(800, 800))
        filled = user.adds_layer()
        np.asarray(filled.pyramid.levels[0][:, :])
        assert filled.pyramid.network._wanted
        user.viewer.scene.camera.zoom = 0.1
        assert filled.layer.data_level > 0
        assert not filled.pyramid.network._wanted

    def test_removing_the_layer_ends_its_work(self, user: User) -> None:
        user.viewer.add_image(an_image(60, 50))
        filled = user.adds_layer()
        user.viewer.layers.remove(user.viewer.layers[1])
        assert filled.pyramid.network.is_closed
        assert not user.view.flip.isEnabled()

    def test_removing_it_gives_the_memory_of_the_device_back(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        given_back: list[bool] = []
        monkeypatch.setattr(runtime, "release_device_memory", lambda: given_back.append(True))
        user.viewer.add_image(an_image(60, 50))
        filled = user.adds_layer()
        user.sees(slice(None), slice(None))
        assert given_back == []
        filled.remove()
        assert given_back == [True]

    def test_closing_the_viewer_ends_its_work(self, user: User) -> None:
        user.viewer.add_image(an_image(60, 50))
        pyramid = user.adds_layer().pyramid
        np.asarray(pyramid.levels[0][:, :])
        user.viewer.close()
        assert pyramid.network.is_closed
        user.waits_until(lambda: pyramid.is_idle)

    def test_running_out_of_memory_goes_on_with_smaller_tiles(self, user: User) -> None:
        user.viewer.add_image(an_image(200, 200))
        filled = user.adds_layer()
        tile = filled.plan.layout.grid.rows.tile
        filled._tell_it_failed(RuntimeError("CUDA out of memory"))
        user.waits_until(lambda: filled.plan.layout.grid.rows.tile < tile)


class TestPreview:
    def test_it_appears_and_goes_with_its_box(self, user: User) -> None:
        user.viewer.add_image(an_image(60, 50), name="cells")
        user.view.preview.click()
        assert [layer.name for layer in user.viewer.layers] == ["cells", "cells (preview)"]
        user.view.preview.click()
        assert [layer.name for layer in user.viewer.layers] == ["cells"]

    def test_it_follows_the_choices(self, user: User) -> None:
        user.viewer.add_image(an_image(60, 50))
        user.view.preview.click()
        filled, before = user.filled, user.filled.plan
        user.view.options.advanced.tile.setValue(200)
        user.settles()
        assert user.filled is filled
        assert filled.plan is not before

    def test_it_follows_the_noise_slider_without_a_new_layer(self, user: User, tmp_path: Path) -> None:
        network = a_network(ModelConfig(features=(6, 4), steps=1, noise_channels=1), scale=4)
        path = save_model(network, tmp_path / "noisy.safetensors", scale=4, guard=16)
        user.viewer.add_image(an_image(60, 50, 3), rgb=True)
        assert not user.view.options.noise.isEnabled()
        user.view.options.model_file_chosen.emit(path)
        user.settles()
        user.view.preview.click()
        filled = user.filled
        user.view.options.noise.setValue(0.5)
        user.settles()
        assert user.filled is filled
        assert filled.plan.compute_tile.noise == 0.5

    def test_removing_its_layer_clears_the_box(self, user: User) -> None:
        user.viewer.add_image(an_image(60, 50))
        user.view.preview.click()
        user.viewer.layers.pop()
        assert not user.view.preview.isChecked()
