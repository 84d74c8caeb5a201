"""Making a store say what a whole `Policy` says, by no more changes than that takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from shaken_plugin.core.records import (
    Customer,
    CustomerState,
    DoNotOriginate,
    Gateway,
    Record,
    Right,
    Route,
    Substitution,
    Trunk,
)
from shaken_plugin.errors import ConflictError
from shaken_plugin.ports import Author, NumbersOf, PolicyDraft, PolicyWriter, Span
from shaken_plugin.stores.policy import KIND_NAMES, Policy

_PUT_OUT = {CustomerState.SUSPENDED: 1, CustomerState.TERMINATED: 2}
"""States that only a named person takes back, with a reason."""


class _Wanted(NamedTuple):
    records: dict[type[Record], dict[str, Record]]
    numbers: dict[tuple[NumbersOf, str], set[Span]]


def replace_all(writer: PolicyWriter, policy: Policy, author: Author, what: str) -> list[str]:
    """Make the store say what a policy says, as one change. See `fill`.

    Raises:
        ConflictError, NumberError: the policy contradicts itself; nothing was changed.
        StoreError: the store cannot be written.
    """
    with writer.change(author, what) as draft:
        return fill(draft, policy)


def fill(draft: PolicyDraft, policy: Policy, *, merge: bool = False) -> list[str]:
    """Make a draft say what a policy says. What is so already is left untouched.

    A suspended or terminated customer is not reinstated by this: it keeps its state, and stays even
    where the policy has no such customer, lest a second file bring it back. Likewise a right that a person
    suspended, as long as its customer is there.

    Args:
        draft: the policy that is being changed.
        policy: what it shall say.
        merge: records and numbers that the policy does not have stay.

    Returns:
        What stayed otherwise than the policy says, for people.

    Raises:
        ConflictError, NumberError: the policy contradicts itself.
    """
    wanted = _wanted(policy)
    notes = _keep_out(draft, wanted.records[Customer], merge=merge)
    notes += _keep_suspended(draft, wanted, merge=merge)
    for record in wanted.records[Customer].values():
        _put(draft, record)
    if merge:
        _add(draft, wanted)
        return notes
    for kind in (Substitution, Right, DoNotOriginate, Trunk, Gateway):
        _remove_others(draft, kind, wanted.records[kind])
    _put_exclusive(draft, [record for kind in (Trunk, Gateway, Route) for record in wanted.records[kind].values()])
    for kind in (Substitution, Right, DoNotOriginate):
        for record in wanted.records[kind].values():
            _put(draft, record)
    for (owner, identifier), spans in wanted.numbers.items():
        _put_numbers(draft, owner, identifier, spans)
    _remove_others(draft, Route, wanted.records[Route])
    _remove_others(draft, Customer, wanted.records[Customer])
    return notes


def _add(draft: PolicyDraft, wanted: _Wanted) -> None:
    """Put what is wanted beside what is there."""
    for kind in (Trunk, Gateway, Route, Substitution, Right, DoNotOriginate):
        for record in wanted.records[kind].values():
            _put(draft, record)
    for (owner, identifier), spans in wanted.numbers.items():
        if spans:
            draft.add_numbers(owner, identifier, _sorted(spans))


def _wanted(policy: Policy) -> _Wanted:
    records: dict[type[Record], dict[str, Record]] = {
        Customer: _by_id(policy.customers),
        Trunk: _by_id(policy.trunks),
        Gateway: _by_id(policy.gateways),
        Route: _by_id(policy.routes),
        Substitution: _by_id(policy.substitutions),
        Right: _by_id((*_of(Right, policy), *(number.right for number in policy.rights))),
        DoNotOriginate: _by_id((*_of(DoNotOriginate, policy), *(entry for entry, _, _ in policy.withheld))),
    }
    numbers: dict[tuple[NumbersOf, str], set[Span]] = defaultdict(set)
    numbers |= {(type(record), record.id): set() for record in policy.unnumbered}
    for number in policy.rights:
        numbers[Right, number.right.id].add(Span(number.first, number.last))
    for entry, first, last in policy.withheld:
        numbers[DoNotOriginate, entry.id].add(Span(first, last))
    return _Wanted(records, numbers)


def _of(kind: NumbersOf, policy: Policy) -> Iterator[Record]:
    return (record for record in policy.unnumbered if isinstance(record, kind))


def _by_id(records: Iterable[Record]) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        other = found.setdefault(record.id, record)
        if other is not record and other != record:
            raise ConflictError(f"two different records are called {KIND_NAMES[type(record)]} {record.id}")
    return found


def _keep_out(draft: PolicyDraft, customers: dict[str, Record], *, merge: bool) -> list[str]:
    """Have suspended and terminated customers stay so."""
    notes = []
    for old in draft.all(Customer):
        rank = _PUT_OUT.get(old.state, 0)
        new = customers.get(old.id)
        if rank == 0 or (merge and new is None) or (isinstance(new, Customer) and _PUT_OUT.get(new.state, 0) >= rank):
            continue
        if isinstance(new, Customer):
            customers[old.id] = replace(new, state=old.state)
            said = f"the file says {new.state.value}"
        else:
            customers[old.id] = old
            said = "the file has no such customer"
        notes.append(f"customer {old.id} stays {old.state.value} although {said}: see 'shaken customer reinstate'")
    return notes


def _keep_suspended(draft: PolicyDraft, wanted: _Wanted, *, merge: bool) -> list[str]:
    """Have suspended rights stay so, with the numbers they have where the policy has no such right."""
    notes, rights = [], wanted.records[Right]
    for old in draft.all(Right):
        new = rights.get(old.id)
        if not old.suspended or (isinstance(new, Right) and new.suspended):
            continue
        if isinstance(new, Right):
            rights[old.id] = replace(new, suspended=True)
            said = "the file says otherwise"
        elif merge or old.customer not in wanted.records[Customer]:
            continue
        else:
            rights[old.id] = old
            wanted.numbers[Right, old.id] = set(draft.numbers(Right, old.id))
            said = "the file has no such right"
        notes.append(f"right {old.id} stays suspended although {said}: see 'shaken letter reinstate'")
    return notes


def _put(draft: PolicyDraft, record: Record) -> bool:
    """Put a record that is not there as it is; whether it had to be."""
    if draft.get(type(record), record.id) == _as_kept(draft, record):
        return False
    draft.put(record)
    return True


def _as_kept(draft: PolicyDraft, record: Record) -> Record:
    """A trunk reads with its customer as the store has that."""
    if isinstance(record, Trunk) and (customer := draft.get(Customer, record.customer.id)) is not None:
        return replace(record, customer=customer)
    return record


def _put_exclusive(draft: PolicyDraft, records: list[Record]) -> None:
    """Put records that may take addresses, accounts or destinations from one another."""
    changed = [record for record in records if draft.get(type(record), record.id) != _as_kept(draft, record)]
    # First without: what one gives away another may take. A route that goes is still there, for a
    # customer's rule may name it until now.
    names = {record.id for record in records if isinstance(record, Route)}
    for record in (*changed, *(route for route in list(draft.all(Route)) if route.id not in names)):
        draft.put(_bare(record))
    for record in changed:
        draft.put(record)


def _bare(record: Record) -> Record:
    match record:
        case Trunk():
            return replace(record, addresses=(), users=())
        case Gateway():
            return replace(record, addresses=())
        case Route():
            return replace(record, destinations=())
    return record


def _remove_others(draft: PolicyDraft, kind: type[Record], wanted: dict[str, Record]) -> None:
    for identifier in [record.id for record in draft.all(kind) if record.id not in wanted]:
        draft.remove(kind, identifier)


def _put_numbers(draft: PolicyDraft, kind: NumbersOf, identifier: str, wanted: set[Span]) -> None:
    there: set[Span] = set()
    gone: list[Span] = []
    for span in draft.numbers(kind, identifier):
        (there.add if span in wanted else gone.append)(span)
    if gone:
        draft.remove_numbers(kind, identifier, gone)
    if len(there) < len(wanted):
        draft.add_numbers(kind, identifier, _sorted(wanted - there))


def _sorted(spans: set[Span]) -> Iterator[Span]:
    """In the order of their numbers: a store takes them fastest so."""
    return iter(sorted(spans, key=lambda span: (len(span.first), span)))
