"""Noise: a function of seed, channel and position, and standard normal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mgbpv2.imaging.noise import CELL, noise_window

SIDE = 1024
FIVE_SIGMA = 5 / SIDE  # of the mean of a million independent numbers of unit variance

positions = st.integers(0, 2_000_000)
sizes = st.integers(1, 2 * CELL)


@pytest.fixture(scope="module")
def field() -> npt.NDArray[np.float64]:
    return noise_window(1, 0, 0, 0, SIDE, SIDE).astype(np.float64)


class TestPosition:
    @settings(deadline=None, max_examples=40)
    @given(row=positions, column=positions, height=sizes, width=sizes, data=st.data())
    def test_a_window_of_a_window_is_the_same(
        self, row: int, column: int, height: int, width: int, data: st.DataObject
    ) -> None:
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        part = noise_window(3, 1, row + top, column + left, height - top, width - left)
        np.testing.assert_array_equal(part, noise_window(3, 1, row, column, height, width)[top:, left:])

    @pytest.mark.parametrize(
        ("place", "values"),
        [
            ((0, 0, 0, 0), [2.916203, -1.28554, -1.3901575, 0.41330165]),
            ((7, 2, 300, 1000), [-0.05382221, -0.34962505, -0.21702759, -0.11688924]),
            ((2**63, 5, 10**6, 10**6), [-0.13059205, -1.3688011, -0.22584575, 0.96193039]),
        ],
    )
    def test_a_place_has_its_values_for_ever(self, place: tuple[int, int, int, int], values: list[float]) -> None:
        np.testing.assert_allclose(noise_window(*place, 1, 4)[0], values, atol=1e-6)

    def test_seeds_count_modulo_two_to_the_64(self) -> None:
        first, second = noise_window(-1, 0, 0, 0, 5, 5), noise_window(2**64 - 1, 0, 0, 0, 5, 5)
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("seed", [1, -1, 2**63, 2**63 + 1, 2**64 - 2])
    def test_every_seed_has_noise_of_its_own(self, seed: int) -> None:
        others = [noise_window(other, 0, 0, 0, 1, 5) for other in (0, seed - 1, seed + 1)]
        assert not any(np.array_equal(noise_window(seed, 0, 0, 0, 1, 5), other) for other in others)

    def test_it_has_the_size_that_was_asked_for(self) -> None:
        window = noise_window(0, 0, 250, 510, 7, 300)
        assert window.shape == (7, 300)
        assert window.dtype == np.float32


class TestDistribution:
    def test_mean_and_variance_are_those_of_the_standard_normal(self, field: npt.NDArray[np.float64]) -> None:
        assert abs(field.mean()) < FIVE_SIGMA
        assert abs(field.var() - 1) < FIVE_SIGMA * np.sqrt(2)

    def test_so_are_skewness_and_kurtosis(self, field: npt.NDArray[np.float64]) -> None:
        assert abs((field**3).mean()) < FIVE_SIGMA * np.sqrt(15)
        assert abs((field**4).mean() - 3) < FIVE_SIGMA * np.sqrt(96)

    @pytest.mark.parametrize(("beyond", "share"), [(1, 0.317311), (2, 0.045500), (3, 0.0026998), (4, 6.3342e-5)])
    def test_so_are_the_tails(self, field: npt.NDArray[np.float64], beyond: float, share: float) -> None:
        for found in (2 * np.mean(field > beyond), 2 * np.mean(field < -beyond)):
            assert abs(found - share) < FIVE_SIGMA * np.sqrt(2 * share)

    def test_every_value_is_finite_and_no_more_than_six(self, field: npt.NDArray[np.float64]) -> None:
        assert np.abs(field).max() < 6

    @pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (0, CELL), (CELL, 0), (CELL // 2, 0), (0, CELL // 2)])
    @pytest.mark.parametrize("function", [np.positive, np.square, np.abs], ids=["values", "squares", "sizes"])
    def test_neighbours_and_cells_are_independent(
        self, field: npt.NDArray[np.float64], shift: tuple[int, int], function: Callable[[Any], Any]
    ) -> None:
        rows, columns = shift
        values = function(field)
        apart = np.corrcoef(values[rows:, columns:].ravel(), values[: SIDE - rows, : SIDE - columns].ravel())[0, 1]
        assert abs(apart) < 1.3 * FIVE_SIGMA

    @pytest.mark.parametrize("place", [(2, 0, 0, 0), (1, 1, 0, 0), (0, 1, 0, 0), (1, 0, SIDE, 0), (1, 0, 0, SIDE)])
    def test_seeds_channels_and_places_are_independent(
        self, field: npt.NDArray[np.float64], place: tuple[int, int, int, int]
    ) -> None:
        other = noise_window(*place, SIDE, SIDE)
        assert abs(np.corrcoef(field.ravel(), other.ravel())[0, 1]) < FIVE_SIGMA
