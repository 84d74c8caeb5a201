"""``shaken policy diff``: what differs between a file and the store, or between two times."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from shaken_plugin.cli.output import (
    EXISTING_FILE,
    Exit,
    Moment,
    console,
    fail,
    json_option,
    print_json,
    settings_option,
    table,
    visible,
    when,
)
from shaken_plugin.cli.records.levels import state_file
from shaken_plugin.cli.records.session import Opened, opened, telling
from shaken_plugin.cli.store import history_rows
from shaken_plugin.conduct.view import Event, decisions
from shaken_plugin.config.settings import policy_file
from shaken_plugin.errors import FileProblems
from shaken_plugin.exchange.comparing import MOST_RUNS, Difference, Kind, Numbers, Run, differences
from shaken_plugin.exchange.yamlfiles import as_records, read_policy, span_text
from shaken_plugin.ports import Change, PolicyRecords, Span

_SIGNS = {Kind.ADDED: ("+", "green"), Kind.REMOVED: ("-", "red"), Kind.CHANGED: ("~", "yellow")}


class Point(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """A version of the policy, or a time."""

    name = "version or time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """See `click.ParamType.convert`."""
        if isinstance(value, int | float):
            return value
        return int(value) if str(value).isdecimal() else Moment().convert(value, param, ctx)


class _Side(NamedTuple):
    """One of the two policies."""

    name: str
    records: PolicyRecords


@click.group("policy")
def policy() -> None:
    """The policy as a whole."""


@policy.command("diff")
@click.argument("file", type=EXISTING_FILE, required=False)
@click.option("--from", "old", type=Point(), help="The policy as it was then; default: what is in force.")
@click.option("--to", "new", type=Point(), help="The policy as it was then, instead of a file.")
@click.option("--all", "in_full", is_flag=True, help="Every run of numbers; else the first 20 of each record.")
@settings_option
@json_option
def diff(
    file: Path | None,
    old: float | None,
    new: float | None,
    in_full: bool,
    settings_file: Path,
    as_json: bool,
) -> None:
    """What differs between the store and a policy file (by default the one of the settings), or between two times.

    With what was changed in between, by whom and why; beside a file: since a file was put in force. Times are
    versions of the policy, or ISO 8601. Exit code 0 where nothing differs, 1 where something does, 3 where they
    cannot be compared.
    """
    if file is not None and new is not None:
        raise click.UsageError("either a file, or --to")
    session = opened(settings_file)
    with telling(), ExitStack() as stack:
        before = stack.enter_context(_stored(session, old))
        if file is None and (old is not None or new is not None):
            after = stack.enter_context(_stored(session, new))
            changes = _between(session, before.records.version, after.records.version)
        else:
            after = _filed(session, file)
            changes = _since_a_file(session, before.records.version)
        found = differences(before.records, after.records, None if in_full else MOST_RUNS)
        rows = history_rows(changes, _decided(session, changes))
        differ = (_print_json if as_json else _print)(before, after, found, rows)
    if differ:
        sys.exit(Exit.NO)


@contextmanager
def _stored(session: Opened, point: float | None) -> Iterator[_Side]:
    version = session.store.version_at(point) if isinstance(point, float) else point
    with session.store.records(version) as records:
        yield _Side(f"policy version {records.version}", records)


def _filed(session: Opened, file: Path | None) -> _Side:
    path = file or policy_file(session.document)
    if path is None:
        fail("the settings name no policy file: give one, or --from and --to")
    names = frozenset(credential.name for credential in session.settings.signing.credentials)
    try:
        return _Side(str(path), as_records(read_policy(path, names)))
    except FileProblems as exc:
        fail(exc)


def _between(session: Opened, one: int, other: int) -> list[Change]:
    return list(session.store.changes(min(one, other), max(one, other)))


def _decided(session: Opened, changes: list[Change]) -> list[Event]:
    """What was decided of customers from the version before the first of these changes on, until the next one."""
    everything = list(session.store.changes())
    state = state_file(session.settings)
    if state is None or not everything:
        return []
    first, last = (changes[0].version, changes[-1].version) if changes else (everything[-1].version + 1,) * 2
    since = max((change.at for change in everything if change.version < first), default=0.0)
    until = min((change.at for change in everything if change.version > last), default=float("inf"))
    with state.reading() as connection:
        return [event for event in decisions(connection, since) if event.at <= until]


def _since_a_file(session: Opened, version: int) -> list[Change]:
    """The changes behind the last that put a file in force: what the file does not know of."""
    found: list[Change] = []
    for change in session.store.changes(0, version):
        if change.who == "file" or change.who.startswith("file "):
            found.clear()
        else:
            found.append(change)
    return found


# --- For people ---------------------------------------------------------------------------------

Found = Iterator[Difference]


def _print(before: _Side, after: _Side, found: Found, changes: list[dict[str, Any]]) -> bool:
    console.print(f"from {before.name} to {after.name}", style="bold", markup=False)
    counts = dict.fromkeys(Kind, 0)
    for one in found:
        counts[one.kind] += 1
        print_difference(one)
    total = ", ".join(f"{count} {kind.value}" for kind, count in counts.items())
    differ = any(counts.values())
    console.print(f"records: {total}" if differ else "nothing differs", style="bold", markup=False)
    if changes:
        made = table("version", "when", "who", "why", "what")
        for change in changes:
            version = "" if change["version"] is None else str(change["version"])
            made.add_row(version, when(change["at"]), *(visible(change[name]) for name in ("who", "why", "what")))
        console.print(made)
    return differ


def print_difference(one: Difference) -> None:
    """A record that differs, for people."""
    sign, colour = _SIGNS[one.kind]
    console.print(f"{sign} {one.name.replace('_', '-')} {one.id}", style=colour, markup=False)
    for name, old, new in one.fields:
        said = _text(new) if one.kind is Kind.ADDED else f"{_text(old)} → {_text(new)}"
        if one.kind is not Kind.REMOVED:
            console.print(visible(f"    {name}: {said}"))
    _print_numbers("+", "green", one.added)
    _print_numbers("-", "red", one.removed)


def _text(value: Any) -> str:
    return "nothing" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_numbers(sign: str, colour: str, numbers: Numbers) -> None:
    for run in numbers.runs:
        count = f" ({run.count} numbers)" if run.count > 1 else ""
        console.print(f"    {sign} {_run_text(run)}{count}", style=colour, markup=False)
    if numbers.more:
        console.print(f"    {sign} and {numbers.more} more of {numbers.spans}: --all", style=colour, markup=False)


def _run_text(run: Run) -> str:
    return span_text(Span(run.first, run.last))


# --- For programs -------------------------------------------------------------------------------


def _print_json(before: _Side, after: _Side, found: Found, changes: list[dict[str, Any]]) -> bool:
    records = [difference_data(one) for one in found]
    print_json(
        {
            "ok": not records,
            "from": before.name,
            "to": after.name,
            "records": records,
            "changes": changes,
        }
    )
    return bool(records)


def difference_data(one: Difference) -> dict[str, Any]:
    """A record that differs, for programs."""
    return {
        "kind": one.name,
        "id": one.id,
        "change": one.kind.value,
        "fields": {name: [old, new] for name, old, new in one.fields},
        "numbers_added": _numbers_data(one.added),
        "numbers_removed": _numbers_data(one.removed),
    }


def _numbers_data(numbers: Numbers) -> dict[str, Any]:
    runs = [{"first": f"+{run.first}", "last": f"+{run.last}", "count": run.count} for run in numbers.runs]
    return {"spans": numbers.spans, "runs": runs, "more_runs": numbers.more}
