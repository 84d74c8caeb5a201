"""The ledger's tables, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION: Final = 1
"""Version of these tables; a ledger with a newer one is refused."""

METADATA: Final = MetaData()

_ID = BigInteger().with_variant(Integer, "sqlite")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Compared by octets, so that numbers can be searched by their beginning through the index."""

LEDGER: Final = Table("ledger", METADATA, Column("version", Integer, nullable=False))

CALL: Final = Table(
    "call",
    METADATA,
    Column("seq", _ID, primary_key=True, autoincrement=True),
    Column("file", _TEXT, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("kind", _TEXT, nullable=False),
    Column("call_id", _TEXT),
    Column("orig", _TEXT),
    Column("dest", _TEXT),
    Column("other", _TEXT),
    Column("customer", _TEXT),
    Column("level", _TEXT),
    Column("verdict", _TEXT),
    Column("refused", Boolean, nullable=False),
    Column("unauthorised", Boolean, nullable=False),
    Column("policy_version", BigInteger),
    Column("record", Text, nullable=False),
    UniqueConstraint("file", "offset"),
    Index("call_at", "at"),
    Index("call_call_id", "call_id"),
    Index("call_orig", "orig", "at"),
    Index("call_dest", "dest", "at"),
    Index("call_other", "other", "at"),
    Index("call_customer", "customer", "at"),
    sqlite_autoincrement=True,  # the number of a removed record never comes back: it is others' cursor
)
"""``seq`` grows in the order of commits. ``other`` is the number that sends the call on, or that
another was put in the place of."""

SPOOL: Final = Table(
    "spool",
    METADATA,
    Column("file", _TEXT, primary_key=True),
    Column("offset", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("torn", BigInteger, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("updated", Float(53), nullable=False),
)
"""How far each file was read; ``done`` where it will not grow and is being removed."""

DAMAGED: Final = Table(
    "damaged",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("file", _TEXT, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("why", Text, nullable=False),
    Column("octets", LargeBinary, nullable=False),
    UniqueConstraint("file", "offset"),
)
"""Lines that are no records: nothing is lost without a trace."""
