"""Trust lists and revocation lists: fetched on their own, checked before they are kept.

What fails to arrive, to verify or to be newer leaves the previous list in force, with an alarm.
Their URLs come from settings, or, for revocation lists, from a path that was validated.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Final

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.downloads import Downloader
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.recorder import Recorder
from shaken_plugin.certs.cache import CacheWriter, StoredRevocationList, TrustListRow
from shaken_plugin.core.crl import RevocationList
from shaken_plugin.errors import ShakenError, StoreUnavailable
from shaken_plugin.fetch import Fetched, FetchFailure, Kind

FIRST_RETRY: Final = 15.0
MAX_RETRY: Final = 1_800.0
"""Seconds until the next try after a failure: 15, doubled with every further one."""
MIN_EVERY: Final = 60.0
TRUST_LIST_EVERY: Final = 43_200.0
CRL_EVERY: Final = 3_600.0
"""Seconds between two fetches at least and at most, whatever the server says."""
DEADLINE: Final = 60.0
UNSIGNED_LASTS: Final = 7 * 86_400.0
"""Seconds for which a plain PEM bundle, which says nothing of its end, stays in force."""


class ListRefused(ShakenError):
    """A list came, and is not taken: the reason."""


@dataclass(frozen=True, slots=True)
class TrustListContent:
    """A trust list whose signature was verified, or a plain bundle."""

    sequence: int
    expires: float | None
    """POSIX seconds, None where it does not say."""
    anchors: tuple[bytes, ...]
    """CA certificates, DER."""


TrustListParser = Callable[[bytes, float], TrustListContent]
RevocationParser = Callable[[bytes, float], RevocationList]
"""Take what came and POSIX seconds; raise a `ShakenError` or ValueError that says what is wrong."""


class KeptList(ABC):
    """One list, kept fresh. The alarms ``KIND_unavailable``, ``_refused`` and ``_expired`` are its own.

    Args:
        name: what alarms and metrics call it.
        url: where it lies.
    """

    kind: ClassVar[Kind]
    every: ClassVar[float]

    def __init__(
        self,
        name: str,
        url: str,
        downloader: Downloader,
        recorder: Recorder,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.url = url
        self.expires = math.nan
        """When the list in force ends, NaN while there is none."""
        self._downloader = downloader
        self._recorder = recorder
        self._alarms = alarms
        self._metrics = metrics
        self._clock = clock
        self._previous: Fetched | None = None
        self._failures = 0
        self._wake = asyncio.Event()
        self._write: Callable[[CacheWriter], None] | None = None
        """Writes the list in force, as far as this process has it."""

    @abstractmethod
    async def restore(self) -> None:
        """Take over what lies in the file."""

    @abstractmethod
    async def _take(self, body: bytes, now: float) -> None:
        """Check a list that came and put it in force.

        Raises:
            ShakenError, ValueError: it is not taken.
            StoreUnavailable: it cannot be stored now.
        """

    async def keep(self) -> None:
        """Keep it fresh for ever."""
        with suppress(StoreUnavailable):  # alarmed by the recorder; it is fetched anew below
            await self.restore()
        while True:
            delay = await self.fetch()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)
                self._wake.clear()
                await self._write_again()

    def again(self) -> None:
        """Write it again and fetch it whole: the file with it was lost."""
        self._previous = None
        self._wake.set()

    async def _write_again(self) -> None:
        # First of all, because its server may be down just now.
        if self._write is not None:
            with suppress(StoreUnavailable):
                await self._recorder.run(self._write)

    async def fetch(self) -> float:
        """Fetch it once; gives the seconds until the next time."""
        kind = self.kind.value
        try:
            async with asyncio.timeout(DEADLINE):
                download = await self._downloader.fetch(self.url, self.kind, self._previous)
            if not (download.not_modified and self._previous is not None):
                await self._take(download.body, self._clock())
        except (FetchFailure, TimeoutError) as exc:
            self._metrics.downloads.labels(kind, "failed").inc()
            self._alarms.on(f"{kind}_unavailable", f"{self.url}: {exc or 'timeout'}; {self._state()}", self.name)
            return self._failed()
        except StoreUnavailable:
            return self._failed()
        except (ShakenError, ValueError) as exc:
            self._metrics.downloads.labels(kind, "refused").inc()
            self._alarms.clear(f"{kind}_unavailable", self.name)
            self._alarms.on(f"{kind}_refused", f"{self.url}: {exc}; {self._state()}", self.name)
            return self._failed()
        self._metrics.downloads.labels(kind, "ok").inc()
        for trouble in ("unavailable", "refused"):
            self._alarms.clear(f"{kind}_{trouble}", self.name)
        self._previous, self._failures = download, 0
        now = self._clock()
        self.look(now)
        # Before it ends, so that there is time for a few more tries.
        end = now + self.every if math.isnan(self.expires) else now + (self.expires - now) * 0.8
        return max(MIN_EVERY, min(self.every, max(download.fresh_until - now, MIN_EVERY), end - now))

    def look(self, now: float) -> None:
        """Say whether the list in force has ended. Called every few seconds."""
        if now >= self.expires:
            self._alarms.on(f"{self.kind.value}_expired", f"{self.url}: {self._state()}", self.name)
        else:
            self._alarms.clear(f"{self.kind.value}_expired", self.name)

    def gone(self) -> None:
        """It is kept no longer: its alarms are over."""
        for trouble in ("unavailable", "refused", "expired"):
            self._alarms.clear(f"{self.kind.value}_{trouble}", self.name)

    def _failed(self) -> float:
        self.look(self._clock())
        self._failures += 1
        return min(FIRST_RETRY * 2.0 ** min(self._failures - 1, 16), MAX_RETRY)

    def _state(self) -> str:
        if math.isnan(self.expires):
            return "there is none yet"
        rest = self.expires - self._clock()
        return f"the one in force ends in {rest / 3600:.1f} h" if rest > 0 else "the one in force has ended"

    def _in_force(self, expires: float) -> None:
        self.expires = expires
        if not math.isinf(expires):
            self._metrics.expires.labels(self.kind.value, self.name).set(expires)


class KeptTrustList(KeptList):
    """A trust list. Its sequence never goes back.

    Args:
        parse: checks what came.
        grace: seconds beyond its end for which a list that cannot be renewed stays in force.
        changed: told of the anchors (DER) that are in force now.
        origin: names where it comes from and who signs it, at most 32 octets.
    """

    kind = Kind.TRUST_LIST
    every = TRUST_LIST_EVERY

    def __init__(
        self,
        name: str,
        url: str,
        downloader: Downloader,
        recorder: Recorder,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        parse: TrustListParser,
        grace: float,
        changed: Callable[[tuple[bytes, ...]], None],
        origin: bytes,
    ) -> None:
        super().__init__(name, url, downloader, recorder, alarms, metrics, clock)
        self._parse = parse
        self._grace = grace
        self._changed = changed
        self._origin = origin
        self._sequence = -1

    async def restore(self) -> None:
        """See `KeptList.restore`."""
        row = (await self._recorder.run(CacheWriter.trust_lists)).get(self.name)
        if row is not None and row.origin != self._origin:
            # Another list under the same name: whoever signed it is believed no more, and its
            # sequence says nothing of ours.
            await self._recorder.run(partial(_drop_trust_list, self.name))
        elif row is not None and self._sequence < row.sequence:
            self._sequence = row.sequence
            self._in_force(row.expires)
            self._changed(row.anchors)
            self._write = partial(_write_trust_list, row)

    async def _take(self, body: bytes, now: float) -> None:
        content = await asyncio.to_thread(self._parse, body, now)
        if content.sequence < self._sequence:
            raise ListRefused(f"its sequence {content.sequence} is older than {self._sequence}, which we have")
        if not content.anchors:
            raise ListRefused("it has no certificate")
        expires = now + UNSIGNED_LASTS if content.expires is None else content.expires
        row = TrustListRow(self.name, content.sequence, expires, expires + self._grace, content.anchors, self._origin)
        self._changed(content.anchors)
        self._sequence = content.sequence
        self._in_force(expires)
        self._write = partial(_write_trust_list, row)
        await self._recorder.run(self._write)


class KeptRevocationList(KeptList):
    """A revocation list. It never goes back.

    Args:
        trust_list: for whose certificates it speaks.
        parse: checks what came.
    """

    kind = Kind.CRL
    every = CRL_EVERY

    def __init__(
        self,
        name: str,
        url: str,
        downloader: Downloader,
        recorder: Recorder,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        trust_list: str,
        parse: RevocationParser,
    ) -> None:
        super().__init__(name, url, downloader, recorder, alarms, metrics, clock)
        self._trust_list = trust_list
        self._parse = parse
        self._held: RevocationList | None = None

    async def restore(self) -> None:
        """See `KeptList.restore`."""
        found = (await self._recorder.run(CacheWriter.revocation_lists)).get((self._trust_list, self.url))
        if found is not None and self._held is None:
            self._hold(found)

    async def _take(self, body: bytes, now: float) -> None:
        content = await asyncio.to_thread(self._parse, body, now)  # seconds, for a long list
        if self._held is not None:
            content.check_replaces(self._held)
        if (trouble := content.trouble(now)) is not None:
            raise ListRefused(trouble)
        row = StoredRevocationList(self._trust_list, self.url, content)
        await self._recorder.run(write := partial(_write_revocation_list, row))
        self._write = write
        self._hold(content)

    def _hold(self, content: RevocationList) -> None:
        self._held = replace(content, revoked=frozenset())
        self._in_force(content.next_update)


def _write_trust_list(row: TrustListRow, writer: CacheWriter) -> None:
    writer.put_trust_list(row)


def _drop_trust_list(name: str, writer: CacheWriter) -> None:
    writer.drop_trust_list(name)


def _write_revocation_list(row: StoredRevocationList, writer: CacheWriter) -> None:
    writer.put_revocation_list(row)
