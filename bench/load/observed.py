"""All that was seen of a run: of each call, of each process, of what happened meanwhile."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.load.mix import Bounds, Outcome
from bench.load.timeline import Timeline

Facts = dict[str, str]
"""Numbers for people, by their names."""

REDIS: Final = "Redis"
"""Its process, among the others."""


class Arrival(NamedTuple):
    """An INVITE as it came to the other side."""

    at: float
    level: str | None
    x5u: str | None
    verstat: str | None
    identities: int


class Recorded(NamedTuple):
    """What a host's ledger says of a call: its level or its verstat, and why."""

    what: str | None
    code: str | None = None
    at: float = 0.0


@dataclass(slots=True)
class Call:
    """One call. Times in POSIX seconds as SIPp saw them, None where it saw nothing."""

    id: str
    kind: str
    sent: float
    rang: float | None = None
    """The first answer that says what is decided: ringing, answered, or refused."""
    status: int | None = None
    """Of the final answer to its INVITE."""
    hung_up: float | None = None
    ended: float | None = None
    """Its BYE was answered."""
    transmissions: int = 0
    """Of its INVITE by the caller."""
    arrivals: list[Arrival] = field(default_factory=list)
    signed: list[Recorded] = field(default_factory=list)
    verified: list[Recorded] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome | None:
        """What became of it, None where that is not known."""
        if self.status is None:
            return None
        return Outcome(self.status, self.arrivals[0].level if self.arrivals else None)


class Sample(NamedTuple):
    """What a process has of its own at a time, or what is in use of a pool that processes share; in octets."""

    at: float
    octets: int
    touched: int = 0
    """Of a pool, by a process: what it has come to read or write there, the same memory for all who do."""


class Event(NamedTuple):
    """Something that was done while calls went on."""

    begin: float
    end: float
    what: str
    kind: str
    """change, key, originating agent or terminating agent."""


class Absence(NamedTuple):
    """An agent was not there."""

    host: str
    begin: float
    end: float


@dataclass(slots=True)
class Observation:
    """A whole run.

    Attributes:
        begin: of its calls.
        end: likewise.
        asked: how many calls SIPp was to place.
        shared: the limits are counted by a fleet of two hosts.
        calls: by Call-ID.
        in_force: what may become of calls, by kind.
        keys: URL of the certificate that signs.
        events: what was done.
        absences: of agents.
        bounds: of the limited customers.
        memory: of each process, by its name and pid.
        pools: likewise, of each pool of shared memory, by its name.
        gone: processes that ended by themselves.
        counters: of the plugin, by host.
        strangers: records of calls that nobody placed: host and Call-ID.
        damaged: lines that no ledger could take, by host.
        held: slots that are held once all calls are over.
        failed: calls of which SIPp says that they failed, with what it says.
        errors: what SIPp says of them.
    """

    begin: float
    end: float
    calls: dict[str, Call]
    in_force: Mapping[str, Timeline[Outcome]]
    keys: Timeline[str]
    bounds: Bounds
    asked: int
    shared: bool = True
    events: list[Event] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    memory: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    pools: dict[str, list[Sample]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    strangers: list[tuple[str, str]] = field(default_factory=list)
    damaged: dict[str, int] = field(default_factory=dict)
    held: float = 0.0
    failed: int = 0
    errors: str = ""

    def count(self, host: str, ledger: Path) -> None:
        """Read what a host has recorded, and put it to the calls.

        Args:
            host: its name.
            ledger: its SQLite file.
        """
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
            rows: Iterable[tuple[str]] = connection.execute("SELECT record FROM call ORDER BY seq")
            for (text,) in rows:
                self._put(host, json.loads(text))
            (self.damaged[host],) = connection.execute("SELECT count(*) FROM damaged").fetchone()

    def _put(self, host: str, record: dict[str, Any]) -> None:
        call = self.calls.get(record["call_id"])
        if call is None:
            self.strangers.append((host, record["call_id"]))
        elif record["kind"] == "sign":
            call.signed.append(Recorded(record["level"], record.get("refusal") or record.get("skip"), record["at"]))
        else:
            call.verified.append(Recorded(record.get("verstat"), record.get("code"), record["at"]))


def rows(ledger: Path) -> int:
    """How many records a ledger has."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM call").fetchone()[0])
