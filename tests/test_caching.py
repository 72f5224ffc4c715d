"""What the cache keeps, what it lets go, and who makes what."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mgbpv2.caching import BoundedCache


class Block:
    """A value of a given size."""

    def __init__(self, nbytes: int = 10) -> None:
        self.nbytes = nbytes


class Maker:
    """Makes blocks, and counts how often it was asked for each key."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()

    def get(self, cache: BoundedCache[str, Block], key: str, nbytes: int = 10) -> Block:
        def make() -> Block:
            self.made[key] += 1
            return Block(nbytes)

        return cache.get(key, make)


@pytest.fixture
def maker() -> Maker:
    return Maker()


def test_a_kept_value_is_not_made_again(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)
    assert maker.get(cache, "a") is maker.get(cache, "a")
    assert maker.made == {"a": 1}


def test_values_that_fill_the_limit_are_all_kept(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(30)
    for key in "abcabc":
        maker.get(cache, key)
    assert maker.made == {"a": 1, "b": 1, "c": 1}


def test_the_value_that_was_not_used_for_longest_goes_first(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(20)
    for key in ("a", "b", "a", "c", "a", "b"):
        maker.get(cache, key)
    assert maker.made == {"a": 1, "b": 2, "c": 1}


def test_a_large_value_displaces_as_many_as_it_must(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(30)
    for key in "abc":
        maker.get(cache, key)
    maker.get(cache, "large", 20)
    for key in ("c", "large"):
        maker.get(cache, key)
    assert maker.made == {"a": 1, "b": 1, "c": 1, "large": 1}


def test_a_value_beyond_the_limit_is_kept_alone(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(30)
    for key, nbytes in (("a", 10), ("large", 99), ("large", 99), ("a", 10)):
        maker.get(cache, key, nbytes)
    assert maker.made == {"a": 2, "large": 1}


def test_without_a_limit_only_the_newest_is_kept(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(0)
    for key in ("a", "a", "b", "b", "a"):
        maker.get(cache, key)
    assert maker.made == {"a": 2, "b": 1}


@given(st.integers(0, 60), st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["get", "demote", "discard"]))))
def test_no_more_is_kept_than_the_limit_or_one_value(limit: int, uses: list[tuple[int, str]]) -> None:
    cache: BoundedCache[int, Block] = BoundedCache(limit)
    alive: weakref.WeakSet[Block] = weakref.WeakSet()

    def make(nbytes: int) -> Block:
        block = Block(nbytes)
        alive.add(block)
        return block

    for key, use in uses:
        if use == "get":
            cache.get(key, lambda: make(5 * key))  # noqa: B023 - called at once
        else:
            getattr(cache, use)(key)
        assert sum(block.nbytes for block in alive) <= max([limit, *(block.nbytes for block in alive)])


def test_a_demoted_value_is_the_first_to_go(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(20)
    for key in "ab":
        maker.get(cache, key)
    cache.demote("b")
    for key in "cab":
        maker.get(cache, key)
    assert maker.made == {"a": 1, "b": 2, "c": 1}


def test_a_demoted_value_is_kept_while_there_is_room(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(20)
    maker.get(cache, "a")
    cache.demote("a")
    maker.get(cache, "a")
    assert maker.made == {"a": 1}


def test_a_demoted_value_that_is_used_again_is_as_good_as_any(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(20)
    for key in "ab":
        maker.get(cache, key)
    cache.demote("b")
    for key in "bcb":
        maker.get(cache, key)
    assert maker.made == {"a": 1, "b": 1, "c": 1}


def test_a_discarded_value_is_gone_at_once(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)
    gone = weakref.ref(maker.get(cache, "a"))
    cache.discard("a")
    assert gone() is None


def test_a_discarded_value_makes_room(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(20)
    for key in "ab":
        maker.get(cache, key)
    cache.discard("a")
    for key in "cbc":
        maker.get(cache, key)
    assert maker.made == {"a": 1, "b": 1, "c": 1}


def test_a_discarded_value_is_made_anew(maker: Maker) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)
    maker.get(cache, "a")
    cache.discard("a")
    maker.get(cache, "a")
    assert maker.made == {"a": 2}


@pytest.mark.parametrize("act", ["demote", "discard"])
def test_what_is_not_there_may_be_demoted_and_discarded(act: str) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)
    getattr(cache, act)("a")


@pytest.mark.parametrize("act", ["demote", "discard"])
def test_what_is_being_made_may_be_demoted_and_discarded(act: str) -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)

    def make() -> Block:
        getattr(cache, act)("a")
        return Block()

    made = cache.get("a", make)
    assert cache.get("a", Block) is made


def test_many_threads_make_each_value_once() -> None:
    cache: BoundedCache[int, Block] = BoundedCache(1000)
    threads, keys = 8, range(20)
    together = threading.Barrier(threads)
    made: Counter[int] = Counter()

    def make(key: int) -> Block:
        made[key] += 1
        return Block()

    def ask(_: int) -> list[Block]:
        got = []
        for key in keys:
            together.wait(10)
            got.append(cache.get(key, lambda: make(key)))  # noqa: B023 - called before the key changes
        return got

    with ThreadPoolExecutor(threads) as pool:
        first, *others = pool.map(ask, range(threads))
    assert all(mine is yours for other in others for mine, yours in zip(first, other, strict=True))
    assert made == dict.fromkeys(keys, 1)


class WatchedKey:
    """A key that counts how often it is looked up."""

    def __init__(self) -> None:
        self.looked_up = 0

    def __hash__(self) -> int:
        self.looked_up += 1
        return 0


class Waiters:
    """Threads that wait for a value which the main thread is making."""

    def __init__(self, cache: BoundedCache[WatchedKey, Block], count: int = 3) -> None:
        self.cache = cache
        self.key = WatchedKey()
        self.results: list[object] = []
        self.threads = [threading.Thread(target=self.wait) for _ in range(count)]

    def wait(self) -> None:
        try:
            self.results.append(self.cache.get(self.key, lambda: pytest.fail("made twice")))
        except OSError as error:
            self.results.append(error)

    def start(self) -> None:
        """Return when all have looked for the value, among those that are kept and those that are being made."""
        wanted = self.key.looked_up + 2 * len(self.threads)
        for thread in self.threads:
            thread.start()
        deadline = time.monotonic() + 10
        while self.key.looked_up < wanted and time.monotonic() < deadline:
            time.sleep(0.001)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(10)


@pytest.mark.parametrize("limit", [0, 100])
def test_all_that_wait_get_the_value(limit: int) -> None:
    cache: BoundedCache[WatchedKey, Block] = BoundedCache(limit)
    waiters = Waiters(cache)

    def make() -> Block:
        waiters.start()
        return Block()

    made = cache.get(waiters.key, make)
    waiters.join()
    assert waiters.results == [made] * 3


def test_a_failed_making_is_raised_in_all_that_wait() -> None:
    cache: BoundedCache[WatchedKey, Block] = BoundedCache(100)
    waiters = Waiters(cache)
    failure = OSError("no such block")

    def make() -> Block:
        waiters.start()
        raise failure

    with pytest.raises(OSError, match="no such block"):
        cache.get(waiters.key, make)
    waiters.join()
    assert waiters.results == [failure] * 3


def test_a_failed_making_may_be_tried_again() -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)

    def fail() -> Block:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get("a", fail)
    assert isinstance(cache.get("a", Block), Block)


def test_other_keys_are_served_while_one_is_being_made() -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)

    def make() -> Block:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(cache.get, "b", Block).result(10)

    assert cache.get("a", make) is cache.get("b", Block)


def test_a_value_without_a_size_is_a_failed_making() -> None:
    cache: BoundedCache[str, Block] = BoundedCache(100)
    with pytest.raises(AttributeError, match="nbytes"):
        cache.get("a", lambda: "no block")  # type: ignore[arg-type, return-value]
    assert isinstance(cache.get("a", Block), Block)


def test_arrays_are_values() -> None:
    cache: BoundedCache[tuple[int, int], np.ndarray] = BoundedCache(100)
    np.testing.assert_array_equal(cache.get((0, 1), lambda: np.arange(3)), [0, 1, 2])


def test_importing_loads_no_numpy() -> None:
    check = "import sys, napari_mgbpv2.caching; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "False\n"
