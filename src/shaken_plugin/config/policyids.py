"""Ids of rights and of do-not-originate entries to which their file gives none.

They follow from what the record is about and not from where it stands, so that a file may be sorted, and a right be
prolonged, without making another record of it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from shaken_plugin.core.records import Basis, Withheld

MAX_ID: Final = 64
"""Longest id, characters (`config.models.Name`)."""

_NO_PART_OF_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def right_id(customer: str, basis: Basis, document: str | None, use_case: str | None) -> str:
    """``acme-letter-LOA-2026-113``; with a check sum where that does not say everything."""
    return _made((customer, basis.value, document), hidden=use_case)


def withheld_id(reason: Withheld, note: str | None) -> str:
    """``unused``; with a check sum of the note where there is one."""
    return _made((reason.value,), hidden=note)


def _made(parts: tuple[str | None, ...], hidden: str | None) -> str:
    plain = "-".join(part for part in parts if part is not None)
    name = _NO_PART_OF_A_NAME.sub("_", plain)
    if hidden is None and name == plain and len(name) <= MAX_ID:
        return name
    digest = hashlib.sha256("\0".join(part or "" for part in (*parts, hidden)).encode()).hexdigest()[:8]
    return f"{name[: MAX_ID - 1 - len(digest)]}-{digest}"


class Ids:
    """The ids of one kind in a file."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def given(self, name: str) -> bool:
        """Take the id that the file gives; whether it is the first of that name."""
        first = name not in self._taken
        self._taken.add(name)
        return first

    def made(self, wanted: str) -> str:
        """Take ``wanted``, or it with the first number behind it that makes it another than all others: ``…-2``."""
        name, count = wanted, self._counts.get(wanted, 1)
        while not self.given(name):
            count += 1
            name = f"{wanted[: MAX_ID - 1 - len(str(count))]}-{count}"
        self._counts[wanted] = count
        return name
