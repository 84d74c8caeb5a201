"""``shaken offence``: what people see and decide, and what programs get of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from shaken_plugin.cli import main, output
from shaken_plugin.stores.standing import StandingFile
from tests.conduct.book import ACME, Bench


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no cell is broken."""
    monkeypatch.setattr(output.console, "width", 250)


class Desk:
    """A support desk: a settings file, the accounts, and the command."""

    def __init__(self, folder: Path) -> None:
        self.settings = folder / "shaken.yaml"
        self.settings.write_text(
            f"store: {{path: {folder / 'policy.db'}}}\nsigning: {{mode: off}}\nverification: {{mode: off}}\n"
        )
        self.bench = Bench(folder / "state.db")

    def run(self, *arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(
            main, ["offence", *arguments, "--settings", str(self.settings)], env={"SHAKEN_BY": "ann"}
        )
        assert done.exit_code == code, done.output
        return done

    def data(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*arguments, "--json", code=code).stdout)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_without_any(desk: Desk) -> None:
    assert desk.run("list").stdout == "no offences\n"
    assert desk.data("list") == {"ok": True, "offences": [], "observed": []}
    assert desk.run("list", "--observed").stdout == "nothing was observed\n"


def test_the_list_says_what_is_to_do(desk: Desk) -> None:
    desk.bench.calls([(0, "12155550000")])
    assert "warning not delivered yet" in desk.run("list").stdout
    (message,) = desk.bench.book.due(desk.bench.at(1), 1)
    desk.bench.book.failed(message, "answered 500", desk.bench.at(2))
    assert "tell the customer (answered 500)" in desk.run("list").stdout
    desk.bench.deliver(1, 3)
    desk.bench.calls([(30, "12155550001")])
    lines = desk.run("list", "--open", "--customer", ACME).stdout.splitlines()
    assert lines[1].split()[:4] == ["2", ACME, "second", "proposed"]
    assert lines[1].endswith("suspend the customer, or dismiss it")
    assert lines[2].split()[:4] == ["1", ACME, "first", "warned"]
    assert desk.data("list", "--customer", "other")["offences"] == []


def test_what_mode_observe_saw(desk: Desk) -> None:
    desk.bench.calls([(0, "12155550000")], observed=True)
    assert "12155550000" in desk.run("list", "--observed").stdout
    assert desk.data("list", "--observed")["observed"] == [
        {"customer": ACME, "number": "12155550000", "first_at": 0.0, "last_at": 0.0, "calls": 1}
    ]


def test_evidence_is_shown_whole_or_how_much_is_not(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shaken_plugin.conduct.accounts.MAX_CALLS", 2)
    monkeypatch.setattr("shaken_plugin.conduct.accounts.MAX_NUMBERS", 10)
    monkeypatch.setattr("shaken_plugin.conduct.view.MAX_NUMBERS_SHOWN", 3)
    desk.bench.calls((index / 100, f"1215555000{index}") for index in range(5))
    said = desk.run("show", "1").stdout
    assert "call-1" in said
    assert "12155550000" in said
    assert "… and 2 more numbers" in said
    assert "… and 3 more calls" in said
    assert "first offence" in said
    data = desk.data("show", "1")
    assert (data["ok"], data["calls"], data["stage"], len(data["evidence"])) == (True, 5, "open", 2)


def test_what_a_call_says_cannot_act_on_the_terminal(desk: Desk) -> None:
    desk.bench.calls([(0, "sip:\x1b[31m[bold]evil@example.com")])
    said = desk.run("show", "1").stdout
    assert "\x1b" not in said
    assert "[bold]evil" in said


def test_a_person_says_that_the_customer_was_told(desk: Desk) -> None:
    desk.bench.calls([(0, "1")])
    assert "warned" in desk.run("delivered", "1", "-m", "called them").stdout
    event = desk.bench.details(1).events[-1]
    assert (event.what, event.who, event.why) == ("warning delivered", "ann", "called them")
    assert "no warning waits" in desk.run("delivered", "1", "-m", "again", code=1).output
    assert desk.data("delivered", "1", "-m", "again", code=1)["ok"] is False


def test_dismissing_takes_a_name_and_a_reason(desk: Desk) -> None:
    desk.bench.calls([(0, "1")])
    assert "--by" in desk.run("dismiss", "1", "-m", "ported in", code=2).output
    assert "--why" in desk.run("dismiss", "1", "--by", "ann", code=2).output
    assert "--why is blank" in desk.run("dismiss", "1", "--by", "ann", "-m", " ", code=2).output
    assert desk.data("dismiss", "1", "--by", "ann", "-m", "ported in")["stage"] == "dismissed"


@pytest.mark.parametrize(
    "arguments", [("show", "7"), ("delivered", "7", "-m", "x"), ("dismiss", "7", "--by", "a", "-m", "x")]
)
def test_an_offence_that_is_not_there(desk: Desk, arguments: tuple[str, ...]) -> None:
    assert "there is no offence 7: shaken offence list" in desk.run(*arguments, code=1).output


def test_a_state_file_that_cannot_be_used(desk: Desk) -> None:
    for end in ("-wal", "-shm", ""):
        desk.bench.path.with_name(f"state.db{end}").unlink(missing_ok=True)
    desk.bench.path.write_bytes(b"no database" * 1_000)
    for arguments in (("list",), ("show", "1"), ("dismiss", "1", "--by", "a", "-m", "x")):
        assert str(desk.bench.path) in desk.run(*arguments, code=3).output


def test_dismissing_a_proposal_suspends_nobody(desk: Desk) -> None:
    desk.bench.calls([(0, "1")])
    desk.bench.deliver(1, 1)
    desk.bench.calls([(26, "2")])
    desk.run("dismiss", "2", "--by", "ann", "-m", "ported in")
    assert StandingFile(desk.bench.path).of(ACME) is None
    assert desk.data("list", "--open")["offences"][0]["stage"] == "warned"
