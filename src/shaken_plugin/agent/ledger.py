"""Moving the records of calls into the ledger, watching what waits, and removing what is old."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.config.sections import RecordSettings, Settings
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.records.collector import Collector, Counts
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.runtime.ledger import open_ledger

DAMAGED_LASTS: Final = 3_600.0
"""Seconds for which the alarm about lines that are no records stays on."""
PRUNE_EVERY: Final = 3_600.0
"""Seconds between two removals of old records."""
RETRY_PRUNE: Final = 5.0
"""Seconds after which a removal that failed is tried again: a ledger locked for a second is no alarm for an hour."""
LATE: Final = 60.0
"""Seconds for which a record may wait before there is an alarm."""
TOGETHER: Final = 1.0
"""Seconds after some records were moved in which others gather: a batch of any size opens the ledger, has it on the
disk and closes it."""
LOW: Final = 0.05
"""Part of the disk that is to stay free."""
_PAUSE: Final = 0.05
"""Seconds between two removals of old records, in which others write."""


class LedgerKeeper:
    """Keeps the ledger of this host.

    Args:
        alarms: told of trouble.
        metrics: count.
        clock: POSIX seconds.
        seen_until: ``seq`` of the last record that all who must see each have seen; records after it
            are not removed, however old.
    """

    def __init__(
        self,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
        seen_until: Callable[[], int] | None = None,
    ) -> None:
        self._alarms = alarms
        self._metrics = metrics
        self._clock = clock
        self._seen_until = seen_until
        self._chosen: RecordSettings | None = None
        self._settings: Settings | None = None
        self._ledger: Ledger | None = None
        self._collected = 0
        self._moved_at: float | None = None
        """When records were moved last, where none were left behind."""
        self.unauthorised = 0
        """How many records of unauthorised caller IDs were moved so far: who judges them need not look before."""
        self._prune_at = 0.0
        self._collector: Collector | None = None

    def configure(self, settings: Settings) -> None:
        """Take settings; a ledger that cannot be opened is tried again with every use."""
        self._settings = settings
        if settings.records != self._chosen:
            self._chosen = settings.records
            self._collector = None

    async def collect_when_due(self) -> None:
        """Move what there is, unless some was moved a moment ago."""
        if self._moved_at is None or not 0 <= self._clock() - self._moved_at < TOGETHER:
            await self.collect()

    async def collect(self) -> None:
        """Move what there is."""
        collector = self._ready()
        if collector is None or self._chosen is None:
            return
        counts = Counts()
        try:
            await asyncio.to_thread(collector.collect, counts)
        except (StoreUnavailable, StoreError) as exc:
            self._unavailable(exc)
            self._moved_at = None
        else:
            self._alarms.clear("ledger_unavailable")
            self._alarm_of_files(counts)
            self._moved_at = self._clock() if counts.collected and not counts.more else None
        self._count(counts)  # what was written before it failed, too

    def _ready(self) -> Collector | None:
        """What collects, None where nothing is to be."""
        if self._settings is None or not self._settings.records.enabled:
            return None
        if self._collector is None:
            if self._ledger is not None:
                self._ledger.close()
            try:
                self._ledger = open_ledger(self._settings)
            except StoreError as exc:
                self._ledger = None
                self._unavailable(exc)
                return None
            self._collector = Collector(Path(self._settings.records.folder), self._ledger, self._clock)
        return self._collector

    def _unavailable(self, exc: Exception) -> None:
        assert self._chosen is not None
        text = f"{exc}; records of calls stay in {self._chosen.folder} until it is back"
        self._alarms.on("ledger_unavailable", text)

    def collected(self) -> int | None:
        """How many records were moved so far; None where none are kept."""
        return None if self._chosen is None or not self._chosen.enabled else self._collected

    def _count(self, counts: Counts) -> None:
        self._collected += counts.collected
        self.unauthorised += counts.unauthorised
        self._metrics.collected.inc(counts.collected)
        self._metrics.known.inc(counts.known)
        self._metrics.torn.inc(counts.torn)
        self._metrics.damaged.inc(counts.damaged)
        if counts.damaged:
            text = (
                f"{counts.damaged} lines of the spool were no records of calls; they are in the ledger's table damaged"
            )
            self._alarms.on("records_damaged", text, lasts=DAMAGED_LASTS)

    def _alarm_of_files(self, counts: Counts) -> None:
        if counts.troubles:
            more = f" and {len(counts.troubles) - 1} more" if len(counts.troubles) > 1 else ""
            self._alarms.on("spool_unusable", f"{counts.troubles[0]}{more}")
        else:
            self._alarms.clear("spool_unusable")

    async def measure(self) -> None:
        """Watch how much waits, how long, and how full the disk is; also while the ledger does not answer."""
        collector, chosen = self._collector, self._chosen
        if collector is None or chosen is None:
            return
        octets, age = await asyncio.to_thread(collector.measure)
        self._metrics.spool_bytes.set(octets)
        self._metrics.spool_age.set(age)
        if octets >= chosen.alarm_bytes:
            text = f"{octets} octets wait in {chosen.folder}; see whether the ledger takes them, and how fast"
            self._alarms.on("spool_growing", text)
        elif age >= LATE:
            self._alarms.on("spool_growing", f"a record has waited for {age:.0f} s in {chosen.folder}")
        else:
            self._alarms.clear("spool_growing")
        free = _free(chosen.folder)
        if free is not None and free < LOW:
            text = f"{free:.1%} of the disk of {chosen.folder} is free; once it is full, calls leave no records"
            self._alarms.on("spool_growing", text, "disk")
        else:
            self._alarms.clear("spool_growing", "disk")

    async def prune_when_due(self) -> None:
        """Prune once an hour, and soon again where it did not succeed."""
        if self._clock() >= self._prune_at:
            await self.prune()

    async def prune(self) -> None:
        """Remove what is older than the settings want to keep, a little at a time."""
        collector, ledger = self._ready(), self._ledger
        if collector is None or ledger is None or self._chosen is None:
            return
        if any(alarm.name == "clock_off" for alarm in self._alarms.now()):
            text = "the clock is off (clock_off); old records are removed once it is right"
            self._alarms.on("records_not_pruned", text, lasts=PRUNE_EVERY)
            return
        keep = self._chosen.keep_days * 86_400.0
        try:
            while True:
                seen = None if self._seen_until is None else self._seen_until()
                removed = await asyncio.to_thread(ledger.prune, self._clock(), keep, seen)
                if not removed:
                    break
                self._metrics.pruned.inc(removed)
                await asyncio.sleep(_PAUSE)
        except (StoreUnavailable, StoreError) as exc:
            self._alarms.on("records_not_pruned", f"{exc}; old records are removed later", lasts=PRUNE_EVERY)
        else:
            self._prune_at = self._clock() + PRUNE_EVERY
            self._alarms.clear("records_not_pruned")

    def close(self) -> None:
        """End; what waits is collected after the next start."""
        if self._ledger is not None:
            self._ledger.close()


def _free(folder: str) -> float | None:
    """The part of a folder's disk that is free, None where there is no such folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail / found.f_blocks if found.f_blocks else None
