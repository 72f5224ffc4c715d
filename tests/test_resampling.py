"""Bicubic resampling: Pillow's, and the same bits in every window."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from examples import an_image
from napari_mgbpv2.imaging.resampling import (
    ResamplingWeights,
    bicubic_resize,
    bicubic_resize_array,
    shrink,
    upscale_window,
)

FACTORS = [2, 3, 4, 8, 16]

scales = st.integers(1, 16)
sizes = st.integers(1, 12)


def by_pillow(image: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


@st.composite
def windows(draw: st.DrawFn, size: int) -> slice:
    start = draw(st.integers(0, size - 1))
    return slice(start, draw(st.integers(start + 1, size)))


def upscaled(image: npt.NDArray[Any], scale: int) -> torch.Tensor:
    """Upscale the whole image by `ResamplingWeights`."""
    rows, columns = (ResamplingWeights.of(np.arange(scale * size), scale, size) for size in image.shape)
    return upscale_window(torch.from_numpy(image), rows, columns)


class TestResizeArray:
    """The bicubic upscaling that models are compared with."""

    @pytest.mark.parametrize("shape", [(11, 9), (11, 9, 3)])
    def test_integers_are_rounded_once(self, shape: tuple[int, ...]) -> None:
        image = an_image(*shape)
        planes = np.moveaxis(np.atleast_3d(image).astype("f4"), 2, 0)
        exact = np.stack([by_pillow(plane, 22, 18) for plane in planes], 2).reshape(22, 18, *shape[2:])
        result = bicubic_resize_array(image, 22, 18)
        assert result.dtype == np.uint8
        assert np.abs(result - np.clip(exact, 0, 255)).max() < 0.501

    def test_rounding_twice_looks_worse_on_a_smooth_image(self) -> None:
        """Pillow's filter for 8 bits on the micrograph `cell`; docs/quality.md and docs/models.md state the figure."""
        sharp = skimage.data.cell()
        height, width = (size // 2 for size in sharp.shape)
        small = bicubic_resize_array(sharp, height, width)
        twice = np.asarray(Image.fromarray(small).resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
        once = bicubic_resize_array(small, 2 * height, 2 * width)
        errors = [np.mean((each.astype("f8") - sharp) ** 2) for each in (twice, once)]
        assert 10 * np.log10(errors[0] / errors[1]) == pytest.approx(1.8, abs=0.3)

    def test_integers_are_clipped_to_their_type(self) -> None:
        edges = np.array([[-(2**31), 2**31 - 1] * 4] * 8, "i4")
        result = bicubic_resize_array(edges, 16, 16)
        assert (result.min(), result.max()) == (-(2**31), 2**31 - 1)

    def test_32_bits_keep_their_last_digits(self) -> None:
        assert (bicubic_resize_array(np.full((8, 8), 2**31 - 5, "u4"), 16, 16) == 2**31 - 5).all()

    def test_floats_are_neither_rounded_nor_clipped(self) -> None:
        edges = np.array([[0, 1] * 4] * 8, "f4")
        result = bicubic_resize_array(edges, 16, 16)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, by_pillow(edges, 16, 16), atol=1e-6, rtol=0)
        assert result.min() < 0 < 1 < result.max()


class TestResize:
    @pytest.mark.parametrize("factor", FACTORS)
    def test_enlarging_equals_pillow(self, factor: int) -> None:
        image = an_image(11, 9, dtype="f4")
        result = bicubic_resize(torch.from_numpy(image)[None, None], 11 * factor, 9 * factor)[0, 0]
        np.testing.assert_allclose(result, by_pillow(image, 11 * factor, 9 * factor), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("factor", FACTORS)
    def test_shrinking_equals_pillow(self, factor: int) -> None:
        image = an_image(7 * factor, 5 * factor, dtype="f4")
        result = shrink(torch.from_numpy(image)[None, None], factor)[0, 0]
        np.testing.assert_allclose(result, by_pillow(image, 7, 5), atol=1e-6, rtol=0)

    def test_any_other_size_equals_pillow(self) -> None:
        image = an_image(23, 31, dtype="f4")
        result = bicubic_resize(torch.from_numpy(image)[None, None], 40, 17)[0, 0]
        np.testing.assert_allclose(result, by_pillow(image, 40, 17), atol=3e-6, rtol=0)

    @pytest.mark.parametrize("shape", [(20, 4), (4, 20), (4, 4)])
    def test_a_line_of_pixels_equals_pillow(self, shape: tuple[int, int]) -> None:
        image = an_image(*shape, dtype="f4")
        result = shrink(torch.from_numpy(image)[None, None], 4)[0, 0]
        np.testing.assert_allclose(result, by_pillow(image, shape[0] // 4, shape[1] // 4), atol=1e-6, rtol=0)

    def test_shrinking_by_one_changes_nothing(self) -> None:
        image = torch.rand(1, 1, 5, 6)
        assert torch.equal(shrink(image, 1), image)

    def test_shrinking_passes_gradients_that_sum_to_one_a_pixel(self) -> None:
        image = torch.rand(1, 1, 16, 24, requires_grad=True)
        shrink(image, 4).sum().backward()
        assert image.grad is not None
        assert float(image.grad.sum()) == pytest.approx(4 * 6, rel=1e-5)


class TestTaps:
    @pytest.mark.parametrize("scale", [1, *FACTORS])
    def test_the_whole_image_equals_pillow(self, scale: int) -> None:
        image = an_image(11, 6, dtype="f4")
        expected = by_pillow(image, 11 * scale, 6 * scale)
        np.testing.assert_allclose(upscaled(image, scale), expected, atol=1e-6, rtol=0)

    @settings(deadline=None, max_examples=60)
    @given(scale=scales, height=sizes, width=sizes, data=st.data())
    def test_a_window_is_a_part_of_the_whole_bit_for_bit(
        self, scale: int, height: int, width: int, data: st.DataObject
    ) -> None:
        image = an_image(height, width, dtype="f4")
        rows, columns = (data.draw(windows(scale * size)) for size in image.shape)
        row_taps = ResamplingWeights.of(np.arange(rows.start, rows.stop), scale, height)
        column_taps = ResamplingWeights.of(np.arange(columns.start, columns.stop), scale, width)
        pixels = torch.from_numpy(image[row_taps.window, column_taps.window])
        assert torch.equal(upscale_window(pixels, row_taps, column_taps), upscaled(image, scale)[rows, columns])

    @settings(deadline=None, max_examples=40)
    @given(scale=scales, size=sizes, data=st.data())
    def test_positions_come_in_any_order_and_repeated(self, scale: int, size: int, data: st.DataObject) -> None:
        image = an_image(size, size, dtype="f4")
        targets = np.array(data.draw(st.lists(st.integers(0, scale * size - 1), min_size=1, max_size=40)))
        taps = ResamplingWeights.of(targets, scale, size)
        pixels = torch.from_numpy(image[taps.window, taps.window])
        assert torch.equal(upscale_window(pixels, taps, taps), upscaled(image, scale)[targets][:, targets])

    @settings(deadline=None, max_examples=40)
    @given(scale=scales, size=sizes)
    def test_the_weights_of_a_position_sum_to_one(self, scale: int, size: int) -> None:
        taps = ResamplingWeights.of(np.arange(scale * size), scale, size)
        np.testing.assert_allclose(taps.weights.sum(axis=1), 1, atol=3e-7)
        assert taps.weights.dtype == np.float32

    @settings(deadline=None, max_examples=40)
    @given(scale=scales, size=sizes)
    def test_they_read_no_pixel_outside_the_image_and_few_around_their_own(self, scale: int, size: int) -> None:
        targets = np.arange(scale * size)
        taps = ResamplingWeights.of(targets, scale, size)
        assert taps.window == slice(0, size)
        assert np.abs(taps.indices - (targets // scale)[:, None]).max() <= 2

    def test_leading_axes_are_carried_along(self) -> None:
        image = an_image(2, 3, 5, 5, dtype="f4")
        taps = ResamplingWeights.of(np.arange(10), 2, 5)
        result = upscale_window(torch.from_numpy(image), taps, taps)
        assert torch.equal(result[1, 2], upscaled(image[1, 2], 2))


def test_the_former_name_of_the_weights_still_works() -> None:
    from napari_mgbpv2.imaging.resampling import Taps

    assert Taps is ResamplingWeights
