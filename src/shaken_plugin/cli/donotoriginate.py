"""``shaken dno``: numbers that must not originate calls, whoever asks."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin.cli.output import Exit, console, fail, json_option, print_json, settings_option
from shaken_plugin.cli.records.attributes import as_data, attributes
from shaken_plugin.cli.records.changing import Edit, changing
from shaken_plugin.cli.records.completing import ids
from shaken_plugin.cli.records.kinds import Kind, group, kind_id
from shaken_plugin.cli.records.levels import Deciding
from shaken_plugin.cli.records.session import Intent, find, intends, intends_as, reading
from shaken_plugin.cli.records.spans import numbers_data, print_numbers
from shaken_plugin.cli.records.splitting import apart
from shaken_plugin.cli.records.values import NUMBER, NUMBERS, is_national, span_text
from shaken_plugin.cli.records.verbs import list_command, set_command
from shaken_plugin.core.attestation import InvalidNumbers, is_documented
from shaken_plugin.core.records import DoNotOriginate, Right, Withheld
from shaken_plugin.ports import Span

ENTRY: Final = Kind(
    "dno",
    DoNotOriginate,
    "The do-not-originate list: numbers whose calls are refused whatever the customer.\n\n"
    "Numbers that are invalid or unallocated by the metadata of the numbering plan need no entry; one with --reason "
    "allocated excepts numbers from that. 'suspend' puts an entry, or some of its numbers, out of force: it refuses "
    "nothing until 'reinstate', which needs a person. 'set' changes an entry.",
    ("reason", "note", "suspended"),
)
_REASON: Final = next(a.takes for a in attributes(DoNotOriginate) if a.name == "reason")
_spans = click.argument("spans", nargs=-1, required=True, type=NUMBERS, metavar="+1…[..+1…]…")


@click.command("add")
@_spans
@click.option("--reason", required=True, type=_REASON, help="Why these numbers must not originate calls.")
@click.option("--note", help="A note for people.")
@click.option("--id", "identifier", type=kind_id(), help="The entry; default: one of this reason and note.")
@intends
def add(intent: Intent, spans: tuple[Span, ...], reason: Withheld, note: str | None, identifier: str | None) -> None:
    """Put numbers on the list."""
    with changing(intent, f"add {_named(spans)} to do-not-originate ({reason.value})") as edit:
        entry = _entry(edit, reason, note, identifier)
        edit.put(entry)
        if edit.add_numbers(DoNotOriginate, entry.id, spans) < len(spans):
            edit.notes.append(f"some of the numbers were there already: entry {entry.id}")


def _entry(edit: Edit, reason: Withheld, note: str | None, identifier: str | None) -> DoNotOriginate:
    """The entry of this reason and note, or a new one."""
    if identifier is not None:
        there = edit.draft.get(DoNotOriginate, identifier)
        if there is not None and (there.reason, there.note) != (reason, note or there.note):
            fail(f"the entry {identifier} is there with another reason or note; 'shaken dno set' changes it", Exit.NO)
        return there or DoNotOriginate(identifier, reason, note)
    entries = {entry.id: entry for entry in edit.draft.all(DoNotOriginate)}
    for entry in entries.values():
        if (entry.reason, entry.note, entry.suspended) == (reason, note, False):
            return entry
    free = reason.value
    count = 1
    while free in entries:
        count += 1
        free = f"{reason.value}-{count}"
    return DoNotOriginate(free, reason, note)


class _EntryOrNumbers(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """The id of an entry, or numbers."""

    name = "entry or numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Span | str:
        """See `click.ParamType.convert`."""
        if str(value).startswith("+") or is_national(str(value)):
            return NUMBERS.convert(value, param, ctx)
        return str(value)


_whats = click.argument(
    "whats",
    nargs=-1,
    required=True,
    type=_EntryOrNumbers(),
    metavar="ID|+1…[..+1…]…",
    shell_complete=ids(DoNotOriginate),
)


def _force(verb: str, *, suspended: bool, about: str) -> click.Command:
    def change(intent: Intent, whats: tuple[Span | str, ...]) -> None:
        with changing(intent, f"{verb} {_named(whats)} of do-not-originate") as edit:
            for what in whats:
                if isinstance(what, str):
                    edit.put(replace(find(edit.draft, DoNotOriginate, what), suspended=suspended))
                    continue
                entries = {entry.id: entry for entry, _ in edit.draft.covering(DoNotOriginate, what.first)}
                if not entries:
                    fail(f"{span_text(what)} is not on the list", Exit.NO)
                for entry in entries.values():
                    apart(edit, entry, [what], replace(entry, suspended=suspended))

    return click.command(verb, help=about)(_whats(intends_as(by_name=not suspended)(change)))


def _named(whats: tuple[Span | str, ...]) -> str:
    rest = f" and {len(whats) - 1} more" if len(whats) > 1 else ""
    return f"{whats[0] if isinstance(whats[0], str) else span_text(whats[0])}{rest}"


@click.command("remove")
@_whats
@intends
def remove(intent: Intent, whats: tuple[Span | str, ...]) -> None:
    """Take numbers off the list, in the bounds in which they were put there; or an entry with all its numbers.

    An entry without numbers goes, too.
    """
    with changing(intent, f"remove {_named(whats)} from do-not-originate") as edit:
        for span in whats:
            if isinstance(span, str):
                edit.remove(DoNotOriginate, find(edit.draft, DoNotOriginate, span).id)
                continue
            found = list(edit.draft.covering(DoNotOriginate, span.first))
            holding = {entry.id for entry, other in found if other == span}
            if not holding:
                around = f"; it lies in {span_text(found[0][1])} of entry {found[0][0].id}" if found else ""
                fail(f"{span_text(span)} is not on the list, in just these bounds{around}", Exit.NO)
            for identifier in holding:
                edit.remove_numbers(DoNotOriginate, identifier, [span])
                if edit.draft.count(DoNotOriginate, identifier) == 0:
                    edit.remove(DoNotOriginate, identifier)


@click.command("show")
@click.argument("what", metavar="+1…|ID")
@settings_option
@json_option
def show(what: str, settings_file: Path, as_json: bool) -> None:
    """Whether a number must not originate calls, and what the numbering plan says of it; or an entry with its numbers.

    Exit code 1 if the number is neither on the list nor refused for the metadata of the numbering plan.
    """
    with reading(settings_file) as (session, records):
        is_entry = records.get(DoNotOriginate, what) is not None
        if is_entry or not (what.startswith("+") or is_national(what)):
            data = as_data(find(records, DoNotOriginate, what))
            data["numbers"] = numbers_data(records, DoNotOriginate, what)
            _print_entry(data, as_json=as_json)
            return
        number = NUMBER.convert(what, None, click.get_current_context())
        covering = list(records.covering(DoNotOriginate, number))
        deciding = Deciding.of(session, records)
        plan = deciding.metadata(number)
        # As the rule do_not_originate: the metadata lags behind what is allocated.
        in_force = [entry for entry, _ in covering if not entry.suspended]
        excepted = any(entry.reason is Withheld.ALLOCATED for entry in in_force) or any(
            is_documented(right, time.time()) for right, _ in records.covering(Right, number)
        )
    by_plan = plan is not None and not excepted and deciding.policy.invalid_numbers is InvalidNumbers.REFUSE
    answer = {
        "number": f"+{number}",
        "withheld": by_plan or any(entry.reason is not Withheld.ALLOCATED for entry in in_force),
        "entries": [{**as_data(entry), "numbers": span_text(span)} for entry, span in covering],
        "numbering_plan": plan,
    }
    _print_number(answer, as_json=as_json)
    click.get_current_context().exit(Exit.YES if answer["withheld"] else Exit.NO)


def _print_entry(data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    off = ", suspended" if data["suspended"] else ""
    console.print(f"do-not-originate {data['id']}: {data['reason']}{off}", style="bold", markup=False)
    if data["note"]:
        console.print(f"  {data['note']}", markup=False)
    print_numbers(data["numbers"], "shaken dno show +1…")


def _print_number(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    word = "must not originate calls" if answer["withheld"] else "may originate calls"
    console.print(f"{answer['number']} {word}", style="bold red" if answer["withheld"] else "bold", markup=False)
    for entry in answer["entries"]:
        note = f" ({entry['note']})" if entry["note"] else ""
        off = ", suspended" if entry["suspended"] else ""
        console.print(f"  entry {entry['id']}: {entry['reason']}, {entry['numbers']}{note}{off}", markup=False)
    plan = answer["numbering_plan"]
    said = "says nothing against it" if plan is None else f"says that it is {plan}"
    console.print(f"  the metadata of the numbering plan {said}", markup=False)


dno = group(
    ENTRY,
    add,
    show,
    list_command(ENTRY),
    set_command(ENTRY),
    _force(
        "suspend", suspended=True, about="Put entries, or some of their numbers, out of force: they refuse nothing."
    ),
    _force("reinstate", suspended=False, about="Put them in force again."),
    remove,
)
