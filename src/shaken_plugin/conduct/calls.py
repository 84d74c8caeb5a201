"""Records of calls as calls that count, and what is kept of them as evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from shaken_plugin.conduct.accounts import Unauthorised
from shaken_plugin.records.search import Found

_KEPT: Final = (
    "call_id",
    "at",
    "node",
    "source",
    "user",
    "trunk",
    "orig",
    "substituted_for",
    "dest",
    "level",
    "refused",
    "refusal",
    "attest",
    "origid",
    "policy_version",
    "missing",
)
"""What of a record is evidence."""

_LONGEST: Final = 256
"""Characters of a text, and …"""
_MOST: Final = 16
"""… texts of a list that are kept: parts of a record are written by strangers."""


def counting(found: Iterable[Found]) -> Iterator[Unauthorised]:
    """The calls that count against a customer, or would outside of mode observe.

    Whether they count was decided with the call (``offence``); those of emergencies never do.
    """
    for one in found:
        record = one.record
        # Where another number was put in its place, the one that came is what counts.
        customer, number = record.get("customer"), record.get("substituted_for") or record.get("orig")
        if record.get("kind") != "sign" or record.get("offence") is not True or record.get("emergency"):
            continue
        if isinstance(customer, str) and isinstance(number, str):
            body: dict[str, Any] = {name: _cut(record[name]) for name in _KEPT if name in record}
            observed = bool(record.get("observe"))
            yield Unauthorised(one.id, _cut(customer), _cut(number), float(record["at"]), body, observed)


def _cut(value: Any) -> Any:
    """A value bounded, and without what no database takes: half of a surrogate pair stands for a wrong octet."""
    if isinstance(value, str):
        return value[:_LONGEST].encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_cut(part) for part in value[:_MOST]]
    return value
