"""What tells the commands of one kind of records from those of another: a `Kind`, and the options made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from shaken_plugin.cli.output import Exit, console, fail, table
from shaken_plugin.cli.records import checks
from shaken_plugin.cli.records.attributes import Attribute, attributes, options
from shaken_plugin.cli.records.changing import Edit
from shaken_plugin.cli.records.completing import ids
from shaken_plugin.cli.records.session import Opened, find
from shaken_plugin.core.records import Customer, DoNotOriginate, Record, Right
from shaken_plugin.ports import NumbersOf, PolicyRecords
from shaken_plugin.stores.policy import KIND_NAMES

Prepare = Callable[[Any, Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Kind:
    """One kind of records, and what its commands are like."""

    name: str
    record: type[Record]
    about: str
    """Help of the group; says which verbs it has not, and why."""
    columns: tuple[str, ...]
    """Attributes that a list shows."""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """Attributes that are always the same, by name: no options."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What required attributes are where nothing is said."""
    narrowed: Mapping[str, click.ParamType] = field(default_factory=dict)  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """Other types of options, by name."""
    extra: tuple[click.Option, ...] = ()
    """More options of add and set, given to ``prepare``."""
    prepare: Prepare = lambda record, _extra: record
    """What is done to a record before it is put."""
    resolve: Callable[[PolicyRecords, str], str] = lambda _records, identifier: identifier
    """The id of what was named on the command line."""
    more: Callable[[PolicyRecords, Any, Opened], dict[str, Any]] | None = None
    """What show prints beside the record, for JSON."""
    related: Callable[[PolicyRecords, str], Iterable[tuple[type[Record], str]]] = lambda _records, _identifier: ()
    """Records, by kind and id, whose changes are part of its history."""
    in_list: Callable[[Opened], Callable[[Any], Any]] = lambda _session: lambda record: record
    """What a list shows of a record."""
    print_more: Callable[[dict[str, Any]], None] | None = None
    """The same for people."""

    @property
    def numbers_of(self) -> NumbersOf | None:
        """Its record type, where it has numbers."""
        return self.record if self.record in {Right, DoNotOriginate} else None

    @property
    def options(self) -> tuple[Attribute, ...]:
        """The attributes that its options set."""
        return tuple(each for each in options(self.record) if each.name not in self.preset)

    def named(self, records: PolicyRecords, identifier: str) -> Any:
        """The record that the command line means."""
        record = find(records, self.record, self.resolve(records, identifier))
        if any(getattr(record, name) != value for name, value in self.preset.items()):
            fail(f"{identifier} is no {self.name}; see 'shaken {KIND_NAMES[self.record]} show {identifier}'", Exit.NO)
        return record


def group(kind: Kind, *commands: click.Command) -> click.Group:
    """The group of a kind, with its commands."""
    made = click.Group(kind.name, help=kind.about)
    for command in commands:
        made.add_command(command)
    return made


def option(kind: Kind, attribute: Attribute, *, required: bool) -> click.Option:
    """The option of an attribute."""
    choice = kind.narrowed.get(attribute.name, attribute.takes)
    complete: dict[str, Any] = {} if attribute.refers is None else {"shell_complete": ids(attribute.refers)}
    return click.Option(
        [attribute.flag, attribute.name],
        type=choice,
        multiple=attribute.several,
        required=required,
        help=attribute.help,
        **complete,
    )


def values_given(kind: Kind, values: dict[str, Any]) -> dict[Attribute, Any]:
    """The attributes that the command line says something about; taken out of ``values``."""
    found = {}
    for attribute in kind.options:
        value = values.pop(attribute.name, None)
        if value is not None and value != ():
            found[attribute] = value
    return found


def referring(edit: Edit, given: dict[Attribute, Any]) -> dict[Attribute, Any]:
    """The same, with what it refers to looked up."""
    for attribute, value in given.items():
        if attribute.refers is not None:
            found = [find(edit.draft, attribute.refers, name) for name in (value if attribute.several else (value,))]
            if attribute.path == ("customer",) and attribute.in_full:
                given[attribute] = found[0]
        checks.credential(edit.session.settings, attribute, value)
    return given


def identifier_argument(kind: Kind, **how: Any) -> click.Argument:
    """The id, completed from the store."""
    return click.Argument(["identifier"], metavar="ID", shell_complete=ids(kind.record, kind.preset), **how)


def kind_id() -> click.ParamType:  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """The type of a new id."""
    return next(a.takes for a in attributes(Customer) if a.path == ("id",))


def print_table(kind: Kind, records: Iterable[Any], counts: Mapping[str, int]) -> None:
    """Records below each other."""
    by_name = {attribute.name: attribute for attribute in attributes(kind.record)}
    columns = [by_name[name] for name in kind.columns]
    made = table("id", *(column.flag[2:].replace("-", " ") for column in columns), *(["ranges"] if counts else []))
    for record in records:
        count = [f"{counts[record.id]:,}"] if counts else []
        made.add_row(record.id, *(column.text(record) for column in columns), *count)
    console.print(made)
