"""Who changed a record, when and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

from shaken_plugin.cli.output import console, table, when
from shaken_plugin.cli.records.attributes import differences
from shaken_plugin.core.records import Customer, Record, Right, Substitution, Trunk
from shaken_plugin.errors import StoreError
from shaken_plugin.ports import Change, PolicyRecords, PolicyWriter

SHOWN: Final = 5
"""Changes shown."""

Named = tuple[type[Record], str]
"""Kind and id of a record."""


def family(records: PolicyRecords, customer: str) -> Iterator[Named]:
    """A customer, with its trunks, rights and substitutions."""
    yield Customer, customer
    yield from ((Trunk, trunk.id) for trunk in records.all(Trunk) if trunk.customer.id == customer)
    yield from ((Right, right.id) for right in records.all(Right) if right.customer == customer)
    yield from ((Substitution, rule.id) for rule in records.all(Substitution) if rule.customer == customer)


def history_data(store: PolicyWriter, named: Named, related: Iterable[Named] = ()) -> list[dict[str, Any]]:
    """The last changes of a record, of its numbers, and of others that are ``related``, the last first."""
    changes = itertools.islice(store.changes_of(named, *related), SHOWN)
    return [
        {
            "version": change.version,
            "at": change.at,
            "by": change.who,
            "why": change.why,
            "what": change.what,
            "fields": _fields(store, change, *named),
        }
        for change in changes
    ]


def _fields(store: PolicyWriter, change: Change, kind: type[Record], identifier: str) -> dict[str, tuple[Any, Any]]:
    """What changed in the record itself."""
    with store.records(change.version) as records:
        after = records.get(kind, identifier)
    try:
        with store.records(change.version - 1) as records:
            before = records.get(kind, identifier)
    except StoreError:
        return {}  # forgotten by `shaken store compact`
    return differences(before, after) if before != after else {}


def print_history(history: list[dict[str, Any]]) -> None:
    """The same for people."""
    if not history:
        return
    console.print("last changes", style="bold")
    made = table("  when", "by", "what", "why")
    for change in history:
        fields = ", ".join(name.rpartition(".")[2] for name in change["fields"])
        what = f"{change['what']} ({fields})" if fields and len(fields) < 60 else change["what"]
        made.add_row(f"  {when(change['at'])}", change["by"], what, change["why"])
    console.print(made)
