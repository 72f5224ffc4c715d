"""What `upscale` promises: lazy, once, one answer, no seams, values kept, any axes."""

from __future__ import annotations

import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import torch
import xarray
import zarr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

import napari_mgbpv2 as mgbp
from examples import TINY, Array, CountingSource, a_network, an_image, counted_image, untiled
from napari_mgbpv2.errors import DeviceError, ImageError, MGBPv2Error, ModelError, SourceError, TilingError
from napari_mgbpv2.imaging.resampling import bicubic_resize
from napari_mgbpv2.io.readers import open_source
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.runtime.inference import InferenceNetwork
from napari_mgbpv2.upscaling import image_and_axes, plan_upscale
from napari_mgbpv2.upscaling.lazy import as_dask
from napari_mgbpv2.upscaling.options import UpscaleOptions
from napari_mgbpv2.upscaling.ranges import sampled_extremes

NETWORK = a_network()
NOISELESS = a_network(ModelConfig(features=(6, 5, 4), noise_channels=0, bias=False))


class TestLazy:
    """Promise 2."""

    def test_building_reads_nothing(self) -> None:
        source = CountingSource(an_image(200, 300))
        mgbp.upscale(source, model=NETWORK)
        assert source.windows == []

    def test_one_chunk_reads_only_the_pixels_around_it(self) -> None:
        source = CountingSource(an_image(1000, 1000))
        result = mgbp.upscale(source, model=NETWORK, tile=200)
        np.asarray(result[2000:2010, 2000:2010])
        assert source.pixels_read <= 4 * (200 // 4 + 5) ** 2
        for window in source.windows:
            assert all(440 < part.start < part.stop < 560 for part in window)

    def test_one_chunk_runs_only_the_tiles_that_it_needs(self) -> None:
        image, tiles = counted_image(plan_upscale(an_image(500, 500), UpscaleOptions(model=NETWORK, tile=300)))
        image[1000:1001, 1000:1001]
        assert 1 <= len(tiles.runs) <= 4

    def test_planes_that_are_not_asked_for_are_not_read(self) -> None:
        source = CountingSource(an_image(7, 40, 40))
        np.asarray(mgbp.upscale(source, model=NETWORK)[3])
        assert all(window[0] == slice(3, 4) for window in source.windows)
        assert source.windows

    def test_the_graph_is_one_layer_over_one_object(self) -> None:
        result = mgbp.upscale(an_image(3000, 3000), model=NETWORK)
        assert len(result.__dask_graph__().layers) <= 2

    def test_the_graph_of_a_model_file_holds_no_weights(self) -> None:
        plan = plan_upscale(da.zeros((4096, 4096), dtype="u1"), UpscaleOptions(model="x4"))
        assert len(pickle.dumps(plan.tiled_image())) < 20_000

    def test_building_over_65536_chunks_takes_little_memory(self) -> None:
        source = da.zeros((65_536, 65_536), chunks=256, dtype="u1")
        mgbp.upscale(source, model="x4")  # what is loaded once
        tracemalloc.start()
        result = mgbp.upscale(source, model="x4")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert result.shape == (262_144, 262_144)
        assert peak < 200 * 2**20

    def test_a_pickled_image_gives_the_same(self) -> None:
        image = plan_upscale(an_image(50, 60), UpscaleOptions(model=NETWORK)).tiled_image()
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(image))[...], image[...])


class TestOnce:
    """Promise 3."""

    def test_a_threaded_compute_runs_each_tile_once(self) -> None:
        plan = plan_upscale(an_image(300, 400, 3), UpscaleOptions(model=NETWORK, tile=300))
        image, tiles = counted_image(plan)
        with dask.config.set(scheduler="threads", num_workers=4):
            as_dask(image, chunk=256).compute()
        assert set(tiles.runs.values()) == {1}
        assert len(tiles.runs) == plan.layout.tiles > 20

    def test_threads_that_ask_for_one_region_run_its_tiles_once(self) -> None:
        image, tiles = counted_image(plan_upscale(an_image(100, 100), UpscaleOptions(model=NETWORK, tile=300)))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: image[0:400, 0:400], range(8)))
        assert set(tiles.runs.values()) == {1}

    def test_a_cache_of_nothing_changes_no_pixel(self) -> None:
        plan = plan_upscale(an_image(120, 130), UpscaleOptions(model=NETWORK, tile=200))
        np.testing.assert_array_equal(
            as_dask(plan.tiled_image(cache_bytes=0), chunk=100).compute(), plan.tiled_image()[...]
        )


def chunkings(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Ways to cut an axis into chunks."""
    cuts = st.lists(st.integers(1, max(1, size - 1)), max_size=4, unique=True)
    return cuts.map(lambda at: tuple(np.diff(sorted({0, size, *at})).tolist()))

    def test_a_network_in_memory_is_prepared_once_whoever_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prepared: list[int] = []
        make = InferenceNetwork.__init__

        def noted(self: InferenceNetwork, *arguments: Any, **options: Any) -> None:
            prepared.append(1)
            make(self, *arguments, **options)

        monkeypatch.setattr(InferenceNetwork, "__init__", noted)
        image = mgbp.upscale(an_image(80, 80, 3), model=a_network(guard=16), tile=100)
        image.compute(scheduler="threads", num_workers=8)
        assert len(prepared) == 1


class TestOneAnswer:
    """Promise 4."""

    @given(data=st.data())
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_chunks_schedulers_and_order_change_no_byte(self, data: st.DataObject) -> None:
        height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
        samples = data.draw(st.sampled_from([(), (3,)]))
        tile = data.draw(st.integers(TINY.smallest, 220))
        guard = data.draw(st.integers(0, 40))
        overlap = data.draw(st.none() | st.integers(0, 120))
        window = data.draw(st.sampled_from(["hamming", "triangle", "flat"]))
        options: dict[str, Any] = {
            "model": NETWORK,
            "tile": tile,
            "guard": guard,
            "overlap": overlap,
            "window": window,
            "axes": "yxs"[: 2 + len(samples)],
            "noise": data.draw(st.sampled_from([0.0, 0.7])),
            "seed": data.draw(st.integers(0, 5)),
        }
        image = an_image(height, width, *samples)
        try:
            eager = plan_upscale(image, UpscaleOptions(**options)).tiled_image()[...]
        except TilingError:
            assume(False)
        chunks = (data.draw(chunkings(height)), data.draw(chunkings(width)), *((size,) for size in samples))
        plan = plan_upscale(da.from_array(image, chunks=chunks), UpscaleOptions(**options))
        lazy = as_dask(plan.tiled_image(), chunk=data.draw(st.integers(17, 400)))
        with dask.config.set(scheduler=data.draw(st.sampled_from(["synchronous", "threads"])), num_workers=4):
            result = lazy.compute()
        assert result.tobytes() == eager.tobytes()
        rows = sorted(data.draw(st.tuples(st.integers(0, 4 * height), st.integers(0, 4 * height))))
        assert lazy[slice(*rows), ::3].compute().tobytes() == eager[slice(*rows), ::3].tobytes()

    @pytest.mark.slow
    def test_workers_of_a_cluster_give_the_bytes_of_one_process(self) -> None:
        from distributed import Client, LocalCluster

        image = an_image(150, 130, 3)
        eager = np.asarray(mgbp.upscale(image, model="x4", tile=300))
        with (
            LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
            Client(cluster),
        ):
            plan = plan_upscale(da.from_array(image, chunks=50), UpscaleOptions(model="x4", tile=300))
            assert as_dask(plan.tiled_image(), chunk=130).compute().tobytes() == eager.tobytes()

    def test_another_seed_is_another_answer(self) -> None:
        image = an_image(40, 40, dtype="f4")
        one, other = (np.asarray(mgbp.upscale(image, model=NETWORK, noise=1.0, seed=seed)) for seed in (1, 2))
        assert np.abs(one - other).max() > 1e-3

    def test_each_plane_and_channel_has_noise_of_its_own(self) -> None:
        image = np.full((2, 2, 40, 40), 0.5, "f4")
        planes = np.asarray(mgbp.upscale(image, model=NETWORK, noise=1.0, axes="zcyx")).reshape(4, 160, 160)
        assert all(np.abs(planes[i] - planes[j]).max() > 1e-3 for i in range(4) for j in range(i))

    def test_chunks_of_the_source_are_computed_once_for_neighbouring_tiles(self) -> None:
        computed: list[int] = []

        def block(pixels: Array) -> Array:
            computed.append(pixels.size)
            return pixels

        source = da.from_array(an_image(128, 128), chunks=32).map_blocks(block, dtype="u1", meta=np.empty((0, 0), "u1"))
        with dask.config.set(scheduler="synchronous"):
            mgbp.upscale(source, model=NETWORK, tile=200).compute()
        assert sum(computed) == 128 * 128


class TestNoSeams:
    """Promise 5: tiled = untiled."""

    @pytest.mark.parametrize("tile", [200, 333, 500])
    def test_the_packaged_model_gives_the_same_in_tiles_of_any_size(self, tile: int) -> None:
        image = an_image(150, 170, 3, dtype="f4")
        tiled = np.asarray(mgbp.upscale(image, model="x4", tile=tile))
        assert np.abs(tiled - untiled(image, model="x4")).max() < 1e-5

    @pytest.mark.parametrize("network", [NETWORK, NOISELESS, a_network(ModelConfig(features=(4, 4, 3, 3), kernel=5))])
    def test_the_structural_guard_makes_any_network_seamless(self, network: mgbp.MGBPv2) -> None:
        image = an_image(190, 160, dtype="f4")
        noise = 0.5 if network.config.noise_channels else 0.0
        tile = network.config.natural_up(2 * network.config.reach + 60)
        tiled = np.asarray(mgbp.upscale(image, model=network, tile=tile, noise=noise))
        whole = untiled(image, model=network, noise=noise)
        assert np.abs(tiled - whole).max() < 1e-5 * np.abs(whole).max()

    def test_without_a_guard_there_are_seams(self) -> None:
        image = an_image(150, 170, 3, dtype="f4")
        tiled = np.asarray(mgbp.upscale(image, model="x4", tile=300, guard=0))
        assert np.abs(tiled - untiled(image, model="x4")).max() > 1e-3

    def test_a_tile_off_the_grid_is_not_what_the_whole_image_gives(self) -> None:
        """The same crop one pixel off differs even in its middle: alignment is not cosmetic."""
        config = NETWORK.config
        size = config.natural_up(300)
        whole = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        side = config.natural_up(2 * config.reach + 20)
        with torch.inference_mode():
            target = NETWORK(whole)
            errors = []
            for start in (16, 17):
                tile = NETWORK(whole[..., start : start + side, start : start + side])
                inner = slice(config.reach, side - config.reach)
                same = target[..., start : start + side, start : start + side]
                errors.append(float((tile - same)[..., inner, inner].abs().max()))
        assert errors[0] < 1e-5 < 1e-2 < errors[1]

    def test_an_ensemble_of_other_kernels_is_seamless_too(self) -> None:
        from napari_mgbpv2.model.network import Ensemble

        configs = [ModelConfig(features=(4, 4, 3), kernel=kernel) for kernel in (3, 5, 7)]
        torch.manual_seed(0)
        ensemble = Ensemble(configs).eval()
        image = an_image(120, 130, dtype="f4")
        tiled = np.asarray(mgbp.upscale(image, 4, model=ensemble, tile=300))
        whole = untiled(image, scale=4, model=ensemble)
        assert np.abs(tiled - whole).max() < 1e-5 * np.abs(whole).max()

    def test_untiled_is_the_network_on_the_bicubic_image(self) -> None:
        image = an_image(37, 41, 3, dtype="f4")
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = NETWORK(bicubic_resize(tensor, 148, 164))[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(untiled(image, model=NETWORK), expected, atol=2e-6 * np.abs(expected).max())


class TestValuesKept:
    """Promise 7."""

    @pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "?"])
    def test_the_type_is_kept(self, dtype: str) -> None:
        image = an_image(20, 20) > 100 if dtype == "?" else an_image(20, 20, dtype=dtype)
        result = mgbp.upscale(image, model=NOISELESS)
        assert result.dtype == result.compute().dtype == image.dtype

    def test_a_16_bit_image_that_uses_little_of_its_range_fares_like_an_8_bit_one(self) -> None:
        eight = an_image(60, 60) // 2 + 40
        sixteen = eight.astype("u2") * 5  # 2 % of the range
        from_eight = np.asarray(mgbp.upscale(eight.astype("f4"), model="x4", value_range=(0, 255)))
        from_sixteen = np.asarray(mgbp.upscale(sixteen, model="x4")) / 5
        # in 8-bit steps: half of the 16-bit result's rounding; what undershoots zero is clipped in that one only
        assert np.abs(from_eight.clip(0) - from_sixteen).max() <= 0.11

    def test_the_value_range_is_a_linear_map(self) -> None:
        image = an_image(30, 30, dtype="f4")
        plain = np.asarray(mgbp.upscale(image, model=NETWORK))
        mapped = np.asarray(mgbp.upscale(image * 300 - 100, model=NETWORK, value_range=(-100, 200)))
        np.testing.assert_allclose(mapped, plain * 300 - 100, atol=1e-3)

    def test_floats_beyond_the_range_are_not_clipped(self) -> None:
        image = np.full((30, 30), 7.0, "f4")
        assert np.asarray(mgbp.upscale(image, model="x4")).max() > 6

    def test_integers_are_clipped_to_their_type(self) -> None:
        image = np.where(an_image(40, 40) > 127, 255, 0).astype("u1")
        result = np.asarray(mgbp.upscale(image, model="x4"))
        assert result[result > 250].size > 0 < result[result < 5].size

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_stays_at_its_place(self, bad: float) -> None:
        image = an_image(60, 60, dtype="f4")
        image[30, 20] = bad
        result = np.asarray(mgbp.upscale(image, model=NETWORK, tile=120))
        expected = np.zeros((240, 240), bool)
        expected[120:124, 80:84] = True
        np.testing.assert_array_equal(~np.isfinite(result), expected)
        np.testing.assert_array_equal(result[expected], np.full(16, bad))

    def test_a_missing_pixel_of_integers_stays_at_its_place_and_spoils_none_near_it(self) -> None:
        class Map:
            """Heights in metres, as a file says that has a value for what is missing."""

            def __init__(self, hole: int) -> None:
                self.nodata = hole
                self.image = an_image(60, 60, dtype="i2") // 40
                self.image[30, 20] = hole
                self.shape, self.dtype = self.image.shape, self.image.dtype

            def __getitem__(self, window: tuple[slice, ...]) -> Array:
                return self.image[window]

        options: dict[str, Any] = {"model": NETWORK, "tile": 120, "value_range": (0, 1000)}
        result, other = (np.asarray(mgbp.upscale(Map(hole), **options)) for hole in (-9999, 32767))
        hole = np.zeros((240, 240), bool)
        hole[120:124, 80:84] = True
        np.testing.assert_array_equal(result[hole], np.full(16, -9999))
        np.testing.assert_array_equal(result[~hole], other[~hole])

    @pytest.mark.parametrize("array", [an_image(30, 30, 3), an_image(30, 30, 3, dtype="f4")])
    def test_the_source_is_left_as_it_is(self, array: Array) -> None:
        before = array.copy()
        np.asarray(mgbp.upscale(array, model=NETWORK))
        np.testing.assert_array_equal(array, before)


class TestAxes:
    """Promise 8."""

    def test_planes_are_upscaled_one_by_one(self) -> None:
        stack = an_image(2, 3, 20, 25, dtype="f4")
        result = np.asarray(mgbp.upscale(stack, model=NETWORK, axes="tzyx"))
        assert result.shape == (2, 3, 80, 100)
        for index in np.ndindex(2, 3):
            np.testing.assert_array_equal(result[index], np.asarray(mgbp.upscale(stack[index], model=NETWORK)))

    def test_independent_channels_do_not_mix(self) -> None:
        image = an_image(3, 30, 30, dtype="f4")
        both = np.asarray(mgbp.upscale(image, model=NETWORK, axes="cyx"))
        image[0] = 0
        np.testing.assert_array_equal(np.asarray(mgbp.upscale(image, model=NETWORK, axes="cyx"))[1:], both[1:])

    def test_colour_samples_go_through_the_network_together(self) -> None:
        image = an_image(30, 30, 3, dtype="f4")
        both = np.asarray(mgbp.upscale(image, model=NETWORK))
        image[..., 0] = 0
        assert np.abs(np.asarray(mgbp.upscale(image, model=NETWORK))[..., 1] - both[..., 1]).max() > 1e-3

    @pytest.mark.parametrize("axes", ["syx", "ysx", "xys", "sxy", "yx", "xy"])
    def test_axes_may_stand_in_any_order(self, axes: str) -> None:
        image = an_image(24, 31, 3, dtype="f4")
        if "s" not in axes:
            image = image[..., 0]
        order = ["yxs".index(axis) for axis in axes]
        expected = np.asarray(mgbp.upscale(image, model=NETWORK, axes="yxs"[: image.ndim])).transpose(order)
        result = np.asarray(mgbp.upscale(np.ascontiguousarray(image.transpose(order)), model=NETWORK, axes=axes))
        np.testing.assert_array_equal(result, expected)

    def test_a_grey_image_is_the_mean_of_three_equal_channels(self) -> None:
        grey = an_image(30, 30, dtype="f4")
        colour = np.asarray(mgbp.upscale(np.stack([grey] * 3, axis=-1), model=NETWORK))
        np.testing.assert_allclose(np.asarray(mgbp.upscale(grey, model=NETWORK)), colour.mean(axis=-1), atol=1e-5)

    def test_alpha_is_upscaled_by_itself(self) -> None:
        image = an_image(30, 30, 4, dtype="f4")
        image[..., 3] = 0.5 + 0.4 * image[..., 3]  # visible everywhere
        result = np.asarray(mgbp.upscale(image, model=NETWORK))
        np.testing.assert_array_equal(result[..., :3], np.asarray(mgbp.upscale(image[..., :3], model=NETWORK)))
        np.testing.assert_array_equal(result[..., 3], np.asarray(mgbp.upscale(image[..., 3], model=NETWORK)))

    def test_a_part_of_the_samples_may_be_asked_for(self) -> None:
        result = mgbp.upscale(an_image(30, 30, 4), model=NETWORK)
        np.testing.assert_array_equal(result[..., 1:].compute(), result.compute()[..., 1:])

    def test_a_network_of_one_channel_takes_every_sample_by_itself(self) -> None:
        network = a_network(ModelConfig(features=(4, 3), channels=1))
        image = an_image(30, 30, 3, dtype="f4")
        result = np.asarray(mgbp.upscale(image, model=network))
        np.testing.assert_array_equal(result[..., 2], np.asarray(mgbp.upscale(image[..., 2], model=network)))

    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2), (5, 5, 3)])
    def test_tiny_images_work(self, shape: tuple[int, ...]) -> None:
        result = np.asarray(mgbp.upscale(an_image(*shape), model="x4"))
        assert result.shape == (4 * shape[0], 4 * shape[1], *shape[2:])

    @pytest.mark.parametrize("scale", [1, 2, 3, 5, 8, 16])
    def test_any_whole_scale_works_with_a_network_that_was_trained_for_it(self, scale: int) -> None:
        image = an_image(40, 33, dtype="f4")
        network = a_network(scale=scale)
        tiled = np.asarray(mgbp.upscale(image, model=network, tile=150))
        assert tiled.shape == (40 * scale, 33 * scale)
        whole = untiled(image, model=network)
        assert np.abs(tiled - whole).max() < 1e-5 * np.abs(whole).max()


class TestInputs:
    """NumPy, Dask, Zarr, tifffile-Zarr and xarray arrays, and everything like them."""

    IMAGE = an_image(60, 50, 3)
    EXPECTED = np.asarray(mgbp.upscale(IMAGE, model=NETWORK))

    def test_a_list_is_an_image(self) -> None:
        assert mgbp.upscale([[0, 1], [2, 3]], model=NETWORK).shape == (8, 8)

    def test_a_zarr_array_is_an_image(self, tmp_path: Path) -> None:
        array = zarr.create_array(tmp_path / "a.zarr", data=self.IMAGE, chunks=(16, 16, 3))
        np.testing.assert_array_equal(mgbp.upscale(array, model=NETWORK).compute(), self.EXPECTED)

    @pytest.mark.parametrize("tiled", [{}, {"tile": (16, 16), "compression": "zlib"}])
    def test_a_tifffile_zarr_store_is_an_image(self, tmp_path: Path, tiled: dict[str, Any]) -> None:
        tifffile.imwrite(tmp_path / "a.tif", self.IMAGE, photometric="rgb", **tiled)
        store = tifffile.imread(tmp_path / "a.tif", aszarr=True)
        np.testing.assert_array_equal(mgbp.upscale(store, model=NETWORK).compute(), self.EXPECTED)
        np.testing.assert_array_equal(
            mgbp.upscale(zarr.open_array(store, mode="r"), model=NETWORK).compute(), self.EXPECTED
        )

    def test_the_names_of_a_zarr_arrays_dimensions_are_its_axes(self, tmp_path: Path) -> None:
        array = zarr.create_array(tmp_path / "a.zarr", data=self.IMAGE, dimension_names=["z", "y", "x"])
        assert mgbp.upscale(array, model=NETWORK).shape == (60, 200, 12)

    def test_a_dask_array_of_several_layers_is_an_image(self) -> None:
        halves = [da.from_array(self.IMAGE[:40], chunks=17), da.from_array(self.IMAGE[40:], chunks=(5, 11, 2))]
        source = (da.concatenate(halves).astype("f4") + 0).astype("u1")
        np.testing.assert_array_equal(mgbp.upscale(source, model=NETWORK).compute(), self.EXPECTED)

    @pytest.mark.parametrize("chunked", [False, True])
    def test_an_xarray_array_names_its_axes(self, chunked: bool) -> None:
        array = xarray.DataArray(self.IMAGE.transpose(2, 0, 1), dims=("channel", "y", "x"))
        result = mgbp.upscale(array.chunk(y=17) if chunked else array, model=NETWORK)
        expected = mgbp.upscale(self.IMAGE.transpose(2, 0, 1), model=NETWORK, axes="cyx")
        np.testing.assert_array_equal(result.compute(), expected.compute())

    @pytest.mark.parametrize("name", ["slice", "band", "sample", "time"])
    def test_a_dimension_whose_name_begins_like_colours_is_not_colours(self, name: str) -> None:
        planes = self.IMAGE.transpose(2, 0, 1)
        result = mgbp.upscale(xarray.DataArray(planes, dims=(name, "y", "x")), model=NETWORK)
        np.testing.assert_array_equal(result.compute(), mgbp.upscale(planes, model=NETWORK, axes="zyx").compute())

    def test_a_dimension_named_rgb_holds_colours(self) -> None:
        result = mgbp.upscale(xarray.DataArray(self.IMAGE, dims=("lat", "lon", "rgb")), model=NETWORK)
        np.testing.assert_array_equal(result.compute(), self.EXPECTED)

    def test_the_names_in_the_attributes_of_a_zarr_array_are_its_axes(self, tmp_path: Path) -> None:
        array = zarr.create_array(tmp_path / "a.zarr", data=self.IMAGE, zarr_format=2)
        array.attrs["_ARRAY_DIMENSIONS"] = ["z", "y", "x"]
        assert mgbp.upscale(array, model=NETWORK).shape == (60, 200, 12)

    @pytest.mark.parametrize("fill_value", [float("nan"), float("inf"), 7.5, -1, 300])
    def test_a_fill_value_that_no_pixel_can_have_hides_none(self, fill_value: float) -> None:
        image = xarray.DataArray(np.full((20, 24), 7, np.uint8), dims=("y", "x"), attrs={"_FillValue": fill_value})
        plain = mgbp.upscale(image.values, model=NETWORK, axes="yx")
        np.testing.assert_array_equal(mgbp.upscale(image, model=NETWORK).compute(), plain.compute())

    @pytest.mark.parametrize("kind", ["zarr", "xarray", "chunked"])
    @pytest.mark.parametrize("dtype", ["i2", "f4"])
    def test_the_fill_value_among_the_attributes_of_an_array_is_missing(
        self, tmp_path: Path, kind: str, dtype: str
    ) -> None:
        image = an_image(40, 30, dtype=dtype)
        image[10:20, 10:20] = -99
        attributes: dict[str, Any] = {"_FillValue": -99}
        array: Any = xarray.DataArray(image, dims=("y", "x"), attrs=attributes)
        array = array.chunk(y=17) if kind == "chunked" else array
        if kind == "zarr":
            array = zarr.create_array(tmp_path / "a.zarr", data=image, attributes=attributes)
        result = mgbp.upscale(array, model=NETWORK, value_range=(0, 255)).compute()
        masked = np.ma.masked_equal(image, -99)
        expected = mgbp.upscale(masked, model=NETWORK, value_range=(0, 255)).compute()
        np.testing.assert_array_equal(result, expected.filled(np.nan if dtype == "f4" else -99))

    @pytest.mark.parametrize("keeps_gradients", [False, True])
    def test_a_torch_tensor_is_an_image(self, keeps_gradients: bool) -> None:
        image = an_image(40, 30, dtype="f4")
        tensor = torch.from_numpy(image).requires_grad_(keeps_gradients)
        expected = mgbp.upscale(image, model=NETWORK).compute()
        np.testing.assert_array_equal(mgbp.upscale(tensor, model=NETWORK).compute(), expected)

    def test_an_object_that_numpy_converts_is_an_image(self) -> None:
        class Camera:
            def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
                return TestInputs.IMAGE

        np.testing.assert_array_equal(mgbp.upscale(Camera(), model=NETWORK).compute(), self.EXPECTED)

    def test_a_pillow_image_is_an_image(self) -> None:
        np.testing.assert_array_equal(mgbp.upscale(Image.fromarray(self.IMAGE), model=NETWORK), self.EXPECTED)

    @pytest.mark.parametrize("mode", ["P", "LA", "1", "I;16", "F", "YCbCr"])
    def test_a_pillow_image_has_the_pixels_of_its_file(self, tmp_path: Path, mode: str) -> None:
        picture = Image.fromarray(self.IMAGE).convert("L" if mode == "I;16" else "RGB").convert(mode)
        picture.save(path := tmp_path / ("a.jpg" if mode == "YCbCr" else "a.tif" if mode == "F" else "a.png"))
        opened = open_source(path)
        image, axes = image_and_axes(Image.open(path), None)
        assert axes == opened.axes
        np.testing.assert_array_equal(image, np.asarray(opened.data))

    def test_a_transparent_colour_of_a_pillow_image_becomes_alpha(self, tmp_path: Path) -> None:
        Image.fromarray(self.IMAGE).quantize(8).save(tmp_path / "a.png", transparency=0)
        image, axes = image_and_axes(Image.open(tmp_path / "a.png"), None)
        assert (axes, image.shape, image[..., 3].min()) == ("yxs", (60, 50, 4), 0)

    def test_unknown_chunks_are_refused(self) -> None:
        source = da.from_array(self.IMAGE[..., 0])
        with pytest.raises(ImageError, match="known size"):
            mgbp.upscale(source[source[:, 0] > 3], model=NETWORK)


class TestModels:
    def test_the_scale_chooses_the_packaged_model(self) -> None:
        assert plan_upscale(an_image(9, 9, 3), UpscaleOptions(scale=4)).model == "x4"

    def test_the_model_knows_its_scale(self) -> None:
        assert mgbp.upscale(an_image(9, 9, 3), model="x4").shape == (36, 36, 3)

    @pytest.mark.parametrize("model", ["name", "path", "card", "network"])
    def test_a_model_may_be_given_in_any_form(self, model: str) -> None:
        card = next(card for card in mgbp.list_models() if card.name == "x4")
        forms = {"name": "x4", "path": card.path, "card": card, "network": mgbp.load_model("x4")}
        image = an_image(20, 20, 3)
        np.testing.assert_array_equal(
            mgbp.upscale(image, model=forms[model]).compute(), mgbp.upscale(image, 4).compute()
        )

    def test_training_a_network_on_does_not_change_what_was_planned(self) -> None:
        network = a_network()
        image = an_image(20, 20)
        result = mgbp.upscale(image, model=network)
        before = mgbp.upscale(image, model=network).compute()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2)
        np.testing.assert_array_equal(result.compute(), before)

    def test_a_model_file_that_changes_after_planning_is_noticed(self, tmp_path: Path) -> None:
        from napari_mgbpv2.model.checkpoints import save_model

        path = save_model(a_network(seed=1), tmp_path / "a.safetensors", scale=4)
        result = mgbp.upscale(an_image(20, 20), model=path)
        save_model(a_network(seed=2), path, scale=4, overwrite=True)
        with pytest.raises(ModelError, match="has been changed or removed"):
            result.compute()


BAD_INPUTS: list[tuple[Any, dict[str, Any], type[MGBPv2Error], str]] = [
    (an_image(5), {}, ImageError, r"has 1 axes, shape \(5,\)"),
    (np.zeros((5, 5), "c8"), {}, ImageError, "holds complex64 values"),
    (np.zeros((5, 5), object), {}, ImageError, "holds object values"),
    (np.zeros((5, 5), "U3"), {}, ImageError, "holds <U3 values"),
    ([[1, 2], [3]], {}, ImageError, "this list cannot be made a NumPy array"),
    (torch.zeros((5, 5), dtype=torch.bfloat16), {}, ImageError, "this Tensor cannot be made a NumPy array"),
    (Image.new("CMYK", (5, 5)), {}, ImageError, "has CMYK colours; convert it to RGB"),
    (xarray.DataArray(np.zeros((5, 5, 5)), dims=("u", "v", "w")), {}, ImageError, "named u, v, w.* axes="),
    ({"image": [[1, 2]]}, {}, SourceError, "this dict: is no Zarr store, group or array"),
    (np.zeros((0, 5)), {}, ImageError, "every axis must have a known size of at least 1"),
    (np.zeros((5, 5, 5, 5, 5, 5)), {}, ImageError, "has 6 axes"),
    (an_image(5, 5), {"axes": "yxc"}, ImageError, "has 3 letters for an image of 2 axes"),
    (an_image(5, 5), {"axes": "zx"}, ImageError, '"y" and "x" among them'),
    (an_image(5, 5), {"axes": "yy"}, ImageError, "one distinct letter"),
    (an_image(5, 5), {"scale": 0}, ImageError, "scale is 0; it must be a whole number"),
    (an_image(5, 5), {"scale": -4}, ImageError, "scale is -4"),
    (an_image(5, 5), {"scale": 2.5}, ImageError, "scale is 2.5"),
    (an_image(5, 5), {"scale": True}, ImageError, "scale is True"),
    (an_image(5, 5), {"scale": 7}, ModelError, "no packaged model upscales 7 times; scales with a model: .*4"),
    (an_image(5, 5), {"scale": 3, "model": "x4"}, ModelError, "x4 upscales 4 times, not 3"),
    (an_image(5, 5), {"model": a_network(scale=None)}, ModelError, "does not say its scale"),
    (an_image(5, 5), {"model": "x5"}, ModelError, "no model 'x5'.*packaged model.*x4"),
    (an_image(5, 5), {"model": "gone.safetensors"}, ModelError, "gone.safetensors: there is no such file"),
    (an_image(5, 5), {"model": 3}, ModelError, "model is 3"),
    (
        an_image(5, 5, 3),
        {"model": a_network(ModelConfig(features=(4, 3), channels=2)), "axes": "yxs"},
        ModelError,
        "takes 2 channels and a pixel of the image has 3",
    ),
    (an_image(9, 9, 5), {"model": NETWORK, "axes": "yxs"}, ModelError, "takes 3 channels and a pixel .* has 5"),
    (an_image(5, 5), {"model": "x4", "noise": 0.5}, ModelError, "x4 has no noise input"),
    (an_image(5, 5), {"tile": 300, "overlap": 300}, TilingError, "overlap is 300 px, too much for tiles of"),
    (an_image(5, 5), {"tile": 300, "overlap": 20}, TilingError, "less than two guards"),
    (an_image(5, 5), {"tile": 10}, TilingError, "tile is 10 px; this model needs at least"),
    (an_image(5, 5), {"guard": -1}, TilingError, "guard is -1 px"),
    (an_image(5, 5), {"window": "hann"}, TilingError, "window is 'hann'; choose one of 'hamming'"),
    (an_image(5, 5), {"device": "tpu"}, DeviceError, "device 'tpu' is not available; choose one of .*cpu"),
    (an_image(5, 5), {"precision": "int8"}, DeviceError, "precision 'int8' is not offered"),
    (an_image(5, 5), {"value_range": (5, 5)}, ImageError, "two finite numbers, the lower one first"),
    (an_image(5, 5), {"value_range": 5}, ImageError, "give two numbers"),
]


@pytest.mark.parametrize(("image", "options", "error", "message"), BAD_INPUTS)
def test_bad_input_is_one_clear_error(
    image: Array, options: dict[str, Any], error: type[MGBPv2Error], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        mgbp.upscale(image, **options)
    assert "\n" not in str(caught.value)


class TestMeasuring:
    """A sample of an image that finds the range of its values."""

    def test_windows_are_spread_over_the_planes_and_reach_their_corners(self) -> None:
        stack = np.zeros((5, 3000, 3000), "f4")
        stack[3, 2900:, 2900:] = -7
        assert sampled_extremes(da.from_array(stack, chunks=(1, 1000, 1000)), "zyx") == (-7, 0, False)

    def test_a_sample_reads_a_bounded_number_of_pixels(self) -> None:
        source = CountingSource(np.broadcast_to(np.float32(3), (40, 5000, 5000)))
        assert sampled_extremes(source, "tyx") == (3, 3, False)
        assert source.pixels_read <= 64 * 128**2

    def test_of_a_pyramid_a_coarse_level_is_read_and_the_image_is_not(self) -> None:
        source = CountingSource(np.zeros((64, 64), "f4"))
        assert sampled_extremes(source, "yx", [np.full((32, 32), -3, "f4")]) == (-3, -3, False)
        assert source.pixels_read == 0

    def test_a_large_array_in_memory_is_measured_by_every_nth_row_and_column(self) -> None:
        image = np.broadcast_to(np.arange(9000, dtype="i2"), (9000, 9000))
        found = sampled_extremes(image, "yx")
        assert (found.lowest, found.is_complete) == (0, False)
        assert 8990 < found.highest <= 8999

    @pytest.mark.parametrize("lazy", [False, True])
    def test_alpha_and_masked_pixels_do_not_count(self, lazy: bool) -> None:
        image = np.ma.MaskedArray(np.full((20, 20, 4), 3, "i2"), False)
        image[..., 3], image[0, 0] = 99, -50
        image[0, 0] = np.ma.masked
        source = da.from_array(image, chunks=10, asarray=False) if lazy else image
        assert sampled_extremes(source, "yxs") == (3, 3, True)
