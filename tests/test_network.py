"""The network: the authors' to the last key, at every size, with and without noise."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from examples import TINY, a_network
from napari_mgbpv2.errors import ImageError, ModelError
from napari_mgbpv2.model.checkpoints import export_model, infer_config, load_model, published_state_dict
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import (
    Ensemble,
    MGBPv2,
    Network,
    fold_channels,
    pad_to_natural,
    scaling_modules,
    weights_hash,
)

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "network" / "index.json").read_text())
PUBLISHED = json.loads((DATA / "published_state_dicts.json").read_text())
KERNELS = {"K3": 3, "K5": 5, "K7": 7}

NETWORK = a_network()


def an_input(height: int = 20, width: int = 30, *, batch: int = 1, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def an_ensemble(*kernels: int) -> Ensemble:
    configs = [ModelConfig(features=(5, 4), kernel=kernel) for kernel in kernels]
    ensemble = Ensemble(configs)
    for member, config in zip(ensemble.children(), configs, strict=True):
        member.load_state_dict(a_network(config, seed=config.kernel).state_dict())
    return ensemble.eval().requires_grad_(False)


def published_network(name: str) -> Network:
    """A published network without its weights."""
    with torch.device("meta"):
        if name == "merge":
            return Ensemble([ModelConfig(kernel=kernel) for kernel in KERNELS.values()])
        return MGBPv2(ModelConfig(kernel=KERNELS[name]))


class TestTheAuthorsNetwork:
    """Promise 1."""

    @pytest.mark.parametrize("case", CASES, ids=[case["model_id"] for case in CASES])
    def test_its_output_is_the_same(self, case: dict[str, Any], tmp_path: Path) -> None:
        tensors = load_file(DATA / "network" / case["file"])
        state = {name.removeprefix("state."): tensor for name, tensor in tensors.items() if name.startswith("state.")}
        torch.save(state, tmp_path / "any name.model")
        cycles = 2 if "_NU2_" in case["model_id"] else None  # shared weights cannot tell it
        network = load_model(tmp_path / "any name.model", cycles=cycles)
        result = network(tensors["x"], tensors["noise"], case["noise_amplitude"])
        error = (result - tensors["y"]).abs().max() / tensors["y"].abs().max()
        assert float(error) < 1e-5

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_its_tensors_have_the_same_names_and_shapes_in_the_same_order(self, name: str) -> None:
        state = published_state_dict(published_network(name))
        assert [(key, list(tensor.shape)) for key, tensor in state.items()] == list(PUBLISHED[name].items())

    @pytest.mark.parametrize("name", KERNELS)
    def test_its_configuration_is_found_from_the_tensors_alone(self, name: str) -> None:
        shapes = {key: tuple(shape) for key, shape in PUBLISHED[name].items()}
        assert infer_config(shapes) == ModelConfig(kernel=KERNELS[name])

    @pytest.mark.parametrize(
        ("name", "parameters"), [("K3", 28_170_450), ("K5", 79_179_802), ("K7", 156_070_930), ("merge", 263_421_182)]
    )
    def test_it_has_as_many_parameters(self, name: str, parameters: int) -> None:
        assert sum(parameter.numel() for parameter in published_network(name).parameters()) == parameters

    @pytest.mark.parametrize("levels", [2, 3, 4, 5])
    @pytest.mark.parametrize("steps", [1, 2, 3])
    def test_modules_are_labelled_by_counters_that_are_never_reset(self, levels: int, steps: int) -> None:
        counters, labels = [0] * (levels - 1), []

        def run(level: int) -> None:
            if level == 0:
                return
            for step in range(steps):
                counters[level - 1] = step
                label = "-".join(map(str, [level, *counters]))
                labels.append(f"Downscale_{label}")
                run(level - 1)
                labels.append(f"Upscale_{label}")

        run(levels - 1)
        assert [name for name, _ in scaling_modules(ModelConfig(features=(1,) * levels, steps=steps))] == labels

    def test_all_parameters_learn_but_the_noise_analysis_that_no_level_reads(self) -> None:
        network = a_network(TINY).train().requires_grad_(True)
        network(an_input(), an_input(seed=1), 1.0).square().mean().backward()
        idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert idle == ["AnalysisN_2.weight", "AnalysisN_2.bias"]


class TestSizes:
    @settings(deadline=None, max_examples=40)
    @given(height=st.integers(1, 60), width=st.integers(1, 60))
    def test_every_size_gives_itself(self, height: int, width: int) -> None:
        assert NETWORK(an_input(height, width)).shape == (1, 3, height, width)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 100)])
    def test_so_do_sizes_far_smaller_than_the_border(self, height: int, width: int) -> None:
        network = a_network(ModelConfig(features=(4, 3, 3, 2, 2)))
        result = network(an_input(height, width))
        assert result.shape == (1, 3, height, width)
        assert torch.isfinite(result).all()

    @settings(deadline=None, max_examples=40)
    @given(height=st.integers(1, 40), width=st.integers(1, 40))
    def test_the_border_mirrors_the_image_as_often_as_needed(self, height: int, width: int) -> None:
        image = an_input(height, width)
        border = [(0, 0), (0, 0), TINY.border(height), TINY.border(width)]
        np.testing.assert_array_equal(pad_to_natural(image, TINY), np.pad(image, border, mode="reflect"))

    def test_the_images_of_a_batch_do_not_meet(self) -> None:
        images = an_input(batch=3)
        alone = torch.cat([NETWORK(image[None]) for image in images])
        torch.testing.assert_close(NETWORK(images), alone, rtol=1e-5, atol=1e-6)


class TestNoise:
    def test_at_amplitude_zero_it_changes_nothing(self) -> None:
        image = an_input()
        expected = NETWORK(image)
        assert torch.equal(NETWORK(image, an_input(seed=1), 0.0), expected)
        assert torch.equal(NETWORK(image, torch.full_like(image, torch.nan), torch.zeros(1)), expected)

    def test_at_other_amplitudes_it_does(self) -> None:
        image = an_input()
        results = [NETWORK(image, an_input(seed=seed), amplitude) for seed in (1, 2) for amplitude in (0.5, 1.0)]
        for index, result in enumerate(results):
            assert not any(torch.allclose(result, other, atol=1e-4) for other in results[:index])

    def test_the_amplitude_goes_continuously_to_zero(self) -> None:
        image, noise = an_input(), an_input(seed=1)
        torch.testing.assert_close(NETWORK(image, noise, 1e-7), NETWORK(image), rtol=1e-5, atol=1e-5)

    def test_each_image_of_a_batch_may_have_its_own_amplitude(self) -> None:
        images, noise, amplitudes = an_input(batch=3), an_input(batch=3, seed=1), [0.0, 0.5, 1.0]
        alone = [NETWORK(images[[i]], noise[[i]], amplitude) for i, amplitude in enumerate(amplitudes)]
        together = NETWORK(images, noise, torch.tensor(amplitudes))
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)

    def test_amplitudes_of_another_precision_change_nothing(self) -> None:
        images, noise, amplitudes = an_input(batch=2), an_input(batch=2, seed=1), [0.25, 0.5]
        result = NETWORK(images, noise, torch.tensor(amplitudes, dtype=torch.float64))
        assert torch.equal(result, NETWORK(images, noise, torch.tensor(amplitudes)))

    def test_a_network_that_hears_none_has_no_weights_for_it(self) -> None:
        network = MGBPv2(ModelConfig(features=(5, 4), noise_channels=0))
        assert not [name for name in network.state_dict() if name.startswith("AnalysisN")]


class TestThreads:
    def test_several_share_one_network(self) -> None:
        inputs = [(an_input(seed=seed), an_input(seed=seed + 1), seed / 7) for seed in range(8)]
        expected = [NETWORK(*each) for each in inputs]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda number: NETWORK(*inputs[number % 8]), range(32)))
        assert all(torch.equal(result, expected[number % 8]) for number, result in enumerate(results))

    def test_a_forward_keeps_nothing_on_the_network(self) -> None:
        def attributes() -> list[dict[str, Any]]:
            return [
                {name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()}
                for module in NETWORK.modules()
            ]

        before = attributes()
        NETWORK(an_input(), an_input(seed=1), 1.0)
        assert attributes() == before


class TestEnsemble:
    def test_it_is_the_sum_of_its_members(self) -> None:
        ensemble, image = an_ensemble(3, 5, 7), an_input()
        torch.testing.assert_close(ensemble(image), sum(member(image) for member in ensemble.children()))

    def test_it_knows_the_configurations_of_its_members(self) -> None:
        configs = (ModelConfig(features=(5, 4)), ModelConfig(features=(5, 4), kernel=5))
        assert Ensemble(configs).configs == configs

    def test_noise_enters_no_member(self) -> None:
        ensemble, image = an_ensemble(3, 5), an_input()
        assert torch.equal(ensemble(image, an_input(seed=1), 1.0), ensemble(image))

    @pytest.mark.parametrize("configs", [[], [TINY, ModelConfig(channels=1)]], ids=["none", "grey and colour"])
    def test_it_needs_members_of_equal_channels(self, configs: list[ModelConfig]) -> None:
        with pytest.raises(ModelError, match="needs at least one network, and all of them the same number of channels"):
            Ensemble(configs)


class TestFoldingChannels:
    @pytest.mark.parametrize(
        "network",
        [NETWORK, a_network(ModelConfig(features=(5, 4), channels=4, bias=False)), an_ensemble(3, 5)],
        ids=["network", "without biases", "ensemble"],
    )
    def test_it_gives_the_mean_of_what_a_repeated_channel_gives(self, network: Network) -> None:
        channels = 4 if isinstance(network, MGBPv2) and network.config.channels == 4 else 3
        grey, noise = an_input(channels=1), an_input(channels=1, seed=1)
        repeated = (each.expand(-1, channels, -1, -1) for each in (grey, noise))
        expected = network(*repeated, 0.5).mean(dim=1, keepdim=True)
        torch.testing.assert_close(fold_channels(network)(grey, noise, 0.5), expected, rtol=1e-4, atol=1e-5)

    def test_it_keeps_what_is_known_and_leaves_the_network_alone(self) -> None:
        network = a_network(scale=8, guard=24)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        folded = fold_channels(network)
        assert (folded.scale, folded.guard, folded.training) == (8, 24, False)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class TestHomogeneity:
    @settings(deadline=None, max_examples=30)
    @given(factor=st.floats(1e-3, 1e3))
    def test_without_biases_a_brighter_image_gives_as_much_brighter_a_result(self, factor: float) -> None:
        network = a_network(ModelConfig(features=(6, 5, 4), noise_channels=0, bias=False))
        image = an_input()
        torch.testing.assert_close(network(factor * image), factor * network(image), rtol=1e-4, atol=1e-5 * factor)

    def test_with_biases_it_does_not(self) -> None:
        assert not torch.allclose(NETWORK(2 * an_input()), 2 * NETWORK(an_input()), atol=1e-3)


class TestIdentity:
    def test_of_a_new_network_neither_scale_nor_guard_is_known(self) -> None:
        for network in (MGBPv2(TINY), Ensemble([TINY])):
            assert network.scale is None
            assert network.guard is None

    def test_the_same_weights_have_the_same_hash(self) -> None:
        assert weights_hash(a_network(seed=1)) == weights_hash(a_network(seed=1, scale=2, guard=24))
        assert len(weights_hash(NETWORK)) == 64

    def test_one_changed_bit_or_another_configuration_changes_it(self) -> None:
        other = a_network()
        for name in ("Analysis_0.weight", "Synthesis.bias"):
            changed = a_network()
            weight = changed.get_parameter(name).view(-1)
            weight[-1] = torch.nextafter(weight[-1], torch.tensor(9.0))
            assert weights_hash(changed) != weights_hash(other)
        twice = a_network(ModelConfig(features=(6, 5, 4), steps=2, kernel=3, cycles=2))
        twice.load_state_dict(other.state_dict())
        assert weights_hash(twice) != weights_hash(other)

    def test_weights_that_change_places_change_it(self) -> None:
        changed = a_network(ModelConfig(features=(4, 4, 4)))
        before = weights_hash(changed)
        state = changed.state_dict()
        state["Analysis_0.bias"], state["Analysis_1.bias"] = state["Analysis_1.bias"], state["Analysis_0.bias"]
        changed.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
        assert weights_hash(changed) != before


class TestErrors:
    @pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 4, 8, 8), (3, 8, 8), (8, 8), (1, 3, 0, 8), (0, 3, 8, 8)])
    def test_the_image_has_the_channels_of_the_network(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ImageError, match=r"takes \(batch, 3, height, width\), none of them 0; this image is"):
            NETWORK(torch.zeros(shape))

    def test_noise_is_refused_by_a_network_without_an_input_for_it(self) -> None:
        network = a_network(ModelConfig(features=(5, 4), noise_channels=0))
        with pytest.raises(ModelError, match="this model has no noise input; use noise amplitude 0"):
            network(an_input(), an_input(), 0.1)

    @pytest.mark.parametrize("noise", [None, an_input(20, 29), an_input(channels=1)], ids=["none", "smaller", "grey"])
    def test_noise_has_the_shape_of_the_image(self, noise: Tensor | None) -> None:
        with pytest.raises(ImageError, match="needs noise of the shape of the image"):
            NETWORK(an_input(), noise, 1.0)

    @pytest.mark.parametrize("amplitude", [torch.ones(3), torch.ones(2, 1), torch.ones(2, 3, 20, 30)])
    def test_the_amplitude_is_one_number_or_one_an_image(self, amplitude: Tensor) -> None:
        images = an_input(batch=2)
        with pytest.raises(ImageError, match="noise amplitude must be one number or one per image"):
            NETWORK(images, images, amplitude)


RESIDUAL = ModelConfig(features=(6, 5, 4), noise_channels=0, bias=False, residual=True, border_multiple=4)


class TestAResidualNetwork:
    """Promise 7: the result follows the image's values affinely, whatever the weights."""

    @pytest.mark.parametrize("factor", [1.0, 0.01, 300.0])
    @pytest.mark.parametrize("offset", [0.0, -3.0, 50.0])
    def test_it_follows_scale_and_offset(self, factor: float, offset: float) -> None:
        network, image = a_network(RESIDUAL).double(), an_input().double()
        expected = factor * network(image) + offset
        torch.testing.assert_close(network(factor * image + offset), expected, rtol=0, atol=1e-10 * factor)

    def test_each_channel_has_an_offset_of_its_own(self) -> None:
        network, image = a_network(RESIDUAL).double(), an_input().double()
        offsets = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)[:, None, None]
        torch.testing.assert_close(network(image + offsets), network(image) + offsets, rtol=0, atol=1e-10)

    def test_it_changes_the_image(self) -> None:
        network, image = a_network(RESIDUAL), an_input()
        assert float((network(image) - image).std()) > 0.01

    def test_an_even_image_stays_as_it_is(self) -> None:
        image = torch.full((1, 3, 40, 40), 0.7)
        torch.testing.assert_close(a_network(RESIDUAL)(image), image, rtol=0, atol=1e-6)

    def test_its_configuration_is_found_from_the_tensors(self) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in MGBPv2(RESIDUAL).state_dict().items()}
        assert infer_config(shapes).residual

    def test_it_has_no_biases(self) -> None:
        with pytest.raises(ModelError, match="a residual network has no biases"):
            ModelConfig(bias=True, residual=True)

    def test_an_ensemble_has_none(self) -> None:
        with pytest.raises(ModelError, match="which must not be residual"):
            Ensemble([RESIDUAL, RESIDUAL])

    def test_the_authors_format_has_none(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="the authors' code does not support residual"):
            export_model(MGBPv2(RESIDUAL), tmp_path / "a.model")
        assert not list(tmp_path.iterdir())

    def test_folded_to_one_channel_it_gives_the_mean_of_a_repeated_channel(self) -> None:
        network, grey = a_network(RESIDUAL), an_input()[:, :1]
        expected = network(grey.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)
        torch.testing.assert_close(fold_channels(network)(grey), expected, rtol=0, atol=1e-6)
