"""Files of schema 1, as the landed release wrote them, and what becomes of them."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest

from shaken_plugin import runtime
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, NumberRight, Right, Trunk
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores import migrations
from shaken_plugin.stores.migrations import Schema, inspect, migrate, plan
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite import SCHEMA_VERSION, SqlitePolicy, SqliteStore, read_header, replace_policy
from shaken_plugin.stores.sqlite.upkeep import POLICY, compact, compaction, status
from tests.conftest import NOW
from tests.records import reached
from tests.stores.test_sqlite import raw

SCHEMA_1 = Path(__file__).with_name("schema1.sql").read_text("utf-8")

ACME = Customer(
    "acme", "Acme Contact Centre", CustomerState.VERIFIED, Attest.B, "second", "11111111-2222-4333-8444-555555555555"
)
ANNA = Author("anna", "ticket 4711", NOW)
BETA = Customer("beta", "Bèta", CustomerState.SUSPENDED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.db"
    make_old(path)
    return path


def make_old(path: Path) -> None:
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(SCHEMA_1)
    path.chmod(0o660)


def go(path: Path) -> None:
    planned = plan(path, POLICY)
    assert planned is not None
    migrate(planned, ANNA)


def content(path: Path) -> list[str]:
    with raw(path) as other:
        return list(other.iterdump())


# --- Until it is migrated -----------------------------------------------------------------------


def test_an_older_schema_is_refused_by_readers_and_writers_naming_both_and_the_command(path: Path) -> None:
    before = content(path)
    message = r"policy\.db: schema version 1 is older than this release's \(3\); run 'shaken store migrate'"
    with pytest.raises(StoreUnavailable, match=message):
        SqliteStore(path).facts(None, None, None)
    with pytest.raises(StoreError, match=message):
        read_header(path)
    with pytest.raises(StoreError, match=message):
        replace_policy(path, Policy(), None, {})
    with pytest.raises(StoreError, match=message), SqlitePolicy(path).change(Author("a", "b", 0.0), "c"):
        pytest.fail("it is refused")
    with pytest.raises(StoreError, match=message), SqlitePolicy(path).records():
        pytest.fail("it is refused")
    with pytest.raises(StoreError, match=message):
        status(path)
    with pytest.raises(StoreError, match=message):
        compact(path, NOW)
    assert content(path) == before


def test_a_switch_that_finds_an_older_schema_starts_and_says_so_once(tmp_path: Path, authority: Authority) -> None:
    provider = Provider.make(tmp_path / "provider", authority, NOW)
    make_old(provider.folder / "policy.db")
    services = runtime.start(provider.settings, NOW)
    (warning,) = services.warnings
    assert "run 'shaken store migrate'" in warning
    assert services.authentication is not None
    with raw(provider.folder / "policy.db") as other:
        assert other.execute("PRAGMA user_version").fetchone() == (1,)


# --- What it will do ----------------------------------------------------------------------------


def test_the_plan_says_schema_rows_size_and_where_the_copy_goes(path: Path) -> None:
    before = content(path)
    planned = plan(path, POLICY)
    assert planned is not None
    text = "\n".join(planned.lines)
    assert f"{path}: policy, schema 1 to {SCHEMA_VERSION}" in text
    assert "customer 2, gateway 1, meta 5, number_key 11, number_right 4" in text
    assert str(inspect(path).size) in text
    assert f"{path}.v1" in text
    assert content(path) == before
    assert not planned.backup.exists()


def test_there_is_nothing_to_do_for_a_file_of_this_release_or_an_empty_one(path: Path, tmp_path: Path) -> None:
    go(path)
    assert plan(path, POLICY) is None
    empty = tmp_path / "empty.db"
    empty.touch()
    assert plan(empty, POLICY) is None


def test_newer_unknown_missing_and_damaged_files_are_refused(path: Path, tmp_path: Path) -> None:
    with raw(path) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"schema version 99 is newer than this release knows \(3\)"):
        plan(path, POLICY)
    with raw(path) as other:
        other.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreError, match="cannot read schema version 2"):
        plan(path, Schema("policy", 4, {1: POLICY.steps[1]}))
    with pytest.raises(StoreUnavailable):
        plan(tmp_path / "missing.db", POLICY)
    (tmp_path / "nonsense.db").write_bytes(b"not a database" * 1_000)
    with pytest.raises(StoreUnavailable):
        plan(tmp_path / "nonsense.db", POLICY)


# --- Doing it -----------------------------------------------------------------------------------


def test_everything_is_there_afterwards(path: Path) -> None:
    go(path)
    main = reached(Trunk("acme-main", ACME, "third"), "198.51.100.0/24", "2001:db8::/32")
    letter = Right("acme-0", "acme", Basis.LETTER, "LOA-2026-113", "reminders", None, 1_814_313_600.0)
    assigned = Right("acme-1", "acme", Basis.ASSIGNED)
    word = Right("beta-0", "beta", Basis.CUSTOMER_WORD, valid_from=1.5)
    facts = SqliteStore(path).facts("198.51.100.7", None, "12155551212")
    assert facts.source == main
    assert facts.rights == (
        NumberRight(letter, "12155551212", "12155551212"),
        NumberRight(word, "12155551212", "12155551212"),
        NumberRight(assigned, "12155551195", "12155551301"),
    )
    assert (facts.holders, facts.version) == ((ACME, BETA), 3)
    with SqlitePolicy(path).records() as records:
        assert list(records.all(Customer)) == [ACME, BETA]
        assert list(records.all(Trunk)) == [main, reached(Trunk("beta-main", BETA), users=["alice"])]
        assert list(records.all(Gateway)) == [
            Gateway("intl", "International gateway", "fourth", (ip_network("203.0.113.7"),))
        ]
        assert list(records.all(Right)) == [letter, assigned, word]
        assert [tuple(span) for span in records.numbers(Right, "acme-0")] == [
            ("12155551212", "12155551212"),
            ("12155551300", "12155551399"),
        ]
    assert read_header(path)[:4] == (3, {"signing": {"mode": "off"}}, {"/etc/shaken/shaken.yaml": "ab12"}, 3)
    with raw(path) as other:
        tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"meta", "change", "record", "owner", "span", "number", "link", "shape", "material"}


def test_the_history_begins_with_it_and_files_may_be_applied(path: Path) -> None:
    go(path)
    policy = SqlitePolicy(path)
    (change,) = policy.changes()
    assert (change.version, change.at, change.who, change.why) == (3, NOW, "anna", "ticket 4711")
    with pytest.raises(StoreError, match="no version 2; it has 3 to 3"), policy.records(2):
        pytest.fail("nobody knows")
    assert replace_policy(path, Policy(), None, {}, overwrite=False).version == 4


@pytest.mark.parametrize("mode", [0o660, 0o600])
def test_the_copy_is_the_old_file_with_its_rights_and_the_file_stays_itself(path: Path, mode: int) -> None:
    before = content(path)
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 61_231, 61_230)
    found = path.stat()
    go(path)
    backup = Path(f"{path}.v1")
    for file in (path, backup):
        after = file.stat()
        assert stat.S_IMODE(after.st_mode) == mode
        assert (after.st_uid, after.st_gid) == (found.st_uid, found.st_gid)
    assert path.stat().st_ino == found.st_ino
    assert content(backup) == before
    assert inspect(backup).schema == 1


def test_a_copy_that_is_there_is_not_written_over(path: Path) -> None:
    Path(f"{path}.v1").write_text("mine")
    before = content(path)
    with pytest.raises(StoreError, match="is there already"):
        go(path)
    assert Path(f"{path}.v1").read_text() == "mine"
    assert content(path) == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE customer SET state = 'unheard of'",
        "UPDATE source_address SET key = 'x' || key",
        "UPDATE trunk SET customer = 'nobody'",
        "UPDATE number_right SET first = 'x' WHERE id = 3",
        "DELETE FROM meta",
        "DROP TABLE source_user",
        "ALTER TABLE number_right RENAME COLUMN basis TO bases",
    ],
)
def test_what_cannot_be_migrated_whole_is_left_as_it_was(path: Path, damage: str) -> None:
    with raw(path) as other:
        other.execute(damage)
    before = content(path)
    with pytest.raises(StoreError):
        go(path)
    assert content(path) == before
    assert inspect(path).schema == 1
    assert list(path.parent.glob("*.v1*")) == []


def test_a_file_somebody_writes_to_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "TIMEOUT", 0.05)
    planned = plan(path, POLICY)
    assert planned is not None
    with raw(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            migrate(planned, ANNA)
    migrate(planned, ANNA)
    with pytest.raises(StoreError, match="somebody else migrated it"):
        migrate(planned, ANNA)


def test_a_disk_without_room_leaves_the_file_as_it_was(path: Path) -> None:
    """As a disk that is full says it."""
    planned = plan(path, POLICY)
    assert planned is not None

    def no_room(connection: sqlite3.Connection, author: Author) -> None:
        connection.execute("PRAGMA max_page_count = 1")
        POLICY.steps[1](connection, author)

    before = content(path)
    with pytest.raises(StoreError, match="full"):
        migrate(planned._replace(schema=Schema("policy", 2, {1: no_room})), ANNA)
    assert content(path) == before
    assert not planned.backup.exists()


def test_readers_read_the_old_file_to_the_end(path: Path) -> None:
    with raw(path) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM customer").fetchone() == (2,)
        go(path)
        assert reader.execute("SELECT count(*) FROM customer").fetchone() == (2,)


def test_steps_follow_one_another(tmp_path: Path) -> None:
    """As the state and ledger files will have them."""
    path = tmp_path / "state.db"
    with raw(path) as other:
        other.execute("CREATE TABLE a (x)")
        other.execute("PRAGMA user_version = 1")
    schema = Schema(
        "state",
        3,
        {
            1: lambda connection, _author: connection.execute("ALTER TABLE a ADD COLUMN y"),
            2: lambda connection, _author: connection.execute("INSERT INTO a VALUES (1, 2)"),
        },
    )
    planned = plan(path, schema)
    assert planned is not None
    migrate(planned, ANNA)
    with raw(path) as other:
        assert other.execute("SELECT x, y FROM a").fetchall() == [(1, 2)]
        assert other.execute("PRAGMA user_version").fetchone() == (3,)


# --- Upkeep -------------------------------------------------------------------------------------


def _history(path: Path) -> SqlitePolicy:
    """Three versions an hour apart: a right with numbers, without some of them, without the right."""
    policy = SqlitePolicy(path)
    right = Right("r", "acme", Basis.ASSIGNED)
    numbers = [("12155551212", "12155551212"), ("12155551300", "12155551399")]
    with policy.change(Author("alice", "first", NOW), "1") as draft:
        draft.put(ACME)
        draft.put(right)
        draft.add_numbers(Right, "r", [Span(*number) for number in numbers])
    with policy.change(Author("alice", "second", NOW + 3_600), "2") as draft:
        draft.remove_numbers(Right, "r", [Span(*numbers[1])])
    with policy.change(Author("alice", "third", NOW + 7_200), "3") as draft:
        draft.remove(Right, "r")
    return policy


def test_the_status_counts_what_is_in_force_and_what_is_history(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    policy = _history(path)
    found = status(path)
    assert (found.policy_version, found.oldest_version, found.applied_version, found.schema) == (3, 0, 0, 3)
    assert found.changed == list(policy.changes())[-1]
    assert (found.records["customer"], found.records["right"], found.numbers, found.ranges) == (1, 0, 0, 0)
    assert found.history == 4  # the right, its number, its range and that range's one prefix
    assert found.size >= path.stat().st_size


@pytest.mark.parametrize(
    ("moment", "oldest", "rows"), [(NOW - 1, 0, 0), (NOW, 1, 0), (NOW + 3_600, 2, 2), (NOW + 9_999, 3, 4)]
)
def test_what_ended_before_a_time_is_forgotten(tmp_path: Path, moment: float, oldest: int, rows: int) -> None:
    path = tmp_path / "new.db"
    policy = _history(path)
    before = {version: _read(policy, version) for version in range(4)}
    told = compaction(path, moment)
    assert (told.version, sum(told.rows.values())) == (oldest, rows)
    assert compact(path, moment) == told
    assert status(path).oldest_version == oldest
    assert [change.version for change in policy.changes()] == [v for v in (1, 2, 3) if v >= oldest]
    for version, content in before.items():
        if version >= oldest:
            assert _read(policy, version) == content
        else:
            with (
                pytest.raises(StoreError, match=f"no version {version}; it has {oldest} to 3"),
                policy.records(version),
            ):
                pytest.fail("it is forgotten")
    assert sum(compact(path, moment).rows.values()) == 0
    with policy.change(Author("alice", "again", NOW), "4") as draft:
        draft.put(Right("r", "acme", Basis.ASSIGNED))
        assert draft.add_numbers(Right, "r", [Span("12155551212", "12155551212")]) == 1
    assert len(SqliteStore(path).facts(None, None, "12155551212").rights) == 1


def _read(policy: SqlitePolicy, version: int) -> object:
    with policy.records(version) as records:
        return list(records.all(Right)), list(records.numbers(Right, "r")), list(records.covering(Right, "12155551300"))


def test_a_file_without_a_policy_has_no_status(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreUnavailable, match="no policy in it yet"):
        status(tmp_path / "empty.db")
    with pytest.raises(StoreUnavailable):
        compaction(tmp_path / "missing.db", NOW)
