"""Schema 1, whose rows knew no versions and whose rights had one span each, brought to schema 2."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, Network, Right, Trunk
from shaken_plugin.errors import ShakenError, StoreError
from shaken_plugin.ports import Author, Span
from shaken_plugin.stores.sqlite.draft import SqliteDraft
from shaken_plugin.stores.sqlite.schema import DAMAGE, make_tables, set_meta

_OLD = ("number_key", "number_right", "source_user", "source_address", "gateway", "trunk", "customer", "meta_1")


def from_v1(connection: sqlite3.Connection, author: Author) -> None:
    """Bring the tables of schema 1 to schema 2, within a transaction.

    The policy keeps its version, and what it was before that stays unknown. Rights to spans that differ in
    nothing else become one.

    Raises:
        StoreError: the content is damaged.
    """
    try:
        connection.execute("ALTER TABLE meta RENAME TO meta_1")
        kept = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM meta_1")}
        version = int(kept["policy_version"])
        make_tables(connection)
        draft = SqliteDraft(connection, version)
        _copy_sources(connection, draft)
        _copy_rights(connection, draft)
    except (*DAMAGE, ShakenError) as exc:
        raise StoreError(f"its content is damaged: {exc!r}") from exc
    for table in _OLD:
        connection.execute(f"DROP TABLE {table}")
    row = (version, author.at, author.who, author.why, f"migrated from schema 1: {draft.summary()}", True)
    connection.execute("INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)", row)
    set_meta(
        connection,
        policy_version=version,
        applied_version=version,
        oldest_version=version,
        settings=kept["settings"],
        settings_version=version,
        digests=kept["digests"],
    )


def _copy_sources(connection: sqlite3.Connection, draft: SqliteDraft) -> None:
    customers = {}
    for name, label, state, ceiling, *rest in connection.execute("SELECT * FROM customer").fetchall():
        customers[name] = Customer(name, label, CustomerState(state), ceiling and Attest(ceiling), *rest)
        draft.put(customers[name])
    addresses: dict[tuple[str, str], list[Network]] = defaultdict(list)
    for key, kind, name in connection.execute("SELECT key, kind, id FROM source_address").fetchall():
        addresses[kind, name].append(_network(key))
    users: dict[str, list[str]] = defaultdict(list)
    for user, name in connection.execute("SELECT name, trunk FROM source_user").fetchall():
        users[name].append(user)
    for name, customer, credential in connection.execute("SELECT id, customer, credential FROM trunk").fetchall():
        networks = tuple(addresses["trunk", name])
        draft.put(Trunk(name, customers[customer], credential, networks, tuple(users[name])))
    for name, label, credential in connection.execute("SELECT id, name, credential FROM gateway").fetchall():
        draft.put(Gateway(name, label, credential, tuple(addresses["gateway", name])))


def _network(key: str) -> Network:
    version, bits, address = key.split("/")
    kinds: dict[str, Callable[[tuple[int, int]], Network]] = {"4": IPv4Network, "6": IPv6Network}
    return kinds[version]((int(address, 16), int(bits)))


def _copy_rights(connection: sqlite3.Connection, draft: SqliteDraft) -> None:
    columns = "customer, basis, document, use_case, valid_from, valid_until"
    spans: dict[tuple[Any, ...], list[Span]] = defaultdict(list)
    for first, last, *terms in connection.execute(f"SELECT first, last, {columns} FROM number_right ORDER BY id"):
        spans[tuple(terms)].append(Span(first, last))
    counts: dict[str, int] = defaultdict(int)
    for (customer, basis, *more), numbers in spans.items():
        right = Right(f"{customer}-{counts[customer]}", customer, Basis(basis), *more)
        counts[customer] += 1
        draft.put(right)
        draft.add_numbers(Right, right.id, numbers)
