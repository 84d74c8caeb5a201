"""Alarms: each has a name, is a metric and a log line, and clears."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from prometheus_client import Gauge

from shaken_plugin.ports import Observer, Severity
from shaken_plugin.telemetry import clean

RECENT: Final = 16
"""Alarms that are remembered after they are over."""


class Alarm(NamedTuple):
    """An alarm that is on."""

    name: str
    about: str
    """What it is about where there may be several, for instance a trust list."""
    since: float
    text: str
    until: float
    """When it clears by itself unless it is raised again; infinite for one that is cleared."""


class Alarms:
    """The alarms that are on.

    Args:
        observer: takes the log lines.
        gauge: with the labels ``name`` and ``about``.
        clock: POSIX seconds.
    """

    def __init__(self, observer: Observer, gauge: Gauge, clock: Callable[[], float]) -> None:
        self._observer = observer
        self._gauge = gauge
        self._clock = clock
        self._on: dict[tuple[str, str], Alarm] = {}
        self._raised: deque[Alarm] = deque(maxlen=RECENT)

    def on(self, name: str, text: str, about: str = "", lasts: float = math.inf) -> None:
        """Raise an alarm; one that is on already takes the new text without another line.

        Args:
            name: its stable name.
            text: what is wrong, and what to do.
            about: which of several.
            lasts: seconds after which it clears unless it is raised again.
        """
        key, now = (name, about), self._clock()
        known = self._on.get(key)
        self._on[key] = Alarm(name, about, now if known is None else known.since, clean(text), now + lasts)
        if known is None:
            self._raised.appendleft(self._on[key])
            self._gauge.labels(name, about).set(1)
            self._observer.log(Severity.ERROR, clean(f"alarm {name}{about and ' ' + about}: {text}"))

    def clear(self, name: str, about: str = "") -> None:
        """The alarm is over."""
        if self._on.pop((name, about), None) is not None:
            self._gauge.labels(name, about).set(0)
            self._observer.log(Severity.INFO, clean(f"alarm {name}{about and ' ' + about}: over"))

    def tick(self) -> None:
        """Clear those that lasted long enough."""
        now = self._clock()
        for alarm in [alarm for alarm in self._on.values() if now >= alarm.until]:
            self.clear(alarm.name, alarm.about)

    def now(self) -> list[Alarm]:
        """Those that are on, by name."""
        return sorted(self._on.values())

    def recent(self) -> list[dict[str, Any]]:
        """Those that were raised last, newest first, over or not: ``at``, ``name``, ``about``, ``text``."""
        return [
            {"at": alarm.since, "name": alarm.name, "about": alarm.about[:100], "text": alarm.text[:500]}
            for alarm in self._raised
        ]
