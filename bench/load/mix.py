"""Whose calls are placed, with which numbers, and what is to become of them as the policy is at first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple


class Outcome(NamedTuple):
    """What becomes of a call: the final answer, and the level with which it comes to the other side, if it does."""

    status: int
    level: str | None = None

    def __str__(self) -> str:
        if self.status != 200:
            return f"answered {self.status}" + (f", and level {self.level} at the other side" if self.level else "")
        return "unsigned" if self.level is None else f"level {self.level}"


A, B, C = (frozenset({Outcome(200, level)}) for level in "ABC")
UNSIGNED: Final = frozenset({Outcome(200)})
REFUSED: Final = frozenset({Outcome(403)})
BOUNDED: Final = frozenset({Outcome(200, "A"), Outcome(480)})
"""By a limit: either may be, and how many are is judged apart."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls of which the same is expected at any time.

    Attributes:
        name: for people.
        share: how many of a hundred calls.
        source: where they come from.
        numbers: first and last calling number.
        outcome: what may become of them as the policy is at first.
        lasts: milliseconds from the answer to the end.
    """

    name: str
    share: int
    source: str
    numbers: tuple[str, str]
    outcome: frozenset[Outcome]
    lasts: int = 20

    @property
    def span(self) -> str:
        """Its numbers, as files and commands write them."""
        return "..".join(self.numbers)


LONG: Final = 1_500
"""Milliseconds of the calls that are bounded in how many there are at a time."""

_DIALLER: Final = "127.0.0.2"

OWNED: Final = Kind("owned", 40, _DIALLER, ("+12155551000", "+12155551099"), A)
STRANGE: Final = Kind("no right", 8, _DIALLER, ("+13125559900", "+13125559919"), B)
LETTER: Final = Kind("letter", 10, _DIALLER, ("+13125550100", "+13125550119"), A)
ADDED: Final = Kind("added", 10, _DIALLER, ("+14155550100", "+14155550119"), B)
WITHHELD: Final = Kind("do not originate", 2, _DIALLER, ("+12155552000", "+12155552009"), REFUSED)
SWITCHED: Final = Kind("suspended at times", 8, "127.0.0.3", ("+12155553000", "+12155553019"), A)
BANNED: Final = Kind("suspended", 4, "127.0.0.4", ("+12155554000", "+12155554009"), REFUSED)
PENDING: Final = Kind("pending", 4, "127.0.0.5", ("+12155555000", "+12155555009"), UNSIGNED)
GATEWAY: Final = Kind("gateway", 6, "127.0.0.6", ("+16465550100", "+16465550119"), C)
LIMITED: Final = Kind("limited in rate", 4, "127.0.0.7", ("+12155556000", "+12155556009"), BOUNDED)
CROWDED: Final = Kind("limited at a time", 4, "127.0.0.8", ("+12155557000", "+12155557009"), BOUNDED, LONG)
KINDS: Final = (OWNED, STRANGE, LETTER, ADDED, WITHHELD, SWITCHED, BANNED, PENDING, GATEWAY, LIMITED, CROWDED)

IN_TRANSIT: Final = Kind("signed before a rotation", 0, "127.0.0.9", ("+12155558000", "+12155558000"), A)
"""Signed with the key of before and placed after a rotation, at the terminating host alone."""
UNKNOWN: Final = Kind("of signers nobody knew", 0, IN_TRANSIT.source, IN_TRANSIT.numbers, A)
"""Each of a signer of its own, at the terminating host alone, before all others."""
ARRIVING: Final = frozenset({IN_TRANSIT.name, UNKNOWN.name})
"""Kinds of calls that the originating host never sees."""

DIALLER: Final = "dialler"
"""The customer whose calls all count against a limit, which they never come near."""
LETTER_ID: Final = "LOA-1"

CALLED: Final = ("+12025550100", "+12025550199")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the limited customers may have, of which they ask for about twice as much."""

    per_second: float
    at_a_time: int

    @classmethod
    def of(cls, rate: float) -> Bounds:
        """For so many calls a second in all."""
        crowded = rate * CROWDED.share / 100 * (LONG / 1_000 + 0.1)
        return cls(rate * LIMITED.share / 100 / 2, max(1, round(crowded / 2)))


def kind_of(source: str, number: str) -> Kind | None:
    """Of which kind a call is."""
    for kind in KINDS:
        if kind.source == source and kind.numbers[0] <= number <= kind.numbers[1]:
            return kind
    return None


def policy(bounds: Bounds) -> dict[str, Any]:
    """The records as the run begins."""

    def customer(name: str, kind: Kind, **more: Any) -> dict[str, Any]:
        trunks = [{"id": f"{name}-1", "addresses": [kind.source]}]
        return {"id": name, "name": f"Customer {name}", "state": "verified", "trunks": trunks, **more}

    def right(name: str, kind: Kind, **more: Any) -> dict[str, Any]:
        return {"customer": name, "basis": "assigned", "numbers": [kind.span], **more}

    never = {"calls_per_second": 100_000, "concurrent": 100_000}
    own = {"switched": SWITCHED, "banned": BANNED, "pending": PENDING, "limited": LIMITED, "crowded": CROWDED}
    letter = {"id": LETTER_ID, "basis": "letter", "document": LETTER_ID, "use_case": "reminders", "owner": "Clinic"}
    return {
        "customers": [
            customer(DIALLER, OWNED, limits=never),
            customer("switched", SWITCHED),
            customer("banned", BANNED, state="suspended"),
            customer("pending", PENDING, state="pending"),
            customer("limited", LIMITED, limits={"calls_per_second": bounds.per_second}),
            customer("crowded", CROWDED, limits={"concurrent": bounds.at_a_time}),
        ],
        "gateways": [{"id": "gateway", "name": "Gateway", "addresses": [GATEWAY.source]}],
        "rights": [right(DIALLER, OWNED), right(DIALLER, LETTER, **letter)] + [right(*one) for one in own.items()],
        "do_not_originate": [{"reason": "unused", "numbers": [WITHHELD.span]}],
    }


def write_calls(path: Path, count: int = 1_000) -> None:
    """An injection file for SIPp: calls of all kinds by their shares, evenly mixed."""
    lines = ["SEQUENTIAL", *(";".join(one) + ";" for one in islice(_calls(), count))]
    path.write_text("\n".join(lines) + "\n", "ascii")


def _calls() -> Iterator[tuple[str, str, str, str]]:
    called = _numbers(CALLED)
    callers = {kind.name: _numbers(kind.numbers) for kind in KINDS}
    owed = dict.fromkeys((kind.name for kind in KINDS), 0)
    while True:
        # Whose turn it is: who has had least of what is due to it.
        for kind in KINDS:
            owed[kind.name] += kind.share
        kind = max(KINDS, key=lambda one: owed[one.name])
        owed[kind.name] -= 100
        yield kind.source, next(callers[kind.name]), next(called), str(kind.lasts)


def _numbers(span: tuple[str, str]) -> Iterator[str]:
    first, last = (int(number) for number in span)
    while True:
        yield from (f"+{number}" for number in range(first, last + 1))
