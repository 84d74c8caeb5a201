"""A whole policy as a policy file, and such a file merged into a store."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from shaken_plugin.config.fields import moment_text
from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.core.records import (
    Customer,
    DoNotOriginate,
    Gateway,
    Record,
    Right,
    Route,
    Substitution,
    Trunk,
)
from shaken_plugin.errors import FileProblems
from shaken_plugin.exchange.importing import Outcome
from shaken_plugin.exchange.plain import Plain, plain
from shaken_plugin.ports import NumbersOf, PolicyDraft, PolicyRecords, Span, StandingSource, sayable
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.replacing import fill
from shaken_plugin.stores.snapshot import Snapshot

Write = Callable[[str], object]

# The C emitter is many times faster.
_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]  # one of two classes
    """Writes days and moments without quotes; numbers keep theirs, for +12155551212 is an integer to most readers."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # the library's own name for it
        first: [resolver for resolver in resolvers if resolver[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # the library's signature
        """Write everything out: the reader takes no aliases."""
        return True


def write_policy(
    records: PolicyRecords,
    write: Write,
    *,
    customers: Collection[str] = (),
    standing: StandingSource | None = None,
    numbers: bool = True,
) -> None:
    """Write a policy as a policy file: records by id, numbers by value, every id written out.

    Args:
        records: the policy.
        write: takes the text, piece by piece.
        customers: only these, with what is theirs; empty for everything.
        standing: what customers were put under in the runtime state; written beside their state.
        numbers: False leaves the numbers of rights and of the do-not-originate list out.

    Raises:
        StoreUnavailable, StoreError: the store cannot be read.
    """
    write("# Written by 'shaken export'.\n")
    empty = True
    for name, entries in _sections(records, customers, standing):
        for index, (entry, spans) in enumerate(entries):
            write(f"{name}:\n" if index == 0 else "")
            write(yaml.dump([entry], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20))
            if spans is not None:
                _write_numbers(spans if numbers else iter(()), write)
            empty = False
    if empty:
        write("customers: []\n")


def _sections(
    records: PolicyRecords, customers: Collection[str], standing: StandingSource | None
) -> Iterator[tuple[str, Iterator[tuple[Plain, Iterator[Span] | None]]]]:
    yield "customers", ((entry, None) for entry in _customers(records, customers, standing))
    routes = _routes_of(records, customers)
    if not customers:
        yield "gateways", ((plain(gateway), None) for gateway in records.all(Gateway))
    yield "routes", ((plain(route), None) for route in records.all(Route) if not customers or route.id in routes)
    rights = (right for right in records.all(Right) if not customers or right.customer in customers)
    yield "rights", _numbered(records, Right, rights)
    if not customers:
        yield "do_not_originate", _numbered(records, DoNotOriginate, records.all(DoNotOriginate))
    rules = records.all(Substitution)
    yield "substitutions", ((plain(rule), None) for rule in rules if not customers or rule.customer in customers)


def _customers(records: PolicyRecords, customers: Collection[str], standing: StandingSource | None) -> Iterator[Plain]:
    trunks: dict[str, list[Trunk]] = defaultdict(list)
    for trunk in records.all(Trunk):
        trunks[trunk.customer.id].append(trunk)
    for customer in records.all(Customer):
        if not customers or customer.id in customers:
            theirs = {"trunks": [plain(trunk) for trunk in trunks[customer.id]]} if trunks[customer.id] else {}
            yield plain(customer) | _standing(customer, standing) | theirs


def _standing(customer: Customer, source: StandingSource | None) -> Plain:
    """What stands against a customer beside the policy, as a section of its own: the policy does not say it."""
    against = None if source is None else source.of(customer.id)
    if against is None:
        return {}
    said = {"who": sayable(against.who), "why": sayable(against.why)}
    return {"standing": {"state": against.state.value, "at": moment_text(against.at), **said}}


def _routes_of(records: PolicyRecords, customers: Collection[str]) -> set[str]:
    return {route for rule in records.all(Substitution) if rule.customer in customers for route in rule.routes}


def _numbered(
    records: PolicyRecords, kind: NumbersOf, entries: Iterable[Record]
) -> Iterator[tuple[Plain, Iterator[Span] | None]]:
    return ((plain(entry), records.numbers(kind, entry.id)) for entry in entries)


def _write_numbers(spans: Iterator[Span], write: Write) -> None:
    first = next(spans, None)
    if first is None:
        write("  numbers: []\n")
        return
    write(f"  numbers:\n  - {_quoted(first)}\n")
    for span in spans:
        write(f"  - {_quoted(span)}\n")


def _quoted(span: Span) -> str:
    return f"'{span_text(span)}'"


def span_text(span: Span) -> str:
    """``+12155551300..+12155551399``; a single number as itself."""
    return f"+{span.first}" if span.first == span.last else f"+{span.first}..+{span.last}"


# --- In -----------------------------------------------------------------------------------------


def read_policy(path: Path, credentials: frozenset[str] | None, beside: PolicyRecords | None = None) -> Policy:
    """A policy file.

    Args:
        path: the file.
        credentials: names that the settings know; None to leave the names unchecked.
        beside: a policy whose customers and routes the file may name.

    Raises:
        FileProblems: every mistake in it.
    """
    customers = [] if beside is None else [customer.id for customer in beside.all(Customer)]
    routes = [] if beside is None else [route.id for route in beside.all(Route)]
    policy, document = parse_policy(path, credentials, customers=customers, routes=routes)
    if policy is None:
        raise FileProblems(document.problems)
    return policy


def as_records(policy: Policy) -> PolicyRecords:
    """A policy that was read, to be compared with one in a store."""
    records = Snapshot(0)
    records.fill(policy)
    return records


def merge(draft: PolicyDraft, policy: Policy) -> Outcome:
    """Put the records of a policy file beside what a draft has, or in the place of those with their ids.

    Numbers are added to those that are there. Nobody is reinstated.

    Returns:
        What was done; ``notes`` say what stayed otherwise than the file says. Its numbers count as ``rows``.

    Raises:
        ConflictError: a record contradicts one that is there.
    """
    before = _stand(draft, policy)
    outcome = Outcome(len(policy.rights) + len(policy.withheld), notes=fill(draft, policy, merge=True))
    for key, (record, count) in _stand(draft, policy).items():
        old, old_count = before[key]
        outcome.new_records += old is None
        outcome.changed_records += old is not None and old != record
        outcome.new_numbers += count - old_count
    return outcome


def _stand(records: PolicyRecords, policy: Policy) -> dict[tuple[type[Record], str], tuple[Record | None, int]]:
    """The records of a policy as they stand elsewhere, with how many numbers they have."""
    mine: Iterable[Record] = itertools.chain(
        policy.customers,
        policy.trunks,
        policy.gateways,
        policy.routes,
        policy.substitutions,
        policy.unnumbered,
        (number.right for number in policy.rights),
        (entry for entry, _, _ in policy.withheld),
    )
    keys = dict.fromkeys((type(record), record.id) for record in mine)
    return {
        (kind, name): (
            records.get(kind, name),
            records.count(kind, name) if kind is Right or kind is DoNotOriginate else 0,
        )
        for kind, name in keys
    }
