"""Whether our clock is right, judged by the Date headers of the servers we download from.

A verifier whose clock is off by more than the freshness window (60 s) calls every call stale, so
this must be named. One server may be wrong; several that agree are right.
"""

from __future__ import annotations

from collections import OrderedDict
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import Gauge

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.downloads import Downloader
from shaken_plugin.fetch import Fetched, Kind

OFF: Final = 60.0
"""Seconds that are too many: RFC 8224 §6.2 step 4 recommends this window."""
SERVERS: Final = 3
"""Servers that must agree, or all of them where we know fewer (but never one alone)."""
MAX_SERVERS: Final = 32
KEEP: Final = 86_400.0
"""Seconds after which what a server said is forgotten."""


class ClockCheck:
    """Compares our clock with those of servers."""

    def __init__(self, alarms: Alarms, gauge: Gauge) -> None:
        self._alarms = alarms
        self._gauge = gauge
        self._offsets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def saw(self, answer: Fetched) -> None:
        """Take the Date of a fresh answer, where it has one."""
        server_date, now = _date(answer), answer.fetched_at
        if server_date is None:
            return
        host = urlsplit(answer.url).hostname or ""
        self._offsets[host] = (now - server_date, now)
        self._offsets.move_to_end(host)
        if len(self._offsets) > MAX_SERVERS:
            self._offsets.popitem(last=False)
        # After a jump of our clock what was said before says nothing.
        recent = [offset for offset, at in self._offsets.values() if 0 <= now - at < KEEP]
        if len(recent) < 2:
            return
        offset = median(recent)
        self._gauge.set(offset)
        wrong = [value for value in recent if abs(value) > OFF and (value > 0) == (offset > 0)]
        if abs(offset) > OFF and len(wrong) >= min(SERVERS, len(recent)):
            way = "ahead of" if offset > 0 else "behind"
            self._alarms.on(
                "clock_off",
                f"our clock is {abs(offset):.0f} s {way} that of {len(wrong)} servers; "
                "calls are judged stale by it: set it right (NTP)",
            )
        else:
            self._alarms.clear("clock_off")


class Watched:
    """A `Downloader` whose answers, of all kinds, also tell the time."""

    def __init__(self, downloader: Downloader, check: ClockCheck) -> None:
        self._downloader = downloader
        self._check = check

    async def fetch(self, url: str, kind: Kind, previous: Fetched | None = None) -> Fetched:
        """See `Downloader.fetch`."""
        answer = await self._downloader.fetch(url, kind, previous)
        self._check.saw(answer)
        return answer

    async def close(self) -> None:
        """See `Downloader.close`."""
        await self._downloader.close()


def _date(answer: Fetched) -> float | None:
    """The moment a server answered, POSIX seconds; None where a cache answered, or nobody says when."""
    headers = dict(answer.headers)
    if "date" not in headers or "age" in headers:
        return None
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
