"""Comparing a result with bicubic upscaling in a real viewer: the flip and its key, the swipe, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from app_model.types import KeyBinding
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import Qt
from user import User

from examples import an_image
from napari_mgbpv2.plugin.upscaling.widget import FLIP_KEY

IMAGE = an_image(80, 70)


@pytest.fixture(params=["filled", "filled from Dask", "saved"])
def result(request: pytest.FixtureRequest, user: User, tmp_path: Path) -> Any:
    """A layer of a result, all of whose pixels are there."""
    lazy = request.param == "filled from Dask"
    user.viewer.add_image(da.from_array(IMAGE, chunks=32) if lazy else IMAGE, contrast_limits=(0, 255))
    if request.param == "saved":
        user.saves(tmp_path / "cells_x4.ome.zarr")
    else:
        user.adds_layer()
        user.sees(slice(None), slice(None))
    user.viewer.reset_view()
    return user.viewer.layers[1]


def shown(user: User, layer: Any) -> np.ndarray:
    """The pixels that the layer shows now, when the feeds are at rest."""
    np.asarray(layer.data[0][:, :])
    user.waits_until(lambda: all(feed.is_idle for feed in user.widget._result._feeds()))
    return np.asarray(layer.data[0][:, :])


class TestFlipping:
    def test_it_shows_bicubic_and_back(self, user: User, result: Any) -> None:
        network = shown(user, result)
        user.view.flip.click()
        bicubic = shown(user, result)
        assert bicubic.any()
        assert not np.array_equal(bicubic, network)
        user.view.flip.click()
        np.testing.assert_array_equal(shown(user, result), network)

    def test_what_is_computed_with_stays_the_network_s(self, user: User, result: Any) -> None:
        network = shown(user, result)
        user.view.flip.click()
        np.testing.assert_array_equal(np.asarray(result.data[0]), network)

    def test_another_result_is_shown_as_it_is(self, user: User, result: Any) -> None:
        network = shown(user, result)
        user.view.flip.click()
        user.adds_layer()
        assert not user.view.flip.isChecked()
        np.testing.assert_array_equal(np.asarray(result.data[0][:, :]), network)


class TestTheKey:
    def test_it_does_what_the_button_does(self, user: User, qtbot: Any) -> None:
        user.viewer.add_image(IMAGE)
        user.adds_layer()
        qtbot.keyClick(user.widget.window(), getattr(Qt.Key, f"Key_{FLIP_KEY}"))
        assert user.view.flip.isChecked()
        qtbot.keyClick(user.widget.window(), getattr(Qt.Key, f"Key_{FLIP_KEY}"))
        assert not user.view.flip.isChecked()

    def test_without_a_result_it_does_nothing(self, user: User, qtbot: Any) -> None:
        qtbot.keyClick(user.widget.window(), getattr(Qt.Key, f"Key_{FLIP_KEY}"))
        assert not user.view.flip.isChecked()

    def test_it_is_none_of_napari_s_own(self) -> None:
        assert KeyBinding.from_str(FLIP_KEY) not in {key for keys in default_shortcuts.values() for key in keys}

    def test_somebody_else_s_key_is_left_to_them(self, user: User, qtbot: Any) -> None:
        pressed: list[str] = []
        user.viewer.bind_key(FLIP_KEY, lambda viewer: pressed.append("theirs"))
        user.viewer.add_image(IMAGE)
        user.adds_layer()
        qtbot.keyClick(user.widget.window(), getattr(Qt.Key, f"Key_{FLIP_KEY}"))
        assert pressed == ["theirs"]
        assert not user.view.flip.isChecked()


class TestSwiping:
    def test_the_result_is_on_the_left_and_bicubic_on_the_right(self, user: User, result: Any) -> None:
        network = shown(user, result)
        user.view.flip.click()
        bicubic = shown(user, result)
        user.view.flip.click()
        user.view.swipe.setValue(user.view.swipe.maximum() // 2)
        user.waits_until(lambda: result.data[0].share < 1)
        both = shown(user, result)
        middle = both.shape[1] // 2
        np.testing.assert_array_equal(both[:, :middle], network[:, :middle])
        np.testing.assert_array_equal(both[:, middle:], bicubic[:, middle:])

    def test_the_border_stays_where_it_is_in_the_view(self, user: User, result: Any) -> None:
        level, camera = result.data[0], user.viewer.scene.camera
        user.view.swipe.setValue(user.view.swipe.maximum() // 2)
        user.waits_until(lambda: level.share == pytest.approx(0.5))
        camera.center = (0, 30, 70 / 4 - 0.5)
        user.waits_until(lambda: level.share == pytest.approx(0.25))
        camera.zoom *= 3
        user.waits(200)
        assert level.share == pytest.approx(0.25)

    @pytest.mark.parametrize(("rotate", "columns"), [(0, 10.5), (90, 10.5), (180, 59.5)])
    def test_of_a_rotated_layer_it_is_where_the_view_has_it(self, user: User, rotate: int, columns: float) -> None:
        source = user.viewer.add_image(IMAGE, rotate=rotate, scale=(2, 3))
        level = user.adds_layer().layer.data[0]
        user.viewer.reset_view()
        user.viewer.scene.camera.center = (0, *source.data_to_world((39.5, 10)))
        user.view.swipe.setValue(user.view.swipe.maximum() // 2)
        user.waits_until(lambda: level.share == pytest.approx(columns / 70))  # half a turn is undone


class TestSideBySide:
    def test_layers_are_beside_each_other_until_it_is_pressed_again(self, user: User) -> None:
        user.viewer.add_image(IMAGE)
        user.adds_layer()
        user.view.side_by_side.click()
        assert user.viewer.canvas.grid.enabled
        user.view.side_by_side.click()
        assert not user.viewer.canvas.grid.enabled
