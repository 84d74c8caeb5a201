"""Numbers of rights, or of the do-not-originate list, as CSV (RFC 4180, UTF-8)."""

from __future__ import annotations

import csv
from collections.abc import Collection
from typing import Any

from shaken_plugin.core.records import Right
from shaken_plugin.exchange.columns import NO_NUMBERS, Table, cells, shielded
from shaken_plugin.exchange.plain import plain
from shaken_plugin.ports import PolicyRecords


def write_numbers(records: PolicyRecords, table: Table, file: Any, *, customers: Collection[str] = ()) -> None:
    """Write one row for each number or range, by record and value, with all that is said of it.

    Args:
        records: the policy.
        table: what is written.
        file: a text file, opened with ``newline=""``.
        customers: rights of these alone; empty for all.

    Raises:
        StoreUnavailable, StoreError: the store cannot be read.
    """
    rows = csv.writer(file, lineterminator="\r\n")
    rows.writerow(table.header)
    for record in records.all(table.kind):
        if isinstance(record, Right) and customers and record.customer not in customers:
            continue
        texts = cells(table, plain(record))
        rest = [shielded(texts.get(column, "")) for column in (table.id, *table.columns)]
        empty = True
        for first, last in records.numbers(table.kind, record.id):
            rows.writerow([f"+{first}", "" if first == last else f"+{last}", *rest])
            empty = False
        if empty:
            rows.writerow([NO_NUMBERS, "", *rest])
