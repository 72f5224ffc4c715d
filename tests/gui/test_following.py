"""The widget "Upscale" follows the viewer: the active layer, and whatever changes about the layer that is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import Qt
from user import User

from examples import an_image
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.plugin.upscaling.widget import FLIP_KEY

NAMES = ("first", "second")


@pytest.fixture
def layers(user: User) -> list[Any]:
    """Two images, of which the second is active."""
    return [user.viewer.add_image(an_image(60, 50, seed=number), name=name) for number, name in enumerate(NAMES)]


def offered(user: User) -> list[str]:
    layers = user.view.layers
    return [layers.itemText(number) for number in range(layers.count())]


def result_of(user: User, layer: Any) -> Any:
    """The layer that is added for a source."""
    user.view.layers.choose(layer)
    user.settles()
    return user.adds_layer().layer


class TestTheActiveLayer:
    def test_it_is_chosen(self, user: User, layers: list[Any]) -> None:
        user.viewer.layers.selection.active = user.viewer.layers["first"]
        assert user.view.layers.currentText() == "first"
        user.viewer.layers.selection.active = user.viewer.layers["second"]
        assert user.view.layers.currentText() == "second"

    def test_a_result_that_becomes_active_is_not_taken_for_a_source(self, user: User, layers: list[Any]) -> None:
        result = result_of(user, user.viewer.layers["first"])
        assert user.viewer.layers.selection.active == result
        assert user.view.layers.currentText() == "first"

    def test_layers_are_offered_in_the_order_of_the_list(self, user: User, layers: list[Any]) -> None:
        assert offered(user) == ["first", "second"]
        user.viewer.layers.move(0, 2)
        assert offered(user) == ["second", "first"]


class TestALayerThatChanges:
    @pytest.mark.parametrize("shape", [(60, 50), (30, 20)], ids=["same shape", "another shape"])
    def test_new_data_are_upscaled_and_not_the_old(self, user: User, shape: tuple[int, int], tmp_path: Path) -> None:
        layer = user.viewer.add_image(np.full((60, 50), 50, "u1"))
        user.settles()
        layer.data = np.full(shape, 200, "u1")
        result = user.adds_layer().layer
        assert result.data[0].shape == (4 * shape[0], 4 * shape[1])
        assert np.asarray(result.data[0][:8, :8]).mean() == pytest.approx(200, abs=5)
        assert f"{4 * shape[0]} x {4 * shape[1]} px" in user.view.estimate.text()

    def test_its_new_name_is_offered_and_suggested(self, user: User) -> None:
        layer = user.viewer.add_image(an_image(60, 50), name="raw")
        user.settles()
        layer.name = "denoised"
        assert offered(user) == ["denoised"]
        user.settles()
        assert user.view.saving.suggestion == "denoised_x4"

    def test_its_new_place_is_saved(self, user: User, tmp_path: Path) -> None:
        layer = user.viewer.add_image(an_image(30, 20))
        user.settles()
        layer.scale, layer.translate = (0.5, 0.5), (10, 20)
        user.saves(tmp_path / "a.ome.zarr")
        stored = open_source(tmp_path / "a.ome.zarr")
        assert stored.pixel_size == {"y": 0.125, "x": 0.125}
        assert stored.translation == {"y": 10 - 0.1875, "x": 20 - 0.1875}

    def test_the_ends_of_its_contrast_slider_are_black_and_white(self, user: User) -> None:
        layer = user.viewer.add_image((np.mgrid[:64, :64][0] * 60).astype("u2"))
        user.settles()
        layer.contrast_limits_range = (500, 3000)
        values = user.adds_layer().plan.values
        assert (values.low, values.high) == (500, 3000)

    def test_after_its_removal_another_is_planned(self, user: User, layers: list[Any]) -> None:
        user.viewer.layers.remove("second")
        user.settles()
        assert user.view.saving.suggestion == "first_x4"
        user.viewer.layers.remove("first")
        user.settles()
        assert "Open an image" in user.view.estimate.text()

    def test_the_preview_shows_its_new_data_under_its_new_name(self, user: User) -> None:
        layer = user.viewer.add_image(np.full((60, 50), 50, "u1"), name="raw")
        user.view.preview.click()
        user.waits_until(lambda: len(user.viewer.layers) == 2)
        layer.data, layer.name = np.full((60, 50), 200, "u1"), "new"
        user.settles()
        [preview] = [each for each in user.viewer.layers if each != layer]
        assert preview.name == "new (preview)"
        assert np.asarray(preview.data[0][:8, :8]).mean() == pytest.approx(200, abs=5)

    def test_a_result_stays_on_its_source(self, user: User) -> None:
        source = user.viewer.add_image(an_image(60, 50))
        result = user.adds_layer().layer
        source.scale, source.translate, source.rotate = (0.5, 0.2), (3, 4), 30
        for end in [(-0.5, -0.5), (59.5, 49.5)]:
            at = tuple((np.array(end) + 0.5) * 4 - 0.5)
            np.testing.assert_allclose(result.data_to_world(at), source.data_to_world(end), atol=1e-9)

    def test_a_result_that_has_been_moved_is_left_there(self, user: User) -> None:
        source = user.viewer.add_image(an_image(60, 50))
        result = user.adds_layer().layer
        result.translate = (100, 100)
        source.translate = (3, 4)
        assert tuple(result.translate) == (100, 100)


class TestThePlaceInTheList:
    def test_a_result_is_directly_above_its_source_which_is_hidden(self, user: User, layers: list[Any]) -> None:
        first, second = user.viewer.layers
        result = result_of(user, first)
        assert list(user.viewer.layers) == [first, result, second]
        assert [layer.visible for layer in user.viewer.layers] == [False, True, True]

    def test_removing_it_shows_the_source_again(self, user: User, layers: list[Any]) -> None:
        result = result_of(user, user.viewer.layers["first"])
        user.viewer.layers.remove(result)
        assert all(layer.visible for layer in user.viewer.layers)

    def test_of_channels_each_result_stands_for_its_own(self, user: User) -> None:
        channels = user.viewer.add_image(an_image(2, 60, 50), channel_axis=0, name=["a", "b"])
        assert {layer.blending for layer in user.viewer.layers} == {"translucent_no_depth", "additive"}
        results = [result_of(user, channel) for channel in list(user.viewer.layers)]
        assert len(channels) == 2
        assert [layer for layer in user.viewer.layers if layer.visible] == results
        assert [layer.blending for layer in results] == ["translucent_no_depth", "additive"]

    def test_a_second_result_is_not_added_to_the_first(self, user: User, layers: list[Any]) -> None:
        first = user.viewer.layers["first"]
        older, newer = result_of(user, first), result_of(user, first)
        assert (older.visible, newer.visible) == (False, True)
        user.viewer.layers.remove(newer)
        assert (first.visible, older.visible) == (False, True)

    def test_its_contrast_slider_goes_as_far_as_that_of_the_source(self, user: User) -> None:
        source = user.viewer.add_image(an_image(60, 50), contrast_limits=(20, 90))
        source.contrast_limits_range = (0, 255)
        result = user.adds_layer().layer
        assert (result.contrast_limits, result.contrast_limits_range) == ([20, 90], [0, 255])

    def test_its_name_tells_the_model_and_the_noise(self, user: User, layers: list[Any]) -> None:
        user.view.layers.choose(user.viewer.layers["first"])
        user.settles()
        assert user.adds_layer().layer.name == "first x4 (x4)"
        [card] = [card for card in user.view.options._cards if card.name == "x4-perceptual"]
        user.view.options.choose_model(card.path)
        user.view.options.noise.setValue(0.5)
        user.settles()
        assert user.adds_layer().layer.name == "first x4 (x4-perceptual, W 0.5)"


class TestClosingTheWidget:
    @pytest.fixture
    def reopened(self, user: User, layers: list[Any]) -> User:
        """The widget was closed while it showed a preview, and a result was there; it is open again."""
        result_of(user, user.viewer.layers["first"])
        user.view.layers.choose(user.viewer.layers["second"])
        user.view.preview.click()
        user.waits_until(lambda: any("preview" in layer.name for layer in user.viewer.layers))
        user.viewer.window.remove_dock_widget(user.widget)
        del user.__dict__["widget"]
        user.settles()
        return user

    def test_the_preview_ends(self, reopened: User) -> None:
        assert not any("preview" in layer.name for layer in reopened.viewer.layers)
        assert not any("preview" in name for name in offered(reopened))

    def test_the_key_flips_the_result_that_is_left(self, reopened: User, qtbot: Any) -> None:
        [result] = [layer for layer in reopened.viewer.layers if layer.multiscale]
        reopened.viewer.layers.selection.active = result
        qtbot.keyClick(reopened.widget.window(), getattr(Qt.Key, f"Key_{FLIP_KEY}"))
        assert reopened.view.flip.isChecked()
        assert result.data[0].share == 0

    def test_a_closed_widget_leaves_the_key(self, user: User, layers: list[Any]) -> None:
        user.viewer.window.remove_dock_widget(user.widget)
        user.viewer.bind_key(FLIP_KEY, lambda viewer: None)  # raises where the key is taken


class TestMarks:
    def test_previews_are_never_sources(self, user: User, layers: list[Any]) -> None:
        user.view.preview.click()
        user.waits_until(lambda: len(user.viewer.layers) == 3)
        assert offered(user) == ["first", "second"]
        assert {layer.metadata.get("mgbpv2", {}).get("role") for layer in user.viewer.layers} == {None, "preview"}


class TestMeasuringALevel:
    def test_every_level_gives_all_of_its_pixels(self, user: User) -> None:
        source = da.from_array(np.full((60, 50), 200, "u1"), chunks=20)
        user.viewer.add_image(source, contrast_limits=(0, 255))
        result = user.adds_layer().layer
        assert all(np.asarray(level).min() > 150 for level in result.data)


class TestWhatIsCompared:
    def test_it_is_the_pair_of_the_active_layer(self, user: User, layers: list[Any]) -> None:
        first, second = user.viewer.layers
        results = [result_of(user, first), result_of(user, second)]
        user.viewer.layers.selection.active = results[0]
        user.view.flip.click()
        assert [result.data[0].share for result in results] == [0, 1]
        user.viewer.layers.selection.active = second  # the source of the other
        assert not user.view.flip.isChecked()
        user.view.flip.click()
        assert [result.data[0].share for result in results] == [1, 0]

    def test_a_hidden_result_is_shown(self, user: User, layers: list[Any]) -> None:
        result = result_of(user, user.viewer.layers["first"])
        result.visible = False
        user.view.flip.click()
        assert result.visible

    def test_side_by_side_are_source_and_result_alone(self, user: User, layers: list[Any]) -> None:
        first, second = user.viewer.layers
        result = result_of(user, first)
        points = user.viewer.add_points(np.zeros((1, 2)))
        user.view.side_by_side.click()
        assert {layer.name for layer in user.viewer.layers if layer.visible} == {first.name, result.name}
        assert user.viewer.canvas.grid.actual_shape(list(user.viewer.layers)) == (1, 2)
        user.view.side_by_side.click()
        assert [layer for layer in user.viewer.layers if layer.visible] == [result, second, points]

    def test_switching_napari_s_grid_off_ends_it(self, user: User, layers: list[Any]) -> None:
        result_of(user, user.viewer.layers["first"])
        user.view.side_by_side.click()
        user.viewer.canvas.grid.enabled = False
        assert not user.view.side_by_side.isChecked()

    def test_removing_the_result_ends_it_and_shows_the_source(self, user: User, layers: list[Any]) -> None:
        result = result_of(user, user.viewer.layers["first"])
        user.view.side_by_side.click()
        user.viewer.layers.remove(result)
        assert not user.viewer.canvas.grid.enabled
        assert all(layer.visible for layer in user.viewer.layers)


class TestWhatCannotBe:
    @pytest.mark.parametrize(("axes", "sentence"), [("zyx", "3 letters for an image of 2 axes"), ("yy", "distinct")])
    def test_axes_that_do_not_fit_are_said_in_a_sentence(self, user: User, axes: str, sentence: str) -> None:
        user.viewer.add_image(an_image(60, 50), name="cells")
        user.view.options.advanced.axes.setText(axes)
        user.view.options.advanced.axes.editingFinished.emit()
        user.settles()
        assert user.view.warning.text().startswith("⚠ cells: axes")
        assert sentence in user.view.warning.text()

    def test_of_colours_the_axis_of_samples_need_not_be_named(self, user: User) -> None:
        user.viewer.add_image(an_image(60, 50, 3), rgb=True)
        user.view.options.advanced.axes.setText("yx")
        user.view.options.advanced.axes.editingFinished.emit()
        assert user.adds_layer().plan.axes == "yxs"

    def test_axes_that_are_named_place_the_result(self, user: User) -> None:
        source = user.viewer.add_image(an_image(20, 30, 6), rgb=False)
        user.view.options.advanced.axes.setText("yxz")
        user.view.options.advanced.axes.editingFinished.emit()
        result = user.adds_layer().layer
        np.testing.assert_allclose(result._extent_augmented.world, source._extent_augmented.world)

    def test_a_mask_of_true_and_false_is_refused_with_advice(self, user: User) -> None:
        user.viewer.add_layer(Image(an_image(60, 50) > 100, name="mask"))
        user.settles()
        assert "mask: a mask of true and false" in user.view.warning.text()
        assert "writ" not in user.view.warning.text()
