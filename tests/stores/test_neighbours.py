"""Releases one schema apart on the same file: the one before, this one, the one after."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shaken_plugin import sqlitefile
from shaken_plugin.core.material import StoredAnchors
from shaken_plugin.core.records import Basis, Customer, CustomerState, Right
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores import sqlite as store
from shaken_plugin.stores.migrations import Schema, inspect, migrate, plan
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite import SCHEMA_VERSION, SqlitePolicy, SqliteStore, read_header, replace_policy
from shaken_plugin.stores.sqlite.material import MaterialFile
from shaken_plugin.stores.sqlite.upkeep import POLICY, compact, status
from tests.conftest import NOW
from tests.stores.test_sqlite import raw

SCHEMA_2 = Path(__file__).with_name("schema2.sql").read_text("utf-8")
ANNA = Author("anna", "ticket 4711", NOW)
ROOTS = StoredAnchors("us", "PEM")
SOURCE, NUMBER = "198.51.100.7", "12155551207"
MIGRATE = "run 'shaken store migrate'"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A file of the release before, dumped from one that it wrote."""
    path = tmp_path / "policy.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(SCHEMA_2)
    path.chmod(0o660)
    return path


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A file as the next release may leave it: a table and a column more, and its word that this one may go on."""
    path = tmp_path / "policy.db"
    replace_policy(path, Policy(), {"signing": {"mode": "off"}}, {}, ANNA)
    change_number(path, "2155551207", add=True)
    make_newer(path, SCHEMA_VERSION + 1, reads=SCHEMA_VERSION)
    return path


def make_newer(path: Path, version: int, *, reads: object) -> None:
    with raw(path) as other:
        other.execute("CREATE TABLE IF NOT EXISTS promise (key TEXT PRIMARY KEY) WITHOUT ROWID")
        if "flags" not in {row[1] for row in other.execute("PRAGMA table_info(shape)")}:
            other.execute("ALTER TABLE shape ADD COLUMN flags INTEGER NOT NULL DEFAULT 0")
            other.execute("ALTER TABLE shape DROP COLUMN flags")
        other.execute("INSERT OR REPLACE INTO meta VALUES ('reads', ?)", (json.dumps(reads),))
        other.execute(f"PRAGMA user_version = {version}")


def change_number(path: Path, number: str, *, add: bool) -> None:
    """What an administrator's command does."""
    with SqlitePolicy(path).change(ANNA, "numbers") as draft:
        draft.put(Customer("acme", "Acme", CustomerState.VERIFIED))
        draft.put(Right("letter", "acme", Basis.LETTER, "LOA-9"))
        (draft.add_numbers if add else draft.remove_numbers)(Right, "letter", [Span(number, number)])


def held(worker: SqliteStore, number: str) -> bool:
    """What a call of it is decided from."""
    return any(right.right.id == "letter" for right in worker.facts(SOURCE, None, number).rights)


# --- A file of the release before -----------------------------------------------------------------


def test_workers_and_commands_of_this_release_work_on_the_file_of_the_one_before(older: Path) -> None:
    worker = SqliteStore(older)
    assert [right.right.id for right in worker.facts(SOURCE, None, NUMBER).rights] == ["own"]
    change_number(older, "13125550142", add=True)
    assert held(worker, "13125550142")
    replace_policy(older, None, {"signing": {"mode": "observe"}}, {}, ANNA)
    assert read_header(older).settings == {"signing": {"mode": "observe"}}
    assert compact(older, NOW + 1).version == 5
    assert status(older).schema == 2
    with raw(older) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (2,)
        names = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "material" not in names
        # What the release before asks for, in its own words, is where it looks for it.
        (text,) = other.execute("SELECT value FROM meta WHERE key = 'policy_version'").fetchone()
        assert text == "5"
        rows = other.execute("SELECT kind, id FROM link WHERE key = 'customer/acme' ORDER BY kind, id").fetchall()
        assert rows == [("right", "letter"), ("right", "own"), ("trunk", "acme-main")]


def test_it_has_no_room_for_keys_and_says_what_to_do(older: Path) -> None:
    assert MaterialFile(older).material() == ()
    assert MaterialFile(older).version() == (3, None)
    policy = SqlitePolicy(older)
    with policy.records() as records:
        assert records.material() == ()
    with pytest.raises(StoreError, match=MIGRATE), policy.change(ANNA, "anchors") as draft:
        draft.put_material(ROOTS)
    with pytest.raises(StoreError, match=MIGRATE), policy.change(ANNA, "anchors") as draft:
        draft.remove_material(StoredAnchors, "us")
    with policy.change(ANNA, "nothing") as draft:
        assert draft.material() == ()
    assert read_header(older).policy_version == 3


def test_it_is_brought_up_while_workers_go_on(older: Path) -> None:
    worker, keys = SqliteStore(older), MaterialFile(older)
    before = worker.facts(SOURCE, None, NUMBER)
    assert keys.material() == ()
    planned = plan(older, POLICY)
    assert planned is not None
    assert POLICY.works_on(planned.state.schema)
    assert "then older releases can no longer read it: restart every switch and agent" in "\n".join(planned.lines)
    migrate(planned, ANNA)
    assert worker.facts(SOURCE, None, NUMBER) == before
    with SqlitePolicy(older).change(ANNA, "anchors us added") as draft:
        draft.put_material(ROOTS)
    assert keys.material() == (ROOTS,)
    assert worker.facts(SOURCE, None, NUMBER).version == 4
    assert (inspect(older).schema, inspect(older).reads, plan(older, POLICY)) == (3, 3, None)


# --- A file of the release after ------------------------------------------------------------------


def test_workers_and_commands_of_this_release_work_on_the_file_of_the_next(newer: Path) -> None:
    worker = SqliteStore(newer)
    assert held(worker, "2155551207")
    change_number(newer, "13125550142", add=True)
    assert held(worker, "13125550142")
    with SqlitePolicy(newer).change(ANNA, "anchors us added") as draft:
        draft.put_material(ROOTS)
    assert MaterialFile(newer).material() == (ROOTS,)
    replace_policy(newer, None, {"signing": {"mode": "observe"}}, {}, ANNA)
    assert (read_header(newer).policy_version, status(newer).schema) == (5, SCHEMA_VERSION + 1)
    assert plan(newer, POLICY) is None
    with raw(newer) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)


def test_a_worker_goes_on_when_the_next_release_brings_its_file_up(tmp_path: Path) -> None:
    path = tmp_path / "policy.db"
    replace_policy(path, Policy(), {}, {}, ANNA)
    change_number(path, "13125550142", add=True)
    worker = SqliteStore(path)
    assert held(worker, "13125550142")
    following = Schema("policy", SCHEMA_VERSION + 1, {SCHEMA_VERSION: step}, reads=SCHEMA_VERSION)
    planned = plan(path, following)
    assert planned is not None
    assert f"then releases of schema {SCHEMA_VERSION} go on with it" in "\n".join(planned.lines)
    migrate(planned, ANNA)
    assert inspect(path).schema == SCHEMA_VERSION + 1
    change_number(path, "13125550142", add=False)  # an administrator who has this release still
    assert not held(worker, "13125550142")
    assert SqliteStore(path).facts(None, None, "13125550142").version == 3


def step(connection: sqlite3.Connection, _author: Author) -> None:
    connection.execute("CREATE TABLE promise (key TEXT PRIMARY KEY) WITHOUT ROWID")


def test_a_migration_that_says_nothing_of_older_releases_shuts_them_out(tmp_path: Path) -> None:
    path = tmp_path / "policy.db"
    replace_policy(path, Policy(), {}, {}, ANNA)
    worker = SqliteStore(path)
    assert worker.facts(None, None, None).version == 1
    planned = plan(path, Schema("policy", SCHEMA_VERSION + 1, {SCHEMA_VERSION: step}))
    assert planned is not None
    assert "then older releases can no longer read it" in "\n".join(planned.lines)
    migrate(planned, ANNA)
    assert inspect(path).reads == SCHEMA_VERSION + 1
    with pytest.raises(StoreUnavailable, match=f"schema version {SCHEMA_VERSION + 1} is newer"):
        SqliteStore(path).facts(None, None, None)


@pytest.mark.parametrize(
    ("version", "reads"),
    [
        (SCHEMA_VERSION + 1, SCHEMA_VERSION + 1),
        (SCHEMA_VERSION + 1, None),
        (SCHEMA_VERSION + 1, "soon"),
        (SCHEMA_VERSION + 2, SCHEMA_VERSION),
        (99, 1),
    ],
    ids=["not for us", "no word", "nonsense", "two ahead", "far ahead"],
)
def test_what_is_newer_otherwise_is_refused(newer: Path, version: int, reads: object) -> None:
    make_newer(newer, version, reads=reads)
    message = rf"schema version {version} is newer than this release knows \({SCHEMA_VERSION}\)"
    with pytest.raises(StoreUnavailable, match=message):
        SqliteStore(newer).facts(None, None, None)
    with pytest.raises(StoreUnavailable, match=message):
        MaterialFile(newer).material()
    with pytest.raises(StoreError, match=message):
        change_number(newer, "13125550142", add=True)
    with pytest.raises(StoreError, match=message):
        plan(newer, POLICY)


def test_a_file_without_a_table_for_its_word_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE something (key TEXT)")
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        with pytest.raises(StoreError, match="is newer"):
            sqlitefile.check_schema(other, tmp_path / "other.db", SCHEMA_VERSION)


# --- What is removed ------------------------------------------------------------------------------


def test_what_was_replaced_or_removed_is_overwritten_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.db"
    policy = SqlitePolicy(path)
    for mark in ("first-secret" * 40, "second-secret" * 40):
        with policy.change(ANNA, "anchors") as draft:
            draft.put_material(StoredAnchors("us", mark))
    with policy.change(ANNA, "anchors removed") as draft:
        draft.remove_material(StoredAnchors, "us")
    # The last connection that closed brought the log into the file.
    assert not path.with_name("policy.db-wal").exists()
    content = path.read_bytes()
    assert b"first-secret" not in content
    assert b"second-secret" not in content


@pytest.mark.parametrize(
    "body", ["", "{", "[]", '{"certificates": 5}', '{"certificates": "x", "more": 1}', "[" * 100_000, '{"name": "x"}']
)
def test_damaged_content_is_an_error_that_names_it_and_quotes_nothing(tmp_path: Path, body: str) -> None:
    path = tmp_path / "policy.db"
    with SqlitePolicy(path).change(ANNA, "anchors") as draft:
        draft.put_material(ROOTS)
    with raw(path) as other:
        other.execute("UPDATE material SET body = ?", (body,))
    with pytest.raises(StoreUnavailable, match=r"anchors us: its content is damaged; remove it, and add it again"):
        MaterialFile(path).material()
    with raw(path) as other:
        other.execute("UPDATE material SET kind = 'other'")
    with pytest.raises(StoreUnavailable, match=r"other us: its content is damaged"):
        MaterialFile(path).material()


def test_a_source_that_is_not_there_or_empty_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        MaterialFile(tmp_path / "gone.db").version()
    store.create(tmp_path / "empty.db")
    with pytest.raises(StoreUnavailable, match="no policy in it yet"):
        MaterialFile(tmp_path / "empty.db").material()
    (tmp_path / "nonsense.db").write_bytes(b"not a database" * 1_000)
    with pytest.raises(StoreUnavailable, match="not a database"):
        MaterialFile(tmp_path / "nonsense.db").version()
