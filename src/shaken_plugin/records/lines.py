"""Reading lines of the spool again: whatever stands there, a row for the ledger or damage."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NamedTuple

from shaken_plugin.records.schema import mistake

MAX_KEPT: Final = 65_536
"""Octets of a damaged line that are kept."""

_MAX_TEXT: Final = 512
"""Longest value of a column, characters; the record itself is kept whole."""


class Line(NamedTuple):
    """What one line holds. ``offset`` is where it begins in its file."""

    offset: int
    columns: dict[str, Any]


class Damage(NamedTuple):
    """Octets that are no record: the end of a line that was not finished, or something else."""

    offset: int
    octets: bytes
    length: int
    why: str


def read_line(octets: bytes, offset: int) -> Line | Damage:
    """One line without its line break."""
    try:
        text = octets.decode("utf-8")
        record = json.loads(text)
        # Whoever reads the ledger relies on it: a type that is wrong here would make each of them stumble.
        if (name := mistake(record)) is not None:
            return damage(octets, offset, f"not a record of a call: {name}")
        at = float(record["at"])
        if not math.isfinite(at):
            return damage(octets, offset, "not a record of a call: at")
        return Line(offset, _columns(record, at, text))
    except (ValueError, TypeError, RecursionError, OverflowError) as exc:
        return damage(octets, offset, f"not a record of a call: {type(exc).__name__}")


def damage(octets: bytes, offset: int, why: str) -> Damage:
    """Damage, of which a bounded part is kept."""
    return Damage(offset, octets[:MAX_KEPT], len(octets), why)


def _columns(record: dict[str, Any], at: float, text: str) -> dict[str, Any]:
    version = record.get("policy_version")
    return {
        "at": at,
        "kind": record["kind"],
        "call_id": searchable(record.get("call_id")),
        "orig": searchable(record.get("orig")),
        "dest": searchable(record.get("dest")),
        "other": searchable(record.get("diverting") or record.get("substituted_for")),
        "customer": searchable(record.get("customer")),
        "level": searchable(record.get("level")),
        "verdict": searchable(record.get("result")),
        "refused": bool(record.get("refused") or record.get("rejected")),
        "unauthorised": bool(record.get("unauthorised")),
        "policy_version": version if isinstance(version, int) and 0 <= version < 2**63 else None,
        "record": text,
    }


def searchable(value: object) -> str | None:
    """A value as it stands in a column, and as it is to be searched by: cut, and what no database takes replaced."""
    if not isinstance(value, str):
        return None
    return value[:_MAX_TEXT].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
