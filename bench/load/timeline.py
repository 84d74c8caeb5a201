"""What was in force when, and what calls may have met while a change was arriving."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

ARRIVES_WITHIN: Final = 1.0
"""Seconds within which a change decides calls on every host."""

T = TypeVar("T", bound=Hashable)


class Change(NamedTuple, Generic[T]):
    """Something else is in force: for some calls from ``begins`` on, for all from ``ends`` on. POSIX seconds."""

    begins: float
    ends: float
    after: frozenset[T]


@dataclass(slots=True)
class Timeline(Generic[T]):
    """What is in force of one matter, as a run goes on."""

    first: frozenset[T]
    changes: list[Change[T]] = field(default_factory=list)

    def change(self, begins: float, ends: float, after: Iterable[T]) -> None:
        """Add what happened after all that is there."""
        self.changes.append(Change(begins, ends, frozenset(after)))

    def put_off(self, since: float, until: float) -> None:
        """Changes that began since then may arrive as late as ``until``: nobody was there to take them."""
        self.changes = [one._replace(ends=max(one.ends, until)) if one.begins >= since else one for one in self.changes]

    def during(self, begin: float, end: float) -> tuple[frozenset[T], bool]:
        """What may have been in force at any moment of a span, and whether a change was arriving then."""
        found, arriving = self.first, False
        for one in self.changes:
            if one.ends <= begin:
                found = one.after
            elif one.begins <= end:
                found, arriving = found | one.after, True
        return found, arriving
