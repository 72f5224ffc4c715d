"""The numbers of a network: natural sizes, border, reach and windows, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mgbpv2.errors import ModelError
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import MGBPv2

K3, K5, K7 = (ModelConfig(kernel=kernel) for kernel in (3, 5, 7))  # the published networks

configs = st.builds(
    ModelConfig,
    features=st.lists(st.integers(1, 300), min_size=2, max_size=6),
    steps=st.integers(1, 3),
    cycles=st.integers(1, 3),
    kernel=st.sampled_from([3, 5, 7]),
    channels=st.integers(1, 4),
    noise_channels=st.integers(0, 2),
    bias=st.booleans(),
)
sizes = st.integers(1, 3000)
properties = settings(deadline=None, max_examples=60)


class TestNaturalSizes:
    @properties
    @given(config=configs, positions=st.integers(2, 50))
    def test_they_follow_the_formula(self, config: ModelConfig, positions: int) -> None:
        unit = 2 ** (config.levels - 1)
        assert config.is_natural(unit * (positions - 1) + (unit - 1) * (config.kernel - 1) + 1)

    @properties
    @given(config=configs, size=sizes)
    def test_they_are_those_that_every_strided_convolution_divides(self, config: ModelConfig, size: int) -> None:
        rests = []
        for level in range(config.levels):
            stride = 2 ** (config.levels - 1 - level)
            positions, rest = divmod(size - ((config.kernel - 1) * (stride - 1) + 1), stride)
            rests.append(rest or positions < 1)
        assert config.is_natural(size) == (not any(rests))

    @properties
    @given(config=configs, size=sizes)
    def test_rounding_up_gives_the_next_one(self, config: ModelConfig, size: int) -> None:
        up = config.natural_up(size)
        assert up >= size
        assert [other for other in range(size, up + 1) if config.is_natural(other)] == [up]

    @properties
    @given(config=configs, excess=st.integers(0, 3000))
    def test_rounding_down_gives_the_last_one(self, config: ModelConfig, excess: int) -> None:
        size = config.smallest + excess
        down = config.natural_down(size)
        assert [other for other in range(down, size + 1) if config.is_natural(other)] == [down]

    def test_nothing_fits_below_the_smallest(self) -> None:
        assert not K3.is_natural(K3.smallest - K3.alignment)
        with pytest.raises(ModelError, match="no natural size fits into 46 px; the smallest is 47 px"):
            K3.natural_down(46)

    @pytest.mark.parametrize(
        ("config", "size", "border"),
        [
            (K3, 667, (2, 2)),
            (K5, 667, (1, 1)),
            (K7, 667, (0, 0)),
            (K3, 767, (0, 0)),
            (K5, 767, (7, 7)),
            (K7, 767, (6, 6)),
        ],
    )
    def test_the_published_tiles_have_these_borders(
        self, config: ModelConfig, size: int, border: tuple[int, int]
    ) -> None:
        assert config.border(size) == border
        assert config.is_natural(size) == (border == (0, 0))

    @properties
    @given(config=configs, size=sizes, scale=st.sampled_from([2, 3, 4, 8, 16]))
    def test_a_border_of_multiples_starts_with_the_largest_one_in_its_first_half(
        self, config: ModelConfig, size: int, scale: int
    ) -> None:
        before, after = replace(config, border_multiple=scale).border(size)
        half, _ = config.border(size)
        assert before % scale == 0
        assert 0 <= half - before < scale
        assert before + size + after == config.natural_up(size)

    @properties
    @given(config=configs, size=sizes)
    def test_the_border_is_split_in_halves_the_larger_one_before(self, config: ModelConfig, size: int) -> None:
        before, after = config.border(size)
        assert before + size + after == config.natural_up(size)
        assert before - after in (0, 1)


def influence(config: ModelConfig) -> int:
    """The farthest distance at which a pixel of a row changes another, over all phases, as gradients show it."""
    network = MGBPv2(config).double()
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.5)  # positive, so that nothing cancels and no ReLU is shut
    width = config.natural_up(2 * config.reach + 3 * config.alignment)
    farthest = 0
    for position in range(width // 2, width // 2 + config.alignment):
        image = torch.ones(1, config.channels, config.smallest, width, dtype=torch.float64, requires_grad=True)
        network(image)[..., position].sum().backward()
        assert image.grad is not None
        reached = image.grad.abs().sum(dim=(0, 1, 2)).nonzero()
        farthest = max(farthest, int((reached - position).abs().max()))
    return farthest


class TestReach:
    @pytest.mark.parametrize(
        ("config", "reach"),
        [(K3, 270), (K5, 652), (K7, 970), (ModelConfig(features=(4, 4, 4, 4)), 70)],
        ids=["K3", "K5", "K7", "four levels"],
    )
    def test_it_is_known_for_some_networks(self, config: ModelConfig, reach: int) -> None:
        assert config.reach == reach

    @pytest.mark.parametrize(
        "config",
        [
            ModelConfig(features=(1, 1), steps=1, kernel=3, channels=1, noise_channels=0),
            ModelConfig(features=(1, 1), steps=3, kernel=5, channels=1, noise_channels=0),
            ModelConfig(features=(1, 2, 1), steps=2, kernel=3, noise_channels=0),
            ModelConfig(features=(1, 1, 1), steps=2, cycles=2, kernel=5, channels=1, noise_channels=0),
            ModelConfig(features=(1, 1, 1, 1), steps=1, kernel=7, channels=1, noise_channels=0),
            ModelConfig(features=(1, 1, 1, 1), steps=2, kernel=3, channels=1, noise_channels=0),
        ],
        ids=str,
    )
    def test_pixels_influence_each_other_just_so_far(self, config: ModelConfig) -> None:
        assert influence(config) == config.reach

    @pytest.mark.parametrize("kernel", [3, 5])
    def test_pixels_of_a_residual_network_influence_each_other_no_further(self, kernel: int) -> None:
        config = ModelConfig(features=(8, 8, 8), kernel=kernel, channels=1, noise_channels=0, bias=False, residual=True)
        assert 0 < influence(config) <= config.reach


class TestWindow:
    @properties
    @given(config=configs, size=sizes, first=st.integers(-200, 3000), length=st.integers(1, 800))
    def test_it_is_natural_aligned_and_on_the_padded_image(
        self, config: ModelConfig, size: int, first: int, length: int
    ) -> None:
        before, after = config.border(size)
        start, natural = config.window(first, first + length, size)
        assert config.is_natural(natural)
        assert (start + before) % config.alignment == 0
        assert -before <= start
        assert start + natural <= size + after

    @properties
    @given(config=configs, size=sizes, data=st.data())
    def test_it_holds_the_positions_and_no_smaller_one_does(
        self, config: ModelConfig, size: int, data: st.DataObject
    ) -> None:
        before, after = config.border(size)
        first = data.draw(st.integers(-before, size + after - 1))
        last = data.draw(st.integers(first + 1, size + after))
        start, length = config.window(first, last, size)
        assert start <= first
        assert last <= start + length
        starts = range(-before, first + 1, config.alignment)
        smaller = length - config.alignment
        assert not config.is_natural(smaller) or not any(last <= other + smaller for other in starts)

    @properties
    @given(config=configs, size=sizes)
    def test_that_of_the_whole_image_is_the_padded_image(self, config: ModelConfig, size: int) -> None:
        assert config.window(-5000, 5000, size) == (-config.border(size)[0], config.natural_up(size))


class TestValidity:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"features": (4,)}, "features lists 1 levels; a network has 2 to 6"),
            ({"features": (4,) * 7}, "features lists 7 levels; a network has 2 to 6"),
            ({"features": (4, 0, 4)}, "features is 0; it must be at least 1"),
            ({"steps": 0}, "steps is 0; it must be at least 1"),
            ({"cycles": -1}, "cycles is -1; it must be at least 1"),
            ({"channels": 0}, "channels is 0; it must be at least 1"),
            ({"noise_channels": -1}, "noise_channels is -1; it must be at least 0"),
            ({"kernel": 4}, "kernel is 4; it must be odd and at least 3"),
            ({"kernel": 1}, "kernel is 1; it must be odd and at least 3"),
            ({"features": (4, 4.5)}, "numbers of a network must be integers: 'float'"),
            ({"features": 4}, "numbers of a network must be integers: 'int' object is not iterable"),
            ({"steps": "2"}, "numbers of a network must be integers: 'str'"),
            ({"cycles": None}, "numbers of a network must be integers: 'NoneType'"),
        ],
    )
    def test_impossible_numbers_are_errors(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            ModelConfig(**values)

    def test_numbers_of_any_whole_type_become_plain_ones(self) -> None:
        config = ModelConfig(features=[np.int64(6), 5], kernel=np.uint8(3))  # type: ignore[arg-type]
        assert config.features == (6, 5)
        assert {type(number) for number in (*config.features, config.kernel)} == {int}
        assert hash(config) == hash(ModelConfig(features=(6, 5), kernel=3))

    @properties
    @given(config=configs)
    def test_it_survives_json(self, config: ModelConfig) -> None:
        assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize("values", [{"layers": 3}, {"features": 3}, [1, 2], None])
    def test_a_dictionary_of_something_else_is_an_error(self, values: Any) -> None:
        with pytest.raises(ModelError, match=r"this version does not know|must be integers"):
            ModelConfig.from_dict(values)
