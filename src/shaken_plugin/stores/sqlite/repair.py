"""Rows that no change of ours leaves behind, set right: somebody wrote to the file past us.

Whoever has the switch's user can write to the file. `apply --overwrite` must bring back what the policy file
says, so it looks at every row that could say otherwise to a call, and not only at what a draft reads.
"""

from __future__ import annotations

import sqlite3

from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.errors import NumberError, StoreError
from shaken_plugin.ports import Span
from shaken_plugin.stores.drafts import link_keys
from shaken_plugin.stores.policy import KINDS, span_keys
from shaken_plugin.stores.sqlite.codec import decode
from shaken_plugin.stores.sqlite.draft import shapes_of


def repair(connection: sqlite3.Connection, version: int) -> None:
    """Have look-ups find what the records in force say; records that cannot be read go.

    Args:
        connection: in a writing transaction.
        version: the one in force.
    """
    for table in ("record", "span", "number"):
        connection.execute(f"DELETE FROM {table} WHERE since > ? OR since IS NULL", (version,))
    connection.execute(
        "DELETE FROM record WHERE until IS NULL AND since < (SELECT max(since) FROM record AS newer "
        "WHERE newer.kind = record.kind AND newer.id = record.id AND newer.until IS NULL)"
    )
    connection.execute("DELETE FROM link")
    for kind, identifier, body in connection.execute(
        "SELECT kind, id, body FROM record WHERE until IS NULL"
    ).fetchall():
        try:
            record = decode(KINDS[kind], body, lambda name: Customer(name, "", CustomerState.PENDING))
            if record.id != identifier:
                raise StoreError("it says that it is another record")
        except (StoreError, LookupError, TypeError):
            connection.execute("DELETE FROM record WHERE kind IS ? AND id IS ? AND until IS NULL", (kind, identifier))
            continue
        connection.executemany(
            "INSERT INTO link VALUES (?, ?, ?)", [(key, kind, identifier) for key in link_keys(record)]
        )
        connection.executemany("INSERT OR IGNORE INTO shape VALUES (?, ?)", shapes_of(record))
    for table in ("span", "number"):
        connection.execute(
            f"DELETE FROM {table} WHERE until IS NULL AND owner NOT IN (SELECT owner.number FROM owner JOIN record "
            "ON record.kind = owner.kind AND record.id = owner.id AND record.until IS NULL)"
        )
    _repair_ranges(connection)
    connection.execute(
        "INSERT OR IGNORE INTO shape SELECT DISTINCT 'number', key / 1000000000000000 FROM number WHERE until IS NULL"
    )


def _repair_ranges(connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM number WHERE span != 0 AND (until IS NULL OR span IN (SELECT id FROM span WHERE until IS NULL))"
    )
    rows = connection.execute("SELECT id, owner, first, last, since FROM span WHERE until IS NULL").fetchall()
    for identifier, owner, first, last, since in rows:
        try:
            keys = list(span_keys(Span(str(first), str(last))))
        except NumberError:
            connection.execute("DELETE FROM span WHERE id = ?", (identifier,))
            continue
        connection.executemany(
            "INSERT INTO number (key, owner, span, since) VALUES (?, ?, ?, ?)",
            [(key, owner, identifier, since) for key in keys],
        )
