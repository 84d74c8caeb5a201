"""What a right to a number is worth: does it give A now, and what does it lack?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from shaken_plugin.core.records import BASIS_TEXT, Basis, Right

DOCUMENTED: Final = frozenset({Basis.ASSIGNED, Basis.PORTED, Basis.RESPORG, Basis.LETTER, Basis.DELEGATE})
"""Bases that give A, and the right to sign that a call was diverted."""
# The customer's own word is not among them: the Lingo consent decree (FCC, 2024) punished an A
# that rested on the customer's certification alone.

APPROVED: Final = DOCUMENTED - {Basis.ASSIGNED}
"""Bases that a person has to look at, where approval is required; what we assigned we have approved."""

NAMED: Final = frozenset({Basis.LETTER, Basis.DELEGATE})
"""Bases that are nothing without the document that a right names."""


class Lack(NamedTuple):
    """Why a right does not give A, and what would."""

    finding: str
    missing: str


def in_force(right: Right, now: float) -> bool:
    """Whether a right holds at this time, POSIX seconds: within its dates, and not suspended."""
    return (
        not right.suspended
        and (right.valid_from is None or right.valid_from <= now)
        and (right.valid_until is None or now < right.valid_until)
    )


def is_documented(right: Right, now: float) -> bool:
    """Whether a document, or we ourselves, say at this time that the number may be used."""
    return right.basis in DOCUMENTED and not names_nothing(right) and in_force(right, now)


def names_nothing(right: Right) -> bool:
    """Whether a right rests on a document and does not say which."""
    return right.basis in NAMED and not right.document


def lacks(right: Right, now: float, *, require_approval: bool = False) -> tuple[Lack, ...]:
    """All that keeps a right from giving A; none where it does.

    Args:
        right: the grant.
        now: POSIX seconds.
        require_approval: whether somebody must have approved it.
    """
    what = BASIS_TEXT[right.basis]
    found = []
    if right.basis not in DOCUMENTED:
        found.append(Lack(f"the right rests on {what} alone", "a letter of authorisation, or another documented right"))
    if names_nothing(right):
        found.append(Lack("the right names no document", f"the reference of the {what}"))
    if right.valid_until is not None and now >= right.valid_until:
        found.append(
            Lack(f"the right ({what}) ended on {_day(right.valid_until)}", f"a renewal of {right.document or what}")
        )
    elif right.valid_from is not None and now < right.valid_from:
        found.append(
            Lack(f"the right ({what}) begins on {_day(right.valid_from)}", f"a call after {_day(right.valid_from)}")
        )
    if right.suspended:
        found.append(Lack(f"the right ({what}) is suspended", f"{right.document or what} put in force again"))
    if require_approval and right.basis in APPROVED and right.approved_by is None:
        found.append(Lack(f"nobody has approved the right ({what})", f"the approval of {right.document or what}"))
    return tuple(found)


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
