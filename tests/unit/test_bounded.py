"""The bounded mapping never grows beyond its size and forgets what was used least recently."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from shaken_plugin.bounded import Bounded


def test_value_is_found_and_a_missing_one_is_none() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    assert (cache.get("a"), cache.get("b"), len(cache)) == (1, None, 1)


def test_new_value_replaces_the_old_one() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.put("a", 2)
    assert (cache.get("a"), len(cache)) == (2, 1)


def test_least_recently_used_is_forgotten() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_setting_counts_as_use() -> None:
    cache: Bounded[str, int] = Bounded(2)
    for key in ("a", "b", "a", "c"):
        cache.put(key, ord(key))
    assert [cache.get(key) for key in "abc"] == [97, None, 99]


def test_what_is_discarded_is_gone() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.discard("a")
    cache.discard("b")
    assert (cache.get("a"), len(cache)) == (None, 0)


def test_threads_neither_break_nor_overfill_it() -> None:
    cache: Bounded[int, int] = Bounded(8)

    def work(start: int) -> bool:
        for number in range(start, start + 2_000):
            cache.put(number % 50, number)
            cache.get((number * 7) % 50)
        return len(cache) <= 9  # eight, and one that another thread is just putting in

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(cache) == 8
