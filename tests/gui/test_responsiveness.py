"""A window on the screen: its thread never waits for the network, and the result lies where its source lies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.settings import get_settings
from qtpy.QtCore import QTimer
from user import User

from examples import an_image
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling import TileUpscaler

TILE_SECONDS = 1.5
ALLOWANCE = 0.5  # of a second, for a machine that is busy with other things


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1100, 700)
    return viewer


@pytest.fixture
def tiles_run(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the network has computed since: (plane, group, row, column) of each tile."""
    runs: list[Any] = []
    compute = TileUpscaler.__call__
    monkeypatch.setattr(TileUpscaler, "__call__", lambda self, *tile: runs.append(tile) or compute(self, *tile))
    return runs


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


def pan(user: User, size: int) -> float:
    """Zoom in and wander about; returns the longest pause of the GUI's thread in seconds."""
    camera = user.viewer.scene.camera
    camera.zoom = 3
    user.waits(200)
    heart = Heart()
    for step in range(20):
        camera.center = (0, size * (0.2 + 0.03 * step), size * (0.8 - 0.03 * step))
        user.waits()
    return heart.stop()


class TestResponsiveness:
    def test_panning_does_not_wait_for_tiles(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        user.viewer.add_image(an_image(800, 800, 3), rgb=True)
        without = pan(user, 800)
        filled = user.adds_layer()
        compute = TileUpscaler.__call__
        monkeypatch.setattr(
            TileUpscaler, "__call__", lambda self, *tile: time.sleep(TILE_SECONDS) or compute(self, *tile)
        )
        longest = pan(user, 800)
        was_at_work = not filled.pyramid.network.is_idle
        filled.remove()
        assert was_at_work
        assert longest < without + ALLOWANCE < TILE_SECONDS + without


class TestHugeSources:
    def test_a_lazily_generated_gigapixel_is_added_at_once_and_a_view_runs_only_its_tiles(
        self, user: User, tiles_run: list[Any]
    ) -> None:
        full = da.random.randint(0, 255, (40_000, 40_000), chunks=4000, dtype="u1")
        user.viewer.add_image([full, an_image(2500, 2500)], multiscale=True, contrast_limits=(0, 255))
        assert "160,000 x 160,000 px" in user.view.estimate.text()
        tiles_run.clear()  # of the estimate

        began = time.monotonic()
        filled = user.adds_layer()
        assert time.monotonic() - began < 2
        user.waits(300)
        assert filled.pyramid.network.is_idle
        assert tiles_run == []

        user.viewer.scene.camera.zoom = 6
        user.waits_until(lambda: bool(tiles_run) and filled.pyramid.is_idle)
        corners = np.asarray(filled.layer.corner_pixels)
        rows, columns = (Span(corners[0, axis], corners[1, axis] + 1) for axis in (0, 1))
        assert sorted(tiles_run) == [((), 0, *place) for place in filled.plan.layout.grid.touching(rows, columns)]


class TestWhatIsSeen:
    def test_the_upscaled_sample_lies_on_its_source(self, user: User) -> None:
        [source] = user.viewer.open_sample("napari-mgbpv2", "astronaut")
        source.scale, source.rotate, source.translate = (0.5, 0.5), 20, (3, 4)
        filled = user.adds_layer()
        user.viewer.scene.camera.zoom = 8
        user.viewer.scene.camera.center = (0, *source.data_to_world((70, 100)))
        user.waits(300)
        user.waits_until(lambda: filled.pyramid.is_idle)
        user.waits(300)
        assert filled.layer.data_level == 0
        seen = user.viewer.screenshot(canvas_only=True, flash=False)[..., :3]
        filled.layer.visible, source.visible = False, True
        below = user.viewer.screenshot(canvas_only=True, flash=False)[..., :3]
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
        self, slicing_in_a_thread: None, user: User
    ) -> None:
        user.viewer.add_image(an_image(60, 50))
        filled = user.adds_layer()
        user.viewer.scene.camera.zoom = 10
        user.waits_until(lambda: filled.pyramid.finest.tile(((), 0, 0, 0)) is not None)
        user.waits(500)
        assert filled.layer.data_level == 0
