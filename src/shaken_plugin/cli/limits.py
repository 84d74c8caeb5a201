"""``shaken limits``: bounds on a customer's calls, in all and by level."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from shaken_plugin.cli.output import Exit, console, fail, json_option, print_json, settings_option, table
from shaken_plugin.cli.records.attributes import as_data, limit_rows
from shaken_plugin.cli.records.changing import Edit, changing
from shaken_plugin.cli.records.completing import customer_ids
from shaken_plugin.cli.records.session import Intent, find, intends, intends_as, reading
from shaken_plugin.cli.records.values import OneOf
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Customer, Limits, Rate

LEVEL = OneOf({level.value: level for level in Attest})
_customer = click.argument("customer", shell_complete=customer_ids)


def _with(limits: Limits, level: Attest | None, rate: Rate) -> Limits:
    if level is None:
        return replace(limits, total=rate)
    by_level = dict(limits.by_level) | {level: rate}
    kept = sorted(((key, value) for key, value in by_level.items() if value != Rate()), key=lambda item: item[0].value)
    return replace(limits, by_level=tuple(kept))


def _bounded(limits: Limits) -> bool:
    return replace(limits, suspended=False) != Limits()


def _rate(limits: Limits, level: Attest | None) -> Rate:
    return limits.total if level is None else dict(limits.by_level).get(level, Rate())


@click.group()
def limits() -> None:
    """Bounds on a customer's calls: calls per second and concurrent calls, in all and by level.

    'suspend' puts all bounds of a customer out of force, 'reinstate' in force again, 'remove' takes them away.
    The agent counts calls, over all switches of a host or all hosts of a fleet: docs/limits.md.
    """


def _rate_options(function: Any) -> Any:
    for option in (
        click.option("--concurrent", type=click.IntRange(1), help="Most calls at a time."),
        click.option("--calls-per-second", type=click.FloatRange(0, min_open=True), help="Most new calls in a second."),
        click.option("--level", type=LEVEL, help="Only of calls that get this level; default: of all calls."),
    ):
        function = option(function)
    return function


@limits.command("add")
@_customer
@_rate_options
@intends
def add(
    intent: Intent, customer: str, level: Attest | None, calls_per_second: float | None, concurrent: int | None
) -> None:
    """Give bounds to a customer that has none yet."""
    rate = Rate(calls_per_second, concurrent)
    if rate == Rate():
        raise click.UsageError("--calls-per-second or --concurrent says how many")
    with changing(intent, f"add limits of customer {customer}") as edit:
        record = find(edit.draft, Customer, customer)
        if record.limits != Limits():
            fail(f"customer {customer} has limits already; change them with 'shaken limits set'", Exit.NO)
        edit.put(replace(record, limits=_with(Limits(), level, rate)))


@limits.command("set")
@_customer
@_rate_options
@click.option(
    "--clear",
    type=click.Choice(["calls-per-second", "concurrent"]),
    multiple=True,
    metavar="OPTION",
    help="No bound of this kind any more.",
)
@intends
def set_(
    intent: Intent,
    customer: str,
    level: Attest | None,
    calls_per_second: float | None,
    concurrent: int | None,
    clear: tuple[str, ...],
) -> None:
    """Set bounds; what is not said stays."""
    with changing(intent, f"set limits of customer {customer}") as edit:
        record = find(edit.draft, Customer, customer)
        rate = _rate(record.limits, level)
        rate = Rate(
            None if "calls-per-second" in clear else calls_per_second or rate.calls_per_second,
            None if "concurrent" in clear else concurrent or rate.concurrent,
        )
        _put(edit, record, _with(record.limits, level, rate))


def _put(edit: Edit, record: Customer, limits: Limits) -> None:
    """What bounds nothing is not suspended either."""
    edit.put(replace(record, limits=limits if _bounded(limits) else Limits()))


def _force(verb: str, *, suspended: bool, about: str) -> click.Command:
    def change(intent: Intent, customer: str) -> None:
        with changing(intent, f"{verb} limits of customer {customer}") as edit:
            record = find(edit.draft, Customer, customer)
            if record.limits == Limits():
                fail(f"customer {customer} has no limits", Exit.NO)
            edit.put(replace(record, limits=replace(record.limits, suspended=suspended)))

    return limits.command(verb, help=about)(_customer(intends_as(by_name=not suspended)(change)))


_force("suspend", suspended=True, about="Put all bounds of a customer out of force.")
_force("reinstate", suspended=False, about="Put them in force again.")


@limits.command("remove")
@_customer
@click.option("--level", type=LEVEL, help="Only those of this level; default: all.")
@intends
def remove(intent: Intent, customer: str, level: Attest | None) -> None:
    """Take bounds away."""
    with changing(intent, f"remove limits of customer {customer}") as edit:
        record = find(edit.draft, Customer, customer)
        if record.limits == Limits() or (level is not None and _rate(record.limits, level) == Rate()):
            fail(f"customer {customer} has no such limits", Exit.NO)
        _put(edit, record, Limits() if level is None else _with(record.limits, level, Rate()))


@limits.command("show")
@_customer
@settings_option
@json_option
def show(customer: str, settings_file: Path, as_json: bool) -> None:
    """The bounds of one customer."""
    with reading(settings_file) as (_, records):
        _print([find(records, Customer, customer)], as_json=as_json)


@limits.command("list")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Most customers that are shown.")
@settings_option
@json_option
def list_(limit: int, settings_file: Path, as_json: bool) -> None:
    """All customers that have bounds."""
    with reading(settings_file) as (_, records):
        bound = (record for record in records.all(Customer) if record.limits != Limits())
        _print(list(itertools.islice(bound, limit)), as_json=as_json)


def _print(customers: list[Customer], *, as_json: bool) -> None:
    if as_json:
        print_json([{"customer": customer.id, **as_data(customer)["limits"]} for customer in customers])
        return
    made = table("customer", "of", "calls per second", "concurrent", "")
    for customer in customers:
        for row in list(limit_rows(customer.limits)) or [("all calls", "no bound", "no bound")]:
            made.add_row(customer.id, *row, "suspended" if customer.limits.suspended else "")
    console.print(made)
