"""Both databases that a ledger can lie in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from shaken_plugin.records.ledger import Ledger
from tests.records.builders import sqlite
from tests.records.server import MISSING, PROGRAMS, Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if not PROGRAMS:
        if os.environ.get("SHAKEN_REQUIRE_ALL"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with running() as made:
        yield made


def emptied(server: Server) -> Ledger:
    ledger = Ledger(server.url)
    with ledger.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty one."""
    made = sqlite(tmp_path) if request.param == "sqlite" else emptied(request.getfixturevalue("server"))
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The spool's, which is not there yet."""
    return tmp_path / "calls"
