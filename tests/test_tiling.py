"""The tile grid: natural, aligned tiles that cover the image, and shares that add up to exactly one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mgbpv2.errors import TilingError
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.tiling.grid import (
    DEFAULT_TILE_SIDE,
    MAX_COMPUTED_SHARE,
    MIN_BLEND,
    WINDOWS,
    Span,
    TileAxis,
    plan_grid,
)

PUBLISHED = ModelConfig()  # K=3: natural sizes are 47, 63, 79, ...
SMALL = ModelConfig(features=(4, 4, 4))

properties = settings(deadline=None, max_examples=60)


class Plan:
    """The tiles of one axis, and what was asked of them."""

    def __init__(self, size: int, config: ModelConfig, tile: int, overlap: int, guard: int, window: str) -> None:
        self.size, self.config, self.tile, self.overlap, self.guard = size, config, tile, overlap, guard
        grid = plan_grid(size, size, [config], guard=guard, tile=tile, overlap=overlap, window=window)
        self.axis = grid.rows
        self.before, self.after = config.border(size)

    def __repr__(self) -> str:
        return f"{self.axis}, {self.config}, tile {self.tile}, overlap {self.overlap}"


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    levels, kernel = draw(st.integers(2, 5)), draw(st.sampled_from([3, 5]))
    config = ModelConfig(features=(4,) * levels, kernel=kernel)
    guard = draw(st.sampled_from([0, 1, config.alignment, 50]))
    overlap = 2 * guard + draw(st.integers(0, 80))
    tile = config.natural_up(overlap + config.alignment) + draw(st.integers(0, 200))
    return Plan(draw(st.integers(1, 3000)), config, tile, overlap, guard, draw(st.sampled_from(sorted(WINDOWS))))


def cores(axis: TileAxis) -> list[Span]:
    return [axis.core(index) for index in range(len(axis))]


def two_tiles(window: str, guard: int = 0) -> TileAxis:
    """Two tiles of 23 px on an image of 35 px that needs no border; they share 11 px."""
    return plan_grid(35, 35, [SMALL], tile=23, overlap=11, guard=guard, window=window).rows


class TestTiles:
    @properties
    @given(plan=plans())
    def test_they_are_of_natural_size_and_no_larger_than_asked(self, plan: Plan) -> None:
        assert plan.config.is_natural(plan.axis.tile)
        assert plan.axis.tile <= plan.tile

    @properties
    @given(plan=plans())
    def test_they_are_aligned_on_the_padded_grid(self, plan: Plan) -> None:
        assert all((start + plan.before) % plan.config.alignment == 0 for start in plan.axis.starts)

    @properties
    @given(plan=plans())
    def test_they_reach_from_end_to_end_of_the_padded_image(self, plan: Plan) -> None:
        assert plan.axis.span(0).start == -plan.before
        assert plan.axis.span(len(plan.axis) - 1).stop == plan.size + plan.after

    def test_by_default_neighbours_share_guards_and_blend_and_what_alignment_adds(self) -> None:
        """A number that aligned tiles cannot share would be rounded up, to one unit more for every tile."""
        axis = plan_grid(2015, 2015, [PUBLISHED], tile=783, guard=72).rows
        assert (len(axis), axis.overlap) == (3, 159)
        assert axis.overlap - 2 * axis.guard >= MIN_BLEND

    @properties
    @given(plan=plans())
    def test_neighbours_share_at_least_the_overlap(self, plan: Plan) -> None:
        assert all(after - start <= plan.axis.tile - plan.overlap for start, after in pairwise(plan.axis.starts))

    @properties
    @given(plan=plans())
    def test_one_less_would_not_do(self, plan: Plan) -> None:
        largest = plan.config.natural_down(plan.tile)
        advance = (largest - plan.overlap) // plan.config.alignment * plan.config.alignment
        assert largest + (len(plan.axis) - 2) * advance < plan.config.natural_up(plan.size) or len(plan.axis) == 1

    @properties
    @given(size=st.integers(1, 3000), guard=st.integers(0, 100))
    def test_an_image_that_fits_into_one_tile_gets_one_of_its_own_size(self, size: int, guard: int) -> None:
        axis = plan_grid(size, 9999, [PUBLISHED], tile=3100, guard=guard).rows
        assert (len(axis), axis.tile) == (1, PUBLISHED.natural_up(size))
        assert axis.core(0) == Span(0, size)

    def test_a_million_pixels_are_planned_even_with_the_smallest_advance(self) -> None:
        axis = plan_grid(10**6, 10**6, [PUBLISHED], tile=63, overlap=32, guard=16).rows
        assert len(axis) == (PUBLISHED.natural_up(10**6) - 63) // 16 + 1

    @pytest.mark.parametrize("guard", [0, 32, 64, 128])
    def test_by_default_they_are_large_enough_to_compute_little_twice(self, guard: int) -> None:
        grid = plan_grid(50_000, 40_000, [PUBLISHED], guard=guard)
        assert 1 <= grid.computed_share < 1.1 * MAX_COMPUTED_SHARE

    @properties
    @given(height=st.integers(1, 20_000), width=st.integers(1, 20_000))
    def test_by_default_they_are_no_larger_than_that_needs(self, height: int, width: int) -> None:
        grid = plan_grid(height, width, [PUBLISHED], guard=0)
        assert grid.rows.tile * grid.columns.tile <= DEFAULT_TILE_SIDE**2

    def test_by_default_they_are_as_wide_as_an_image_that_is_not_much_wider_than_they_are(self) -> None:
        grid = plan_grid(5000, 1300, [PUBLISHED], guard=64)
        assert len(grid.columns) == 1
        assert grid.rows.tile < grid.columns.tile

    def test_by_default_they_compute_hardly_more_than_square_ones(self) -> None:
        for height, width in [(2048, 2048), (4320, 7680), (3000, 1000), (30_000, 20_000)]:
            square = plan_grid(height, width, [PUBLISHED], guard=64, tile=DEFAULT_TILE_SIDE)
            assert plan_grid(height, width, [PUBLISHED], guard=64).computed_share <= 1.05 * square.computed_share

    def test_by_default_they_leave_little_beyond_the_shards_of_a_large_image(self) -> None:
        rows = plan_grid(50_000, 20_000, [PUBLISHED], guard=64).rows
        for border in range(1024, 50_000, 1024):
            across = [rows.core(number) for number in rows.touching(Span(border, border + 1))]
            assert sum(core.stop - border for core in across if core.start < border) < 100

    @pytest.mark.parametrize("window", sorted(WINDOWS))
    def test_by_default_too_both_axes_have_the_guard_and_the_window(self, window: str) -> None:
        grid = plan_grid(9000, 4000, [PUBLISHED], guard=64, window=window)
        for axis in (grid.rows, grid.columns):
            assert len(axis) > 1
            assert (axis.guard, axis.window) == (64, window)

    def test_the_last_one_may_be_shorter(self) -> None:
        rows = plan_grid(50_000, 20_000, [PUBLISHED], guard=64).rows
        last = rows.span(len(rows) - 1)
        assert last.size < rows.tile
        assert PUBLISHED.is_natural(last.size)
        assert rows.core(len(rows) - 1).stop == 50_000

    def test_a_small_tile_takes_from_the_blending_but_never_from_the_guard(self) -> None:
        axis = plan_grid(500, 500, [PUBLISHED], tile=79, guard=24).rows
        assert all(axis.tile - (after - start) >= 2 * 24 for start, after in pairwise(axis.starts))


class TestCores:
    @properties
    @given(plan=plans())
    def test_they_cover_the_image_without_gap(self, plan: Plan) -> None:
        spans = cores(plan.axis)
        assert spans[0].start == 0
        assert spans[-1].stop == plan.size
        assert all(after.start <= before.stop for before, after in pairwise(spans))

    @properties
    @given(plan=plans())
    def test_they_keep_the_guard_from_every_end_of_a_tile_but_those_of_the_image(self, plan: Plan) -> None:
        for index, core in enumerate(cores(plan.axis)):
            start, stop = plan.axis.span(index)
            assert core.size > 0
            assert index == 0 or core.start - start == plan.guard
            assert index == len(plan.axis) - 1 or stop - core.stop == plan.guard

    @properties
    @given(plan=plans(), data=st.data())
    def test_those_that_touch_a_part_are_found(self, plan: Plan, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, plan.size - 1))
        span = Span(start, data.draw(st.integers(start + 1, plan.size)))
        found = [i for i, core in enumerate(cores(plan.axis)) if core.start < span.stop and span.start < core.stop]
        assert list(plan.axis.touching(span)) == found

    @properties
    @given(plan=plans(), data=st.data())
    def test_spans_that_divide_the_image_have_each_tile_once(self, plan: Plan, data: st.DataObject) -> None:
        cuts = data.draw(st.lists(st.integers(0, plan.size), max_size=5))
        ends = sorted({0, plan.size, *cuts})
        spans = [Span(*each) for each in pairwise(ends)]
        starting = [plan.axis.starting_in(span) for span in spans]
        assert [index for found in starting for index in found] == list(range(len(plan.axis)))
        for span, found in zip(spans, starting, strict=True):
            assert all(span.start <= plan.axis.core(index).start < span.stop for index in found)

    def test_a_grid_finds_the_pairs_of_both_axes(self) -> None:
        grid = plan_grid(200, 300, [SMALL], tile=55, overlap=20, guard=8)
        rows, columns = Span(50, 100), Span(0, 60)
        expected = [(row, column) for row in grid.rows.touching(rows) for column in grid.columns.touching(columns)]
        assert list(grid.touching(rows, columns)) == expected
        assert 1 < len(expected) < len(grid) == len(grid.rows) * len(grid.columns)


class TestShares:
    @properties
    @given(plan=plans())
    def test_they_add_up_to_exactly_one_in_the_order_of_the_tiles(self, plan: Plan) -> None:
        total = np.zeros(plan.size, np.float32)
        for index, (start, stop) in enumerate(cores(plan.axis)):
            total[start:stop] += plan.axis.weights(index)
        assert (total == 1).all()

    @properties
    @given(plan=plans())
    def test_each_is_positive_and_at_most_one(self, plan: Plan) -> None:
        for index, core in enumerate(cores(plan.axis)):
            share = plan.axis.weights(index)
            assert share.shape == (core.size,)
            assert share.dtype == np.float32
            assert 0 < share.min() <= share.max() <= 1

    @pytest.mark.parametrize(
        ("window", "textbook"),
        [
            ("hamming", lambda n: 0.54 - 0.46 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)),
            ("triangle", lambda n: np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5)),
            ("flat", np.ones),
        ],
    )
    def test_two_tiles_share_what_overlaps_as_their_windows_say(self, window: str, textbook: Any) -> None:
        first, second = (two_tiles(window).weights(index) for index in (0, 1))
        values = textbook(23)
        np.testing.assert_array_equal(first[:12], 1)
        np.testing.assert_array_equal(second[11:], 1)
        np.testing.assert_allclose(first[12:], values[12:] / (values[12:] + values[:11]), atol=1e-6)
        np.testing.assert_allclose(second[:11], values[:11] / (values[12:] + values[:11]), atol=1e-6)

    def test_the_window_begins_behind_the_guard(self) -> None:
        axis = two_tiles("hamming", guard=5)
        assert axis.core(0) == Span(0, 18)
        assert axis.core(1) == Span(17, 35)
        np.testing.assert_allclose(axis.weights(0)[16:], [1, 0.5], atol=1e-6)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"window": "hann"}, r"window is 'hann'; choose one of 'hamming', 'triangle', 'flat'"),
            ({"guard": -1}, "guard is -1 px; it must not be negative"),
            ({"guard": 20, "overlap": 39}, "overlap is 39 px, less than two guards of 20 px: .* at least 40 px"),
            ({"overlap": -1}, "overlap is -1 px, less than two guards of 0 px"),
            ({"tile": 46}, "tile is 46 px; this model needs at least 47 px"),
            ({"tile": 0}, "tile is 0 px; this model needs at least 47 px"),
            ({"tile": 100, "overlap": 100}, "overlap is 100 px, too much for tiles of 95 px, .* at least 16 px"),
            ({"tile": 100, "overlap": 80}, "use a tile of at least 111 px or an overlap of at most 79 px"),
            ({"tile": 100, "guard": 50}, "overlap is 100 px, too much for tiles of 95 px"),
        ],
    )
    def test_what_does_not_fit_together_is_an_error_that_says_what_would(
        self, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(TilingError, match=message):
            plan_grid(1000, 1000, [PUBLISHED], **({"guard": 0} | options))

    def test_the_advice_on_tile_and_overlap_works(self) -> None:
        for options in ({"tile": 111, "overlap": 80}, {"tile": 100, "overlap": 79}):
            assert len(plan_grid(1000, 1000, [PUBLISHED], guard=0, **options)) > 1

    def test_a_side_whose_tiles_would_take_minutes_to_plan_is_refused(self) -> None:
        with pytest.raises(TilingError, match="would have 4,000,000,000 x 100 px; at most 268,435,456 px"):
            plan_grid(4 * 10**9, 100, [ModelConfig()], guard=0)

    def test_the_largest_side_is_planned_at_once(self) -> None:
        assert len(plan_grid(2**28, 100, [ModelConfig()], guard=64).rows) > 10**5

    def test_every_member_of_an_ensemble_needs_its_smallest_tile(self) -> None:
        with pytest.raises(TilingError, match="tile is 100 px; this model needs at least 107 px"):
            plan_grid(1000, 1000, [PUBLISHED, ModelConfig(kernel=7)], tile=100, guard=0)
