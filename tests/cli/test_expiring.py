"""``shaken expiring`` and ``shaken missing``."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from shaken_plugin.cli import expiring, missing
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import PolicyWriter
from shaken_plugin.records.collector import collect
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.spool import SpoolWriter
from tests.cli.records import WHY, Run, RunJson
from tests.records.builders import record

DAY = 86_400


@pytest.fixture
def on(present: float) -> Callable[[int], str]:
    """A day so many days from now, as it is typed."""
    return lambda days: f"{datetime.fromtimestamp(present + days * DAY, UTC):%Y-%m-%d}"


def test_what_will_change_by_itself_in_the_order_of_time(
    run: Run, run_json: RunJson, centre: PolicyWriter, on: Callable[[int], str]
) -> None:
    run("letter", "set", "LOA-1", "--valid-until", on(10), *WHY)
    run("letter", "add", "LOA-2", "--customer", "acme", "--valid-from", on(5), "--numbers", "+13125550150", *WHY)
    run("letter", "add", "LOA-3", "--customer", "acme", "--valid-until", on(40), "--numbers", "+13125550151", *WHY)
    run("letter", "add", "LOA-4", "--customer", "acme", "--valid-until", on(2), "--numbers", "+13125550152", *WHY)
    run("letter", "suspend", "LOA-4", *WHY)
    run("customer", "set", "acme", "--review", on(20), *WHY)
    rule = ["--customer", "acme", "--number", "+12155551200", "--caller", "+44", "--valid-until", on(15)]
    run("substitution", "add", "s1", *rule, *WHY)

    data = run_json("expiring", "--days", "30", code=1)
    assert data.keys() == {"from", "until", "items", "notes"}
    assert data["notes"] == []
    assert [(item["kind"], item["id"], item["attention"]) for item in data["items"]] == [
        ("right_begins", "LOA-2", False),
        ("right_ends", "LOA-1", True),
        ("substitution_ends", "s1", True),
        ("review_due", "acme", True),
    ]
    begins, ends = data["items"][:2]
    assert begins["levels"] == [{"now": "B", "then": "A", "ranges": 1, "first": "+13125550150"}]
    assert ends["levels"] == [{"now": "A", "then": "B", "ranges": 1, "first": "+13125550142"}]
    assert (ends["customer"], ends["owner"], ends["document"]) == ("acme", "Example Clinic", "LOA-1")
    assert ends["numbers"] == {"ranges": 1, "count": 1, "first": ["+13125550142"]}
    told = " ".join(run("expiring", code=1).stdout.split())
    for text in ("A → B", "B → A", "Example", "LOA-1 ends", "review of customer"):
        assert text in told
    earlier = run_json("expiring", "--days", "3", "--at", on(8), code=1)
    assert [item["id"] for item in earlier["items"]] == ["LOA-1"]


def test_a_right_that_another_replaces_needs_no_attention(
    run: Run, run_json: RunJson, in_memory: PolicyWriter, on: Callable[[int], str]
) -> None:
    run("letter", "set", "LOA-1", "--valid-until", on(10), "--add-numbers", "+13125550143", *WHY)
    run("number", "add", "+13125550142", "--customer", "acme", "--basis", "ported", *WHY)
    (item,) = run_json("expiring", code=1)["items"]
    assert [(each["now"], each["then"], each["first"]) for each in item["levels"]] == [
        ("A", "A", "+13125550142"),
        ("A", "B", "+13125550143"),
    ]
    run("number", "add", "+13125550143", "--customer", "acme", "--basis", "ported", *WHY)
    (item,) = run_json("expiring")["items"]
    assert item["attention"] is False


def test_nothing_to_say_is_nothing_for_cron(run: Run, run_json: RunJson, in_memory: PolicyWriter) -> None:
    assert run_json("expiring")["items"] == []
    silent = run("expiring")
    assert (silent.stdout, silent.stderr) == ("", "")


def test_overdue_reviews_stay(run: Run, run_json: RunJson, in_memory: PolicyWriter, on: Callable[[int], str]) -> None:
    run("customer", "set", "acme", "--review", on(-100), *WHY)
    (item,) = run_json("expiring", "--days", "0", code=1)["items"]
    assert item["what"] == "review of customer acme was due"


def test_credentials_that_end_and_pairs_that_go_live(
    run_json: RunJson,
    in_memory: PolicyWriter,
    provider: Provider,
    living: Authority,
    present: float,
    change: Callable[..., None],
    on: Callable[[int], str],
) -> None:
    issued = living.issue(spc="709J", now=present)
    (provider.folder / "next.key").write_bytes(issued.key)
    (provider.folder / "next.pem").write_bytes(issued.chain)
    first = {"key": "file:signing.key", "chain": "file:chain.pem", "x5u": provider.x5u}
    x5u = provider.x5u.replace(".pem", "-2.pem")
    second = {"key": "file:next.key", "chain": "file:next.pem", "x5u": x5u, "live_from": on(3)}
    change(signing={"credentials": [{"name": "main", "pairs": [first, second]}]})
    items = run_json("expiring", "--days", "400", code=1)["items"]
    assert [(item["kind"], item["id"], item["attention"]) for item in items] == [
        ("pair_live", "main", False),
        ("credential_ends", "main", True),
    ]
    (provider.folder / "next.key").unlink()
    assert "credentials not looked at" in run_json("expiring", "--days", "400")["notes"][0]


# --- Missing --------------------------------------------------------------------------------------


@pytest.fixture
def ledger(provider: Provider, present: float) -> Callable[..., None]:
    """Writes calls of acme into the ledger of the settings."""
    folder = provider.folder / "calls"
    folder.mkdir()
    writer, made = SpoolWriter(folder, 1 << 24), Ledger(f"sqlite:{provider.folder / 'ledger.db'}")

    def called(number: str, times: int, days_ago: float = 1) -> None:
        for _ in range(times):
            assert writer.write(record(orig=number, at=present - days_ago * DAY)) is None
        collect(folder, made)

    return called


def test_numbers_in_use_that_are_not_a(
    run: Run, run_json: RunJson, centre: PolicyWriter, ledger: Callable[..., None]
) -> None:
    ledger("13125550142", 3)
    ledger("12125550100", 2)
    ledger("13125550160", 5)
    ledger("12125550109", 9, days_ago=40)
    run("number", "add", "+13125550160", "--customer", "acme", "--basis", "customer_word", *WHY)
    data = run_json("missing", "acme", code=1)
    assert data.keys() == {"customer", "at", "numbers", "more", "cut"}
    assert [(each["numbers"], each["calls"], each["level"]) for each in data["numbers"]] == [
        ("+13125550160", 5, "B"),
        ("+12125550100", 2, "B"),
    ]
    assert data["numbers"][1]["missing"] == ["a record that acme may use 12125550100"]
    assert "… and more" in run("missing", "acme", "--limit", "1", code=1).stdout
    told = " ".join(run("missing", "acme", code=1).stdout.split())
    assert "a letter of authorisation" in told
    assert [each["calls"] for each in run_json("missing", "acme", "--days", "60", code=1)["numbers"]] == [9, 5, 2]


def test_without_a_ledger_all_numbers_may_be_looked_at(run: Run, run_json: RunJson, in_memory: PolicyWriter) -> None:
    assert "--all looks at all numbers" in run("missing", "acme", code=3).stderr
    assert "all numbers of the rights of acme get A" in run("missing", "acme", "--all").stdout
    run("letter", "suspend", "LOA-1", *WHY)
    (lacking,) = run_json("missing", "acme", "--all", code=1)["numbers"]
    assert (lacking["numbers"], lacking["calls"], lacking["missing"]) == (
        "+13125550142",
        None,
        ["LOA-1 put in force again"],
    )
    assert "did you mean acme?" in run("missing", "acmee", "--all", code=1).stderr


def test_of_millions_of_numbers_the_first_are_looked_at(
    run: Run, run_json: RunJson, in_memory: PolicyWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing, "_LOOKED_AT", 1)
    run("letter", "set", "LOA-1", "--add-numbers", "+13125550143", *WHY)
    assert run_json("missing", "acme", "--all")["cut"] == ["LOA-1"]
    assert "of right LOA-1 only the first 1 numbers" in run("missing", "acme", "--all").stdout


@pytest.mark.usefixtures("in_memory")
def test_every_number_of_a_right_that_ends_is_looked_at(
    run: Run, run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 5 * DAY))
    numbers = [f"+1312555{number:04}" for number in range(1000, 1402, 2)]
    spans = [word for number in (*numbers, "+14155552000") for word in ("--numbers", number)]
    run("letter", "add", "LOA-M", "--customer", "acme", "--owner", "Clinic", "--valid-until", soon, *spans, *WHY)
    run("number", "add", "+13125551000..+13125551999", "--customer", "acme", "--basis", "assigned", *WHY)
    data = run_json("expiring", code=1)
    (item,) = (item for item in data["items"] if item["id"] == "LOA-M")
    assert item["levels"] == [
        {"now": "A", "then": "A", "ranges": 201, "first": "+13125551000"},
        {"now": "A", "then": "B", "ranges": 1, "first": "+14155552000"},
    ]
    monkeypatch.setattr(expiring, "_ASKED", 200)
    assert "of right LOA-M only the first 200 of 202 numbers and ranges" in run("expiring").stderr
