"""What commands print never reaches the terminal as anything but text; wrong usage is told in JSON, too."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Final

import pytest

from shaken_plugin.cli import COMMANDS, main, output
from shaken_plugin.core.records import (
    Basis,
    Customer,
    CustomerState,
    DoNotOriginate,
    Gateway,
    Record,
    Right,
    Route,
    Substitution,
    Trunk,
    Withheld,
)
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores.sqlite import SqlitePolicy
from tests.cli.records import Run, RunJson

HOSTILE: Final = "[/b]\x1b[2J\x1b]0;owned\x07\u202ecba\x9b31m[red]"
"""Clears the screen, sets the title, turns what follows around; and is markup that does not close."""
FIXED: Final = frozenset({"id", "customer", "number", "substitute", "routes", "destinations", "callers", "country"})
"""Texts that are names or numbers by their form, which files and options check."""


def hostile(kind: Any, **given: Any) -> Any:
    """A record whose every free text is hostile."""
    values: dict[str, Any] = dict(given)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if field.name in values or field.name in FIXED:
            continue
        if str in choices:
            values[field.name] = HOSTILE
        elif hint == tuple[str, ...]:
            values[field.name] = (HOSTILE,)
        elif nested := [each for each in choices if dataclasses.is_dataclass(each)]:
            values[field.name] = hostile(nested[0])
    return kind(**values)


ACME: Final[Customer] = hostile(Customer, id="acme", state=CustomerState.VERIFIED)
RECORDS: Final[dict[str, Record]] = {
    "customer": ACME,
    "trunk": hostile(Trunk, id="t", customer=ACME),
    "gateway": hostile(Gateway, id="g"),
    "right": hostile(Right, id="r", customer="acme", basis=Basis.ASSIGNED),
    "letter": hostile(Right, id="l", customer="acme", basis=Basis.LETTER, valid_until=2_000_000_000.0),
    "dno": hostile(DoNotOriginate, id="d", reason=Withheld.UNUSED),
    "route": hostile(Route, id="uk", destinations=("44",)),
    "substitution": hostile(Substitution, id="s", customer="acme", number="12155551212"),
}
COMMAND_LINES: Final = [
    *(([kind, "show", record.id]) for kind, record in RECORDS.items()),
    *(([kind, "list"]) for kind in (*RECORDS, "number", "limits")),
    ["number", "show", "+12155551212"],
    ["dno", "show", "+12155551213"],
    ["letter", "check"],
    ["limits", "show", "acme"],
    ["expiring", "--days", "36500"],
    ["missing", "acme", "--all"],
    ["store", "history"],
    ["store", "status"],
    ["policy", "diff", "--from", "2026-11-01"],
    ["customer", "suspend", "acme", "--why", HOSTILE, "--by", HOSTILE],
    ["explain", "--from", "+12155551212", "--to", "+12025550143", "--user", HOSTILE],
    ["customer", "show", HOSTILE],
    ["customer", "set", "acme", "--state", HOSTILE, "--why", "x"],
    ["customer", HOSTILE],
    [HOSTILE],
    ["number", "show", HOSTILE],
    ["customer", "list", f"--{HOSTILE}"],
]


@pytest.fixture
def hostile_records(in_force: Provider) -> None:
    author = Author._make((HOSTILE, HOSTILE, 1_795_000_000.0))  # past the check, as another release may have
    with SqlitePolicy(in_force.folder / "policy.db").change(author, HOSTILE) as draft:
        for record in RECORDS.values():
            draft.put(record)
        draft.add_numbers(Right, "r", [Span("12155551212", "12155551212")])
        draft.add_numbers(Right, "l", [Span("12155551212", "12155551212")])
        draft.add_numbers(DoNotOriginate, "d", [Span("12155551213", "12155551213")])


@pytest.mark.usefixtures("hostile_records")
@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=lambda words: "-".join(map(repr, words))[:60])
def test_a_terminal_gets_text_alone(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(main, arguments)
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    told = result.stdout + result.stderr
    assert told
    assert not [char for char in told if not char.isprintable() and char != "\n"]
    for console in (output.console, output.errors):
        monkeypatch.setattr(console, "_force_terminal", True)
    told = CliRunner().invoke(main, arguments, color=True).output
    for part in ("\x1b[2J", "\x1b]", "\x07", "\u202e", "\x9b"):
        assert part not in told


@pytest.mark.usefixtures("hostile_records")
def test_free_text_is_shown_as_it_is_written(run: Run) -> None:
    told = run("customer", "show", "acme").stdout
    assert "[/b]\\x1b[2J\\x1b]0;owned\\x07\\u202ecba\\x9b31m[red]" in "".join(told.split())


# --- Wrong usage --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage_is_told_to_programs(run_json: RunJson, name: str) -> None:
    told = run_json(name, "--nonsense", code=2)
    assert told == {"ok": False, "error": told["error"], "problems": []}
    assert "--nonsense" in told["error"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["customer", "list", "--limit", "x"], "'--limit'"),
        (["customer", "set", "acme"], "Missing option"),
        (["customer", "shwo"], "No such command 'shwo'"),
        (["customr"], "No such command 'customr'"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_whatever_is_wrong_with_it(run_json: RunJson, arguments: list[str], error: str) -> None:
    assert error in run_json(*arguments, code=2)["error"]


def test_people_are_told_in_text(run: Run) -> None:
    result = run("customer", "shwo", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: ")
