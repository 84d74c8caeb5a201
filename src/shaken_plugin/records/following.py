"""Reading on in the ledger: what came since, for whoever must see every record once."""

from __future__ import annotations

import json
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.place import Place
from shaken_plugin.records.search import Found
from shaken_plugin.records.tables import CALL


class Reading(NamedTuple):
    """What was read between two places. ``anew``: it is another ledger, read from its beginning."""

    found: tuple[Found, ...]
    until: Place
    anew: bool


def unauthorised_after(ledger: Ledger, place: Place, limit: int) -> Reading:
    """The records of unauthorised caller IDs behind a place, in order; all others are passed over.

    Raises:
        StoreUnavailable: it cannot be read now.
        StoreError: it is of another schema.
    """
    with ledger.reading() as connection:
        last = connection.execute(select(func.max(CALL.c.seq))).scalar() or 0
        anew = _is_another(connection, place, last)
        since = Place() if anew else place
        if last <= since.seq:
            return Reading((), since, anew)
        asked = (
            select(CALL.c.seq, CALL.c.file, CALL.c.offset, CALL.c.record)
            .where(CALL.c.seq > since.seq, CALL.c.seq <= last, CALL.c.unauthorised)
            .order_by(CALL.c.seq)
            .limit(limit)
        )
        found = tuple(
            Found(row.seq, f"{row.file}:{row.offset}", json.loads(row.record)) for row in connection.execute(asked)
        )
        until = Place(found[-1].seq, found[-1].id) if len(found) == limit else _place(connection, last)
        return Reading(found, until, anew)


def _place(connection: Connection, seq: int) -> Place:
    row = connection.execute(select(CALL.c.file, CALL.c.offset).where(CALL.c.seq == seq)).one_or_none()
    return Place(seq, "" if row is None else f"{row.file}:{row.offset}")


def _is_another(connection: Connection, place: Place, last: int) -> bool:
    """Whether the place is of another ledger than this."""
    if place.seq == 0:
        return False
    here = _place(connection, place.seq)
    if here.id:
        return here.id != place.id
    return 0 < last < place.seq  # else the record was pruned
