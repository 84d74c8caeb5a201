"""Records for tests, and what a ledger then holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select

from shaken_plugin.core.attestation import Step
from shaken_plugin.records.call import CallRecord
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.tables import CALL, DAMAGED, SPOOL
from tests.conftest import NOW

STEP = Step("source", True, "trunk main", "the call came over a trunk we know")


def record(**changes: Any) -> CallRecord:
    """The record of a call that got A."""
    values: dict[str, Any] = {
        "kind": "sign",
        "at": NOW,
        "node": "sip1",
        "call_id": "call-1@example.com",
        "orig": "12155551212",
        "dest": "12025550143",
        "customer": "acme",
        "level": "A",
        "policy_version": 1,
        "trace": (STEP,),
    }
    return CallRecord(**(values | changes))


def sqlite(folder: Path, timeout: float = 2.0) -> Ledger:
    return Ledger(f"sqlite:{folder / 'ledger.db'}", timeout=timeout)


def call_ids(ledger: Ledger) -> list[str]:
    """In the order of the ledger."""
    with ledger.reading() as connection:
        return [row.call_id for row in connection.execute(select(CALL.c.call_id).order_by(CALL.c.seq))]


def damaged(ledger: Ledger) -> list[tuple[str, bytes]]:
    with ledger.reading() as connection:
        return [(row.why, row.octets) for row in connection.execute(select(DAMAGED.c.why, DAMAGED.c.octets))]


def spool_rows(ledger: Ledger) -> dict[str, tuple[int, int, int]]:
    """Offset, lines and torn by file."""
    with ledger.reading() as connection:
        rows = connection.execute(select(SPOOL.c.file, SPOOL.c.offset, SPOOL.c.lines, SPOOL.c.torn))
        return {row.file: (row.offset, row.lines, row.torn) for row in rows}
