"""``shaken store``: status, history, migrate, compact."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shaken_plugin import runtime
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.records import Basis, Customer, CustomerState, Record, Right
from shaken_plugin.core.sip import Request
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author, Span
from shaken_plugin.records import ledger as ledgers
from shaken_plugin.records import tables
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.switch import Switch
from shaken_plugin.telemetry import MemoryObserver
from tests.cli.conftest import Run, invite
from tests.stores.test_migrations import make_old
from tests.stores.test_sqlite import raw

LONG_AGO = time.time() - 86_400


@pytest.fixture
def old(provider: Provider) -> Path:
    """A store of schema 1."""
    path = provider.folder / "policy.db"
    make_old(path)
    return path


@pytest.fixture
def changed(in_force: Provider) -> SqlitePolicy:
    """A store in which a right came yesterday, and half of its numbers went since."""
    policy = SqlitePolicy(in_force.folder / "policy.db")
    with policy.change(Author("alice", "letter [bold]received[/bold]", LONG_AGO), "right LOA-9") as draft:
        draft.put(Customer("acme9", "Acme", CustomerState.VERIFIED))
        draft.put(Right("r9", "acme9", Basis.LETTER, "LOA-9"))
        draft.add_numbers(Right, "r9", [Span("12155557000", "12155557099"), Span("12155558000", "12155558000")])
    with policy.change(Author("bob", "given back", LONG_AGO + 60), "numbers of LOA-9") as draft:
        draft.remove_numbers(Right, "r9", [Span("12155557000", "12155557099")])
    return policy


UPGRADE = re.search(
    r"## Upgrade\n\n```sh\n(.*?)```",
    (Path(__file__).parents[2] / "docs" / "installing.md").read_text("utf-8"),
    re.DOTALL,
)


def test_an_upgrade_as_the_page_says_it(provider: Provider, old: Path, run: Run, present: float) -> None:
    assert UPGRADE is not None
    steps = [line.partition("#")[0].strip() for line in UPGRADE[1].splitlines()]
    ours = [step.partition(" -- shaken ")[2].split() for step in steps if " -- shaken " in step]
    assert ours == [["store", "migrate"], ["apply"]]
    assert steps[-1] == "sudo systemctl restart kamailio freeswitch shaken-agent"

    # Without the step of the page: refused, with the step's name; and the switch starts in the declared mode.
    told = run("apply", code=3).stderr
    assert "run 'shaken store migrate'" in told.replace("\n", " ")
    started = runtime.start(provider.settings, present)
    assert len([one for one in started.warnings if "shaken store migrate" in one]) == 1
    assert len(started.warnings) == 1
    observer = MemoryObserver()
    switch = Switch(started, observer, lambda: present, lambda: "3b9f1c0a-7d45-4b8e-9a53-1f2e6f7c8d90")
    message = CallMessage.from_request(Request.parse(invite("+12155551212").encode()), source="127.0.0.2")
    assert switch.sign(lambda: message).variables["skip"] == "store_unavailable"

    for step in ours:
        run(*step, *(["--yes"] if step[0] == "store" else []))
    assert run("store", "migrate", "--yes").stdout.startswith("nothing to do")
    started = runtime.start(provider.settings, present)
    assert started.warnings == ()
    switch.services = started
    assert switch.sign(lambda: message).variables["level"] == "A"


# --- status -------------------------------------------------------------------------------------


def test_status_tells_versions_counts_and_sizes(run: Run, run_json: Callable[..., Any], changed: SqlitePolicy) -> None:
    told, state, ledger = run_json("store", "status")["files"]
    assert (ledger["kind"], ledger["schema"], ledger["error"]) == ("ledger", None, None)
    assert (state["kind"], state["schema"], state["error"]) == ("state", 2, None)
    assert (told["kind"], told["schema"], told["error"]) == ("policy", 3, None)
    assert (told["policy_version"], told["oldest_version"], told["applied_version"]) == (3, 0, 1)
    assert told["changed"]["who"] == "bob"
    assert told["records"]["customer"] >= 1
    assert told["size"] > 4_096
    text = run("store", "status").stdout
    assert told["path"] in text
    assert "bob: given back" in text
    assert "do not originate" in text


def test_status_of_a_file_that_cannot_be_used_is_1_and_names_the_remedy(
    run: Run, run_json: Callable[..., Any], old: Path
) -> None:
    assert "run 'shaken store migrate'" in run("store", "status", code=1).stderr
    told, *_ = run_json("store", "status", code=1)["files"]
    assert (told["schema"], told["tables"]["number_right"]) == (1, 4)


def test_status_of_a_missing_file_is_1(run: Run, provider: Provider) -> None:
    assert "policy.db" in run("store", "status", code=1).stderr


# --- history ------------------------------------------------------------------------------------


def test_history_tells_who_when_why_and_what(run: Run, run_json: Callable[..., Any], changed: SqlitePolicy) -> None:
    changes = run_json("store", "history")["changes"]
    assert [change["version"] for change in changes] == [1, 2, 3]
    assert changes[0]["what"].startswith("file ")
    assert changes[2] == {
        "kind": "policy",
        "version": 3, "at": LONG_AGO + 60, "who": "bob", "why": "given back", "what": "numbers of LOA-9",
    }  # fmt: skip
    text = run("store", "history").stdout
    assert "[bold]" in text


def test_history_since_a_time(run_json: Callable[..., Any], provider: Provider) -> None:
    policy = SqlitePolicy(provider.folder / "policy.db")
    for at in (1_000.0, 2_000.0, 3_000.0):
        with policy.change(Author("alice", "why", at), str(at)) as draft:
            draft.put(Customer("acme", str(at), CustomerState.VERIFIED))
    assert [change["version"] for change in run_json("store", "history", "--since", "2000")["changes"]] == [3]
    assert run_json("store", "history", "--since", "2001")["changes"][0]["version"] == 3


def test_history_of_one_record(run_json: Callable[..., Any], run: Run, provider: Provider) -> None:
    policy = SqlitePolicy(provider.folder / "policy.db")
    acme, globex = (Customer(name, name, CustomerState.VERIFIED) for name in ("acme", "globex"))
    right = Right("r", "acme", Basis.ASSIGNED)
    records: tuple[Record, ...] = (acme, globex, right)
    for at, record in enumerate(records):
        with policy.change(Author("alice", "why", 1_000.0 * (at + 1)), record.id) as draft:
            draft.put(record)
    with policy.change(Author("alice", "why", 4_000.0), "gone") as draft:
        draft.remove(Customer, "globex")

    def versions(*options: object) -> list[int]:
        return [change["version"] for change in run_json("store", "history", *options)["changes"]]

    assert versions("--customer", "acme") == [1, 3]
    assert versions("--customer", "acme", "--since", 2_000) == [3]
    assert versions("--customer", "globex") == versions("--record", "customer", "globex") == [2, 4]
    assert versions("--record", "letter", "r", "--record", "customer", "acme") == [1, 3]
    assert versions("--customer", "nobody") == []
    run("store", "history", "--record", "letr", "r", code=2)


def test_history_of_a_missing_store_is_3(run: Run, provider: Provider) -> None:
    assert "policy.db" in run("store", "history", code=3).stderr


# --- migrate ------------------------------------------------------------------------------------


def test_migrate_says_what_it_will_do_and_asks(run: Run, old: Path) -> None:
    text = run("store", "migrate", stdin="n\n", code=1).stdout
    assert "policy, schema 1 to 3" in text
    assert f"{old}.v1" in text
    with raw(old) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (1,)
    text = run("store", "migrate", stdin="y\n").stdout
    assert f"{old}: now schema 3" in text
    assert Path(f"{old}.v1").exists()
    assert "nothing to do" in run("store", "migrate").stdout


def test_migrate_for_programs_asks_nothing(run: Run, run_json: Callable[..., Any], old: Path) -> None:
    run("store", "migrate", "--json", code=2)
    done = run_json("store", "migrate", "--yes")
    assert done == {
        "ok": True,
        "migrated": [{"kind": "policy", "path": str(old), "from": 1, "to": 3, "backup": f"{old}.v1"}],
        "ledger": [],
    }
    assert run_json("store", "migrate") == {"ok": True, "migrated": [], "ledger": []}


def test_apply_goes_on_after_a_migration(run: Run, old: Path) -> None:
    assert "run 'shaken store migrate'" in run("apply", code=3).stderr
    run("store", "migrate", "--yes")
    assert "in force: policy version 4" in run("apply").stdout


def test_the_ledger_is_migrated_too(
    run: Run, run_json: Callable[..., Any], in_force: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(f"sqlite:{in_force.folder / 'ledger.db'}").prepare()
    (told,) = (one for one in run_json("store", "status")["files"] if one["kind"] == "ledger")
    assert (told["schema"], told["tables"]["call"], told["error"]) == (tables.SCHEMA_VERSION, 0, None)
    monkeypatch.setattr(ledgers, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(
        ledgers, "MIGRATIONS", {1: ("each record gets a colour", lambda c: c.execute(text("ALTER TABLE call ADD x")))}
    )
    assert "run 'shaken store migrate'" in run("store", "status", code=1).stderr
    assert "1 -> 2: each record gets a colour" in run("store", "migrate", stdin="n\n", code=1).stdout
    assert run_json("store", "migrate", "--yes")["ledger"]
    assert "nothing to do" in run("store", "migrate").stdout
    monkeypatch.setattr(ledgers, "SCHEMA_VERSION", 1)
    assert "schema version 2 is newer" in run("store", "status", code=1).stderr


def test_what_cannot_be_migrated_is_3(run: Run, old: Path) -> None:
    with raw(old) as other:
        other.execute("DELETE FROM meta")
    assert "damaged" in run("store", "migrate", "--yes", code=3).stderr
    with raw(old) as other:
        other.execute("PRAGMA user_version = 99")
    assert "schema version 99 is newer" in run("store", "migrate", "--yes", code=3).stderr


# --- compact ------------------------------------------------------------------------------------


def test_compact_says_what_goes_and_asks(run: Run, run_json: Callable[..., Any], changed: SqlitePolicy) -> None:
    moment = LONG_AGO + 120
    text = run("store", "compact", "--before", moment, stdin="n\n", code=1).stdout
    assert "2 changes before version 3 go, with 2 rows" in text
    assert "record 0, span 1, number 1" in text
    assert len(list(changed.changes())) == 3
    done = run_json("store", "compact", "--before", moment, "--yes")
    assert (done["version"], done["rows"]) == (3, {"record": 0, "span": 1, "number": 1})
    assert [change.version for change in changed.changes()] == [3]
    assert "nothing to forget" in run("store", "compact", "--before", moment).stdout


def test_the_future_cannot_be_forgotten(run: Run, changed: SqlitePolicy) -> None:
    run("store", "compact", "--before", time.time() + 60, "--yes", code=2)


@pytest.mark.parametrize("command", ["status", "history", "migrate", "compact"])
def test_settings_with_mistakes_are_1_and_missing_ones_3(
    run: Run, provider: Provider, change: Callable[..., None], command: str
) -> None:
    more = ("--before", "1000") if command == "compact" else ()
    change(store={"pth": "x"})
    assert "store.pth" in run("store", command, *more, code=1).stderr
    run("store", command, *more, "--settings", provider.folder / "none.yaml", code=3)
