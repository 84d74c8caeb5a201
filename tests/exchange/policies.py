"""Random policies of everything that a policy file can say, and stores that hold them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from hypothesis import strategies as st

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    Basis,
    CarrierStatus,
    Customer,
    CustomerKind,
    CustomerState,
    DoNotOriginate,
    Gateway,
    KnowYourCustomer,
    Limits,
    Overrides,
    PendingLevel,
    Rate,
    Record,
    Right,
    Route,
    Substitution,
    TimeWindow,
    Trunk,
    Unauthorised,
    Withheld,
)
from shaken_plugin.exchange.columns import Table
from shaken_plugin.exchange.csvreading import Rows
from shaken_plugin.exchange.csvwriting import write_numbers
from shaken_plugin.exchange.importing import Import, Outcome, Reject
from shaken_plugin.exchange.yamlfiles import write_policy
from shaken_plugin.ports import Author, PolicyRecords, PolicyWriter, Span
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.policy import KINDS
from shaken_plugin.stores.staging import Staging

AUTHOR = Author("anna", "ticket 4711", 1_790_000_000.0)
US = dial_plan("US")

Numbered = dict[tuple[type[Any], str], frozenset[Span]]

# --- Values -------------------------------------------------------------------------------------

_DAY = 86_400.0
names = st.sampled_from(["a", "A", "acme", "acme-2", "b.c", "b_c", "0", "00", "1.5", "null", "no", "x" * 64])
_awkward = st.sampled_from(
    ["=1+1", "'=x", "''@", "'t Hof", "-", "null", "~", "2027-06-30", "+12155551212", 'a;b,c"d', " x "]
)
labels = _awkward | st.text(
    st.characters(codec="utf-8", exclude_characters=[chr(code) for code in (*range(32), 127)]), min_size=1, max_size=12
)
days = st.integers(-700_000, 2_932_895).map(lambda day: day * _DAY)
moments = days | st.floats(-60_000_000_000, 253_402_300_799, allow_nan=False) | st.integers(0, 2**32).map(float)
_digits = st.integers(1000, 10**15 - 1).map(str)
_prefixes = st.integers(1, 10**15 - 1).map(str)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


@st.composite
def spans(draw: st.DrawFn) -> Span:
    first = draw(_digits)
    if draw(st.booleans()):
        return Span(first, first)
    last = draw(st.integers(int(first), 10 ** len(first) - 1))
    return Span(first, str(last))


@st.composite
def periods(draw: st.DrawFn) -> tuple[float | None, float | None]:
    one, other = draw(maybe(moments)), draw(maybe(moments))
    if one is not None and other is not None:
        return (min(one, other), max(one, other)) if one != other else (one, None)
    return one, other


# --- Records ------------------------------------------------------------------------------------

overrides = st.builds(
    Overrides,
    unauthorised=maybe(st.sampled_from(Unauthorised)),
    substitute=maybe(_digits),
    offences=maybe(st.booleans()),
    ceiling=maybe(st.sampled_from(Attest)),
    pending=maybe(st.sampled_from(PendingLevel)),
    sign=maybe(st.booleans()),
)
_rates = st.builds(
    Rate,
    calls_per_second=maybe(st.floats(0, 1_000_000)),
    concurrent=maybe(st.integers(0, 10_000_000)),
)
_limits = st.builds(
    Limits,
    total=_rates,
    by_level=st.sets(st.sampled_from(Attest)).flatmap(
        lambda levels: st.tuples(*(st.tuples(st.just(level), _rates) for level in Attest if level in levels))
    ),
    suspended=st.booleans(),
)
_kyc = st.builds(
    KnowYourCustomer,
    legal_name=maybe(labels),
    address=maybe(labels),
    email=maybe(labels),
    reviewed_by=maybe(labels),
    reviewed_at=maybe(moments),
)
customers = st.builds(
    Customer,
    id=names,
    name=labels,
    state=st.sampled_from(CustomerState),
    ceiling=maybe(st.sampled_from(Attest)),
    credential=maybe(names),
    origid=maybe(st.uuids().map(str)),
    kind=st.sampled_from(CustomerKind),
    kyc=_kyc,
    carrier=maybe(st.builds(CarrierStatus, maybe(labels), maybe(labels), maybe(moments))),
    limits=_limits,
    review_at=maybe(moments),
    rules=overrides,
)
_minutes = st.integers(0, 1439)
_windows = st.builds(
    TimeWindow,
    days=st.sets(st.integers(0, 6), min_size=1).map(lambda chosen: tuple(sorted(chosen))),
    begins=_minutes,
    ends=st.integers(0, 1440),
    utc_offset=st.integers(-1439, 1439),
).filter(lambda window: window.begins != window.ends)
_entries = st.builds(DoNotOriginate, names, st.sampled_from(Withheld), maybe(labels), st.booleans())
_letters = st.sampled_from(Basis).filter(lambda basis: basis is not Basis.RESPORG)


@st.composite
def rights(draw: st.DrawFn, customer: str) -> Right:
    basis = draw(_letters)
    begins, ends = draw(periods())
    return Right(
        draw(names),
        customer,
        basis,
        draw(labels if basis in {Basis.LETTER, Basis.DELEGATE} else maybe(labels)),
        draw(maybe(labels)),
        begins,
        ends,
        draw(maybe(labels)),
        draw(maybe(st.just("0" * 63 + "a"))),
        draw(maybe(labels)),
        draw(maybe(labels)),
        draw(maybe(moments)),
        draw(st.booleans()),
        draw(overrides),
    )


@st.composite
def policies(draw: st.DrawFn) -> MemoryPolicy:
    """A store with a random policy."""
    store = MemoryPolicy()
    by_id = {"unique_by": lambda record: record.id}
    owners = draw(st.lists(customers, max_size=3, unique_by=lambda record: record.id))
    routes = draw(st.lists(st.builds(Route, names, st.just(()), overrides), max_size=2, **by_id))  # type: ignore[arg-type]  # `**`
    prefixes = draw(st.lists(_prefixes, max_size=4, unique=True))
    ids = [one.id for one in owners]
    mine = st.sampled_from(ids or ["nobody"])
    with store.change(AUTHOR, "random") as draft:
        for owner in owners:
            draft.put(owner)
        for index, route in enumerate(routes):
            draft.put(replace(route, destinations=tuple(prefixes[index::2])))
        for source in draw(_sources(owners)):
            draft.put(source)
        for entry in draw(st.lists(_entries, max_size=2)):
            draft.put(entry)
            draft.add_numbers(DoNotOriginate, entry.id, draw(st.lists(spans(), max_size=4)))
        for _ in range(draw(st.integers(0, 3)) if ids else 0):
            right = draw(mine.flatmap(rights))
            draft.put(right)
            draft.add_numbers(Right, right.id, draw(st.lists(spans(), max_size=4)))
        for _ in range(draw(st.integers(0, 2)) if ids else 0):
            begins, ends = draw(periods())
            chosen = draw(st.lists(st.sampled_from([route.id for route in routes]), max_size=2)) if routes else []
            callers = tuple(draw(st.lists(_prefixes, max_size=2)))
            draft.put(
                Substitution(
                    draw(names), draw(mine), draw(_digits), tuple(chosen), callers, draw(maybe(_windows)), begins, ends,
                    draw(maybe(labels)),
                )
            )  # fmt: skip
    return store


@st.composite
def _sources(draw: st.DrawFn, owners: list[Customer]) -> list[Record]:
    found = draw(st.lists(names, max_size=4, unique=True))
    sources: list[Record] = []
    for index, name in enumerate(found):
        networks = _networks(index, draw(st.booleans()))
        users = tuple(f"{name}@{number}" for number in range(draw(st.integers(0, 2))))
        if draw(st.booleans()) and owners:
            owner = draw(st.sampled_from(owners))
            sources.append(Trunk(name, owner, draw(maybe(names)), networks, users, draw(overrides)))
        else:
            sources.append(Gateway(name, draw(labels), draw(maybe(names)), networks))
    return sources


def _networks(index: int, more: bool) -> tuple[IPv4Network | IPv6Network, ...]:
    return (ip_network(f"198.51.100.{index}"), *([ip_network(f"2001:db8:{index}::/48")] if more else []))


# --- Stores -------------------------------------------------------------------------------------


def content(store: PolicyWriter) -> tuple[list[Record], Numbered]:
    """Everything that a store says."""
    with store.records() as records:
        found: list[Record] = [record for kind in KINDS.values() for record in records.all(kind)]
        numbers = {
            (kind, record.id): frozenset(records.numbers(kind, record.id))
            for kind in (Right, DoNotOriginate)
            for record in records.all(kind)
        }
    return found, numbers


def made(records: Iterable[Record] = (), numbers: dict[tuple[type[Any], str], list[str]] | None = None) -> MemoryPolicy:
    """A store with these records, and numbers such as ``12155551300-12155551399``."""
    store = MemoryPolicy()
    with store.change(AUTHOR, "made") as draft:
        for record in records:
            draft.put(record)
        for (kind, identifier), texts in (numbers or {}).items():
            parts = (text.partition("-") for text in texts)
            draft.add_numbers(kind, identifier, [Span(first, last or first) for first, _, last in parts])
    return store


def as_yaml(records: PolicyRecords | PolicyWriter, **options: Any) -> str:
    """A policy as a policy file."""
    out = io.StringIO()
    if isinstance(records, MemoryPolicy):
        with records.records() as current:
            write_policy(current, out.write, **options)
    else:
        write_policy(records, out.write, **options)  # type: ignore[arg-type]  # else it is records
    return out.getvalue()


def as_csv(store: MemoryPolicy, table: Table, **options: Any) -> str:
    """Numbers of a policy as CSV."""
    out = io.StringIO(newline="")
    with store.records() as records:
        write_numbers(records, table, out, **options)
    return out.getvalue()


def load(store: PolicyWriter, text: str | bytes, *, reject: Reject = lambda *_: None, **options: Any) -> Outcome:
    """Import a CSV file as the command does: all or nothing, but with ``partial``."""
    data = text.encode() if isinstance(text, str) else text
    rows = Rows(io.BytesIO(data), "numbers.csv", options.pop("table", None), options.pop("delimiter", None))
    with Staging() as staging:
        job = Import(rows, US, staging, reject=reject, **options)
        job.read(store)
        if not job.kept_out:
            with store.change(AUTHOR, "import") as draft:
                job.write(draft)
    return job.outcome
