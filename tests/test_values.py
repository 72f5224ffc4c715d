"""Values: to the network and back without loss, one map for the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_mgbpv2.errors import ImageError, SourceError
from napari_mgbpv2.imaging.values import ValueMap, check_pixels

SMALL_INTEGERS = ["u1", "i1", "u2", "i2", ">u2"]
LARGE_INTEGERS = ["u4", "i4", "u8", "i8", ">i4"]
FLOATS = ["f2", "f4", "f8", ">f4"]
FLOAT32_STEP = 2.0**-24  # relative precision of what a network computes with


def there_and_back(values: npt.NDArray[Any], value_range: tuple[float, float] | None = None) -> npt.NDArray[Any]:
    mapped = ValueMap.of(values.dtype, value_range)
    return mapped.from_unit(mapped.to_unit(values))


def all_values(dtype: str) -> npt.NDArray[Any]:
    limits = np.iinfo(dtype)
    return np.arange(limits.min, limits.max + 1).astype(dtype)


def from_unit(dtype: str, *values: float, value_range: tuple[float, float] | None = None) -> list[Any]:
    unit = np.array(values, np.float32)
    return list(ValueMap.of(dtype, value_range).from_unit(unit).tolist())


def to_unit(dtype: str, *values: float, value_range: tuple[float, float] | None = None) -> list[Any]:
    return list(ValueMap.of(dtype, value_range).to_unit(np.array(values, dtype)).tolist())


class TestIntegers:
    @pytest.mark.parametrize("dtype", SMALL_INTEGERS)
    def test_every_value_of_up_to_16_bits_comes_back_exactly(self, dtype: str) -> None:
        result = there_and_back(all_values(dtype))
        np.testing.assert_array_equal(result, all_values(dtype))
        assert result.dtype == np.dtype(dtype)

    def test_every_value_comes_back_exactly_where_the_range_is_a_small_part_of_the_type(self) -> None:
        np.testing.assert_array_equal(there_and_back(all_values("u2"), (100, 1400)), all_values("u2"))

    @pytest.mark.parametrize("dtype", LARGE_INTEGERS)
    @settings(deadline=None, max_examples=30)
    @given(data=st.data())
    def test_larger_values_come_back_within_the_precision_of_a_network(self, dtype: str, data: st.DataObject) -> None:
        values = data.draw(arrays(dtype, 20))
        difference = there_and_back(values).astype(np.float64) - values.astype(np.float64)
        assert np.abs(difference).max() <= float(np.iinfo(dtype).max) * FLOAT32_STEP

    @pytest.mark.parametrize("dtype", LARGE_INTEGERS)
    @settings(deadline=None, max_examples=30)
    @given(data=st.data())
    def test_they_come_back_exactly_in_a_range_of_24_bits_wherever_it_lies(
        self, dtype: str, data: st.DataObject
    ) -> None:
        first = 2**30
        values = data.draw(arrays(dtype, 20, elements=st.integers(first, first + 2**22)))
        np.testing.assert_array_equal(there_and_back(values, (first, first + 2**22)), values)

    @pytest.mark.parametrize("dtype", SMALL_INTEGERS + LARGE_INTEGERS)
    def test_values_beyond_the_type_are_clipped_and_never_wrap(self, dtype: str) -> None:
        lowest, highest = from_unit(dtype, -5, 5)
        limits = np.iinfo(dtype)
        assert lowest == limits.min
        assert limits.max * (1 - FLOAT32_STEP) <= highest <= limits.max

    @pytest.mark.parametrize("dtype", SMALL_INTEGERS + LARGE_INTEGERS)
    def test_the_extremes_of_the_type_come_back_at_its_extremes(self, dtype: str) -> None:
        limits = np.iinfo(dtype)
        lowest, highest = there_and_back(np.array([limits.min, limits.max], dtype)).tolist()
        assert limits.min <= lowest <= limits.min * (1 - FLOAT32_STEP)
        assert limits.max * (1 - FLOAT32_STEP) <= highest <= limits.max

    def test_values_in_between_are_rounded_to_the_nearest(self) -> None:
        assert from_unit("u1", *(np.array([99.6, 100.4, 100.6, -0.4, 255.4]) / 255)) == [100, 100, 101, 0, 255]

    def test_negative_values_are_below_black(self) -> None:
        assert to_unit("i1", -127, 0, 127) == [-1, 0, 1]


class TestFloats:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_they_are_not_clipped_and_keep_their_type(self, dtype: str) -> None:
        values = np.array([-2.5, -0.25, 0, 0.5, 1, 1.5, 1000], dtype)
        result = there_and_back(values)
        np.testing.assert_array_equal(result, values)
        assert result.dtype == np.dtype(dtype)

    def test_the_range_is_zero_to_one_unless_given(self) -> None:
        assert to_unit("f4", 0, 0.25, 1) == [0, 0.25, 1]

    @pytest.mark.parametrize("value_range", [None, (-10, 30)])
    def test_not_finite_values_go_in_as_the_ends_of_the_range(self, value_range: tuple[float, float] | None) -> None:
        assert to_unit("f4", np.nan, -np.inf, np.inf, value_range=value_range) == [0, 0, 1]

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_the_image_itself_is_left_alone(self, dtype: str) -> None:
        values = np.array([np.nan, 0.5, np.inf], dtype)
        ValueMap.of(dtype, None).to_unit(values)
        np.testing.assert_array_equal(values, np.array([np.nan, 0.5, np.inf], dtype))


class TestBooleans:
    def test_they_come_back(self) -> None:
        values = np.array([False, True])
        assert there_and_back(values).tolist() == [False, True]
        assert there_and_back(values).dtype == bool

    def test_they_are_true_from_the_middle_on(self) -> None:
        assert from_unit("?", -3, 0.49, 0.5, 1, 7) == [False, False, True, True, True]

    def test_booleans_are_told_from_the_middle_of_their_range(self) -> None:
        assert from_unit("?", 0.3, 0.49, 0.5, 0.6, value_range=(0, 2)) == [False, False, True, True]


class TestRange:
    @pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
    def test_its_ends_become_zero_and_one(self, dtype: str) -> None:
        assert to_unit(dtype, 20, 60, 100, value_range=(20, 100)) == [0, 0.5, 1]

    @pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
    def test_zero_and_one_become_its_ends(self, dtype: str) -> None:
        assert from_unit(dtype, 0, 0.5, 1, value_range=(20, 100)) == [20, 60, 100]

    def test_values_outside_are_kept(self) -> None:
        assert there_and_back(np.array([0, 10, 255], "u1"), (20, 100)).tolist() == [0, 10, 255]

    @settings(deadline=None, max_examples=50)
    @given(
        low=st.floats(-1e4, 1e4),
        extent=st.floats(1, 1e4),
        values=arrays("f8", 10, elements=st.floats(0, 1)),
    )
    def test_any_range_takes_floats_there_and_back(self, low: float, extent: float, values: Any) -> None:
        values = low + extent * values
        np.testing.assert_allclose(there_and_back(values, (low, low + extent)), values, atol=1e-6 * extent, rtol=1e-12)

    @pytest.mark.parametrize("value_range", [(1, 0), (5, 5), (0, np.nan), (-np.inf, 0), (0, np.inf)])
    def test_it_is_finite_and_ascends(self, value_range: tuple[float, float]) -> None:
        with pytest.raises(ImageError, match="give two finite numbers, the lower one first"):
            ValueMap.of("u1", value_range)

    @pytest.mark.parametrize("value_range", [(1,), (1, 2, 3), 5, ("dark", "bright"), (None, 1)])
    def test_it_is_two_numbers(self, value_range: Any) -> None:
        with pytest.raises(ImageError, match="give two numbers: black and white"):
            ValueMap.of("u1", value_range)

    @pytest.mark.parametrize(
        ("dtype", "value_range"), [("f4", (0, 1e-46)), ("f4", (0, 1e39)), ("u1", (0, 1e39)), ("f8", (-1e308, 1e308))]
    )
    def test_it_can_be_computed_with(self, dtype: str, value_range: tuple[float, float]) -> None:
        with pytest.raises(ImageError, match="too narrow or too wide"):
            ValueMap.of(dtype, value_range)


class TestPixels:
    """What an array gives is what it has said it would."""

    @pytest.mark.parametrize(("given", "said"), [("u1", "u1"), ("u1", "u2"), ("f8", "f4"), ("f2", "f8"), ("?", "u1")])
    def test_its_type_may_be_a_smaller_one_or_a_float_of_another_width(self, given: str, said: str) -> None:
        check_pixels("chunk 3", np.zeros((2, 3), given), (2, 3), np.dtype(said))

    @pytest.mark.parametrize(("given", "said"), [("u2", "u1"), ("f4", "u2"), ("i2", "u2"), ("u8", "f4"), ("f4", "?")])
    def test_values_that_the_type_cannot_hold_are_an_error(self, given: str, said: str) -> None:
        told, meant = np.dtype(given), np.dtype(said)
        with pytest.raises(
            SourceError, match=rf"^chunk 3 holds {told} values and not {meant} as declared; fix the code"
        ):
            check_pixels("chunk 3", np.zeros((2, 3), given), (2, 3), meant)

    def test_another_shape_is_an_error(self) -> None:
        with pytest.raises(
            SourceError, match=r"^chunk 3 has the shape \(2, 3\) and not \(3, 2\) as declared; fix the code"
        ):
            check_pixels("chunk 3", np.zeros((2, 3), "u1"), (3, 2), np.dtype("u1"))


class TestTypes:
    @pytest.mark.parametrize("dtype", ["?", *SMALL_INTEGERS, *LARGE_INTEGERS, *FLOATS])
    def test_a_network_gets_single_precision_of_every_type(self, dtype: str) -> None:
        unit = ValueMap.of(dtype, None).to_unit(np.ones(3, dtype))
        assert unit.dtype == np.float32
        assert unit.dtype.isnative

    @pytest.mark.parametrize("dtype", ["c8", "O", "U3", "S1", "M8[s]", "V4", "u1,u1"])
    def test_what_is_no_number_is_an_error(self, dtype: str) -> None:
        with pytest.raises(ImageError, match="it must hold booleans, integers or floats up to 64 bits"):
            ValueMap.of(dtype, None)

    @pytest.mark.skipif(np.dtype("longdouble").itemsize <= 8, reason="long double is double on this platform")
    def test_longer_floats_are_an_error(self) -> None:
        with pytest.raises(ImageError, match="floats up to 64 bits"):
            ValueMap.of("longdouble", None)
