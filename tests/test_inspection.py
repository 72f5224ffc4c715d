"""The deep filter: exact at a pixel, the same as the whole image's, and what y = F x + r says of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_mgbpv2 as mgbp
from examples import Array, CountingSource, a_network, an_image
from napari_mgbpv2.errors import DeviceError, ImageError, ModelError
from napari_mgbpv2.imaging.noise import noise_window
from napari_mgbpv2.imaging.resampling import ResamplingWeights, bicubic_resize, shrink
from napari_mgbpv2.inspection import DeepFilter, deep_filter
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import Ensemble, Network, fold_channels

RELATIVE = 1e-5  # of the largest value that is compared
STEP = 1e-6  # of a pixel, so small that it turns no ReLU


def an_ensemble(*, bias: bool = True, seed: int = 0) -> Ensemble:
    """Two members of different reach, so that they need different windows."""
    configs = [
        ModelConfig(features=(4, 3), noise_channels=0, bias=bias),
        ModelConfig(features=(4, 3, 2), kernel=5, steps=1, noise_channels=0, bias=bias),
    ]
    ensemble = Ensemble(configs)
    for number, member in enumerate(ensemble.children()):
        member.load_state_dict(a_network(configs[number], seed=seed + number).state_dict())
    ensemble.scale = 2
    return ensemble.eval().requires_grad_(False)


def whole(network: Network, source: Array, scale: int, noise: Array | None = None, amplitude: float = 0.0) -> Array:
    """What the network makes of a whole (h, w, C) source in [0, 1], in float64."""
    pixels = torch.from_numpy(np.moveaxis(source, 2, 0).astype(np.float64).copy())[None]
    return of_upscaled(
        network, bicubic_resize(pixels, source.shape[0] * scale, source.shape[1] * scale), noise, amplitude
    )


def of_upscaled(network: Network, larger: torch.Tensor, noise: Array | None = None, amplitude: float = 0.0) -> Array:
    """What the network makes of a whole (1, C, H, W) image."""
    field = None if noise is None else torch.from_numpy(noise.astype(np.float64))[None]
    with torch.inference_mode():
        output = copy.deepcopy(network).double()(larger, field, amplitude)
    return np.moveaxis(output[0].numpy(), 0, 2)


def placed(found: DeepFilter, height: int, width: int) -> Array:
    """A filter in an image that is 0 around it."""
    image = np.zeros((height, width, found.filter.shape[2]))
    (rows, columns), (top, left) = found.filter.shape[:2], found.offset
    image[top : top + rows, left : left + columns] = found.filter
    return image


def assert_close(found: Any, expected: Any, scale_of: Any = None) -> None:
    """Equal but for a small part of the largest value."""
    scale = np.abs(expected if scale_of is None else scale_of).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * max(scale, 1e-12))


@dataclass(frozen=True)
class Case:
    """A network, an image, a pixel of it and one of the result that it may influence."""

    network: Network
    source: Array
    scale: int
    source_pixel: tuple[int, int]
    target_pixel: tuple[int, int]
    noise: float

    @property
    def options(self) -> dict[str, Any]:
        return {"scale": self.scale, "axes": "yxs", "noise": self.noise, "seed": 5}

    @property
    def samples(self) -> int:
        return self.source.shape[2]

    @property
    def target_shape(self) -> tuple[int, int]:
        return self.source.shape[0] * self.scale, self.source.shape[1] * self.scale

    def noise_field(self) -> Array | None:
        fields = [noise_window(5, sample, 0, 0, *self.target_shape) for sample in range(self.samples)]
        return np.stack(fields) if self.noise else None


@st.composite
def cases(draw: Any, *, with_bias: bool | None = None, with_noise: bool = True) -> Case:
    bias = draw(st.booleans()) if with_bias is None else with_bias
    seed, scale = draw(st.integers(0, 2**16)), draw(st.integers(1, 4))
    height, width = draw(st.integers(3, 30)), draw(st.integers(3, 30))
    network: Network
    if draw(st.integers(0, 4)) == 0:
        network, samples, noise = an_ensemble(bias=bias, seed=seed), 3, 0.0
        network.scale = None
    else:
        noisy = with_noise and draw(st.booleans())
        config = ModelConfig(
            features=draw(st.sampled_from([(4, 3), (5, 4, 3)])),
            steps=draw(st.integers(1, 2)),
            cycles=draw(st.integers(1, 2)),
            kernel=draw(st.sampled_from([3, 5])),
            channels=draw(st.sampled_from([1, 3])),
            noise_channels=int(noisy),
            bias=bias,
        )
        network = a_network(config, scale=None, seed=seed)
        samples, noise = config.channels, draw(st.sampled_from([0.0, 0.5])) if noisy else 0.0
    source_pixel = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    near = (draw(st.integers(-3, 3)), draw(st.integers(-3, 3)))
    target_pixel = tuple(
        int(np.clip(at * scale + away, 0, size * scale - 1))
        for at, away, size in zip(source_pixel, near, (height, width), strict=True)
    )
    source = an_image(height, width, samples, dtype="f4", seed=seed)
    return Case(network, source, scale, source_pixel, (target_pixel[0], target_pixel[1]), noise)


PROPERTY = settings(max_examples=40, deadline=None)


class TestIdentities:
    """What holds for every network, image and pixel."""

    @PROPERTY
    @given(cases(), st.booleans())
    def test_rows_and_columns_are_adjoint(self, case: Case, by_channel: bool) -> None:
        first, last = (0, case.samples - 1) if by_channel else (None, None)
        column = deep_filter(case.network, case.source, case.source_pixel, channel=first, **case.options)
        row = deep_filter(case.network, case.source, case.target_pixel, channel=last, reverse=True, **case.options)
        at_target = placed(column, *case.target_shape)[case.target_pixel]
        at_source = placed(row, *case.source.shape[:2])[case.source_pixel]
        assert_close(
            at_source[first] if by_channel else at_source.sum(),
            at_target[last] if by_channel else at_target.mean(),
            scale_of=row.filter,
        )

    @PROPERTY
    @given(cases())
    def test_the_result_is_what_its_row_makes_of_the_source_and_the_residual(self, case: Case) -> None:
        row = deep_filter(case.network, case.source, case.target_pixel, reverse=True, **case.options)
        explained = (placed(row, *case.source.shape[:2]) * case.source).sum()
        assert_close(explained + row.residual, row.output, scale_of=whole(case.network, case.source, case.scale))

    @PROPERTY
    @given(cases())
    def test_the_result_is_what_its_row_makes_of_the_upscaled_source_and_the_residual(self, case: Case) -> None:
        row = deep_filter(case.network, case.source, case.target_pixel, reverse=True, impulse="target", **case.options)
        pixels = torch.from_numpy(np.moveaxis(case.source, 2, 0).astype(np.float64).copy())[None]
        larger = np.moveaxis(bicubic_resize(pixels, *case.target_shape)[0].numpy(), 0, 2)
        explained = (placed(row, *case.target_shape) * larger).sum()
        assert_close(explained + row.residual, row.output, scale_of=whole(case.network, case.source, case.scale))

    @PROPERTY
    @given(cases(with_bias=False, with_noise=False))
    def test_without_biases_and_noise_nothing_is_left_unexplained(self, case: Case) -> None:
        column = deep_filter(case.network, case.source, case.source_pixel, **case.options)
        assert np.abs(column.residual).max() <= 1e-12 * np.abs(column.output).max()

    def test_biases_and_noise_leave_a_residual(self) -> None:
        image = an_image(12, 12, 3, dtype="f4")
        biased = a_network(ModelConfig(features=(4, 3), noise_channels=0))
        assert np.abs(deep_filter(biased, image, (5, 5)).residual).max() > 1e-3
        noisy = a_network(ModelConfig(features=(4, 3), bias=False))
        assert np.abs(deep_filter(noisy, image, (5, 5), noise=1.0).residual).max() > 1e-3


class TestExactness:
    """Against the whole image, through nothing but the network itself."""

    @PROPERTY
    @given(cases())
    def test_it_is_what_a_small_change_of_the_source_pixel_changes(self, case: Case) -> None:
        column = deep_filter(case.network, case.source, case.source_pixel, **case.options)
        raised, lowered = case.source.astype(np.float64), case.source.astype(np.float64)
        raised[case.source_pixel] += STEP
        lowered[case.source_pixel] -= STEP
        noise = case.noise_field()
        change = whole(case.network, raised, case.scale, noise, case.noise)
        change -= whole(case.network, lowered, case.scale, noise, case.noise)
        assert_close(placed(column, *case.target_shape), change / (2 * STEP))

    @PROPERTY
    @given(cases())
    def test_it_is_what_a_small_change_of_a_pixel_of_the_upscaled_source_changes(self, case: Case) -> None:
        at = case.target_pixel
        column = deep_filter(case.network, case.source, at, impulse="target", channel=0, **case.options)
        pixels = torch.from_numpy(np.moveaxis(case.source, 2, 0).astype(np.float64).copy())[None]
        larger, noise = bicubic_resize(pixels, *case.target_shape), case.noise_field()
        impulse = torch.zeros_like(larger)
        impulse[0, 0, at[0], at[1]] = STEP
        change = of_upscaled(case.network, larger + impulse, noise, case.noise)
        change -= of_upscaled(case.network, larger - impulse, noise, case.noise)
        assert_close(placed(column, *case.target_shape), change / (2 * STEP))

    @PROPERTY
    @given(cases())
    def test_its_output_is_the_network_s(self, case: Case) -> None:
        column = deep_filter(case.network, case.source, case.source_pixel, **case.options)
        expected = whole(case.network, case.source, case.scale, case.noise_field(), case.noise)
        (rows, columns), (top, left) = column.output.shape[:2], column.offset
        assert_close(column.output, expected[top : top + rows, left : left + columns])
        row = deep_filter(case.network, case.source, case.target_pixel, reverse=True, **case.options)
        assert_close(row.output, expected[case.target_pixel].mean(), scale_of=expected)

    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["corner", "middle", "edge"])
    def test_a_pixel_of_a_large_image_has_the_filter_of_the_whole_image(self, place: str) -> None:
        image = an_image(150, 170, 3)
        at = {"corner": (0, 169), "middle": (70, 90), "edge": (149, 60)}[place]
        network = mgbp.load_model("x4")
        found = deep_filter(network, image, at)
        assert max(found.filter.shape) < 200
        source = image / 255
        raised = source.copy()
        raised[at] += STEP
        change = (whole(network, raised, 4) - whole(network, source, 4)) / STEP
        assert_close(placed(found, 600, 680), change)


class TestCost:
    def test_only_the_surroundings_of_the_pixel_are_read(self) -> None:
        source = CountingSource(an_image(4000, 5000, 3))
        found = deep_filter("x4", source, (2000, 3000))
        [window] = source.windows
        assert all(part.stop - part.start < 100 for part in window[:2])
        assert found.offset[0] < 4 * 2000 < found.offset[0] + found.filter.shape[0]

    def test_the_network_given_is_not_touched(self) -> None:
        network = a_network().train().requires_grad_(True)
        deep_filter(network, an_image(12, 12), (3, 3), reverse=True)
        assert network.training
        assert all(weight.dtype == torch.float32 and weight.grad is None for weight in network.parameters())


class TestPixels:
    """Which pixel, of which plane, of which samples."""

    NETWORK = a_network(ModelConfig(features=(4, 3), noise_channels=0), scale=2)

    def test_a_grey_image_goes_through_a_colour_network_folded(self) -> None:
        image = an_image(12, 14)
        found = deep_filter(self.NETWORK, image, (5, 6))
        folded = deep_filter(fold_channels(self.NETWORK), image, (5, 6))
        assert found.filter.shape[2] == 1
        np.testing.assert_array_equal(found.filter, folded.filter)

    def test_of_a_stack_one_plane_is_looked_at(self) -> None:
        stack = an_image(3, 2, 12, 14)
        found = deep_filter(self.NETWORK, stack, (2, 1, 5, 6), axes="zcyx")
        plane = deep_filter(self.NETWORK, stack[2, 1], (5, 6))
        np.testing.assert_array_equal(found.filter, plane.filter)
        assert found.position == (2, 1, 5, 6)

    def test_every_plane_has_noise_of_its_own(self) -> None:
        network = a_network(ModelConfig(features=(4, 3), channels=1), scale=2)
        stack = np.repeat(an_image(1, 12, 14), 2, axis=0)
        first, second = (deep_filter(network, stack, (z, 5, 6), noise=1.0, seed=3) for z in (0, 1))
        whole_stack = mgbp.upscale(stack / 255, model=network, noise=1.0, seed=3).compute()
        for z, found in enumerate((first, second)):
            (rows, columns), (top, left) = found.output.shape[:2], found.offset
            expected = whole_stack[z, top : top + rows, left : left + columns]
            np.testing.assert_allclose(found.output[..., 0], expected, atol=1e-5)
        assert not np.allclose(first.output, second.output)

    def test_axes_may_be_in_any_order(self) -> None:
        image = an_image(12, 14, 3)
        found = deep_filter(self.NETWORK, image.transpose(2, 1, 0), (6, 5), axes="sxy")
        np.testing.assert_array_equal(found.filter, deep_filter(self.NETWORK, image, (5, 6), axes="yxs").filter)

    def test_the_alpha_channel_has_a_filter_and_noise_of_its_own(self) -> None:
        network = a_network(ModelConfig(features=(4, 3)), scale=2)
        image = an_image(12, 14, 4, dtype="f4")
        found = deep_filter(network, image, (5, 6), axes="yxs", channel=3, noise=1.0)
        (rows, columns), (top, left) = found.output.shape[:2], found.offset
        expected = mgbp.upscale(image, model=network, axes="yxs", noise=1.0)[top : top + rows, left : left + columns, 3]
        np.testing.assert_allclose(found.output[..., 0], expected.compute(), atol=1e-5)

    def test_the_channels_of_a_colour_add_up_to_the_grey_pixel(self) -> None:
        image = an_image(12, 14, 3)
        by_channel = [deep_filter(self.NETWORK, image, (5, 6), channel=channel).filter for channel in range(3)]
        assert_close(sum(by_channel), deep_filter(self.NETWORK, image, (5, 6)).filter)

    def test_the_range_of_values_does_not_matter_to_it(self) -> None:
        image = an_image(12, 14, dtype="f4")
        found = deep_filter(self.NETWORK, 100 + 4000 * image, (5, 6), value_range=(100, 4100))
        assert_close(found.filter, deep_filter(self.NETWORK, image, (5, 6)).filter)

    def test_negative_positions_count_from_the_end(self) -> None:
        assert deep_filter(self.NETWORK, an_image(12, 14), (-1, -2)).position == (11, 12)

    def test_a_reversed_position_is_one_of_the_result(self) -> None:
        found = deep_filter(self.NETWORK, an_image(12, 14), (23, 27), reverse=True)
        assert (found.position, found.factor) == ((23, 27), 1)
        assert found.filter.shape[0] <= 12


class TestReadings:
    """What is read out of a filter."""

    def test_in_a_flat_area_it_is_nearly_bicubic(self) -> None:
        """As in figure 8 of the paper."""
        flat = np.full((60, 60, 3), 0.6, np.float32)
        ramp = np.repeat(np.linspace(0.3, 0.7, 60, dtype=np.float32)[np.newaxis, :, np.newaxis], 3, 2).repeat(60, 0)
        camera = skimage.data.camera()
        sky = shrink(torch.from_numpy(camera / 255)[None, None], 4)[0, 0].numpy().astype(np.float32)
        for image, at in ((flat, (30, 30)), (ramp, (30, 30)), (sky, (20, 19))):
            found = deep_filter("x4", image, at)
            bicubic = bicubic_kernel(found, at, image.shape[:2])
            assert correlation(found.filter.mean(axis=2), bicubic) > 0.9
            assert found.gain == pytest.approx(1, abs=0.1)

    def test_at_an_edge_it_is_not(self) -> None:
        edge = np.zeros((60, 60, 3), np.float32)
        edge[:, 30:] = 1
        found = deep_filter("x4", edge, (30, 30))
        assert correlation(found.filter.mean(axis=2), bicubic_kernel(found, (30, 30), (60, 60))) < 0.9

    def test_its_size_is_that_of_what_is_not_faint(self) -> None:
        values = np.zeros((9, 11, 1))
        values[2:5, 3:9] = -1
        values[0, 0] = 0.005
        found = DeepFilter(values, (0, 0), 1.0, values, values)
        assert (found.size, found.peak) == ((3, 6), 1)
        assert found.extent() == (slice(2, 5), slice(3, 9))
        assert found.extent(0.001) == (slice(0, 5), slice(0, 9))

    def test_a_filter_of_nothing_but_zeros_has_no_size(self) -> None:
        values = np.zeros((9, 11, 1))
        assert DeepFilter(values, (0, 0), 0.0, values, values).size == (0, 0)

    def test_rows_of_bicubic_upscaling_alone_have_a_gain_of_1(self) -> None:
        network = an_identity()
        for impulse in ("source", "target"):
            for reverse in (False, True):
                found = deep_filter(network, an_image(20, 20, 3), (9, 9), scale=3, impulse=impulse, reverse=reverse)
                assert found.gain == pytest.approx(1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("position", "options", "sentence"),
        [
            ((12, 3), {}, r"position is \(12, 3\); give one number for each of the axes 'yx', below \(12, 14\)"),
            ((3,), {}, r"position is \(3,\)"),
            ((48, 3), {"reverse": True}, r"below \(24, 28\)"),
            ((3, 3), {"impulse": "pixel"}, "impulse is 'pixel'; choose one of 'source', 'target'"),
            ((3, 3), {"channel": 1}, "channel is 1; a pixel of the image has 1, counted from 0"),
        ],
    )
    def test_what_is_not_there_is_refused_in_a_sentence(
        self, position: tuple[int, ...], options: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(ImageError, match=sentence):
            deep_filter(TestPixels.NETWORK, an_image(12, 14), position, **options)

    def test_noise_is_refused_by_a_model_without_it(self) -> None:
        with pytest.raises(ModelError, match="no noise input"):
            deep_filter("x4", an_image(12, 14), (3, 3), noise=1.0)

    def test_a_device_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(DeviceError, match="'cuda:9' is not available"):
            deep_filter("x4", an_image(12, 14), (3, 3), device="cuda:9")


def an_identity() -> mgbp.MGBPv2:
    """A network that returns its input."""
    network = a_network(ModelConfig(features=(4, 3), noise_channels=0, bias=False), scale=None)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(torch.eye(3).reshape(3, 3, 1, 1) if name.startswith(("Analysis_1", "Synthesis")) else 0)
    return network


def bicubic_kernel(found: DeepFilter, at: tuple[int, int], shape: tuple[int, int]) -> Array:
    """What bicubic upscaling alone makes of the pixel, at the filter's place."""
    profiles = []
    for start, length, pixel, size in zip(found.offset, found.filter.shape[:2], at, shape, strict=True):
        taps = ResamplingWeights.of(np.arange(start, start + length), found.factor, size)
        profiles.append(np.where(taps.indices == pixel, taps.weights, 0).sum(axis=1))
    return np.multiply.outer(*profiles)


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
