"""Axes: what a shape alone says, and what may be said instead."""

from __future__ import annotations

import pytest

from napari_mgbpv2.axes import check_axes, guess_axes
from napari_mgbpv2.errors import ImageError


class TestGuessing:
    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((100, 200), "yx"),
            ((7, 100, 200), "zyx"),
            ((2, 7, 100, 200), "czyx"),
            ((5, 2, 7, 100, 200), "tczyx"),
        ],
    )
    def test_plain_axes_end_in_y_and_x(self, shape: tuple[int, ...], axes: str) -> None:
        assert guess_axes(shape) == axes

    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((100, 200, 3), "yxs"),
            ((100, 200, 4), "yxs"),
            ((7, 100, 200, 3), "zyxs"),
            ((5, 2, 7, 100, 200, 3), "tczyxs"),
        ],
    )
    def test_a_last_axis_of_three_or_four_behind_larger_ones_is_colour(self, shape: tuple[int, ...], axes: str) -> None:
        assert guess_axes(shape) == axes

    @pytest.mark.parametrize("shape", [(100, 200, 2), (100, 200, 5), (100, 4, 4), (3, 3, 3), (100, 3)])
    def test_other_last_axes_are_no_colour(self, shape: tuple[int, ...]) -> None:
        assert not guess_axes(shape).endswith("s")

    @pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3, 4, 5, 6), (1, 1, 1, 1, 50, 60, 70)])
    def test_too_few_or_too_many_axes_are_an_error_that_says_what_to_do(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ImageError, match=rf"has {len(shape)} axes, .* say which with axes="):
            guess_axes(shape)


class TestGiving:
    @pytest.mark.parametrize("axes", ["yx", "xy", "tyxs", "qyxp"])
    def test_any_distinct_letters_with_y_and_x_are_taken_in_their_order(self, axes: str) -> None:
        assert check_axes(axes, (5,) * len(axes)) == axes

    def test_capitals_become_small(self) -> None:
        assert check_axes("ZYX", (5, 6, 7)) == "zyx"

    def test_one_letter_is_needed_for_each_axis(self) -> None:
        with pytest.raises(ImageError, match=r"'yx' has 2 letters for an image of 3 axes \(5, 6, 7\)"):
            check_axes("yx", (5, 6, 7))

    @pytest.mark.parametrize("axes", ["zzyx", "zyyx", "tcz", "z1yx", "z yx", "tzcx"])
    def test_repeated_letters_other_signs_and_missing_y_or_x_are_errors(self, axes: str) -> None:
        with pytest.raises(ImageError, match=f'{axes!r} must be one distinct letter for each axis, with "y" and "x"'):
            check_axes(axes, (5,) * len(axes))
