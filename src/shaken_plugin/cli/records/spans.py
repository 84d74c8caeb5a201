"""Numbers of rights and do-not-originate entries: the option for them, added, removed, counted, shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Final

import click

from shaken_plugin.cli.output import Exit, console, fail, visible
from shaken_plugin.cli.records import checks
from shaken_plugin.cli.records.changing import Edit
from shaken_plugin.cli.records.kinds import Kind
from shaken_plugin.cli.records.values import NUMBERS, size, span_text
from shaken_plugin.ports import NumbersOf, PolicyRecords, Span

NUMBERS_SHOWN: Final = 20
"""Numbers and ranges shown of one record; `shaken number list` has them all."""
_COUNTED: Final = 100_000
"""Ranges added up for the count of their numbers; beyond that only they are counted."""


def numbers_option(flag: str, name: str, about: str) -> click.Option:
    """``--numbers``."""
    return click.Option(
        [flag, name],
        type=NUMBERS,
        multiple=True,
        metavar="+1…[..+1…]",
        help=f"{about}; may be given several times.",
    )


def add_spans(edit: Edit, kind: Kind, record: Any, spans: Iterable[Span]) -> None:
    """Add numbers that may be added to this record."""
    if kind.numbers_of is not None and spans:
        for span in spans:
            checks.numbers(record, span)
        edit.add_numbers(kind.numbers_of, record.id, spans)


def remove_spans(edit: Edit, kind: Kind, record: Any, spans: Iterable[Span]) -> None:
    """Take out numbers that must be there, as they were added."""
    for span in spans:
        assert kind.numbers_of is not None
        if edit.remove_numbers(kind.numbers_of, record.id, [span]) == 0:
            fail(f"{kind.name} {record.id} has no numbers {span_text(span)}, in just these bounds", Exit.NO)


def numbers_data(records: PolicyRecords, kind: NumbersOf, identifier: str) -> dict[str, Any]:
    """The numbers of a record, counted, the first of them named."""
    ranges = records.count(kind, identifier)
    spans = records.numbers(kind, identifier)
    first = list(itertools.islice(spans, NUMBERS_SHOWN))
    count = sum(size(span) for span in itertools.chain(first, spans)) if ranges <= _COUNTED else None
    return {"ranges": ranges, "count": count, "first": [span_text(span) for span in first]}


def print_numbers(data: dict[str, Any], all_of_them: str = "shaken number list --right") -> None:
    """The same for people; names the command that shows all."""
    count = "" if data["count"] is None else f", {data['count']:,} in all"
    ranges = "1 number or range" if data["ranges"] == 1 else f"{data['ranges']:,} numbers and ranges"
    console.print(f"  numbers: {ranges}{count}", markup=False)
    for text in data["first"]:
        console.print(f"    {text}", markup=False)
    if data["ranges"] > len(data["first"]):
        console.print(f"    … '{all_of_them}' says more", markup=False)


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values below each other."""
    pairs = [(name, value) for name, value in rows if name != "id"]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        console.print(visible(f"  {name:<{width}}  {value}"))
