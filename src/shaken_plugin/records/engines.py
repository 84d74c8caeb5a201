"""The databases that a ledger can lie in: how they are opened, and how they are named in messages."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from shaken_plugin import sqlitefile

_PATIENCE: Final[Mapping[str, str]] = {
    "connect_timeout": "5",
    "tcp_user_timeout": "15000",
    "application_name": "shaken",
}


def sqlite(path: Path, timeout: float) -> Engine:
    """A file; transactions with the option ``shaken_writes`` take turns."""

    def connect() -> sqlite3.Connection:
        connection = sqlitefile.connect(path, timeout)
        # A spool file is removed once its lines are here: they must be on the disk by then.
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    # No pool: the file may have been put aside, or restored, since.
    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("shaken_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def postgresql(url: str, password: str | None, timeout: float) -> Engine:
    """A server.

    Raises:
        ModuleNotFoundError: its library is not installed.
        ArgumentError, ValueError: it cannot be named so.
    """
    parts = make_url(url).set(drivername="postgresql+psycopg")
    if password is not None:
        parts = parts.set(password=password)
    parts = parts.update_query_dict({**_PATIENCE, **{name: str(value) for name, value in parts.query.items()}})
    return create_engine(
        parts,
        pool_size=1,
        max_overflow=2,
        pool_pre_ping=True,
        connect_args={"options": f"-c lock_timeout={int(timeout * 1000)} -c statement_timeout=60000"},
    )


def shown(url: str) -> str:
    """A ledger's URL for messages: where it lies, without parameters, and nothing that may be a password."""
    if not url.startswith("postgresql:"):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return "postgresql://***"
    user, at, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    return f"postgresql://{'***' if '%' in user else user}{at}{host}{parts.path}"
