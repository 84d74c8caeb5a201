"""The bounded mapping never grows beyond its size and keeps what was used last."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.bounded import Bounded
from tests.property.strategies import examples


def test_value_is_found_and_a_missing_one_is_none() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    assert (cache.get("a"), cache.get("b"), len(cache)) == (1, None, 1)


def test_new_value_replaces_the_old_one() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.put("a", 2)
    assert (cache.get("a"), len(cache)) == (2, 1)


def test_what_was_used_is_kept_and_what_was_not_is_forgotten() -> None:
    cache: Bounded[str, int] = Bounded(4)
    for key in "ab":
        cache.put(key, ord(key))
    for key in "cde":
        cache.get("a")
        cache.put(key, ord(key))
    assert [cache.get(key) for key in "abe"] == [97, None, 101]


def test_setting_counts_as_use() -> None:
    cache: Bounded[str, int] = Bounded(4)
    for key in ("a", "b", "a", "c", "a", "d", "a", "e"):
        cache.put(key, ord(key))
    assert [cache.get(key) for key in "abe"] == [97, None, 101]


def test_what_is_discarded_is_gone() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.discard("a")
    cache.discard("b")
    assert (cache.get("a"), len(cache)) == (None, 0)


@examples
@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from(("put", "put", "get", "discard")), st.integers(0, 12)), min_size=1, max_size=60),
)
def test_half_of_its_size_is_always_there_and_never_more_than_all(size: int, steps: list[tuple[str, int]]) -> None:
    cache: Bounded[int, int] = Bounded(size)
    said: dict[int, int | None] = {}
    """In the order of use, and what was taken out as None."""
    for number, (what, key) in enumerate(steps, start=1):
        if what == "put":
            cache.put(key, number)
            said.pop(key, None)
            said[key] = number
        elif what == "discard":
            cache.discard(key)
            if key in said:
                said[key] = None
        else:
            surely, seen = key in list(said)[-max(1, size // 2) :], cache.peek(key)
            found = cache.get(key)
            assert found == seen
            assert found == said[key] if surely else found in {None, said.get(key)}
            if found is not None:
                said[key] = said.pop(key)
        assert len(cache) <= size
    last = list(said)[-max(1, size // 2) :]
    assert [cache.peek(key) for key in last] == [said[key] for key in last]


def test_threads_neither_break_nor_overfill_it() -> None:
    cache: Bounded[int, int] = Bounded(8)

    def work(start: int) -> bool:
        for number in range(start, start + 2_000):
            cache.put(number % 50, number)
            cache.get((number * 7) % 50)
        return len(cache) <= 8

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert 4 <= len(cache) <= 8
