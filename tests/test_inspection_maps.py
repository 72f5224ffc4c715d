"""The lazy maps: what noise invents, and where the result departs from the data."""

from __future__ import annotations

import pickle
from typing import Any

import dask.array as da
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_mgbpv2 as mgbp
from examples import Array, CountingSource, a_network, an_image
from napari_mgbpv2 import inspection
from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.imaging.resampling import shrink
from napari_mgbpv2.inspection import consistency_map, hallucination_map
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import Ensemble

NOISY = a_network(ModelConfig(features=(6, 5, 4), channels=3), scale=4)
SILENT = a_network(ModelConfig(features=(6, 5, 4), noise_channels=0), scale=4)


def shrunk(image: Array, axes: str, factor: int) -> Array:
    """S_f of all planes of a whole image, in float64."""
    y, x = axes.index("y"), axes.index("x")
    planes = np.moveaxis(image.astype(np.float64), (y, x), (-2, -1))
    flat = torch.from_numpy(np.ascontiguousarray(planes)).reshape(1, -1, *planes.shape[-2:])
    small = shrink(flat, factor)[0].numpy()
    return np.moveaxis(small.reshape(*planes.shape[:-2], *small.shape[-2:]), (-2, -1), (y, x))


class TestHallucinationMap:
    def test_the_spread_is_the_deviation_over_the_draws(self) -> None:
        image = an_image(20, 24, 3, dtype="f4")
        found = hallucination_map(NOISY, image, samples=5, seed=7).spread
        draws = [mgbp.upscale(image, model=NOISY, noise=1.0, seed=7 + draw).compute() for draw in range(5)]
        np.testing.assert_allclose(found.compute(), np.std(draws, axis=0, ddof=1), atol=1e-6)

    def test_the_difference_is_the_first_draw_s(self) -> None:
        image = an_image(20, 24, 3, dtype="f4")
        found = hallucination_map(NOISY, image, 0.7, seed=7).difference
        noisy, silent = (mgbp.upscale(image, model=NOISY, noise=noise, seed=7).compute() for noise in (0.7, 0.0))
        assert np.abs(found.compute()).max() > 0.01
        np.testing.assert_allclose(found.compute(), noisy - silent, atol=1e-6)

    def test_it_is_not_rounded_and_has_the_values_of_the_image(self) -> None:
        image = an_image(20, 24)
        found = hallucination_map(NOISY, image, samples=3)
        unit = hallucination_map(NOISY, image / 255, samples=3)
        assert found.spread.dtype == found.difference.dtype == np.float32
        for each, in_unit in ((found.spread, unit.spread), (found.difference, unit.difference)):
            np.testing.assert_allclose(each.compute(), 255 * in_unit.compute(), atol=1e-3)

    @pytest.mark.parametrize(
        ("shape", "axes"), [((20, 24), "yx"), ((3, 20, 24), "zyx"), ((3, 20, 24), "syx"), ((2, 20, 24, 4), "tyxs")]
    )
    def test_it_has_the_axes_of_the_result(self, shape: tuple[int, ...], axes: str) -> None:
        image = an_image(*shape, dtype="f4")
        found = hallucination_map(NOISY, image, samples=2, axes=axes, seed=1)
        draws = [mgbp.upscale(image, model=NOISY, noise=1.0, seed=seed, axes=axes).compute() for seed in (1, 2)]
        np.testing.assert_allclose(found.spread.compute(), np.std(draws, axis=0, ddof=1), atol=1e-6)

    def test_tiles_do_not_show(self) -> None:
        image = an_image(60, 70, dtype="f4")
        tiled, whole = (hallucination_map(NOISY, image, samples=3, tile=tile).spread.compute() for tile in (120, 10**6))
        np.testing.assert_allclose(tiled, whole, atol=1e-5)

    def test_it_is_lazy(self) -> None:
        source = CountingSource(an_image(2000, 3000))
        found = hallucination_map(NOISY, source, samples=2, tile=200)
        assert source.windows == []
        found.spread[4000:4010, 4000:4010].compute()
        assert 0 < source.pixels_read < 2 * 2 * 100**2

    def test_it_travels_to_workers(self) -> None:
        found = pickle.loads(pickle.dumps(hallucination_map(NOISY, an_image(20, 24), samples=2)))
        assert found.spread.compute().shape == (80, 96)

    @pytest.mark.parametrize("model", ["x4", SILENT, Ensemble([NOISY.config])], ids=["x4", "network", "ensemble"])
    def test_a_model_that_hears_no_noise_is_refused_in_a_sentence(self, model: Any) -> None:
        with pytest.raises(ModelError, match=r"has no noise input, so it invents nothing .* choose a model with one\."):
            hallucination_map(model, an_image(20, 24), scale=4)

    @pytest.mark.parametrize(
        ("options", "sentence"), [({"samples": 1}, "at least 2 draws"), ({"amplitude": 0}, "amplitude is 0")]
    )
    def test_what_gives_no_map_is_refused(self, options: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ImageError, match=sentence):
            hallucination_map(NOISY, an_image(20, 24), **options)


class TestConsistencyMap:
    @settings(max_examples=25, deadline=None)
    @given(
        height=st.integers(1, 90),
        width=st.integers(1, 90),
        scale=st.sampled_from([1, 2, 3, 4, 8]),
        dtype=st.sampled_from(["u1", "u2", "f4"]),
        chunk=st.integers(1, 40),
    )
    def test_it_equals_what_is_computed_from_the_whole_result(
        self, height: int, width: int, scale: int, dtype: str, chunk: int
    ) -> None:
        network = a_network(SILENT.config, scale=scale)
        image = an_image(height, width, dtype=dtype)
        result = mgbp.upscale(image, model=network).compute()
        expected = np.abs(shrunk(result, "yx", scale) - image).astype(np.float32)
        found = consistency_map(network, da.from_array(image, chunks=chunk))
        np.testing.assert_array_equal(found.compute(), expected)

    @pytest.mark.parametrize(
        ("shape", "axes"), [((70, 90, 3), "yxs"), ((2, 3, 70, 20), "tcyx"), ((70, 30, 4), "yxs"), ((30, 70, 2), "xyz")]
    )
    def test_it_has_the_axes_of_the_image(self, shape: tuple[int, ...], axes: str) -> None:
        image = an_image(*shape)
        if shape[-1] == 4:
            image[..., 3] = 255  # the colour of pixels that are not seen is no part of the image
        found = consistency_map(SILENT, image, axes=axes)
        result = mgbp.upscale(image, model=SILENT, axes=axes).compute()
        assert found.shape == shape
        np.testing.assert_array_equal(found.compute(), np.abs(shrunk(result, axes, 4) - image).astype(np.float32))

    def test_with_many_blocks_and_tiles_it_is_still_the_same(self) -> None:
        image = an_image(300, 280)
        found = consistency_map(SILENT, image, tile=200)
        result = mgbp.upscale(image, model=SILENT, tile=200).compute()
        np.testing.assert_array_equal(found.compute(), np.abs(shrunk(result, "yx", 4) - image).astype(np.float32))

    def test_a_packaged_model_is_true_to_a_photograph(self) -> None:
        astronaut = skimage.data.astronaut()[:256, :256]
        found = consistency_map("x4", astronaut).compute()
        assert np.sqrt(np.mean(found**2)) < 0.02 * 255

    def test_it_is_lazy(self) -> None:
        source = CountingSource(an_image(3000, 3000))
        found = consistency_map(SILENT, source, tile=200)
        assert source.windows == []
        found[1500:1510, 1500:1510].compute()
        assert 0 < source.pixels_read < 700**2

    def test_noise_enters_it(self) -> None:
        image = an_image(20, 24, dtype="f4")
        silent, noisy = (consistency_map(NOISY, image, noise=noise).compute() for noise in (0.0, 1.0))
        assert np.abs(noisy - silent).max() > 0.01

    def test_what_is_not_finite_stays_so(self) -> None:
        image = an_image(40, 40, dtype="f4")
        image[20, 20] = np.nan
        found = consistency_map(SILENT, image).compute()
        assert np.isnan(found[20, 20])
        assert np.isfinite(found[:17]).all()


class TestFormerNames:
    def test_the_former_names_of_the_hallucination_map_warn_and_give_it(self) -> None:
        image = an_image(20, 24)
        with pytest.warns(DeprecationWarning, match="invention_map is now hallucination_map"):
            found = mgbp.invention_map(NOISY, image, samples=2)
        with pytest.warns(DeprecationWarning, match="InventionMap is now HallucinationMap"):
            assert isinstance(found, inspection.InventionMap)
        assert np.array_equal(found.spread.compute(), hallucination_map(NOISY, image, samples=2).spread.compute())
