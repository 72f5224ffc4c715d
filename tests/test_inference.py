"""Networks made ready to be run: the same function as the network's, whatever is saved on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from examples import TINY, a_network
from napari_mgbpv2.model.checkpoints import load_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2, pad_to_natural
from napari_mgbpv2.runtime import inference
from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace
from napari_mgbpv2.runtime.inference.gemm import (
    ConvolutionGemm,
    Gemm,
    MatmulGemm,
    convolutions_are_faster,
    make_gemm,
    processor_vendor,
)
from napari_mgbpv2.runtime.inference.toom_cook import toom_cook
from napari_mgbpv2.runtime.inference.transposed_convolution import (
    DirectTransposedConvolution,
    GemmTransposedConvolution,
)

DATA = Path(__file__).parent / "data" / "network"
CASES = json.loads((DATA / "index.json").read_text())
CPU = torch.device("cpu")

WIDE = ModelConfig(features=(160, 96, 24), steps=2)  # so wide that multiplications are saved

CONFIGS = {
    "small": TINY,
    "wide": WIDE,
    "wide, kernel of 5": ModelConfig(features=(160, 96, 24), kernel=5),
    "kernel of 7": ModelConfig(features=(7, 6, 5), kernel=7),
    "two levels": ModelConfig(features=(6, 5)),
    "one step": ModelConfig(features=(6, 5, 4), steps=1),
    "three steps": ModelConfig(features=(6, 5, 4), steps=3),
    "two cycles": ModelConfig(features=(6, 5, 4), cycles=2),
    "without biases": ModelConfig(features=(6, 5, 4), bias=False),
    "without noise": ModelConfig(features=(6, 5, 4), noise_channels=0),
    "two noise channels": ModelConfig(features=(6, 5, 4), noise_channels=2),
    "grey": ModelConfig(features=(6, 5, 4), channels=1),
    "residual": ModelConfig(features=(6, 5, 4), noise_channels=0, bias=False, residual=True),
    "residual, kernel of 5, noise": ModelConfig(features=(6, 5, 4), kernel=5, cycles=2, bias=False, residual=True),
}


def prepared(network: MGBPv2, workspace: Workspace | None = None) -> InferenceNetwork:
    return InferenceNetwork(network, workspace or Workspace(), CPU)


def an_input(config: ModelConfig, least: int = 40, seed: int = 0) -> Tensor:
    """An image of natural size, wider than high."""
    size = config.natural_up(least), config.natural_up(least + 3 * config.alignment)
    return torch.randn(1, config.channels, *size, generator=torch.Generator().manual_seed(seed))


def multiplications(work: Callable[[], object]) -> float:
    def in_place(result: torch.Size, left: torch.Size, right: torch.Size, **_: object) -> int:
        return 2 * left[0] * left[1] * right[1]

    def one_pixel(left: torch.Size, right: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
        return 2 * out_shape.numel() * right[1]

    more = {torch.ops.aten.addmm_: in_place, torch.ops.aten.mkldnn_convolution: one_pixel}
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        work()
    return counter.get_total_flops() / 2


def channels_last(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


class TestPreparedNetwork:
    @pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
    @pytest.mark.parametrize("amplitude", [0.0, 0.7])
    def test_it_gives_what_the_network_gives(self, config: ModelConfig, amplitude: float) -> None:
        network = a_network(config)
        amplitude *= config.noise_channels > 0
        image, noise = an_input(config), an_input(config, seed=1)
        expected = network(image, noise, amplitude)
        result = prepared(network)(image, noise, amplitude)
        assert float((result - expected).abs().max() / expected.abs().max()) < 2e-6

    @pytest.mark.parametrize("case", CASES, ids=[case["model_id"] for case in CASES])
    def test_it_gives_what_the_authors_network_gives(self, case: dict[str, Any], tmp_path: Path) -> None:
        tensors = load_file(DATA / case["file"])
        state = {name.removeprefix("state."): tensor for name, tensor in tensors.items() if name.startswith("state.")}
        torch.save(state, tmp_path / "authors.pth")
        network = load_model(tmp_path / "authors.pth", cycles=2 if "_NU2_" in case["model_id"] else None)
        assert isinstance(network, MGBPv2)
        padded = [pad_to_natural(tensors[name], network.config) for name in ("x", "noise")]
        run, expected = prepared(network), tensors["y"]
        (top, _), (left, _) = map(network.config.border, expected.shape[-2:])
        for index, (image, noise) in enumerate(zip(*padded, strict=True)):
            result = run(image[None], noise[None], case["noise_amplitude"])[0]
            result = result[:, top : top + expected.shape[-2], left : left + expected.shape[-1]]
            assert float((result - expected[index]).abs().max() / expected.abs().max()) < 1e-5

    @pytest.mark.parametrize(
        "config",
        [TINY, WIDE, ModelConfig(), ModelConfig(features=(513, 40))],
        ids=["small", "wide", "published", "very wide"],
    )
    def test_it_gives_the_same_bits_in_any_number_of_threads(self, config: ModelConfig) -> None:
        run, image = prepared(a_network(config)), an_input(config)
        before, results = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3, 8, 16):
                torch.set_num_threads(threads)
                results.append(run(image))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(result, results[0]) for result in results)

    def test_it_gives_the_same_bits_whatever_ran_before(self) -> None:
        workspace = Workspace()
        run, other = prepared(a_network(WIDE), workspace), prepared(a_network(CONFIGS["kernel of 7"]), workspace)
        image, noise = an_input(WIDE), an_input(WIDE, seed=1)
        results = [run(image)]
        run(torch.full_like(an_input(WIDE, least=80), torch.nan))
        results.append(run(image))
        run(image, noise, 1.0)
        other(an_input(other.config, least=100))
        results.append(run(image))
        workspace.clear()
        results.append(run(image))
        assert all(torch.equal(result, results[0]) for result in results)

    @pytest.mark.parametrize("faster", [False, True], ids=["matrices", "convolutions"])
    def test_either_library_gives_what_the_network_gives(self, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        for place in (inference.gemm, inference.convolutions):
            monkeypatch.setattr(place, "convolutions_are_faster", lambda: faster)
        network, image, noise = a_network(WIDE), an_input(WIDE), an_input(WIDE, seed=1)
        expected = network(image, noise, 0.7)
        result = prepared(network)(image, noise, 0.7)
        assert float((result - expected).abs().max() / expected.abs().max()) < 2e-6

    def test_strips_of_convolutions_may_be_as_low_as_one_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference.convolutions, "FEW_PIXELS", 0)
        run, image, noise = prepared(a_network(TINY)), an_input(TINY), an_input(TINY, seed=1)
        expected = run(image, noise, 0.7)
        monkeypatch.setattr(inference.convolutions, "STRIP_NUMBERS", 1)
        torch.testing.assert_close(run(image, noise, 0.7), expected, rtol=0, atol=2e-6 * float(expected.abs().max()))

    @pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
    def test_a_part_of_the_result_is_that_of_the_whole(self, config: ModelConfig) -> None:
        run, image, noise = prepared(a_network(config)), an_input(config, least=60), an_input(config, least=60, seed=1)
        amplitude = 0.7 * (config.noise_channels > 0)
        whole = run(image, noise, amplitude)
        height, width = whole.shape[2:]
        for rows in (slice(0, height // 3), slice(height // 3, height // 2), slice(21, 22), slice(9, height)):
            wanted = rows, slice(3, width - 2)
            result = run(image, noise, amplitude, wanted)
            torch.testing.assert_close(result, whole[:, :, *wanted], rtol=0, atol=2e-6 * float(whole.abs().max()))

    def test_the_fewer_rows_are_wanted_the_less_is_computed(self) -> None:
        run, image = prepared(a_network(TINY)), an_input(TINY, least=200)
        counts = [
            multiplications(lambda: run(image, output_region=(slice(guard, image.shape[2] - guard), slice(0, 200))))  # noqa: B023
            for guard in (0, 10, 20, 30)
        ]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] < 0.85 * counts[0]

    def test_a_result_is_not_overwritten_by_the_next(self) -> None:
        run = prepared(a_network())
        result = run(an_input(TINY))
        before = result.clone()
        run(an_input(TINY, seed=1))
        assert torch.equal(result, before)

    def test_it_takes_nothing_from_the_network_and_gives_nothing_to_it(self) -> None:
        network = a_network()
        before = {name: weight.clone() for name, weight in network.state_dict().items()}
        run, image = prepared(network), an_input(TINY)
        result = run(image)
        assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        assert torch.equal(run(image), result)

    def test_in_fewer_bits_it_stays_close(self) -> None:
        network, image = a_network(WIDE), an_input(WIDE)
        reduced = InferenceNetwork(network, Workspace(), CPU, torch.bfloat16)(image)
        expected = network(image)
        assert reduced.dtype == torch.float32
        assert 0 < float((reduced - expected).square().mean().sqrt() / expected.std()) < 0.02


class TestUpscalingSteps:
    @settings(deadline=None, max_examples=40)
    @given(
        kernel=st.sampled_from([3, 5, 7]),
        size=st.tuples(st.integers(1, 25), st.integers(1, 25)),
        channels=st.tuples(st.integers(1, 40), st.integers(1, 20)),
        fast=st.booleans(),
    )
    def test_products_equal_the_transposed_convolution(
        self, kernel: int, size: tuple[int, int], channels: tuple[int, int], fast: bool
    ) -> None:
        weight = torch.randn(*channels, kernel, kernel, generator=torch.Generator().manual_seed(1))
        stack = channels_last(1, channels[0], *size).relu_()
        features = channels_last(1, channels[1], *(2 * side + kernel - 2 for side in size))
        expected = features.clone(memory_format=torch.preserve_format)
        DirectTransposedConvolution(weight).add_to(expected, stack, Workspace())
        GemmTransposedConvolution(weight, fast=fast).add_to(features, stack, Workspace())
        torch.testing.assert_close(features, expected, rtol=0, atol=4e-6 * float(expected.abs().max()))

    @pytest.mark.parametrize("fast", [False, True])
    def test_strips_meet_without_a_seam(self, fast: bool) -> None:
        weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(1))
        stack, features = channels_last(1, 8, 150, 70).relu_(), torch.zeros(1, 6, 301, 141)
        features = features.contiguous(memory_format=torch.channels_last)
        GemmTransposedConvolution(weight, fast=fast).add_to(features, stack, Workspace())
        expected = torch.nn.functional.conv_transpose2d(stack, weight, stride=2)
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kernel", [3, 5, 7])
    @pytest.mark.parametrize("height", [1, 2, 3, 8])
    def test_strips_may_be_as_low_as_one_tile(self, kernel: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference.transposed_convolution, "STRIP_NUMBERS", 1)
        weight = torch.randn(8, 6, kernel, kernel, generator=torch.Generator().manual_seed(1))
        stack = channels_last(1, 8, height, 5).relu_()
        features = torch.zeros(1, 6, 2 * height + kernel - 2, 8 + kernel).contiguous(memory_format=torch.channels_last)
        GemmTransposedConvolution(weight, fast=True).add_to(features, stack, Workspace())
        expected = torch.nn.functional.conv_transpose2d(stack, weight, stride=2)
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        "step", [DirectTransposedConvolution, lambda weight: GemmTransposedConvolution(weight, fast=True)]
    )
    def test_channels_that_the_stack_lacks_are_left_out(self, step: Any) -> None:
        weight = torch.randn(9, 4, 3, 3, generator=torch.Generator().manual_seed(1))
        features = [channels_last(1, 4, 21, 17) for _ in range(2)]
        stack = channels_last(1, 9, 10, 8)
        stack[:, 6:] = 0
        step(weight).add_to(features[0], stack, Workspace())
        step(weight).add_to(features[1], stack[:, :6].contiguous(memory_format=torch.channels_last), Workspace())
        torch.testing.assert_close(*features)

    @pytest.mark.parametrize(
        ("shape", "share"), [((512, 192), 7 / 9), ((256, 48), 7 / 9), ((96, 9), 1.0)], ids=["wide", "wider", "narrow"]
    )
    def test_wide_features_take_fewer_multiplications(self, shape: tuple[int, int], share: float) -> None:
        side = 59
        step = GemmTransposedConvolution(torch.randn(*shape, 3, 3))
        features, stack = channels_last(1, shape[1], 2 * side + 1, 2 * side + 1), channels_last(1, shape[0], side, side)
        count = multiplications(lambda: step.add_to(features, stack, Workspace()))
        assert count / (side**2 * shape[0] * shape[1] * 9) == pytest.approx(share, rel=0.02)


class TestProducts:
    """Both libraries; which of them is taken on this machine makes no difference to the other tests."""

    @pytest.fixture(params=["matrices", "convolutions"])
    def make(self, request: pytest.FixtureRequest) -> Callable[[Tensor], Gemm]:
        return ConvolutionGemm if request.param == "convolutions" else MatmulGemm

    @given(rows=st.integers(1, 70), terms=st.integers(1, 40), columns=st.integers(1, 40), spare=st.integers(0, 3))
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_they_multiply_without_the_terms_that_are_left_out(
        self, make: Callable[[Tensor], Gemm], rows: int, terms: int, columns: int, spare: int
    ) -> None:
        generator = torch.Generator().manual_seed(rows)
        left = torch.randn(rows, terms, generator=generator)
        right = torch.randn(terms + spare, columns, generator=generator)
        expected = left.double() @ right[:terms].double()
        torch.testing.assert_close(make(right)(left, Workspace()).double(), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("shape", [(2304, 512, 576), (40, 513, 40), (7, 1026, 9), (2000, 96, 81), (1, 432, 128)])
    def test_the_faster_one_gives_the_same_bits_in_any_number_of_threads(self, shape: tuple[int, int, int]) -> None:
        left, product = torch.randn(shape[:2]), make_gemm(torch.randn(shape[1:]))
        before, results = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3, 8, 16):
                torch.set_num_threads(threads)
                results.append(product(left, Workspace()).clone())
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(result, results[0]) for result in results)

    @pytest.mark.parametrize("faster", [False, True])
    def test_networks_take_the_library_that_is_faster_on_the_processor(
        self, faster: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inference.gemm, "convolutions_are_faster", lambda: faster)
        product = make_gemm(torch.zeros(2, 3))
        assert isinstance(product, ConvolutionGemm if faster else MatmulGemm)

    @pytest.mark.parametrize(
        ("vendor", "expected"), [("AuthenticAMD", True), ("HygonGenuine", True), ("GenuineIntel", False), ("", False)]
    )
    def test_it_is_that_for_convolutions_where_mkl_is_not_at_home(
        self, vendor: str, expected: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        monkeypatch.setattr(inference.gemm, "processor_vendor", lambda: vendor)
        assert convolutions_are_faster.__wrapped__() is expected

    @pytest.mark.parametrize("missing", [torch.backends.mkl, torch.backends.mkldnn], ids=["MKL", "oneDNN"])
    def test_it_is_that_for_matrices_where_torch_lacks_one_of_them(
        self, missing: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inference.gemm, "processor_vendor", lambda: "AuthenticAMD")
        monkeypatch.setattr(missing, "is_available", lambda: False)
        assert not convolutions_are_faster.__wrapped__()

    def test_a_processor_says_who_made_it(self) -> None:
        name = processor_vendor()
        assert name == "" or name.isalnum()
        if Path("/proc/cpuinfo").is_file() and "vendor_id" in Path("/proc/cpuinfo").read_text():
            assert name
            assert name in Path("/proc/cpuinfo").read_text()


class TestToomCook:
    @given(results=st.integers(2, 4), taps=st.integers(2, 4), seed=st.integers(0, 9))
    def test_it_slides_a_filter(self, results: int, taps: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        values, filter_taps = generator.normal(size=results + taps - 1), generator.normal(size=taps)
        inputs, filters, outputs = toom_cook(results, taps)
        result = outputs @ ((filters @ filter_taps) * (inputs @ values))
        np.testing.assert_allclose(result, np.correlate(values, filter_taps), atol=1e-9)
        assert len(inputs) == results + taps - 1


class TestWorkspace:
    def test_a_name_is_given_the_same_memory_again(self) -> None:
        workspace, like = Workspace(), torch.zeros(1)
        first = workspace.take("a", 4, 6, like=like)
        second = workspace.take("a", 5, 2, like=like)
        assert (first.shape, second.shape) == ((4, 6), (5, 2))
        assert first.data_ptr() == second.data_ptr()

    def test_two_names_have_memory_of_their_own(self) -> None:
        workspace, like = Workspace(), torch.zeros(1)
        first, second = (workspace.take(name, 10, like=like).fill_(value) for value, name in enumerate("ab"))
        assert (float(first.max()), float(second.min())) == (0, 1)

    def test_a_larger_or_other_tensor_is_new(self) -> None:
        workspace, like = Workspace(), torch.zeros(1)
        workspace.take("a", 4, like=like)
        assert workspace.take("a", 40, like=like).shape == (40,)
        assert workspace.take("a", 4, like=like.double()).dtype == torch.float64
