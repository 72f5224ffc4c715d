"""The thread of the GUI never waits for the network, and the result lies where its source lies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from napari.settings import get_settings
from qtpy.QtCore import QTimer

from examples import an_image
from napari_mgbpv2.plugin.layer_image import read_layer
from napari_mgbpv2.plugin.sample_data import astronaut
from napari_mgbpv2.plugin.upscaling.showing import FilledLayer
from napari_mgbpv2.upscaling import UpscalePlan, plan_upscale

TILE_SECONDS = 1.5
ALLOWANCE = 0.5  # of a second, for a machine that is busy with other things


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(900, 700)
    return viewer


class Heart:
    """Beats in the GUI's thread as often as it can; remembers the longest pause."""

    def __init__(self) -> None:
        self.longest, self._last = 0.0, time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._beat)
        self._timer.start(0)

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now

    def stop(self) -> float:
        self._timer.stop()
        return self.longest


def pan(viewer: Any, qtbot: Any, size: int) -> float:
    """Zoom in and wander about; returns the longest pause of the GUI's thread in seconds."""
    viewer.scene.camera.zoom = 3
    qtbot.wait(200)
    heart = Heart()
    for step in range(20):
        viewer.scene.camera.center = (0, size * (0.2 + 0.03 * step), size * (0.8 - 0.03 * step))
        qtbot.wait(50)
    return heart.stop()


def slowed_down(plan: UpscalePlan) -> UpscalePlan:
    """A plan whose tiles take their time."""
    compute = plan.compute_tile

    class Slow(type(compute)):
        def __call__(self, *tile: Any) -> Any:
            time.sleep(TILE_SECONDS)
            return super().__call__(*tile)

    return replace(plan, compute_tile=Slow(**vars(compute)))


class TestResponsiveness:
    def test_panning_does_not_wait_for_tiles(self, viewer: Any, qtbot: Any) -> None:
        source = viewer.add_image(an_image(800, 800, 3), rgb=True)
        without = pan(viewer, qtbot, 800)
        image = read_layer(source)
        plan = slowed_down(plan_upscale(image.data, 4, axes=image.axes))
        filled = FilledLayer(viewer, source, image, plan, name="result", cache_bytes=2**28)
        longest = pan(viewer, qtbot, 800)
        was_at_work = not filled.pyramid.network.is_idle
        viewer.layers.remove(filled.layer)
        assert was_at_work
        assert longest < without + ALLOWANCE < TILE_SECONDS + without


class TestWhatIsSeen:
    def test_the_result_lies_on_its_source(self, viewer: Any, qtbot: Any) -> None:
        [(pixels, options, _)] = astronaut()
        source = viewer.add_image(pixels, scale=(0.5, 0.5), rotate=20, translate=(3, 4), **options)
        image = read_layer(source)
        plan = plan_upscale(image.data, 4, axes=image.axes)
        filled = FilledLayer(viewer, source, image, plan, name="result", cache_bytes=2**28)
        viewer.scene.camera.zoom = 8
        viewer.scene.camera.center = (0, *source.data_to_world((70, 100)))
        qtbot.wait(300)
        qtbot.waitUntil(lambda: filled.pyramid.is_idle, timeout=60_000)
        qtbot.wait(300)
        assert filled.layer.data_level == 0
        seen = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
        filled.layer.visible = False
        below = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
        assert not np.array_equal(seen, below)
        assert np.corrcoef(seen.ravel(), below.ravel())[0, 1] > 0.98


class TestAsynchronousSlicing:
    @pytest.fixture
    def slicing_in_a_thread(self) -> Iterator[None]:
        settings = get_settings().experimental
        before, settings.async_ = settings.async_, True
        yield
        settings.async_ = before

    def test_the_layer_is_filled_as_well_where_napari_slices_in_a_thread(
        self, slicing_in_a_thread: None, viewer: Any, qtbot: Any
    ) -> None:
        source = viewer.add_image(an_image(60, 50))
        image = read_layer(source)
        plan = plan_upscale(image.data, 4, axes=image.axes)
        filled = FilledLayer(viewer, source, image, plan, name="result", cache_bytes=2**28)
        viewer.scene.camera.zoom = 10
        qtbot.waitUntil(lambda: filled.pyramid.finest.tile(((), 0, 0, 0)) is not None, timeout=60_000)
        qtbot.wait(500)
        assert filled.layer.data_level == 0
