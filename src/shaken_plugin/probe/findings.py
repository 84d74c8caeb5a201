"""What can become of a call and its Identity headers: the words of a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from shaken_plugin.core.call import CallMessage
from shaken_plugin.probe.message import Message


class Grade(Enum):
    """How bad a finding is."""

    GOOD = "good"
    NOTE = "note"
    """Allowed, and harmless to whoever keeps the standards."""
    WARNING = "warning"
    BAD = "bad"


class Kind(Enum):
    """What can become of Identity headers; the member's name in lower case is the stable name."""

    INTACT = ("intact", Grade.GOOD)
    RENAMED = ("renamed", Grade.NOTE)
    RESPELLED = ("spelled otherwise", Grade.NOTE)
    DATE_ADDED = ("Date added", Grade.NOTE)
    ADDED = ("one added", Grade.WARNING)
    FRAGMENTED = ("fragmented", Grade.WARNING)
    CALLED_TWICE = ("call doubled", Grade.WARNING)
    NOT_PASSED_ON = ("not passed on", Grade.WARNING)
    UNCLEAR = ("cannot be told", Grade.WARNING)
    STRIPPED = ("stripped", Grade.BAD)
    FIRST_ONLY = ("first only", Grade.BAD)
    ALTERED = ("altered", Grade.BAD)
    DUPLICATED = ("duplicated", Grade.BAD)
    REORDERED = ("reordered", Grade.BAD)
    DATE_CHANGED = ("Date changed", Grade.BAD)
    NUMBER_REWRITTEN = ("number rewritten", Grade.BAD)
    REFUSED = ("refused", Grade.BAD)
    NOT_SENT = ("not sent", Grade.BAD)
    LOST_CALL = ("lost call", Grade.BAD)
    LOST_BY_SIZE = ("lost by size", Grade.BAD)

    @property
    def title(self) -> str:
        """For people."""
        return self.value[0]

    @property
    def grade(self) -> Grade:
        """How bad it is."""
        return self.value[1]


class Finding(NamedTuple):
    """One thing that happened. ``header`` counts the headers that were sent, from 1; 0 for the call."""

    kind: Kind
    text: str
    header: int = 0
    diff: tuple[str, ...] = ()
    """``- what was sent``, ``+ what arrived``."""


class Leg(NamedTuple):
    """A request at one place: the message, when (POSIX seconds, None where unknown) and how it travelled."""

    message: Message
    at: float | None = None
    transport: str = ""
    fragments: int = 1
    """IP packets it came in, as far as it was seen or must be by its size."""
    peer: str = ""


class Verification(NamedTuple):
    """Whether a verifier would pass a call, and if not why; ``code`` is that of `errors.FailureCode`."""

    holds: bool
    code: str = ""
    detail: str = ""


Checker = Callable[[CallMessage, float | None], Verification]
"""Verifies a call at a time; None where the time is not known."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All about one call. ``after`` are its copies behind the PBX, retransmissions left out."""

    name: str
    before: Leg
    after: tuple[Leg, ...]
    findings: tuple[Finding, ...]
    verification: Verification | None = None
    """Of the first copy as it arrived; None where none did, or it cannot be told."""
    what: str = ""
    status: int | None = None
    """Final answer to the call, None without one."""
    server: str = ""
    """What the PBX says it is (User-Agent, Server)."""
    trace: tuple[Step, ...] = field(default=())

    @property
    def kinds(self) -> frozenset[Kind]:
        """What was found."""
        return frozenset(finding.kind for finding in self.findings)

    @property
    def preserved(self) -> bool:
        """Whether nothing bad was found."""
        return all(finding.kind.grade is not Grade.BAD for finding in self.findings)


class Step(NamedTuple):
    """One message of a call, for the ladder: ``path`` counts columns from the left."""

    at: float
    path: tuple[int, int]
    label: str
    note: str = ""
