"""``shaken missing``: numbers of a customer that do not get A, and what each lacks."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from shaken_plugin.cli.output import Exit, console, fail, json_option, print_json, settings_option, table, when
from shaken_plugin.cli.records.completing import customer_ids
from shaken_plugin.cli.records.levels import NOWHERE, Deciding, To
from shaken_plugin.cli.records.session import find, reading
from shaken_plugin.cli.records.values import span_text
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import resolve
from shaken_plugin.core.attestation import Level
from shaken_plugin.core.records import Customer, Right
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import PolicyRecords, Span
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.search import NumberUse, numbers_of_customer

_DAY: Final = 86_400
_LOOKED_AT: Final = 10_000
"""Numbers and ranges of one right that are looked at, some seconds of work."""


class _Used(NamedTuple):
    """Numbers that calls were made with, or could be."""

    numbers: Span
    calls: int | None
    last: float | None
    to: To = NOWHERE


@click.command()
@click.argument("customer", shell_complete=customer_ids)
@click.option(
    "--days", type=click.IntRange(1, 3660), default=30, show_default=True, help="Numbers used in so many days."
)
@click.option("--all", "every", is_flag=True, help="All numbers of the customer's rights instead, used or not.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Most that are shown.")
@settings_option
@json_option
def missing(customer: str, days: int, every: bool, limit: int, settings_file: Path, as_json: bool) -> None:
    """Numbers of a customer that do not get A now, and what each lacks; the most used first.

    Which numbers are in use is read from the ledger of calls, and each is decided about as its last call went:
    where to, over which route, with another number in its place where a rule says so. With --all, without a
    route, of a range its first number is decided about, and of each right the first 10,000 numbers and ranges.

    Exit code 0 if all get A, 1 if not.
    """
    now, cut = time.time(), list[str]()
    with reading(settings_file) as (session, records):
        record = find(records, Customer, customer)
        used = _all(records, customer, cut) if every else _in_use(session.settings, customer, now - days * _DAY)
        deciding = Deciding.of(session, records)
        lacking = _lacking(deciding, record, used, now)
        found = list(itertools.islice(lacking, limit))
        more = next(lacking, None) is not None
    if as_json:
        print_json({"customer": customer, "at": now, "numbers": found, "more": more, "cut": cut})
    elif found:
        _print(found, more=more)
    else:
        console.print(f"all numbers {'of the rights' if every else 'in use'} of {customer} get A", markup=False)
    for right in [] if as_json else cut:
        console.print(f"of right {right} only the first {_LOOKED_AT:,} numbers and ranges were looked at", markup=False)
    sys.exit(Exit.NO if found else Exit.YES)


def _all(records: PolicyRecords, customer: str, cut: list[str]) -> Iterator[_Used]:
    """The first of each right; those that have more are noted."""
    for right in records.all(Right):
        if right.customer == customer:
            spans = records.numbers(Right, right.id)
            yield from (_Used(span, None, None) for span in itertools.islice(spans, _LOOKED_AT))
            if next(spans, None) is not None:
                cut.append(right.id)


def _in_use(settings: Settings, customer: str, since: float) -> list[_Used]:
    """Those that the ledger knows."""
    chosen = settings.records
    try:
        password = None if chosen.ledger_password is None else resolve(chosen.ledger_password).decode().strip()
        used = numbers_of_customer(Ledger(chosen.ledger, password), customer, since)
    except (StoreUnavailable, StoreError, ValueError) as exc:
        fail(f"which numbers are in use is not known: {exc}; --all looks at all numbers of the customer's rights")
    return [
        _Used(Span(use.number, use.number), use.calls, use.last, _to(use)) for use in used if use.number.isdecimal()
    ]


def _to(use: NumberUse) -> To:
    """Where the last call went to."""
    dest = TelephoneNumber(use.dest) if use.dest and use.dest.isdecimal() else None
    return To(dest, use.routed_by or (dest.digits if dest is not None and dest.is_e164 else None), use.route)


def _lacking(deciding: Deciding, customer: Customer, used: Iterable[_Used], now: float) -> Iterator[dict[str, Any]]:
    for use in used:
        for trunk, source in deciding.sources(customer):
            decision = deciding.decide(source, use.numbers.first, now, use.to)
            if decision.level is not Level.A:
                yield {
                    "numbers": span_text(use.numbers),
                    "calls": use.calls,
                    "last": use.last,
                    "trunk": trunk,
                    "level": decision.level.value,
                    "missing": list(decision.missing),
                }


def _print(found: list[dict[str, Any]], *, more: bool) -> None:
    over = any(each["trunk"] for each in found)
    made = table("numbers", "calls", "last", *(["over"] if over else []), "level", "lacks")
    for each in found:
        calls = "" if each["calls"] is None else f"{each['calls']:,}"
        trunk = [each["trunk"] or ""] if over else []
        made.add_row(each["numbers"], calls, when(each["last"]), *trunk, each["level"], "; ".join(each["missing"]))
    console.print(made)
    if more:
        console.print("… and more; see --limit", markup=False)
