"""docs/policy-files.md says what the code does."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.exchange.columns import REJECT_COLUMNS, TABLES, Table
from tests.exchange.policies import load, made

MANUAL = (Path(__file__).parents[2] / "docs" / "policy-files.md").read_text("utf-8")


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_column_is_described(table: Table) -> None:
    assert [column for column in (*table.header, *REJECT_COLUMNS) if f"`{column}`" not in MANUAL] == []


def test_the_table_of_the_manual_is_imported() -> None:
    block = re.search(r"```\n(number,.*?)```", MANUAL, re.DOTALL)
    assert block is not None
    store = made([Customer("acme", "Acme", CustomerState.VERIFIED)])
    outcome = load(store, block[1])
    assert outcome.rejected == 0
    assert outcome.rows == len(list(csv.reader(block[1].splitlines()))) - 1
