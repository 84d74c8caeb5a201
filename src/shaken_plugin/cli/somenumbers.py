"""``shaken number set``, ``suspend`` and ``reinstate``: some numbers of a right, and not the others."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import click

from shaken_plugin.cli.output import Exit, fail
from shaken_plugin.cli.records.attributes import nothing, put
from shaken_plugin.cli.records.changing import Edit, changing
from shaken_plugin.cli.records.completing import customer_ids, ids
from shaken_plugin.cli.records.kinds import option, values_given
from shaken_plugin.cli.records.session import Intent, find, intends, intends_as
from shaken_plugin.cli.records.splitting import apart
from shaken_plugin.cli.records.values import NUMBERS, span_text
from shaken_plugin.cli.sources import RIGHT, approved
from shaken_plugin.core.records import Customer, Right
from shaken_plugin.ports import Span

spans_argument = click.argument("spans", nargs=-1, required=True, type=NUMBERS, metavar="+1…[..+1…]…")


def some_text(spans: tuple[Span, ...]) -> str:
    """Numbers in a few words."""
    rest = f" and {len(spans) - 1} more" if len(spans) > 1 else ""
    return f"{span_text(spans[0])}{rest}"


_whose = [
    click.option("--customer", metavar="ID", help="Only of rights of this customer.", shell_complete=customer_ids),
    click.option("--right", metavar="ID", help="Only of this right.", shell_complete=ids(Right)),
]


def _holding(
    edit: Edit, spans: tuple[Span, ...], right: str | None, customer: str | None
) -> dict[str, tuple[Right, list[Span]]]:
    """The rights that have these numbers, and which of them; ends the command where it is not clear whose."""
    if customer is not None:
        find(edit.draft, Customer, customer)
    if right is not None:
        find(edit.draft, Right, right)
    found: dict[str, tuple[Right, list[Span]]] = {}
    for span in spans:
        holding = {
            record.id: record
            for record, _ in edit.draft.covering(Right, span.first)
            if right in {None, record.id} and customer in {None, record.customer}
        }
        if not holding:
            fail(f"{span_text(span)}: no such right to it", Exit.NO)
        if len({record.customer for record in holding.values()}) > 1:
            whose = ", ".join(f"{record.customer} ({name})" for name, record in holding.items())
            fail(f"{span_text(span)}: several customers have it, say whose: {whose}", Exit.NO)
        for record in holding.values():
            found.setdefault(record.id, (record, []))[1].append(span)
    return found


_SETTABLE: Final = [attribute for attribute in RIGHT.options if attribute.name != "customer"]


@click.command("set")
@spans_argument
@_whose[0]
@_whose[1]
@click.option(
    "--clear",
    type=click.Choice([attribute.flag[2:] for attribute in _SETTABLE if not attribute.required]),
    multiple=True,
    metavar="OPTION",
    help="Say nothing any more of what this option sets.",
)
@intends
def set_(
    intent: Intent,
    spans: tuple[Span, ...],
    right: str | None,
    customer: str | None,
    clear: tuple[str, ...],
    **values: Any,
) -> None:
    """Change what the right says of these numbers alone.

    Where several rights have one, say which: --right, --customer.
    """
    given = values_given(RIGHT, values)
    if not given and not clear:
        raise click.UsageError("nothing to set: say what changes, for instance --valid-until")
    with changing(intent, f"set {some_text(spans)}") as edit:
        found = _holding(edit, spans, right, customer)
        for name, (record, some) in found.items():
            if others := [other for other, (_, theirs) in found.items() if other != name and set(theirs) & set(some)]:
                fail(f"several rights have these numbers, say which: --right {name}, {', '.join(others)}", Exit.NO)
            changed = record
            for attribute, value in given.items():
                changed = put(changed, attribute, value)
            for attribute in _SETTABLE:
                if attribute.flag[2:] in clear:
                    changed = put(changed, attribute, nothing(attribute, Right))
            apart(edit, record, some, approved(changed, intent.author.at))


for _attribute in reversed(_SETTABLE):
    set_.params.append(option(RIGHT, _attribute, required=False))


def _force(verb: str, *, suspended: bool, about: str) -> click.Command:
    def change(intent: Intent, spans: tuple[Span, ...], right: str | None, customer: str | None) -> None:
        with changing(intent, f"{verb} {some_text(spans)}") as edit:
            for record, some in _holding(edit, spans, right, customer).values():
                apart(edit, record, some, dataclasses.replace(record, suspended=suspended))

    made: Any = intends_as(by_name=not suspended)(change)
    for decorate in (*_whose, spans_argument):
        made = decorate(made)
    return click.command(verb, help=about)(made)


suspend = _force("suspend", suspended=True, about="Put the rights to these numbers out of force from now on.")
reinstate = _force("reinstate", suspended=False, about="Put them in force again.")
