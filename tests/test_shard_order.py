"""The order of shards: each once, and tiles across their borders run once where memory allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mgbpv2.conversion.work_queue import WorkStealingQueue
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.tiling.grid import Span, plan_grid
from napari_mgbpv2.tiling.shard_order import plan_shard_order

MOST = 256 * 2**20 // 12  # pixels of three samples
CONFIG = ModelConfig(features=(6, 5, 4), steps=2, kernel=3)


def a_grid(height: int, width: int, tile: int = 100) -> object:
    return plan_grid(height, width, [CONFIG], guard=8, tile=tile)


@given(
    counts=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    most=st.integers(1000, 400_000),
)
@settings(max_examples=60, deadline=None)
def test_a_walk_visits_each_shard_once(counts: tuple[int, ...], most: int) -> None:
    grid = a_grid(counts[1] * 64, counts[2] * 64)
    walk = plan_shard_order(counts, (64, 64), grid, most)
    visited = list(walk)
    assert len(walk) == len(visited) == len(set(visited)) == np.prod(counts)
    assert set(visited) == set(np.ndindex(*counts))
    assert [walk[number] for number in range(len(walk))] == visited


@given(
    counts=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    most=st.integers(10_000, 500_000),
    side=st.sampled_from([64, 128]),
)
@settings(max_examples=40, deadline=None)
def test_what_is_kept_and_what_is_run_twice_is_what_the_walk_says(
    counts: tuple[int, int], most: int, side: int
) -> None:
    """Followed tile by tile, as pieces are kept: what a tile has for shards to come, within a band."""
    grid = a_grid(counts[0] * side, counts[1] * side)
    walk = plan_shard_order(counts, (side, side), grid, most)
    axis = 1 if walk.along == "x" else 0
    runs = kept_most = 0
    for start in range(0, counts[axis], walk.band):
        order = [index for index in walk if start <= index[axis] < start + walk.band]
        waiting: dict[tuple[int, int], dict[tuple[int, int], int]] = {}
        for number, (y, x) in enumerate(order):
            rows, columns = Span(y * side, (y + 1) * side), Span(x * side, (x + 1) * side)
            to_come = set(order[number + 1 :])
            for tile in grid.touching(rows, columns):
                if tile not in waiting:
                    runs += 1
                    cores = grid.rows.core(tile[0]), grid.columns.core(tile[1])
                    pieces = {
                        (row, column): high.size * wide.size
                        for row, high in parts(cores[0], side)
                        for column, wide in parts(cores[1], side)
                    }
                    waiting[tile] = {place: pixels for place, pixels in pieces.items() if place in to_come}
                waiting[tile].pop((y, x), None)
            kept_most = max(kept_most, sum(sum(pieces.values()) for pieces in waiting.values()))
    assert runs == round((1 + walk.extra_share) * len(grid))
    assert kept_most <= walk.carried_pixels


def parts(core: Span, side: int) -> list[tuple[int, Span]]:
    """Cut a span at multiples of a number."""
    numbers = range(core.start // side, -(-core.stop // side))
    return [(n, Span(max(core.start, n * side), min(core.stop, (n + 1) * side))) for n in numbers]


def test_a_wide_image_is_walked_through_along_its_short_side() -> None:
    grid = plan_grid(4096, 400_000, [CONFIG], guard=8, tile=500)
    walk = plan_shard_order((4, 391), (1024, 1024), grid, most_pixels=10**8)
    assert (walk.along, walk.extra_share) == ("y", 0)
    assert list(walk)[:5] == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]


def test_where_memory_allows_no_tile_is_run_twice() -> None:
    grid = plan_grid(50_000, 50_000, [CONFIG], guard=8, tile=500)
    assert plan_shard_order((49, 49), (1024, 1024), grid, most_pixels=10**10).extra_share == 0


def test_a_huge_image_costs_little_in_a_bounded_memory() -> None:
    grid = plan_grid(10**6, 10**6, [CONFIG], guard=8, tile=896)
    walk = plan_shard_order((489, 489), (2048, 2048), grid, most_pixels=MOST)
    assert walk.carried_pixels <= MOST
    assert 0 < walk.extra_share < 0.06


def test_the_first_shards_of_a_huge_image_come_at_once() -> None:
    grid = plan_grid(10**6, 10**6, [CONFIG], guard=8, tile=896)
    walk = plan_shard_order((10**5, 489, 489), (2048, 2048), grid, most_pixels=MOST)
    assert [index for index, _ in zip(walk, range(3), strict=False)] == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]
    assert walk[len(walk) - 1] == (10**5 - 1, 488, 488)


@given(
    count=st.integers(0, 60),
    workers=st.integers(1, 5),
    order=st.lists(st.integers(0, 4), min_size=400, max_size=400),
)
@settings(max_examples=60, deadline=None)
def test_areas_give_each_number_once_to_whoever_asks(count: int, workers: int, order: list[int]) -> None:
    work_queue = WorkStealingQueue(np.arange(count, dtype=np.int64))
    given_out = []
    for worker in order:
        number = work_queue.next(f"worker {worker % workers}")
        if number is not None:
            given_out.append(number)
    assert sorted(given_out) == list(range(count))
    assert len(work_queue) == 0


def test_workers_walk_through_parts_of_their_own() -> None:
    work_queue = WorkStealingQueue(np.arange(100, dtype=np.int64))
    first = [work_queue.next("a")]
    second = [work_queue.next("b")]
    for _ in range(20):
        first.append(work_queue.next("a"))
        second.append(work_queue.next("b"))
    assert first == list(range(21))
    assert second == list(range(second[0], second[0] + 21))


@pytest.mark.parametrize("worker", ["a", "b"])
def test_who_has_finished_takes_half_of_what_another_has_left(worker: str) -> None:
    work_queue = WorkStealingQueue(np.arange(10, dtype=np.int64))
    work_queue.next("a")
    taken = work_queue.next("b")
    assert taken == 5
    assert work_queue.next(worker) == {"a": 1, "b": 6}[worker]
