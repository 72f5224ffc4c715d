"""Axes: what a shape alone says, and what may be said instead."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from napari_mgbpv2.errors import ImageError
from napari_mgbpv2.imaging.axes import axes_from_names, check_axes, dimension_names, guess_axes


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
        with pytest.raises(ImageError, match=rf"has {len(shape)} axes, .* name them with axes="):
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


class TestNames:
    @pytest.mark.parametrize(
        ("names", "axes"),
        [
            (("slice", "y", "x"), "zyx"),
            (("lat", "lon"), "yx"),
            (("time", "latitude", "longitude"), "tyx"),
            (("frame", "row", "col"), "tyx"),
            (("band", "northing", "easting"), "cyx"),
            (("height", "width"), "yx"),
            (("height", "lat", "lon"), "zyx"),
            (("X", "Y"), "xy"),
            (("T", "C", "Z", "Y", "X"), "tczyx"),
        ],
    )
    def test_names_are_read_whole(self, names: tuple[str, ...], axes: str) -> None:
        assert axes_from_names(names, (9,) * len(names)) == axes

    @pytest.mark.parametrize("name", ["yaw", "xray", "cell", "sample", "realization", "stain", "z_stack_of_it"])
    def test_any_other_dimension_is_carried_under_a_letter_that_means_nothing(self, name: str) -> None:
        letter, *others = axes_from_names((name, "y", "x"), (3, 9, 9))
        assert others == ["y", "x"]
        assert letter not in "tczyxs"

    def test_two_dimensions_of_the_same_meaning_get_two_letters(self) -> None:
        axes = axes_from_names(("time", "frame", "y", "x"), (2, 3, 9, 9))
        assert axes[0] == "t"
        assert len(set(axes)) == 4

    @pytest.mark.parametrize(("name", "size", "axis"), [("rgb", 3, "s"), ("sample", 4, "s"), ("sample", 7, "a")])
    def test_colour_samples_are_at_most_four(self, name: str, size: int, axis: str) -> None:
        letter = axes_from_names(("y", "x", name), (9, 9, size))[-1]
        assert (letter == "s") == (axis == "s")

    def test_names_without_y_and_x_are_an_error_that_lists_them(self) -> None:
        with pytest.raises(ImageError, match=r"named u, v, w, and y and x cannot be identified .* axes="):
            axes_from_names(("u", "v", "w"), (5, 6, 7))

    @pytest.mark.parametrize("names", [("dim_0", "dim_1"), (None, None), ("0", "1"), ("phony_dim_0", "phony_dim_1")])
    def test_names_that_libraries_fill_in_are_none(self, names: tuple[str | None, ...]) -> None:
        assert dimension_names(SimpleNamespace(dims=names, shape=(5, 6))) is None
