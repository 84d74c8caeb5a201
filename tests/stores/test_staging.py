"""Numbers collected before a change begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shaken_plugin.core.records import Basis, DoNotOriginate, Right, Withheld
from shaken_plugin.errors import NumberError, StoreError
from shaken_plugin.ports import Author, NumbersOf, Span
from shaken_plugin.stores.sqlite import SqlitePolicy, replace_policy
from shaken_plugin.stores.staging import CHUNK, Staging
from tests.stores.test_sqlite import policy

ROWS: list[tuple[NumbersOf, str, Span]] = [
    (Right, "b", Span("12155551300", "12155551399")),
    (Right, "b", Span("12155551212", "12155551212")),
    (DoNotOriginate, "b", Span("12155551212", "12155551212")),
    (Right, "a", Span("9999", "9999")),
    (Right, "a", Span("12155551212", "12155551212")),
    (Right, "b", Span("12155551212", "12155551212")),
]


def test_each_record_gets_its_numbers_once_and_sorted() -> None:
    with Staging() as staging:
        staging.add(iter(ROWS))
        staging.add(ROWS[:1])
        staging.sort()
        assert staging.owners() == [(Right, "b", 2), (DoNotOriginate, "b", 1), (Right, "a", 2)]
        assert list(staging.numbers(Right, "a")) == [Span("9999", "9999"), Span("12155551212", "12155551212")]
        assert list(staging.numbers(Right, "b")) == [ROWS[1][2], ROWS[0][2]]
        assert list(staging.numbers(Right, "c")) == []


@pytest.mark.parametrize("span", [Span("911", "911"), Span("12155551213", "12155551212"), Span("1000", "10000")])
def test_what_is_no_number_is_refused(span: Span) -> None:
    with Staging() as staging, pytest.raises(NumberError):
        staging.add([(Right, "a", span)])


def test_numbers_without_room_are_a_store_error() -> None:
    with Staging() as staging:
        staging._connection.execute("PRAGMA max_page_count = 3")
        with pytest.raises(StoreError, match="no room"):
            staging.add((Right, "a", Span(str(number), str(number))) for number in range(10_000, 90_000))


def test_the_lock_of_writers_is_held_for_the_change_alone(tmp_path: Path) -> None:
    """Another change goes through while numbers are still read, and the import is one version after it."""
    path = tmp_path / "policy.db"
    replace_policy(path, policy("one"), None, {})
    store = SqlitePolicy(path)

    def slow() -> Iterator[tuple[NumbersOf, str, Span]]:
        for number in range(13_000_000_000, 13_000_000_000 + 2 * CHUNK):
            yield Right, "r", Span(str(number), str(number))
        with store.change(Author("bob", "meanwhile", 0.0), "meanwhile") as draft:
            draft.put(DoNotOriginate("d", Withheld.UNUSED))

    with Staging() as staging:
        staging.add(slow())
        staging.sort()
        with store.change(Author("alice", "import", 0.0), "import") as draft:
            draft.put(Right("r", "one", Basis.ASSIGNED))
            for kind, identifier, count in staging.owners():
                assert draft.add_numbers(kind, identifier, staging.numbers(kind, identifier)) == count
    assert [change.who for change in store.changes(1)] == ["bob", "alice"]
