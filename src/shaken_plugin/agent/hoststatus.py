"""What this host says of itself, and what it makes of what the others of its fleet say."""

from __future__ import annotations

import asyncio
import math
import platform
import sqlite3
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from shaken_plugin import __version__
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.breaker import Breaker
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.parts import Fleet
from shaken_plugin.agent.replication import Replication
from shaken_plugin.config.sections import Settings
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.patience import BUSY_TIMEOUT
from shaken_plugin.sqlitefile import Connections
from shaken_plugin.stores.redis.hosts import Hosts, HostStatus, Said
from shaken_plugin.stores.sqlite.schema import DAMAGE, policy_version
from shaken_plugin.stores.sqlite.sharing import is_copy

REPORT_EVERY: Final = 2.0
"""Seconds between two reports."""
SPAN: Final = 10.0
"""Seconds over which calls are counted."""
SHOWN: Final = 5
"""Alarms that a report has."""


class Rate:
    """How many of something there are a second, over the last seconds."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def now(self, total: int, at: float) -> float:
        """The rate, from a count that only grows."""
        counts = self._counts
        if counts and (at < counts[-1][0] or total < counts[-1][1]):
            counts.clear()  # the clock was put back
        counts.append((at, total))
        while len(counts) > 2 and at - counts[1][0] >= SPAN:
            counts.popleft()
        begin, before = counts[0]
        return 0.0 if at <= begin else (total - before) / (at - begin)


class HostReport:
    """This host's status, and the fleet's.

    Args:
        path: the policy's file.
        calls: how many records of calls were collected so far; None where they are not kept.
        fleet: where it is said; None for a host on its own.
        replication: knows the copy; None likewise.
        breaker: says whether Redis is asked.
        alarms: told of hosts that lag; shown to the others.
        metrics: set.
        clock: POSIX seconds.
    """

    def __init__(
        self,
        path: Path,
        calls: Callable[[], int | None],
        fleet: Fleet | None,
        replication: Replication | None,
        breaker: Breaker,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        # Kept open: were a change's the only connection, its end would lock the file for as long as the disk takes.
        self._connections = Connections(path, BUSY_TIMEOUT, lambda _: None)
        self._calls = calls
        self._fleet = fleet
        self._replication = replication
        self._breaker = breaker
        self._alarms = alarms
        self._metrics = metrics
        self._clock = clock
        self._begun = clock()
        self._instance = uuid.uuid4().hex
        self._reported = False
        self._rate = Rate()
        self._lagging: set[str] = set()
        self._labels: tuple[str, ...] = ()
        self._thread = ThreadPoolExecutor(1, "hosts")
        self.parts: dict[str, Callable[[], Any]] = {}
        """Further parts of the agent that have something to say, by name: values must be JSON."""
        self.live = 1
        """How many hosts of the fleet were there when it was last known, this one among them."""
        self.status = HostStatus(host=self._name, agent=__version__)
        """As it was looked at last."""

    @property
    def _name(self) -> str:
        return platform.node() if self._fleet is None else self._fleet.host

    async def look(self) -> None:
        """Look at this host; in a fleet, say how it is, and see how the others are."""
        loop = asyncio.get_running_loop()
        schema, version = await loop.run_in_executor(self._thread, self._file)
        self.status = status = self._look(schema, version)
        self._count(status)
        if self._fleet is None:
            await loop.run_in_executor(self._thread, self._look_whose)
            return
        fleet = self._fleet

        def report() -> Hosts:
            with self._breaker.asking():
                return fleet.hosts.report(status)

        try:
            hosts = await loop.run_in_executor(self._thread, report)
        except StoreUnavailable:
            return  # the breaker is open, which is an alarm; what is known of the others stays
        except StoreError as exc:
            self._alarms.on("status_unreported", f"{exc}; the fleet does not hear of this host")
            return
        self._alarms.clear("status_unreported")
        self._compare(hosts, status)

    def _look_whose(self) -> None:
        """A host was moved into a fleet, and its agent does not follow it."""
        try:
            copied = is_copy(self._connections.get())
        except (sqlite3.Error, OSError, StoreError):
            self._connections.forget()
            return
        if copied:
            text = "the policy is a copy of a fleet's, which this agent does not keep: it began without store.redis"
            self._alarms.on("not_following", f"{text}. Restart it with settings that name the fleet")
        else:
            self._alarms.clear("not_following")

    def _file(self) -> tuple[int | None, int | None]:
        """Schema and policy version of the file; None where they cannot be read."""
        try:
            connection = self._connections.get()
            schema = int(connection.execute("PRAGMA user_version").fetchone()[0])
            return schema or None, policy_version(connection) if schema else None
        except (sqlite3.Error, OSError, StoreError, *DAMAGE):
            self._connections.forget()
            return None, None

    def _look(self, schema: int | None, version: int | None) -> HostStatus:
        now, calls = self._clock(), self._calls()
        replication = self._replication
        age = None if replication is None else replication.age()
        recent = [Said(**said) for said in self._alarms.recent()[:SHOWN]]
        return HostStatus(
            host=self._name,
            agent=__version__,
            instance=self._instance,
            up=round(max(0.0, now - self._begun), 1),
            file_schema=schema,
            redis_schema=None if self._fleet is None else self._fleet.schema,
            version=version,
            head=None if replication is None else replication.head,
            age=None if age is None or math.isinf(age) else max(0.0, age),
            breaker_open=self._breaker.is_open,
            calls_per_second=None if calls is None else round(self._rate.now(calls, now), 2),
            errors=tuple(recent),
            time=now,
            parts={name: part() for name, part in self.parts.items()},
        )

    def _count(self, status: HostStatus) -> None:
        """The same as metrics; what other parts of the agent know (the copy, slots) they set themselves."""
        metrics = self._metrics
        metrics.policy_version.set(status.version or 0)
        metrics.calls_per_second.set(status.calls_per_second or 0.0)
        schemas = ["" if schema is None else str(schema) for schema in (status.file_schema, status.redis_schema)]
        labels = status.agent, *schemas
        if labels != self._labels:  # the file was made, or migrated: what was true before is not any more
            metrics.agent.clear()
            metrics.agent.labels(*labels).set(1)
            self._labels = labels
        for error in reversed(status.errors):
            metrics.raised.labels(error.name, error.about).set(error.at)

    def _compare(self, hosts: Hosts, status: HostStatus) -> None:
        """Alarms about hosts that lag."""
        self._metrics.hosts.set(len(hosts.found))
        self.live = max(1, sum(host.lag(status.head) is None for host in hosts.found))
        lagging = {host.name: why for host in hosts.found if (why := host.lag(status.head)) is not None}
        for name in self._lagging - lagging.keys():
            self._alarms.clear("host_behind", name)
        for name, why in lagging.items():
            text = f"host {name} {why}; once it is gone for good: 'shaken fleet forget {name}'"
            self._alarms.on("host_behind", text, name)
        self._lagging = set(lagging)
        before = None if hosts.before is None else hosts.before.status
        if self._reported and before is not None and before.instance != self._instance:
            text = f"another agent reports as {status.host}, too: give each host a name of its own (store.redis.host)"
            self._alarms.on("host_name_taken", text, lasts=60.0)
        self._reported = True

    def close(self) -> None:
        """End."""
        self._thread.submit(self._connections.forget)
        self._thread.shutdown(wait=False)


class ThisHost:
    """What the agent does about its host and the fleet that it may be of.

    Args:
        settings: as the agent began with.
        fleet: connects with it; None for a host on its own.
        calls, alarms, metrics, clock: see `HostReport`.
    """

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet | None,
        calls: Callable[[], int | None],
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.breaker = Breaker()
        path, max_age = Path(settings.store.path), float(settings.store.max_age)
        self.replication: Replication | None = None
        if fleet is not None:
            self.replication = Replication(path, max_age, fleet, self.breaker, alarms, metrics, clock)
        self.report = HostReport(path, calls, fleet, self.replication, self.breaker, alarms, metrics, clock)

    def jobs(self) -> Iterator[tuple[str, float, Callable[[], Coroutine[Any, Any, None]]]]:
        """What is to be done again and again: its name, seconds between, and itself."""
        yield "host", REPORT_EVERY, self.report.look
        if self.replication is not None:
            yield "copy", 1.0, self.replication.look

    def start(self) -> None:
        """Begin, in the loop that runs."""
        if self.replication is not None:
            self.replication.start()

    async def close(self) -> None:
        """End."""
        if self.replication is not None:
            await self.replication.close()
        self.report.close()
