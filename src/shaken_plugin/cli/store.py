"""``shaken store``: what the local files hold, their history, older ones brought up to date."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin.cli.output import (
    Exit,
    Moment,
    console,
    errors,
    fail,
    json_option,
    print_json,
    settings_option,
    table,
    visible,
    when,
)
from shaken_plugin.cli.records.history import family
from shaken_plugin.cli.records.levels import state_file
from shaken_plugin.cli.records.session import Intent, author_of, intends_as, telling, user_name
from shaken_plugin.conduct.view import Event, decisions
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import parse_settings
from shaken_plugin.core.records import Customer, DoNotOriginate, Record, Right
from shaken_plugin.errors import FileProblems, ShakenError, StoreError, StoreUnavailable
from shaken_plugin.ports import Change
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.runtime.ledger import open_ledger
from shaken_plugin.stores import statefile
from shaken_plugin.stores.migrations import Plan, Schema, inspect, migrate, plan
from shaken_plugin.stores.policy import KINDS
from shaken_plugin.stores.sqlite import SqlitePolicy, remember_state
from shaken_plugin.stores.sqlite.upkeep import POLICY, Compaction, compact, compaction, status
from shaken_plugin.stores.statefile import STATE

FILES: Final[list[tuple[Schema, Callable[[Settings], str | None]]]] = [
    (POLICY, lambda settings: settings.store.path),
    (STATE, lambda settings: settings.store.state),
]
"""The SQLite files of a host: kind of file, and where settings have it (None: elsewhere)."""


def _settings(settings_file: Path) -> Settings:
    try:
        settings, document = parse_settings(settings_file)
    except FileProblems as exc:
        fail(exc)
    if settings is None:
        fail(FileProblems(document.problems), Exit.NO)
    return settings


def _files(settings: Settings) -> list[tuple[Schema, Path]]:
    found = ((schema, place(settings)) for schema, place in FILES)
    return [(schema, Path(name)) for schema, name in found if name is not None]


@click.group("store")
def store() -> None:
    """The local files: what they hold, their history, and keeping them up."""


# --- status -------------------------------------------------------------------------------------


@store.command("status")
@settings_option
@json_option
def status_(settings_file: Path, as_json: bool) -> None:
    """Versions, counts and sizes of the policy, state and ledger files.

    Exit code 1: one of them cannot be used by this release.
    """
    settings = _settings(settings_file)
    told = [*(_told(schema, path) for schema, path in _files(settings)), _told_of_ledger(settings)]
    if as_json:
        print_json({"files": told})
    else:
        for one in told:
            _print_status(one)
    if any(one["error"] for one in told):
        sys.exit(Exit.NO)


def _told(schema: Schema, path: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": schema.kind, "path": str(path), "schema": None, "error": None, "note": None}
    try:
        state = inspect(path)
        told |= {"schema": state.schema, "size": state.size, "tables": state.tables}
        if (planned := plan(path, schema)) is not None:
            text = f"schema {state.schema} is older than {schema.version}: run 'shaken store migrate'"
            if schema.works_on(planned.state.schema):
                told["note"] = f"{text} once every switch and agent of this host is of this release"
            else:
                told["error"] = text
        elif state.schema > schema.version:
            told["note"] = f"schema {state.schema} is of the next release; this one works on it"
        if told["error"] is None and schema is POLICY and state.schema:
            found = status(path)
            told |= found._asdict() | {"changed": found.changed and found.changed._asdict()}
    except (StoreUnavailable, StoreError) as exc:
        told["error"] = str(exc)
    return told


def _told_of_ledger(settings: Settings) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": "ledger", "path": settings.records.ledger, "schema": None, "error": None}
    if not _is_made(settings):
        return told  # the agent makes it for the first record
    try:
        ledger = open_ledger(settings)
        told |= ledger.status()._asdict()
        if ledger.describe_migration():
            told["error"] = f"schema {told['schema']} is of an older release: run 'shaken store migrate'"
    except (StoreUnavailable, StoreError) as exc:
        told["error"] = str(exc)
    return told


def _print_status(told: dict[str, Any]) -> None:
    console.print(f"{told['kind']}: {told['path']}", style="bold", markup=False)
    if told["error"]:
        errors.print(f"  {told['error']}", style="red", markup=False)
    if told.get("note"):
        errors.print(f"  {told['note']}", style="yellow", markup=False)
    rows: dict[str, Any] = {name: told[name] for name in _HEAD if told.get(name) is not None}
    if changed := told.get("changed"):
        rows["last change"] = f"{when(changed['at'])}, {changed['who']}: {changed['why']}"
    # What is known of the content, or else how many rows the tables have.
    rows |= (
        {**told["records"], **{name: told[name] for name in _NUMBERS}} if "records" in told else told.get("tables", {})
    )
    shown = table("", "")
    for name, value in rows.items():
        shown.add_row(f"  {name.replace('_', ' ')}", visible(value))
    console.print(shown)


_HEAD: Final = ("schema", "size", "policy_version", "oldest_version", "applied_version")
_NUMBERS: Final = ("numbers", "ranges", "material", "history")


_KINDS: Final[dict[str, type[Record]]] = {**KINDS, "letter": Right, "dno": DoNotOriginate}
"""Records by the names that files and commands have for them."""


# --- history ------------------------------------------------------------------------------------


@store.command("history")
@settings_option
@click.option("--since", type=Moment(), help="Only what was changed after this time.")
@click.option("--customer", metavar="ID", help="Only of this customer, its trunks, rights, numbers, substitutions.")
@click.option(
    "--record",
    "records",
    type=(click.Choice(sorted(_KINDS)), str),
    metavar="KIND ID",
    multiple=True,
    help=f"Only of this record and its numbers, in force or removed; kinds: {', '.join(sorted(_KINDS))}.",
)
@json_option
def history(
    settings_file: Path, since: float | None, customer: str | None, records: tuple[tuple[str, str], ...], as_json: bool
) -> None:
    """Every change of the policy, and what was decided of customers: who, when, why and what."""
    settings = _settings(settings_file)
    policy, state = SqlitePolicy(Path(settings.store.path)), state_file(settings)
    decided: list[Event] = []
    try:
        first = 0 if since is None else policy.version_at(since)
        named = [(_KINDS[kind], identifier) for kind, identifier in records]
        if customer is not None:
            with policy.records() as now:
                named += family(now, customer)
        if named:
            changes = [change for change in policy.changes_of(*named) if change.version > first][::-1]
        else:
            changes = list(policy.changes(first))
        # Of these customers' standing, or of all; reading makes no file: whoever looks may be root.
        about = {identifier for kind, identifier in named if kind is Customer}
        if state is not None and (about or not named):
            with state.reading() as connection:
                told = decisions(connection, since or 0.0)
            decided = [event for event in told if not named or event.customer in about]
    except (StoreUnavailable, StoreError) as exc:
        fail(str(exc))
    if as_json:
        print_json({"changes": history_rows(changes, decided)})
        return
    shown = table("version", "when", "who", "why", "what")
    for row in history_rows(changes, decided):
        version = "" if row["version"] is None else str(row["version"])
        shown.add_row(version, when(row["at"]), *map(visible, (row["who"], row["why"], row["what"])))
    console.print(shown)


# --- forget-state -------------------------------------------------------------------------------


@store.command("forget-state")
@intends_as(by_name=True, dry=False)
def forget_state(intent: Intent) -> None:
    """Begin anew where the state file is lost: nobody is suspended, no offence is known.

    Rather restore it from a backup. A file in its place that cannot be used stays, under another name. Customers
    whom the policy itself suspends stay so; the others have to be suspended again: 'shaken customer suspend'.
    """
    settings = _settings(intent.settings_file)
    state, policy = Path(settings.store.state), Path(settings.store.path)
    try:
        statefile.ensure(state, policy)
    except StoreUnavailable:
        pass  # what this command is for
    except StoreError as exc:
        fail(str(exc))
    else:
        fail(f"{state} is in order: nothing was lost, and nothing is forgotten", Exit.NO)
    with telling():
        identifier, kept = statefile.make_anew(state)
        remember_state(policy, identifier, intent.author, shared=settings.store.redis is not None)
    if intent.as_json:
        print_json({"ok": True, "state": str(state), "kept": None if kept is None else str(kept)})
        return
    console.print(f"{state}: made anew; nobody is suspended by it", style="bold", markup=False)
    if kept is not None:
        console.print(f"what was there is now {kept}", markup=False)


def history_rows(changes: list[Change], decided: list[Event]) -> list[dict[str, Any]]:
    """Changes of the policy, and between them by time what was decided of customers (kind ``standing``)."""
    rows: list[dict[str, Any]] = [{"kind": "policy", **change._asdict()} for change in changes]
    for event in decided:
        about = f"customer {event.customer} {event.what}"
        what = about if event.offence is None else f"{about}, offence {event.offence}"
        said = {"at": event.at, "who": event.who, "why": event.why, "what": what, "customer": event.customer}
        rows.append({"kind": "standing", "version": None, **said})
    return sorted(rows, key=lambda row: row["at"]) if decided else rows


# --- migrate ------------------------------------------------------------------------------------


@store.command("migrate")
@settings_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def migrate_(settings_file: Path, yes: bool, as_json: bool) -> None:
    """Bring files of an older release up to date; says first what it will do, and keeps a copy.

    Stop the switch, or let it go on: until it is over, calls are decided from the old file if the old
    release runs, and in the declared mode if the new one does.
    """
    settings = _settings(settings_file)
    try:
        plans = [
            planned
            for schema, path in _files(settings)
            if path.exists() and (planned := plan(path, schema)) is not None
        ]
        ledger = _older_ledger(settings)
        steps = (
            [f"{settings.records.ledger}: ledger, schema {line}" for line in ledger.describe_migration()]
            if ledger
            else []
        )
        _agree([*(line for planned in plans for line in planned.lines), *steps], yes=yes, quiet=as_json)
        for planned in plans:
            migrate(planned, author_of(user_name(), "shaken store migrate"))
        if ledger is not None:
            ledger.migrate()
    except ShakenError as exc:
        fail(str(exc))
    if as_json:
        print_json({"ok": True, "migrated": [_migrated(planned) for planned in plans], "ledger": steps})
    for planned in plans if not as_json else ():
        console.print(f"{planned.path}: now schema {planned.schema.version}", style="bold", markup=False)
    if steps and not as_json:
        console.print(f"{settings.records.ledger}: now of this release's schema", style="bold", markup=False)
    if not plans and not steps and not as_json:
        console.print("nothing to do: every file is of this release's schema", markup=False)


def _is_made(settings: Settings) -> bool:
    place = settings.records.ledger
    return not place.startswith("sqlite:") or Path(place.removeprefix("sqlite:")).exists()


def _older_ledger(settings: Settings) -> Ledger | None:
    """The ledger, where it is of an older release; one that is not there, or empty, is not."""
    if not _is_made(settings):
        return None
    ledger = open_ledger(settings)
    return ledger if ledger.describe_migration() else None


def _migrated(planned: Plan) -> dict[str, Any]:
    return {
        "kind": planned.schema.kind,
        "path": str(planned.path),
        "from": planned.state.schema,
        "to": planned.schema.version,
        "backup": str(planned.backup),
    }


def _agree(lines: list[str], *, yes: bool, quiet: bool) -> None:
    """Say what will be done, and ask; ends the command where the answer is no."""
    if not quiet:
        for line in lines:
            console.print(line, markup=False)
    if not lines or yes:
        return
    if quiet:
        raise click.UsageError("--json asks nothing: give --yes with it")
    if not click.confirm("Do it?"):
        sys.exit(Exit.NO)


# --- compact ------------------------------------------------------------------------------------


@store.command("compact")
@settings_option
@click.option("--before", type=Moment(), required=True, help="Forget what was no longer in force at this time.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def compact_(settings_file: Path, before: float, yes: bool, as_json: bool) -> None:
    """Forget what the policy was before a time; says first what goes.

    What was in force at that time, and since, stays. The room is used again; the file does not shrink. In a fleet it
    is forgotten on every host.
    """
    settings = _settings(settings_file)
    path = Path(settings.store.path)
    if before > time.time():
        raise click.UsageError("--before is a time that is over")
    try:
        found = compaction(path, before)
        gone = sum(found.rows.values())
        lines = [
            f"{path}: {found.changes} changes before version {found.version} go, with {gone} rows that had ended: "
            + ", ".join(f"{name} {count}" for name, count in found.rows.items()),
            f"  version {found.version}, in force at {when(before)}, becomes the oldest that can be looked at",
        ]
        _agree(lines if gone or found.changes else [], yes=yes, quiet=as_json)
        if gone or found.changes:
            found = compact(path, before) if settings.store.redis is None else _compact_fleet(settings, before)
    except (StoreUnavailable, StoreError) as exc:
        fail(str(exc))
    if as_json:
        print_json({"ok": True, **found._asdict()})
    else:
        console.print("done" if gone or found.changes else "nothing to forget", markup=False)


def _compact_fleet(settings: Settings, before: float) -> Compaction:
    from shaken_plugin.runtime.fleet import fleet_policy  # noqa: PLC0415  # its client takes long to load

    policy = fleet_policy(settings, lambda text: errors.print(text, style="yellow", markup=False))
    return policy.compact(author_of(user_name(), "shaken store compact"), before)
