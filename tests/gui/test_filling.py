"""The pyramid that fills itself: what is shown at once, what is made later, and what never is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from examples import a_network, an_image
from napari_mgbpv2.imaging.axes import guess_axes
from napari_mgbpv2.plugin.filling import Pyramid, fill
from napari_mgbpv2.plugin.filling.coarse_level import ThumbnailLevel
from napari_mgbpv2.plugin.filling.feed import Feed
from napari_mgbpv2.plugin.filling.upscaled_level import bicubic
from napari_mgbpv2.plugin.layer_image import LayerImage, read_layer
from napari_mgbpv2.tiling.grid import Span
from napari_mgbpv2.upscaling import plan_upscale
from napari_mgbpv2.upscaling.options import UpscaleOptions


def wait_until(happens: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.005)


def raise_it(error: Exception) -> None:
    raise error


def a_pyramid(data: Any, *, cache_bytes: int = 2**28, failed: Any = raise_it, **options: Any) -> Pyramid:
    image = LayerImage(data, (), guess_axes(data.shape), None, "an image")
    options = {"model": a_network(scale=4, guard=16), "tile": 97} | options
    plan = plan_upscale(image.data, UpscaleOptions(axes=image.axes, **options))
    return fill(image, plan, cache_bytes=cache_bytes, changed=lambda: None, failed=failed)


def tiles_run(pyramid: Pyramid) -> list[Any]:
    """Make the network's tiles count; returns the list that grows with each run."""
    runs: list[Any] = []
    exact = pyramid.finest._filling.exact
    compute = exact.compute_tile
    exact.compute_tile = lambda *tile: runs.append(tile) or compute(*tile)
    return runs


class TestFeed:
    @pytest.fixture
    def gate(self) -> threading.Event:
        return threading.Event()

    def test_what_is_missing_is_made_and_told(self) -> None:
        told = threading.Event()
        feed = Feed(2**20, told.set, raise_it)
        feed.want("a", [1], lambda part: np.full(3, part))
        assert told.wait(5)
        np.testing.assert_array_equal(feed.get("a", 1), [1, 1, 1])

    def test_the_newest_request_goes_first_and_stale_ones_are_dropped(self, gate: threading.Event) -> None:
        made: list[int] = []

        def make(part: int) -> np.ndarray:
            gate.wait(5)
            made.append(part)
            return np.zeros(1)

        feed = Feed(2**20, lambda: None, raise_it)
        feed.want("a", [1, 2, 3], make)
        wait_until(lambda: feed._in_work is not None)
        feed.want("a", [7, 8], make)
        gate.set()
        wait_until(lambda: feed.is_idle)
        assert made == [1, 7, 8]

    def test_what_is_kept_is_bounded(self) -> None:
        feed = Feed(100, lambda: None, raise_it)
        feed.want("a", list(range(5)), lambda part: np.zeros(40, "u1"))
        wait_until(lambda: feed.is_idle)
        assert [part for part in range(5) if feed.get("a", part) is not None] == [3, 4]

    def test_a_closed_feed_makes_nothing_more(self, gate: threading.Event) -> None:
        made: list[int] = []
        feed = Feed(2**20, lambda: None, raise_it)
        feed.want("a", [1, 2, 3], lambda part: made.append(part) or gate.wait(5) or np.zeros(1))
        wait_until(lambda: bool(made))
        feed.close()
        gate.set()
        wait_until(lambda: feed.is_idle)
        assert made == [1]

    def test_a_feed_that_is_closed_says_when_it_is_at_rest(self, gate: threading.Event) -> None:
        made, ended = [], threading.Event()
        feed = Feed(2**20, lambda: None, raise_it, ended.set)
        feed.want("a", [1, 2], lambda part: made.append(part) or gate.wait(5) or np.zeros(1))
        wait_until(lambda: bool(made))
        feed.close()
        assert not ended.is_set()
        gate.set()
        assert ended.wait(5)

    def test_a_failure_is_told_once_and_ends_the_work(self) -> None:
        told: list[Exception] = []
        feed = Feed(2**20, lambda: None, told.append)
        feed.want("a", [1, 2, 3], lambda part: 1 / 0)
        wait_until(lambda: feed.is_idle and bool(told))
        assert [type(error) for error in told] == [ZeroDivisionError]


class TestWhatIsShown:
    def test_cutting_out_a_view_runs_and_reads_nothing(self) -> None:
        source = da.from_array(an_image(60, 50), chunks=20).map_blocks(lambda block: 1 / 0, dtype="u1")
        pyramid = a_pyramid(source)
        assert pyramid.levels[0][:, 10:90][20].shape == (80,)
        assert pyramid.is_idle

    def test_at_first_a_view_is_bicubic(self) -> None:
        pyramid = a_pyramid(an_image(60, 50, 3))
        pyramid.levels[0].share = 0
        view = np.asarray(pyramid.levels[0][30:90, 20:100])
        compute = pyramid.finest.plan.compute_tile
        expected = compute.values.from_unit(bicubic(compute, (), 0, Span(30, 90), Span(20, 100)))
        np.testing.assert_array_equal(view, expected.transpose(1, 2, 0))

    def test_bicubic_is_what_the_network_is_given(self) -> None:
        import torch

        from napari_mgbpv2.imaging.resampling import bicubic_resize

        pixels = an_image(30, 20, dtype="f4")
        compute = plan_upscale(pixels, UpscaleOptions(model=a_network(scale=4))).compute_tile
        expected = bicubic_resize(torch.from_numpy(pixels)[None, None], 120, 80)[0].numpy()
        np.testing.assert_allclose(bicubic(compute, (), 0, Span(0, 120), Span(0, 80)), expected, atol=2e-6)

    @pytest.mark.parametrize("shape", [(60, 50), (60, 50, 3), (3, 40, 50)], ids=str)
    def test_in_the_end_a_view_has_the_very_bits_of_the_result(self, shape: tuple[int, ...]) -> None:
        image = an_image(*shape)
        pyramid = a_pyramid(image)
        window = (
            (slice(0, 2), slice(9, 130), slice(31, 150))[3 - len(shape) :] if shape[-1] != 3 else np.s_[9:130, 5:150]
        )
        np.asarray(pyramid.levels[0][window])
        wait_until(lambda: pyramid.is_idle)
        exact = np.asarray(pyramid.finest.plan.tiled_image()[window])
        np.testing.assert_array_equal(np.asarray(pyramid.levels[0][window]), exact)

    def test_a_half_filled_view_blends_without_a_seam(self) -> None:
        pyramid = a_pyramid(np.full((60, 50), 100, "u1"))
        runs = tiles_run(pyramid)
        np.asarray(pyramid.levels[0][:97, :97])
        wait_until(lambda: pyramid.is_idle)
        pyramid.finest.forget_wishes()
        assert 0 < len(runs) < len(pyramid.finest.plan.layout.grid)
        shown = np.asarray(pyramid.levels[0][:, :])
        assert shown.shape == (240, 200)
        wait_until(lambda: pyramid.is_idle)

    def test_a_view_runs_the_tiles_that_it_touches_and_each_once(self) -> None:
        pyramid = a_pyramid(an_image(60, 50))
        runs = tiles_run(pyramid)
        for _ in range(3):
            np.asarray(pyramid.levels[0][:90, :40])
            wait_until(lambda: pyramid.is_idle)
        touched = {((), 0, *place) for place in pyramid.finest.plan.layout.grid.touching(Span(0, 90), Span(0, 40))}
        assert sorted(runs) == sorted(touched)

    def test_a_view_that_outgrows_the_cache_does_not_run_for_ever(self) -> None:
        pyramid = a_pyramid(an_image(60, 50), cache_bytes=3 * 4 * 97**2)
        runs = tiles_run(pyramid)
        for _ in range(8):
            np.asarray(pyramid.levels[0][:, :])
            wait_until(lambda: pyramid.is_idle)
        assert len(runs) <= 6

    def test_asking_for_all_pixels_gives_the_complete_result(self) -> None:
        pyramid = a_pyramid(an_image(30, 20))
        np.testing.assert_array_equal(np.asarray(pyramid.levels[0]), pyramid.finest.plan.tiled_image()[...])

    @pytest.mark.parametrize("scale", [4, 16])
    @pytest.mark.parametrize("kind", ["NumPy", "Dask"])
    def test_all_pixels_of_any_level_are_exact_before_anything_has_been_looked_at(self, kind: str, scale: int) -> None:
        image = an_image(60, 50) // 2 + 100
        source = da.from_array(image, chunks=20) if kind == "Dask" else image
        pyramid = a_pyramid(source, model=a_network(scale=scale, guard=16), tile=None)
        for level in pyramid.levels[1:]:
            if isinstance(level, ThumbnailLevel):
                level.is_taken = True  # by napari, when the layer was made
            pixels = np.asarray(level)
            assert pixels.shape == level.shape
            assert pixels.min() > 50
        np.testing.assert_array_equal(np.asarray(pyramid.levels[1 if scale == 4 else 2]), image)

    def test_a_plan_is_replaced_at_once_for_those_who_read_meanwhile(self) -> None:
        image = an_image(60, 50)
        pyramid = a_pyramid(image)
        other = plan_upscale(255 - image, UpscaleOptions(axes="yx", model=a_network(scale=4, guard=16), tile=81))
        before = pyramid.finest._filling
        in_between: list[tuple[Any, ...]] = []

        class Watched(Feed):
            def forget_wishes(self, owner: Any) -> None:
                now = pyramid.finest._filling
                in_between.append((now.plan, now.compute, now.blocks.compute, now.shown.layout))

        before.network.__class__ = Watched
        pyramid.finest.use(other)
        assert in_between == [(other, other.compute_tile, other.compute_tile, other.layout)]
        assert before.shown.layout is before.plan.layout  # who has taken the old one keeps all of it

    def test_reading_while_plans_are_replaced_never_mixes_two(self) -> None:
        images = [np.full((60, 50), value, "u1") for value in (60, 200)]
        pyramid = a_pyramid(images[0])
        plans = [
            plan_upscale(image, UpscaleOptions(axes="yx", model=a_network(scale=4, guard=16), tile=tile))
            for image, tile in zip(images, (97, 81), strict=True)
        ]
        pyramid.network.close()  # only bicubic pixels are shown
        stop, errors = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                try:
                    pixels = np.asarray(pyramid.levels[0][:, :])
                    assert pixels.min() == pixels.max()
                except Exception as error:
                    errors.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(200):
            pyramid.finest.use(plans[number % 2])
        stop.set()
        reader.join()
        assert errors == []

    def test_a_source_out_of_memory_is_read_by_the_feed_alone(self) -> None:
        image = an_image(60, 50)
        main = threading.get_ident()
        readers: set[int] = set()

        def read(block: np.ndarray) -> np.ndarray:
            readers.add(threading.get_ident())
            return block

        pyramid = a_pyramid(da.from_array(image, chunks=20).map_blocks(read, dtype="u1", meta=np.empty((0, 0), "u1")))
        for level in pyramid.levels[:-1]:
            np.asarray(level[:, :])
        wait_until(lambda: pyramid.is_idle)
        assert readers
        assert main not in readers
        np.testing.assert_array_equal(np.asarray(pyramid.levels[1][5:40, 3:]), image[5:40, 3:])

    def test_reading_a_dask_source_leaves_napari_s_cache_alone(self) -> None:
        from dask.callbacks import Callback

        seen: list[Any] = []
        pyramid = a_pyramid(~da.from_array(an_image(60, 50), chunks=20))
        with Callback(pretask=lambda *task: seen.append(task)):
            np.asarray(pyramid.levels[0][:90, :90])
            wait_until(lambda: pyramid.is_idle)
        assert seen == []

    def test_coarser_levels_are_means_of_the_source(self) -> None:
        image = an_image(2500, 1100)
        pyramid = a_pyramid(da.from_array(image, chunks=512))
        level = pyramid.levels[2]
        np.asarray(level[:, :])
        wait_until(lambda: pyramid.is_idle)
        expected = image.reshape(1250, 2, 550, 2).mean(axis=(1, 3))
        assert np.abs(np.asarray(level[:, :]).astype(float) - expected).max() <= 0.5

    def test_levels_of_a_large_scale_are_at_most_four_times_apart(self) -> None:
        pyramid = a_pyramid(an_image(60, 50), model=a_network(scale=16, guard=16))
        assert [level.shape[0] for level in pyramid.levels] == [960, 240, 60]

    def test_a_pyramid_keeps_its_own_coarser_levels(self) -> None:
        levels = [an_image(64, 64), an_image(32, 32)]
        image = read_layer(Image(levels, multiscale=True))
        plan = plan_upscale(image.data, UpscaleOptions(model=a_network(scale=4)))
        pyramid = fill(image, plan, cache_bytes=2**20, changed=lambda: None, failed=raise_it)
        assert [level.shape for level in pyramid.levels] == [(256, 256), (64, 64), (32, 32)]
        assert pyramid.levels[2] is levels[1]


class TestInAViewer:
    """A viewer without a window: which levels napari reads, and when."""

    def added(self, pyramid: Pyramid, **options: Any) -> tuple[ViewerModel, Image]:
        viewer = ViewerModel()
        layer = viewer.add_image(
            list(pyramid.levels), multiscale=True, contrast_limits=(0, 255), cache=False, **options
        )
        return viewer, layer

    @pytest.mark.parametrize("kind", ["NumPy", "Dask", "stack"])
    def test_adding_the_layer_runs_no_tile(self, kind: str) -> None:
        image = an_image(3, 40, 50) if kind == "stack" else an_image(60, 50)
        pyramid = a_pyramid(da.from_array(image) if kind == "Dask" else image)
        runs = tiles_run(pyramid)
        self.added(pyramid)
        wait_until(lambda: pyramid.is_idle)
        assert runs == []

    def test_of_a_stack_only_the_plane_that_is_looked_at_is_run(self) -> None:
        pyramid = a_pyramid(an_image(3, 40, 50))
        runs = tiles_run(pyramid)
        viewer, layer = self.added(pyramid)
        viewer.dims.set_point(0, 2)
        layer._update_draw(1.0, np.array([[0, 0], [100, 100]]), (90, 90))
        wait_until(lambda: pyramid.is_idle)
        assert {plane for plane, *_ in runs} == {(2,)}

    def test_a_gigapixel_source_is_added_at_once_and_a_view_runs_only_its_tiles(self) -> None:
        source = da.random.randint(0, 255, (40_000, 40_000), chunks=4000, dtype="u1")
        began = time.monotonic()
        pyramid = a_pyramid(source, tile=None)
        runs = tiles_run(pyramid)
        _, layer = self.added(pyramid)
        assert time.monotonic() - began < 2
        assert runs == []
        layer._update_draw(1.0, np.array([[80_000, 80_000], [80_500, 80_500]]), (400, 400))
        wait_until(lambda: pyramid.is_idle, 60)
        touched = list(pyramid.finest.plan.layout.grid.touching(*2 * [Span(80_000, 80_501)]))
        assert len(runs) == len(touched) <= 4
