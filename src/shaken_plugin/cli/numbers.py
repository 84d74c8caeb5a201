"""``shaken number``: who may use a number, on what basis, and what its calls get."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin.cli.output import Exit, console, fail, harmless, json_option, print_json, settings_option, table
from shaken_plugin.cli.records import checks
from shaken_plugin.cli.records.attributes import as_data, attributes
from shaken_plugin.cli.records.changing import Edit, changing
from shaken_plugin.cli.records.completing import customer_ids, ids
from shaken_plugin.cli.records.kinds import option, values_given
from shaken_plugin.cli.records.levels import Deciding, call_levels
from shaken_plugin.cli.records.session import Intent, find, intends, reading
from shaken_plugin.cli.records.values import NUMBER, day, size, span_text
from shaken_plugin.cli.somenumbers import reinstate, set_, some_text, spans_argument, suspend
from shaken_plugin.cli.sources import RIGHT, approved
from shaken_plugin.config import policyids
from shaken_plugin.core.attestation import in_force
from shaken_plugin.core.records import BASIS_TEXT, Basis, Customer, DoNotOriginate, Right
from shaken_plugin.ports import PolicyRecords, Span

_BASES: Final = next(a.takes for a in attributes(Right) if a.name == "basis")


@click.group()
def number() -> None:
    """Telephone numbers: whose they are, who may use them, what their calls get.

    Numbers belong to rights. What is 'set', suspended or reinstated for some numbers of a right and not for the
    others takes these out of it, into a right of their own that else says the same; a range is split.
    'shaken right' and 'shaken letter' do it for all numbers of a right. One that must not originate calls whoever
    asks stands on the do-not-originate list ('shaken dno').
    """


@number.command("add")
@spans_argument
@click.option(
    "--right",
    metavar="ID",
    help="The right; default: the one of just these properties, or a new one.",
    shell_complete=ids(Right),
)
@intends
def add(intent: Intent, spans: tuple[Span, ...], right: str | None, **values: Any) -> None:
    """Give a customer numbers: by an existing right, or one made from the options.

    With the same options again the numbers join the same right.
    """
    given = values_given(RIGHT, values)
    names = {attribute.name for attribute in given}
    if right is None and not {"customer", "basis"} <= names:
        raise click.UsageError("--right, or --customer and --basis, say whose the numbers are")
    if right is not None and given:
        raise click.UsageError("--right is there already; 'shaken right set' changes it")
    with changing(intent, f"add {some_text(spans)} to {right or values_text(given)}") as edit:
        record = find(edit.draft, Right, right) if right is not None else _right(edit, given, intent.author.at)
        checks.record(record)
        for span in spans:
            checks.numbers(record, span)
        edit.put(record)
        if edit.add_numbers(Right, record.id, spans) < len(spans):
            edit.notes.append(f"some of the numbers were there already: right {record.id}")


for _attribute in reversed(RIGHT.options):
    add.params.append(option(RIGHT, _attribute, required=False))


def values_text(given: dict[Any, Any]) -> str:
    """The properties of a right, in a few words."""
    named = {attribute.name: value for attribute, value in given.items()}
    document = f" {named['document']}" if "document" in named else ""
    return f"customer {named['customer']} ({named['basis'].value}{document})"


def _right(edit: Edit, given: dict[Any, Any], at: float) -> Right:
    """The right with just these properties, or a new one."""
    customer = next(value for attribute, value in given.items() if attribute.name == "customer")
    find(edit.draft, Customer, customer)
    wanted = Right("", **{attribute.path[0]: value for attribute, value in given.items() if len(attribute.path) == 1})
    for attribute, value in given.items():
        if len(attribute.path) > 1:
            wanted = dataclasses.replace(wanted, rules=dataclasses.replace(wanted.rules, **{attribute.path[1]: value}))
    names = policyids.Ids()
    for right in edit.draft.all(Right):
        approved_at = None if wanted.approved_at is None else right.approved_at
        if right.customer == customer and dataclasses.replace(right, id="", approved_at=approved_at) == wanted:
            # Named once more, the approval is of these numbers, too.
            return approved(dataclasses.replace(right, approved_at=wanted.approved_at), at)
        names.given(right.id)
    # The id that a policy file or a table makes of it, too.
    name = policyids.right_id(customer, wanted.basis, wanted.document, wanted.use_case)
    return approved(dataclasses.replace(wanted, id=names.made(name)), at)


@number.command("remove")
@spans_argument
@click.option("--right", metavar="ID", help="Only from this right.", shell_complete=ids(Right))
@click.option("--customer", metavar="ID", help="Only from rights of this customer.", shell_complete=customer_ids)
@intends
def remove(intent: Intent, spans: tuple[Span, ...], right: str | None, customer: str | None) -> None:
    """Take numbers away, in the bounds in which they were added.

    Where the rights of several customers have them, say whose: --customer or --right. A right without numbers stays.
    """
    with changing(intent, f"remove {some_text(spans)}") as edit:
        if customer is not None:
            find(edit.draft, Customer, customer)
        if right is not None:
            find(edit.draft, Right, right)
        for span in spans:
            holding = {
                record.id: record
                for record, found in edit.draft.covering(Right, span.first)
                if found == span and right in {None, record.id} and customer in {None, record.customer}
            }
            if not holding:
                fail(
                    f"{span_text(span)}: no right has these numbers, in just these bounds{_around(edit, span)}", Exit.NO
                )
            if len({record.customer for record in holding.values()}) > 1:
                whose = ", ".join(f"{record.customer} ({name})" for name, record in holding.items())
                fail(f"{span_text(span)}: several customers have it, say whose: {whose}", Exit.NO)
            for identifier in holding:
                edit.remove_numbers(Right, identifier, [span])


def _around(edit: Edit, span: Span) -> str:
    found = [f"{span_text(other)} of right {record.id}" for record, other in edit.draft.covering(Right, span.first)]
    return f"; it lies in {found[0]}" if found else ""


for _command in (set_, suspend, reinstate):
    number.add_command(_command)


@number.command("list")
@click.option("--customer", metavar="ID", help="Only numbers that this customer may use.", shell_complete=customer_ids)
@click.option("--right", metavar="ID", help="Only numbers of this right.", shell_complete=ids(Right))
@click.option("--owner", metavar="NAME", help="Only numbers of this owner.")
@click.option("--basis", type=_BASES, help="Only numbers on this basis.")
@click.option("--limit", type=click.IntRange(0), default=1000, show_default=True, help="Most that are shown; 0: all.")
@settings_option
@json_option
def list_(
    customer: str | None,
    right: str | None,
    owner: str | None,
    basis: Basis | None,
    limit: int,
    settings_file: Path,
    as_json: bool,
) -> None:
    """Numbers and ranges, right by right.

    The owner is shown where the numbers are not the customer's own. However many there are, they are printed
    as they are read.
    """
    with reading(settings_file) as (_, records):
        if customer is not None:
            find(records, Customer, customer)
        rights: Iterator[Right] = records.all(Right) if right is None else iter([find(records, Right, right)])
        fitting = (
            (record, span)
            for record in rights
            if customer in {None, record.customer} and owner in {None, record.owner} and basis in {None, record.basis}
            for span in records.numbers(Right, record.id)
        )
        shown = fitting if limit == 0 else itertools.islice(fitting, limit)
        (_print_json if as_json else _print_lines)(shown)
        if not as_json and next(fitting, None) is not None:
            console.print("… and more; --limit 0 shows all", markup=False)


def _print_json(found: Iterator[tuple[Right, Span]]) -> None:
    click.echo("[", nl=False)
    for index, (right, span) in enumerate(found):
        item = {
            "numbers": span_text(span),
            "count": size(span),
            "customer": right.customer,
            "owner": right.owner,
            "right": right.id,
            "basis": right.basis.value,
            "document": right.document,
            "valid_until": right.valid_until,
            "suspended": right.suspended,
        }
        click.echo(("," if index else "") + "\n  " + json.dumps(item, ensure_ascii=True), nl=False)
    click.echo("\n]")


def _print_lines(found: Iterator[tuple[Right, Span]]) -> None:
    heads = ("numbers", "customer", "owner", "right", "basis", "valid until")
    line = "{:<30}  {:<16}  {:<20}  {:<20}  {:<13}  {}"
    console.print(line.format(*heads), style="bold", markup=False)
    for right, span in found:
        until = "" if right.valid_until is None else day(right.valid_until, last=True)
        until += " suspended" if right.suspended else ""
        cells = (span_text(span), right.customer, right.owner or "", right.id, right.basis.value, until)
        click.echo(harmless(line.format(*cells).rstrip()))


# --- One number ---------------------------------------------------------------------------------


@number.command("show")
@click.argument("number", type=NUMBER)
@settings_option
@json_option
def show(number: str, settings_file: Path, as_json: bool) -> None:
    """Everything about a number: rights, do-not-originate entries, and what level calls with it get, and why not A."""
    now = time.time()
    with reading(settings_file) as (session, records):
        deciding = Deciding.of(session, records)
        data = _about(records, number, deciding, now)
    if as_json:
        print_json(data)
        return
    _print_about(data)


def _about(records: PolicyRecords, number: str, deciding: Deciding, now: float) -> dict[str, Any]:
    rights = [
        {**as_data(right), "numbers": span_text(span), "in_force": in_force(right, now)}
        for right, span in records.covering(Right, number)
    ]
    entries = [
        {**as_data(entry), "numbers": span_text(span)} for entry, span in records.covering(DoNotOriginate, number)
    ]
    return {
        "number": f"+{number}",
        "numbering_plan": deciding.metadata(number),
        "rights": rights,
        "do_not_originate": entries,
        "calls": call_levels(records, number, deciding, now),
    }


def _print_about(data: dict[str, Any]) -> None:
    plan = data["numbering_plan"]
    console.print(f"number {data['number']}", style="bold", markup=False)
    if plan is not None:
        console.print(f"by the metadata of the numbering plan it is {plan}", style="yellow", markup=False)
    console.print("rights" if data["rights"] else "nobody has a right to it", style="bold")
    for right in data["rights"]:
        said = (
            f"{right['id']}: {right['customer']}",
            " ".join(filter(None, (BASIS_TEXT[Basis(right["basis"])], right["document"]))),
            right["numbers"],
            f"numbers of {right['owner']}" if right["owner"] else "",
            f"from {day(right['valid_from'])}" if right["valid_from"] is not None else "",
            f"until {day(right['valid_until'], last=True)}" if right["valid_until"] is not None else "",
            "suspended" if right["suspended"] else "in force" if right["in_force"] else "not in force",
        )
        style = None if right["in_force"] else "yellow"
        console.print(f"  {', '.join(filter(None, said))}", style=style, markup=False)
    for entry in data["do_not_originate"]:
        note = f" ({entry['note']})" if entry["note"] else ""
        text = f"do-not-originate {entry['id']}: {entry['reason']}, {entry['numbers']}{note}"
        if entry["suspended"]:
            console.print(f"{text}, suspended", style="yellow", markup=False)
        else:
            console.print(text, style="red", markup=False)
    if data["calls"]:
        made = table("calls of", "over", "level", "why not A")
        for call in data["calls"]:
            made.add_row(call["customer"], call["trunk"] or "any trunk", call["level"], "; ".join(call["missing"]))
        console.print(made)
