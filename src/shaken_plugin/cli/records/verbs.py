"""The verbs that all kinds of records have, made from a `Kind`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from shaken_plugin.cli.output import Exit, console, fail, json_option, print_json, settings_option
from shaken_plugin.cli.records import checks
from shaken_plugin.cli.records.attributes import Attribute, as_data, as_rows, attributes, make, nothing, put
from shaken_plugin.cli.records.changing import changing
from shaken_plugin.cli.records.completing import ids
from shaken_plugin.cli.records.history import history_data, print_history
from shaken_plugin.cli.records.kinds import (
    Kind,
    identifier_argument,
    kind_id,
    option,
    print_table,
    referring,
    values_given,
)
from shaken_plugin.cli.records.session import Intent, Opened, find, intends, intends_as, reading, record_name
from shaken_plugin.cli.records.spans import (
    add_spans,
    numbers_data,
    numbers_option,
    print_numbers,
    print_rows,
    remove_spans,
)
from shaken_plugin.core.records import Customer
from shaken_plugin.ports import PolicyRecords, Span


def add_command(kind: Kind) -> click.Command:
    """``add ID``."""

    @intends
    def add(intent: Intent, identifier: str, numbers: tuple[Span, ...] = (), **values: Any) -> None:
        given = values_given(kind, values)
        with changing(intent, f"add {kind.name} {identifier}") as edit:
            if edit.draft.get(kind.record, identifier) is not None:
                fail(f"there is a {kind.name} {identifier} already; change it with 'shaken {kind.name} set'", Exit.NO)
            said = {a: kind.defaults.get(a.name) or kind.preset.get(a.name) for a in attributes(kind.record)}
            values_ = {a: value for a, value in said.items() if value is not None} | referring(edit, given)
            (id_attribute,) = (a for a in attributes(kind.record) if a.path == ("id",))
            record = kind.prepare(make(kind.record, {id_attribute: identifier, **values_}), values | {"intent": intent})
            checks.record(record)
            edit.put(record)
            add_spans(edit, kind, record, numbers)

    command = _as_command(add, "add", f"Add a {kind.name}.")
    command.params[:0] = [
        click.Argument(["identifier"], metavar="ID", type=kind_id()),
        *(option(kind, a, required=a.required and a.name not in kind.defaults) for a in kind.options),
        *kind.extra,
        *([] if kind.numbers_of is None else [numbers_option("--numbers", "numbers", "Number or range")]),
    ]
    return command


def set_command(kind: Kind) -> click.Command:
    """``set ID``."""

    @intends
    def set_(
        intent: Intent,
        identifier: str,
        clear: tuple[str, ...],
        add_numbers: tuple[Span, ...] = (),
        remove_numbers: tuple[Span, ...] = (),
        **values: Any,
    ) -> None:
        given = values_given(kind, values)
        with changing(intent, f"set {kind.name} {identifier}") as edit:
            record = kind.named(edit.draft, identifier)
            changed = record
            for attribute, value in referring(edit, given).items():
                changed = put(changed, attribute, value)
            for attribute in kind.options:
                if attribute.flag[2:] in clear:
                    changed = put(changed, attribute, nothing(attribute, kind.record))
                if attribute.several:
                    changed = _add_and_remove(changed, attribute, values)
            changed = kind.prepare(changed, values | {"intent": intent, "before": record, "given": given})
            checks.record(changed)
            edit.put(changed)
            add_spans(edit, kind, changed, add_numbers)
            remove_spans(edit, kind, changed, remove_numbers)
            checks.all_numbers(changed, edit.draft)

    command = _as_command(set_, "set", f"Change a {kind.name}: what is not said stays.")
    clearable = [a.flag[2:] for a in kind.options if not a.required]
    command.params[:0] = [
        identifier_argument(kind),
        *(option(kind, a, required=False) for a in kind.options),
        *(made for a in kind.options if a.several for made in _one_by_one(kind, a)),
        *kind.extra,
        *(
            []
            if kind.numbers_of is None
            else [
                numbers_option("--add-numbers", "add_numbers", "Also this number or range"),
                numbers_option("--remove-numbers", "remove_numbers", "No more this number or range, as it was added"),
            ]
        ),
        click.Option(
            ["--clear"],
            type=click.Choice(clearable),
            multiple=True,
            metavar="OPTION",
            help="Say nothing any more of what this option sets.",
        ),
    ]
    return command


def _one_by_one(kind: Kind, attribute: Attribute) -> Iterator[click.Option]:
    for verb in ("add", "remove"):
        made = option(kind, attribute, required=False)
        made.opts = [f"--{verb}-{attribute.flag[2:]}"]
        made.name = f"{verb}_{attribute.name}"
        made.help = "One more." if verb == "add" else "One less."
        yield made


def _add_and_remove(record: Any, attribute: Attribute, values: dict[str, Any]) -> Any:
    more, less = values.pop(f"add_{attribute.name}", ()), values.pop(f"remove_{attribute.name}", ())
    if not more and not less:
        return record
    present = [str(item) for item in attribute.of(record)]
    if absent := [item for item in less if item not in present]:
        fail(f"{record.id} has no {attribute.name} {absent[0]}; it has {', '.join(present) or 'none'}", Exit.NO)
    return put(record, attribute, tuple(dict.fromkeys(item for item in (*present, *more) if item not in less)))


def remove_command(kind: Kind) -> click.Command:
    """``remove ID``."""

    @intends
    def remove(intent: Intent, identifier: str) -> None:
        with changing(intent, f"remove {kind.name} {identifier}") as edit:
            edit.remove(kind.record, kind.named(edit.draft, identifier).id)

    command = _as_command(remove, "remove", f"Remove a {kind.name}; the history keeps it.")
    command.params[:0] = [identifier_argument(kind)]
    return command


def show_command(kind: Kind) -> click.Command:
    """``show ID``."""

    @json_option
    @settings_option
    def show(identifier: str, settings_file: Path, as_json: bool) -> None:
        with reading(settings_file) as (session, records):
            _gone(kind, session, records, identifier, as_json=as_json)
            record = kind.named(records, identifier)
            data = as_data(record)
            if kind.numbers_of is not None:
                data["numbers"] = numbers_data(records, kind.numbers_of, record.id)
            if kind.more is not None:
                data |= kind.more(records, record, session)
            related = kind.related(records, record.id)
            data["history"] = history_data(session.store, (kind.record, record.id), related)
        if as_json:
            print_json(data)
            return
        console.print(f"{kind.name} {record.id}", style="bold", markup=False)
        print_rows(as_rows(record))
        if "numbers" in data:
            print_numbers(data["numbers"])
        if kind.print_more is not None:
            kind.print_more(data)
        print_history(data["history"])

    command = _as_command(show, "show", f"Everything about a {kind.name}.")
    command.params[:0] = [identifier_argument(kind)]
    return command


def _gone(kind: Kind, session: Opened, records: PolicyRecords, identifier: str, *, as_json: bool) -> None:
    """End the command where the record is there no more: its history is."""
    if records.get(kind.record, kind.resolve(records, identifier)) is not None:
        return
    history = history_data(session.store, (kind.record, identifier))
    if not history:
        return
    text = f"there is no {record_name(kind.record)} {identifier}: it was removed"
    if as_json:
        print_json({"ok": False, "error": text, "problems": [], "history": history})
        sys.exit(Exit.NO)
    print_history(history)
    fail(text, Exit.NO)


def list_command(
    kind: Kind, *filters: click.Option, keep: Callable[..., bool] = lambda *_, **__: True
) -> click.Command:
    """``list``.

    Args:
        kind: of what.
        filters: options that narrow it, given to ``keep``.
        keep: whether a record, as the list shows it, with these values of the filters is listed.
    """
    has_customer = any(a.name == "customer" for a in kind.options)

    @json_option
    @settings_option
    def list_(settings_file: Path, as_json: bool, limit: int, customer: str | None = None, **narrowing: Any) -> None:
        with reading(settings_file) as (session, records):
            if customer is not None:
                find(records, Customer, customer)
            fitting = (
                record
                for record in map(kind.in_list(session), records.all(kind.record))
                if all(getattr(record, name) == value for name, value in kind.preset.items())
                and (customer is None or as_data(record)["customer"] == customer)
                and keep(record, **narrowing)
            )
            shown = list(itertools.islice(fitting, limit))
            more = next(fitting, None) is not None
            counts = {} if kind.numbers_of is None else {r.id: records.count(kind.numbers_of, r.id) for r in shown}
        if as_json:
            print_json([as_data(r) | ({"ranges": counts[r.id]} if counts else {}) for r in shown])
            return
        print_table(kind, shown, counts)
        if more:
            console.print(f"… and more; --limit {limit * 10} shows more of them", markup=False)

    command = _as_command(list_, "list", f"All of this kind: {kind.name}.")
    limit = click.Option(
        ["--limit"], type=click.IntRange(1), default=1000, show_default=True, help="Most that are shown."
    )
    command.params[:0] = [*filters, *([_customer_filter()] if has_customer else []), limit]
    return command


def _customer_filter() -> click.Option:
    return click.Option(["--customer"], metavar="ID", help="Only of this customer.", shell_complete=ids(Customer))


def force_command(kind: Kind, verb: str, *, suspended: bool, about: str) -> click.Command:
    """``suspend ID`` and ``reinstate ID`` of what has a flag for it (`Right.suspended`)."""

    def change(intent: Intent, identifier: str) -> None:
        with changing(intent, f"{verb} {kind.name} {identifier}") as edit:
            edit.put(replace(kind.named(edit.draft, identifier), suspended=suspended))

    command = _as_command(intends_as(by_name=not suspended)(change), verb, about)
    command.params[:0] = [identifier_argument(kind)]
    return command


def _as_command(function: Any, name: str, about: str) -> click.Command:
    return click.command(name, help=about)(function)
