"""The ledger in both databases: transactions, questions, and its schema."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.records import ledger as module
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.lines import Line, damage, read_line
from shaken_plugin.records.pieces import Moved, Piece, Progress, Refused, Stored
from shaken_plugin.records.search import (
    Wanted,
    by_call_id,
    nearest,
    numbers_of_customer,
    search,
)
from tests.conftest import NOW
from tests.records.builders import call_ids, damaged, record, spool_rows, sqlite


def line(offset: int, **changes: object) -> Line:
    found = read_line(record(**changes).line()[:-1], offset)
    assert isinstance(found, Line)
    return found


def fill(ledger: Ledger, *changes: Mapping[str, object]) -> None:
    """Records, each a minute later than the one before."""
    lines = tuple(line(index, **{"at": NOW + 60 * index, **one}) for index, one in enumerate(changes))
    begin = ledger.progress(["file"]).get("file", Progress(0, False)).offset
    moved = tuple(one._replace(offset=one.offset + begin) for one in lines)
    ledger.store([Piece("file", begin, begin + len(moved), moved, 0, False)], NOW)


def found(ledger: Ledger, **wanted: object) -> list[str]:
    return [one.record["call_id"] for one in search(ledger, Wanted(**wanted))]  # type: ignore[arg-type]  # by name


def test_searching(ledger: Ledger) -> None:
    fill(
        ledger,
        {"call_id": "a", "orig": "12155551212", "dest": "12025550143"},
        {"call_id": "b", "orig": "12155551299", "dest": "12155551212", "level": "B", "unauthorised": True},
        {"call_id": "c", "orig": "13125550142", "diverting": "12155550000", "customer": "other", "refused": True},
        {"call_id": "d", "kind": "verify", "level": None, "result": "failed", "rejected": True, "customer": None},
        {"call_id": "e", "orig": None, "dest": "sip:alice@example.com", "substituted_for": "1215*5"},
    )
    assert found(ledger) == ["e", "d", "c", "b", "a"]
    assert found(ledger, number="12155551212") == ["d", "b", "a"]
    assert found(ledger, number="1215*") == ["e", "d", "c", "b", "a"]
    assert found(ledger, number="12155551*") == ["d", "b", "a"]
    assert found(ledger, from_number="1215*") == ["e", "d", "c", "b", "a"]
    assert found(ledger, to_number="1215*") == ["b"]
    assert found(ledger, to_number="sip:alice@example.com") == ["e"]
    assert found(ledger, since=NOW + 60, until=NOW + 180) == ["c", "b"]
    assert found(ledger, customer="other") == ["c"]
    assert found(ledger, call_id="b") == ["b"]
    assert found(ledger, level="B") == found(ledger, unauthorised=True) == ["b"]
    assert found(ledger, verdict="failed") == found(ledger, kind="verify") == ["d"]
    assert found(ledger, refused=True) == ["d", "c"]
    assert found(ledger, number="12155551212", level="A", until=NOW + 1) == ["a"]
    assert [one.id for one in by_call_id(ledger, "c")] == ["file:2"]
    assert len(list(search(ledger, Wanted(), limit=2))) == 2


@pytest.mark.parametrize("call_id", ["x" * 600, "a\0b", "\udc80"])
def test_a_call_id_is_searched_as_it_is_kept(ledger: Ledger, call_id: str) -> None:
    fill(ledger, {"call_id": call_id}, {"call_id": "another"})
    assert found(ledger, call_id=call_id) == [call_id]


def test_the_nearest_in_time_within_an_hour(ledger: Ledger) -> None:
    fill(ledger, {"call_id": "a"}, {"call_id": "b", "at": NOW + 100}, {"call_id": "c", "orig": "1", "at": NOW + 99})
    wanted = Wanted(from_number="12155551212", to_number="12025550143")
    for at, call_id in ((NOW - 3_600, "a"), (NOW + 40, "a"), (NOW + 60, "b"), (NOW + 3_700, "b")):
        one = nearest(ledger, wanted, at)
        assert one is not None
        assert one.record["call_id"] == call_id
    assert nearest(ledger, wanted, NOW + 3_701) is None


def test_the_numbers_that_a_customer_used(ledger: Ledger) -> None:
    fill(
        ledger,
        {"orig": "1", "level": "A", "at": NOW - 1},
        {"orig": "2", "level": "B"},
        {"orig": "1", "level": "A"},
        {"orig": "1", "level": "B"},
        {"orig": "3", "customer": "other"},
        {"orig": "4", "kind": "verify"},
        {"orig": None},
    )
    assert [use[:4] for use in numbers_of_customer(ledger, "acme", NOW)] == [
        ("1", 2, NOW + 180, "B"),
        ("2", 1, NOW + 60, "B"),
    ]
    fill(
        ledger,
        {"orig": "5", "substituted_for": "2", "at": NOW + 500, "level": "A", "route": "uk", "routed_by": "44"},
        {"orig": "6", "diverting": "7"},
    )
    assert numbers_of_customer(ledger, "acme", NOW) == [
        ("1", 2, NOW + 180, "B", "12025550143", None, None),
        ("2", 2, NOW + 500, "A", "12025550143", "44", "uk"),
    ]


def test_a_search_that_is_given_up_leaves_no_reader_behind(ledger: Ledger) -> None:
    fill(ledger, {"call_id": "a"}, {"call_id": "b"})
    with closing(search(ledger, Wanted())) as rows:
        assert next(rows).record["call_id"] == "b"
    with ledger.writing() as connection:
        connection.execute(text("DROP TABLE call"))  # PostgreSQL would wait for a reader


def test_lines_and_offset_are_written_together_or_not_at_all(ledger: Ledger) -> None:
    fill(ledger, {"call_id": "a"})
    good = Piece("new", 0, 9, (line(0, call_id="b"), damage(b"x", 5, "torn: so")), 1, True)
    with pytest.raises(Moved):
        ledger.store([good, Piece("file", 0, 5, (line(0),), 0, False)], NOW)  # it was read to 1 by now
    assert call_ids(ledger) == ["a"]
    assert spool_rows(ledger) == {"file": (1, 1, 0)}
    ledger.store([good], NOW)
    assert spool_rows(ledger)["new"] == (9, 1, 1)
    assert len(damaged(ledger)) == 1
    # The belt: even with a wrong offset no record comes twice.
    with pytest.raises(Refused, match=r"(?i)unique"):
        ledger.store([Piece("new", 9, 10, (line(0, call_id="b"),), 0, True)], NOW)
    assert call_ids(ledger) == ["a", "b"]


def test_what_is_there_already_is_not_written_again_and_another_line_from_there_is_damage(ledger: Ledger) -> None:
    lines = (line(0, call_id="a"), damage(b"x", 7, "not a record of a call"), line(9, call_id="b"))
    piece = Piece("file", 0, 20, lines, 0, True)
    assert ledger.store([piece], NOW) == Stored(0, 0)
    ledger.forget(["file"])
    other = piece._replace(found=(*lines[:2], line(9, call_id="c"), line(15, call_id="d")))
    assert ledger.store([other], NOW) == Stored(1, 1)
    assert call_ids(ledger) == ["a", "b", "d"]
    assert damaged(ledger)[1:] == [
        ("another record than the ledger has from there", record(call_id="c").line()[:-1]),
    ]
    ledger.forget(["file"])
    assert ledger.store([other], NOW) == Stored(2, 1)  # and again
    assert len(damaged(ledger)) == 2


def test_old_records_are_removed_a_little_at_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PRUNE_AT_ONCE", 2)
    fill(ledger, *({"call_id": str(number)} for number in range(6)))
    ledger.store([Piece("gone", 0, 1, (damage(b"x", 0, "torn"),), 1, True)], NOW)
    now = NOW + 60 * 5
    assert [ledger.prune(now, 0, seen_until=4), ledger.prune(now, 0, 4), ledger.prune(now, 0, 4)] == [2, 2, 0]
    assert [ledger.prune(now, 0), ledger.prune(now, 0)] == [1, 0]
    assert call_ids(ledger) == ["5"]
    assert damaged(ledger) == []
    assert spool_rows(ledger).keys() == {"file"}


def test_a_clock_that_runs_ahead_removes_nothing_young(ledger: Ledger) -> None:
    fill(ledger, {"call_id": "old", "at": NOW - 500}, {"call_id": "a"}, {"call_id": "b"})
    assert ledger.prune(NOW + 1e9, 400.0) == 1
    assert call_ids(ledger) == ["a", "b"]
    fill(ledger, {"call_id": "from the future", "at": NOW + 1e9})  # the other clock that counts
    assert ledger.prune(NOW + 60, 400.0) == 0
    assert len(call_ids(ledger)) == 3


# --- Schema -----------------------------------------------------------------------------------


def set_version(ledger: Ledger, version: int) -> None:
    ledger.prepare()
    with ledger.writing() as connection:
        connection.execute(text(f"UPDATE ledger SET version = {version}"))


def test_a_ledger_of_a_newer_release_is_refused(ledger: Ledger) -> None:
    assert ledger.progress(["file"]) == {}  # it was sound when this process began
    set_version(ledger, 2)
    for refused in (
        lambda: ledger.progress(["file"]),
        ledger.prepare,
        lambda: found(ledger),
        ledger.describe_migration,
        ledger.migrate,
    ):
        with pytest.raises(StoreError, match="newer than this release knows"):
            refused()


def test_an_older_ledger_is_migrated_by_a_command_that_says_what_it_will_do(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.prepare()
    assert ledger.describe_migration() == []
    ledger.migrate()

    def step(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE call ADD COLUMN colour TEXT"))

    monkeypatch.setattr(module, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(module, "MIGRATIONS", {1: ("each record gets a colour", step)})
    with pytest.raises(StoreError, match="run 'shaken store migrate'"):
        ledger.prepare()
    assert ledger.describe_migration() == ["1 -> 2: each record gets a colour"]
    ledger.migrate()
    ledger.prepare()
    with ledger.reading() as connection:
        assert connection.execute(text("SELECT colour FROM call")).all() == []


def test_a_ledger_without_tables_has_no_records(ledger: Ledger) -> None:
    if ledger.name.startswith("sqlite:"):
        with pytest.raises(StoreUnavailable, match="unable to open"):
            found(ledger)
    else:
        with pytest.raises(StoreUnavailable, match="no record in it yet"):
            found(ledger)
    with pytest.raises(StoreUnavailable):
        ledger.describe_migration() if ledger.name.startswith("sqlite:") else found(ledger)


# --- What cannot be used ----------------------------------------------------------------------


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(StoreUnavailable, match=r"ledger\.db: file is not a database"):
        sqlite(tmp_path).prepare()


def test_a_locked_ledger_is_told_in_time_and_works_afterwards(tmp_path: Path) -> None:
    ledger = sqlite(tmp_path, timeout=0.01)
    ledger.prepare()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            ledger.progress(["file"])
        other.execute("ROLLBACK")
    assert ledger.progress(["file"]) == {}


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").symlink_to(tmp_path / "other.db")
    with pytest.raises(StoreError, match="is a link"):
        sqlite(tmp_path).prepare()


def test_a_server_that_does_not_answer_is_told_without_the_password() -> None:
    ledger = Ledger("postgresql://shaken@127.0.0.1:1/shaken", "a secret")
    with pytest.raises(StoreUnavailable, match=r"postgresql://shaken@127\.0\.0\.1:1/shaken: .*refused") as told:
        ledger.prepare()
    assert "secret" not in str(told.value)
    assert "a secret" not in repr(ledger.engine.url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shaken@127.0.0.1:1/shaken?password=hunter2",
        "postgresql://shaken@127.0.0.1:1/shaken?sslpassword=hunter2",
        "postgresql://shaken%3Ahunter2@127.0.0.1:1/shaken",
        "postgresql://shaken:hunter2@127.0.0.1:1/shaken",
    ],
)
def test_what_names_a_ledger_hides_what_may_be_a_password(url: str) -> None:
    ledger = Ledger(url)
    with pytest.raises(StoreUnavailable) as told:
        ledger.prepare()
    assert "hunter2" not in f"{told.value} {ledger.name}"
    with pytest.raises(StoreError) as told_of_form:
        Ledger(url.replace(":1/", ":port/"))
    assert "hunter2" not in str(told_of_form.value)


def test_without_its_library_postgresql_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"needs psycopg: install shaken-plugin\[postgresql\]"):
        Ledger("postgresql://shaken@db.example.com/shaken")


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(StoreError, match="not a database that can be named so"):
        Ledger("postgresql://db.example.com:port/shaken")
