"""The widget "Inspect" in a real viewer: clicks, filters in their place, lazy maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

import napari_mgbpv2 as mgbp
from examples import CountingSource, a_network, an_image
from napari_mgbpv2.inspection import consistency_map, deep_filter, hallucination_map
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.plugin.inspecting.widget import InspectWidget
from napari_mgbpv2.plugin.inspecting.working import Kind

WAIT = 60_000

PLACES = {
    "plain": {},
    "anisotropic": {"scale": (0.5, 0.2), "translate": (7, -3), "units": ("um", "um")},
    "rotated": {"scale": (0.5, 0.2), "translate": (7, -3), "rotate": 30},
    "sheared": {"scale": (2, 3), "rotate": -70, "shear": [0.4]},
    "with an affine": {"scale": (2, 3), "rotate": 15, "affine": [[1, 0.3, 5], [-0.2, 2, 1], [0, 0, 1]]},
}


class Event:
    """A mouse event as napari hands it to callbacks, at a place of the world and one of the canvas."""

    def __init__(self, position: Any, button: int) -> None:
        self.position, self.pos, self.button, self.type = position, (100, 100), button, "mouse_press"


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model with a noise input, for the scale 2."""
    network = a_network(ModelConfig(features=(4, 3), steps=1), scale=2)
    return save_model(network, tmp_path / "small.safetensors", scale=2, guard=8)


@pytest.fixture
def open_widget(viewer: Any, model: Path) -> Callable[[], InspectWidget]:
    """Dock the widget as napari's menu does, and choose the small model."""

    def opened() -> InspectWidget:
        _, widget = viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Inspect (MGBPv2)")
        widget.view.options.model_file_chosen.emit(model)
        return widget

    return opened


def click(viewer: Any, world: Any, *, moved_px: int = 0, button: int = 1) -> None:
    """Press a button and let it go, as napari tells its callbacks of it."""
    event = Event(world, button)
    running = [callback(viewer, event) for callback in viewer.mouse_drag_callbacks if "Inspect" in repr(callback)]
    for kind in ("mouse_press", *(["mouse_move"] if moved_px else []), "mouse_release"):
        event.type = kind
        if kind != "mouse_press":
            event.pos = (100 + moved_px, 100)
        for each in running:
            next(each, None)


def settle(widget: InspectWidget, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not widget.is_running, timeout=WAIT)


def pick(viewer: Any, widget: InspectWidget, qtbot: Any, *places: Any) -> list[Any]:
    """Click places of the world one after the other, wait, and give the layers of filters that there are then."""
    widget.view.pick.setChecked(True)
    for world in places:
        click(viewer, world)
    settle(widget, qtbot)
    return filters(viewer)


def filters(viewer: Any) -> list[Any]:
    return [layer for layer in viewer.layers if layer.name.endswith("(filter)")]


def middle_of(layer: Any) -> np.ndarray:
    """World position of the centre of gravity of what a layer shows."""
    weights = np.abs(np.asarray(layer.data))
    places = np.indices(weights.shape).reshape(weights.ndim, -1)
    return np.array(layer.data_to_world(tuple(places @ weights.ravel() / weights.sum())))


class TestClicking:
    @pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
    @pytest.mark.parametrize("kind", Kind)
    def test_the_filter_lies_on_the_pixel_that_was_clicked(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any, place: dict[str, Any], kind: Kind
    ) -> None:
        source = viewer.add_image(an_image(30, 40), name="cells", **place)
        widget = open_widget()
        view = widget.view
        view.kind.setCurrentIndex(view.kind.findData(kind))
        at = source.data_to_world((12.2, 20.2))
        [shown] = pick(viewer, widget, qtbot, at)
        pixel = np.array([12, 20]) if kind is Kind.COLUMN else np.array([25, 41])
        found = deep_filter(
            mgbp.load_model(view.options.choices().model),
            source.data,
            pixel,
            impulse="target" if kind is Kind.TARGET_COLUMN else "source",
            reverse=kind is Kind.ROW,
        )
        np.testing.assert_allclose(np.asarray(shown.data), found.filter[..., 0], atol=1e-6)
        # the first pixel of the filter, in pixels of the source
        first = (np.array(found.offset) + 0.5) / found.factor - 0.5
        np.testing.assert_allclose(shown.data_to_world((0, 0)), source.data_to_world(first), atol=1e-9)
        one_pixel = np.linalg.norm(np.array(source.data_to_world((13.2, 21.2))) - at)
        assert np.linalg.norm(middle_of(shown) - at) < 3 * one_pixel
        assert shown.units == source.units

    def test_it_diverges_from_a_transparent_zero(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        source = viewer.add_image(an_image(30, 40))
        widget = open_widget()
        [shown] = pick(viewer, widget, qtbot, (12, 20))
        low, high = shown.contrast_limits
        assert low == -high == pytest.approx(-np.abs(shown.data).max())
        negative, zero, positive = (shown.colormap.map(np.array([value]))[0] for value in (0.0, 0.5, 1.0))
        assert zero[3] == 0
        assert negative[2] > negative[0]
        assert positive[0] > positive[2]
        assert viewer.layers.selection.active == source

    def test_its_size_and_strength_are_read_out(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        source = viewer.add_image(an_image(30, 40))
        widget = open_widget()
        widget.view.pick.click()
        click(viewer, (12, 20))
        settle(widget, qtbot)
        found = deep_filter(mgbp.load_model(widget.view.options.choices().model), source.data, (12, 20))
        said = widget.view.found.text()
        height, width = found.size
        for part in ("(12, 20)", f"{height} x {width} px", f"peak {found.peak:.3g}", f"gain {found.gain:.3f}"):
            assert part in said

    def test_the_next_click_replaces_the_filter(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(30, 40))
        widget = open_widget()
        [shown] = pick(viewer, widget, qtbot, (12, 20), (5, 6), (8, 9))
        assert shown.metadata["mgbpv2"]["position"] == (8, 9)

    def test_a_hand_that_trembles_still_clicks(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(30, 40))
        widget = open_widget()
        widget.view.pick.click()
        click(viewer, (12, 20), moved_px=2)
        settle(widget, qtbot)
        assert filters(viewer)

    @pytest.mark.parametrize("options", [{"moved_px": 30}, {"button": 2}], ids=str)
    def test_a_drag_and_another_button_are_left_to_napari(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], options: dict[str, Any]
    ) -> None:
        viewer.add_image(an_image(30, 40))
        widget = open_widget()
        widget.view.pick.click()
        click(viewer, (12, 20), **options)
        assert not widget.is_running

    def test_without_the_toggle_nothing_happens(self, viewer: Any, open_widget: Callable[[], InspectWidget]) -> None:
        viewer.add_image(an_image(30, 40))
        widget = open_widget()
        before = len(viewer.mouse_drag_callbacks)
        widget.view.pick.click()
        assert len(viewer.mouse_drag_callbacks) == before + 1
        widget.view.pick.click()
        assert len(viewer.mouse_drag_callbacks) == before

    def test_a_click_beside_the_image_is_said_in_a_sentence(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(30, 40))
        widget = open_widget()
        assert pick(viewer, widget, qtbot, (-3, 20)) == []
        assert widget.view.progress.said == "There is no pixel of the image there; click inside it."

    @pytest.mark.parametrize(
        ("shape", "options", "at"),
        [
            ((30, 40, 3), {"rgb": True}, (12, 20)),
            ((4, 30, 40), {}, (2, 12, 20)),
            ((2, 4, 30, 40), {"axis_labels": ("c", "z", "y", "x")}, (1, 2, 12, 20)),
            ((40, 30, 5), {"axis_labels": ("x", "y", "z")}, (20, 12, 3)),
        ],
    )
    def test_layers_of_every_kind_are_inspected(
        self,
        viewer: Any,
        open_widget: Callable[[], InspectWidget],
        qtbot: Any,
        shape: tuple[int, ...],
        options: dict[str, Any],
        at: tuple[int, ...],
    ) -> None:
        source = viewer.add_image(an_image(*shape), **options)
        widget = open_widget()
        [shown] = pick(viewer, widget, qtbot, source.data_to_world(at))
        assert shown.ndim == source.ndim
        assert np.linalg.norm(middle_of(shown) - np.array(source.data_to_world(at))) < 2

    def test_a_lazy_layer_is_read_around_the_pixel_only(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        counted = CountingSource(an_image(4000, 4000))
        lazy = da.from_array(counted, chunks=100, meta=np.empty((0, 0), "u1"))
        viewer.add_image([lazy, np.zeros((500, 500), "u1")], multiscale=True, contrast_limits=(0, 255))
        widget = open_widget()
        counted.windows.clear()
        assert pick(viewer, widget, qtbot, (2000, 3000))
        assert 0 < counted.pixels_read <= 4 * 100**2

    def test_closing_the_widget_leaves_no_callback(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(30, 40))
        before = len(viewer.mouse_drag_callbacks)
        widget = open_widget()
        widget.view.pick.click()
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
        qtbot.waitUntil(lambda: len(viewer.mouse_drag_callbacks) == before, timeout=WAIT)


def test_a_real_click_on_the_canvas_finds_its_pixel(
    make_napari_viewer: Callable[..., Any], model: Path, qtbot: Any
) -> None:
    """From the mouse on a window to the filter in its place."""
    viewer = make_napari_viewer(show=True)
    source = viewer.add_image(an_image(30, 40), scale=(2, 5), rotate=30)
    _, widget = viewer.window.add_plugin_dock_widget("napari-mgbpv2", "Inspect (MGBPv2)")
    widget.view.options.model_file_chosen.emit(model)
    widget.view.pick.click()
    at = np.array(source.data_to_world((12, 20)))
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, *at), 20
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.wait(200)
    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    qtbot.mouseMove(canvas, middle)
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=middle)
    qtbot.waitUntil(lambda: bool(filters(viewer)), timeout=WAIT)
    [shown] = filters(viewer)
    assert shown.metadata["mgbpv2"]["position"] == (12, 20)
    found = deep_filter(mgbp.load_model(model), source.data, (12, 20))
    first = (np.array(found.offset) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(shown.data_to_world((0, 0)), source.data_to_world(first), atol=1e-9)


class TestMaps:
    @pytest.mark.parametrize("options", [{}, {"rgb": True}], ids=["grey", "colour"])
    def test_the_consistency_map_is_filled_where_one_looks(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any, options: dict[str, Any]
    ) -> None:
        image = an_image(60, 70, 3) if options else an_image(60, 70)
        source = viewer.add_image(image, scale=(0.5, 0.2), **options)
        widget = open_widget()
        widget.view.consistency.click()
        settle(widget, qtbot)
        [shown] = widget.maps
        np.asarray(shown.layer.data[0][:, :])
        qtbot.waitUntil(lambda: shown.feed.is_idle, timeout=WAIT)
        expected = consistency_map(
            mgbp.load_model(widget.view.options.choices().model), image, axes="yxs" if options else "yx"
        ).compute()
        np.testing.assert_allclose(
            np.asarray(shown.layer.data[0][:, :]), expected.mean(axis=2) if options else expected, rtol=1e-5
        )
        for end in ((-0.5, -0.5), (59.5, 69.5)):
            np.testing.assert_allclose(shown.layer.data_to_world(end), source.data_to_world(end), atol=1e-9)

    def test_the_hallucination_maps_are_filled_where_one_looks(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        image = an_image(40, 50)
        source = viewer.add_image(image, scale=(0.5, 0.2))
        widget = open_widget()
        widget.view.draws.setValue(3)
        widget.view.hallucination.click()
        settle(widget, qtbot)
        expected = hallucination_map(mgbp.load_model(widget.view.options.choices().model), image, samples=3)
        assert len(widget.maps) == 2
        for shown, each in zip(widget.maps, (expected.spread, expected.difference), strict=True):
            np.asarray(shown.layer.data[0][:, :])
            qtbot.waitUntil(lambda shown=shown: shown.feed.is_idle, timeout=WAIT)
            np.testing.assert_allclose(np.asarray(shown.layer.data[0][:, :]), each.compute(), atol=1e-3)
            end = (79.5, 99.5)
            np.testing.assert_allclose(shown.layer.data_to_world(end), source.data_to_world((39.5, 49.5)), atol=1e-9)

    def test_the_difference_has_symmetric_limits_that_follow_its_values(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(40, 50))
        widget = open_widget()
        widget.view.hallucination.click()
        settle(widget, qtbot)
        layer = widget.maps[1].layer
        before = list(layer.contrast_limits)
        np.asarray(layer.data[0][:, :])
        qtbot.waitUntil(lambda: list(layer.contrast_limits) != before, timeout=WAIT)
        assert layer.contrast_limits[0] == -layer.contrast_limits[1]

    def test_a_model_without_noise_offers_no_hallucination_maps(
        self, viewer: Any, open_widget: Callable[[], InspectWidget]
    ) -> None:
        viewer.add_image(an_image(40, 50))
        view = open_widget().view
        assert view.hallucination.isEnabled()
        view.options.choose_model(next(card.path for card in mgbp.list_models() if card.name == "x4"))
        assert not view.hallucination.isEnabled()
        assert "no noise input" in view.hallucination.toolTip()
        assert view.consistency.isEnabled()

    def test_a_hidden_map_of_a_large_layer_computes_nothing(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        full = da.random.randint(0, 255, (40_000, 40_000), chunks=1000, dtype="u1")
        viewer.add_image([full, an_image(2500, 2500)], multiscale=True, contrast_limits=(0, 255))
        widget = open_widget()
        widget.view.consistency.click()
        settle(widget, qtbot)
        [shown] = widget.maps
        assert shown.layer.data[0].shape == (40_000, 40_000)
        np.asarray(shown.layer.data[0][:1000, :1000])
        assert shown.feed._wanted
        shown.layer.visible = False
        assert not shown.feed._wanted

    def test_removing_the_layer_ends_its_work(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(60, 50))
        widget = open_widget()
        widget.view.consistency.click()
        settle(widget, qtbot)
        [shown] = widget.maps
        viewer.layers.remove(shown.layer)
        assert shown.feed.is_closed
        assert widget.maps == []


class TestChoices:
    def test_without_a_layer_there_is_nothing_to_press(self, open_widget: Callable[[], InspectWidget]) -> None:
        view = open_widget().view
        assert not any(each.isEnabled() for each in (view.pick, view.consistency, view.hallucination))

    def test_its_own_layers_are_not_offered(
        self, viewer: Any, open_widget: Callable[[], InspectWidget], qtbot: Any
    ) -> None:
        viewer.add_image(an_image(30, 40), name="cells")
        viewer.add_image(an_image(30, 40), name="other")
        widget = open_widget()
        widget.view.layers.setCurrentIndex(0)
        assert pick(viewer, widget, qtbot, (12, 20))
        widget.view.consistency.click()
        settle(widget, qtbot)
        assert len(viewer.layers) == 4
        view = widget.view
        assert [view.layers.itemText(number) for number in range(view.layers.count())] == ["cells", "other"]
        assert view.layers.currentText() == "cells"
