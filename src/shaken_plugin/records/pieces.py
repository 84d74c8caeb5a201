"""What was read of spool files, and writing it to the ledger's tables together with how far that was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, insert, select, update

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.records.lines import Damage, Line, damage
from shaken_plugin.records.tables import CALL, DAMAGED, SPOOL


class Moved(Exception):
    """Somebody else has read the file further meanwhile: what was to be written is theirs."""


class Refused(StoreUnavailable):
    """The database does not take what stands in a file; nothing was written."""


class Progress(NamedTuple):
    """How far a file was read."""

    offset: int
    done: bool


class Piece(NamedTuple):
    """What was read of one file from ``begin`` to ``end``; ``done`` where it will not grow any more."""

    file: str
    begin: int
    end: int
    found: tuple[Line | Damage, ...]
    torn: int
    done: bool
    removed: Callable[[], bool] = lambda: False
    """Whether somebody else has removed the file meanwhile."""


class Stored(NamedTuple):
    """Of the lines that were to be written: how many were there already, and at how many places stands another."""

    known: int
    different: int


def write(connection: Connection, pieces: Sequence[Piece], now: float) -> Stored:
    """Write what was read, and how far, within a transaction. What is there already is not written again.

    Raises:
        Moved: somebody else was faster; the transaction is to be given up.
    """
    calls: list[dict[str, Any]] = []
    damaged: list[dict[str, Any]] = []
    known = different = 0
    for piece in pieces:
        _advance(connection, piece, now)
        # A file that was copied back begins anew: its lines are here.
        there = _there(connection, CALL, CALL.c.record, piece)
        told = _there(connection, DAMAGED, DAMAGED.c.why, piece)
        for one in piece.found:
            if isinstance(one, Line) and one.offset in there:
                if there[one.offset] == one.columns["record"]:
                    known += 1
                    continue
                different += 1
                octets = one.columns["record"].encode()
                one = damage(octets, one.offset, "another record than the ledger has from there")  # noqa: PLW2901  # the line becomes its damage
            place = {"file": piece.file, "offset": one.offset}
            if isinstance(one, Line):
                calls.append(place | one.columns)
            elif one.offset not in told:
                damaged.append(place | one._asdict() | {"at": now})
    if calls:
        connection.execute(insert(CALL), calls)
    if damaged:
        connection.execute(insert(DAMAGED), damaged)
    return Stored(known, different)


def _there(connection: Connection, table: Table, column: ColumnElement[Any], piece: Piece) -> dict[int, Any]:
    """What the ledger has of the part of a file that a piece comes from, by offset."""
    if not piece.found:
        return {}
    place = table.c.offset
    within = (table.c.file == piece.file) & (place >= piece.begin) & (place < max(piece.end, piece.begin + 1))
    return {row[0]: row[1] for row in connection.execute(select(place, column).where(within))}


def _advance(connection: Connection, piece: Piece, now: float) -> None:
    """Note how far a file was read, from where this piece begins."""
    lines = sum(isinstance(one, Line) for one in piece.found)
    known = connection.execute(select(SPOOL.c.offset).where(SPOOL.c.file == piece.file)).scalar()
    if (known or 0) != piece.begin or piece.removed():
        raise Moved(piece.file)
    values: dict[str, Any] = {"offset": piece.end, "done": piece.done, "updated": now}
    if known is None:
        connection.execute(insert(SPOOL).values(file=piece.file, lines=lines, torn=piece.torn, **values))
    else:
        values |= {"lines": SPOOL.c.lines + lines, "torn": SPOOL.c.torn + piece.torn}
        connection.execute(update(SPOOL).where(SPOOL.c.file == piece.file).values(values))
