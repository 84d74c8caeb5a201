"""A run that was never played, in which all is as it must be; tests spoil one thing of it."""

from __future__ import annotations

from bench.load import mix
from bench.load.judge import NONE, PASSED
from bench.load.observed import Arrival, Call, Event, Observation, Recorded, Sample
from bench.load.timeline import Timeline

BEGIN, SECONDS = 1_000.0, 300
"""POSIX seconds; as many calls are placed, one a second."""
FIRST, SECOND = "https://127.0.0.1:1/0.pem", "https://127.0.0.1:1/1.pem"
ADDED_AT, ROTATED_AT = BEGIN + 100.0, BEGIN + 200.0


def run() -> Observation:
    """One call a second: owned numbers, some that are added at `ADDED_AT`, some of a suspended customer."""
    in_force = {kind.name: Timeline(kind.outcome) for kind in mix.KINDS}
    in_force[mix.ADDED.name].change(ADDED_AT, ADDED_AT + 1, mix.A)
    keys = Timeline(frozenset({FIRST}))
    keys.change(ROTATED_AT, ROTATED_AT + 1, {SECOND})
    calls = [call(number) for number in range(SECONDS)]
    return Observation(
        BEGIN,
        BEGIN + SECONDS,
        {one.id: one for one in calls},
        in_force,
        keys,
        mix.Bounds(0.5, 2),
        SECONDS,
        events=[
            Event(ADDED_AT, ADDED_AT, "numbers added", "change"),
            Event(ROTATED_AT, ROTATED_AT, "key rotated", "key"),
            Event(BEGIN + 50, BEGIN + 53, "agent of the originating host killed", "originating agent"),
        ],
        memory={("originating kamailio SIP worker 1", 7): samples(), ("Redis", 8): samples(12)},
        pools={"originating kamailio shared pool": samples(13), "terminating kamailio shared pool": samples(12)},
        counters={"originating": {"signed_a": 200, "limits_unavailable": 0}, "terminating": {}},
        damaged={"originating": 0, "terminating": 0},
    )


def samples(mebibytes: float = 60.0, grows: float = 0.0) -> list[Sample]:
    """Memory each second, with so many octets more each time; it jumps in the beginning, as caches fill."""
    return [
        Sample(BEGIN + second, int(mebibytes * 2**20 * (0.7 if second < 20 else 1) + grows * second))
        for second in range(SECONDS)
    ]


def call(number: int) -> Call:
    """The call of a second, as it must be."""
    kind = (mix.OWNED, mix.ADDED, mix.BANNED, mix.PENDING)[number % 4]
    sent = BEGIN + number + 0.5
    made = Call(f"{number}-1@127.0.0.1", kind.name, sent, sent + 0.01, 200, sent + 0.1, sent + 0.11, 1)
    level: str | None = "A"
    if kind is mix.BANNED:
        made.status, made.hung_up, made.ended = 403, None, None
        made.signed = [Recorded("refuse", "suspended")]
        return made
    if kind is mix.PENDING:
        level = None
    elif kind is mix.ADDED and sent < ADDED_AT:
        level = "B"
    x5u = (FIRST if sent < ROTATED_AT else SECOND) if level else None
    verstat = PASSED if level else NONE
    made.arrivals = [Arrival(sent + 0.005, level, x5u, verstat, 1 if level else 0)]
    made.signed = [Recorded(level or "unsigned")]
    made.verified = [Recorded(verstat)]
    return made


def of(found: Observation, kind: mix.Kind, after: float = 0.0) -> Call:
    """The first call of a kind that was placed so many seconds after the beginning."""
    return next(one for one in found.calls.values() if one.kind == kind.name and one.sent >= BEGIN + after)
