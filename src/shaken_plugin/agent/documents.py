"""Certificate documents: one download per URL whoever asks, bounded, and fresh ahead of time."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.downloads import Downloader
from shaken_plugin.agent.index import Index, Known
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.recorder import Recorder
from shaken_plugin.agent.schedule import Schedule
from shaken_plugin.certs.cache import CacheWriter, StoredDocument
from shaken_plugin.core import x5u
from shaken_plugin.errors import StoreUnavailable, VerificationFailure
from shaken_plugin.fetch import FetchCode, Fetched, FetchFailure, Kind

FIRST_BACKOFF: Final = 30.0
MAX_BACKOFF: Final = 3_600.0
"""Seconds for which a failure is believed: 30, doubled with every further one, at most an hour."""
MIN_FRESH: Final = 300.0
MAX_FRESH: Final = 7 * 86_400.0
"""Seconds after which a document is fetched anew whatever its server says."""
SEEN_EVERY: Final = 60.0
"""How exactly it is noted when a call asked for a document, seconds."""
DEADLINE: Final = 30.0
"""Seconds after which a download is given up even if the downloader does not."""
LOST_PACE: Final = 0.01
"""Seconds between two downloads when all have to be done again."""
DOUBT_EVERY: Final = 10.0
"""Seconds between two looks for damage that workers ask for; one takes a second for 200 MB."""
OVERLOAD_LASTS: Final = 60.0
"""Seconds for which the alarm stays on after the last request that was turned away."""

Judge = Callable[[bytes, float], bool]
"""Takes a document and POSIX seconds: whether its path leads to an anchor. Raises
`VerificationFailure` for a document that cannot be read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's bounds."""

    max_fetches: int = 64
    """Downloads at one time. Refreshing takes half of them at most, strangers three quarters."""
    max_per_host: int = 8
    """Of these to one host, so that a slow one cannot take them all."""
    keep: float = 7 * 86_400.0
    """Seconds since the last call for which a document is kept fresh."""
    stale: float = 86_400.0
    """Seconds beyond its freshness for which a document serves when it cannot be refreshed."""
    lab_hosts: frozenset[str] = frozenset()


class Documents:
    """See the module.

    Args:
        downloader: does the HTTP.
        recorder: writes to the shared file.
        index: what is known.
        judge: looks at a document before it is kept, in a thread of its own.
        limits: may be exchanged at any time.
        clock: POSIX seconds.
    """

    def __init__(
        self,
        downloader: Downloader,
        recorder: Recorder,
        index: Index,
        judge: Judge,
        limits: Limits,
        clock: Callable[[], float],
        alarms: Alarms,
        metrics: Metrics,
    ) -> None:
        self.limits = limits
        self.index = index
        self._downloader = downloader
        self._recorder = recorder
        self._judge = judge
        self._clock = clock
        self._alarms = alarms
        self._metrics = metrics
        self._flying: dict[str, asyncio.Task[str]] = {}
        self._hosts: Counter[str] = Counter()
        self._refreshing = 0
        self._thread = ThreadPoolExecutor(1, "judge")
        self._doubted_at = -math.inf
        self._doubting: asyncio.Task[None] | None = None
        self._schedule = Schedule()
        self._random = random.Random()  # noqa: S311  # spreads refreshes, guards nothing

    # --- What workers ask ---------------------------------------------------------------------

    async def want(self, urls: Iterable[str], wait: float) -> Mapping[str, str]:
        """Have documents in the file; gives a result for each (see `certs.agent_client`).

        Args:
            urls: as workers sent them.
            wait: seconds to wait at most; a download goes on beyond them.
        """
        results: dict[str, str] = {}
        tasks: dict[str, asyncio.Task[str]] = {}
        for url in urls:
            begun = self._begin(url)
            if isinstance(begun, str):
                results[url] = begun
            else:
                tasks[url] = begun
        if tasks:
            await asyncio.wait(tasks.values(), timeout=wait)
        results |= {url: task.result() if task.done() else "waiting" for url, task in tasks.items()}
        for result in results.values():
            self._metrics.requests.labels(result).inc()
        return results

    async def lent(self, url: str, *, stored_too: bool) -> StoredDocument | None:
        """A document that is not in the file because it cannot be written; or one that is."""
        known = self.index.get(url)
        if not stored_too or known is None:
            return self._recorder.pending(url)
        return replace(known.document, body=await self._body(url))

    def doubt(self) -> None:
        """A worker cannot read the file: look whether it is damaged, now and then."""
        now = self._clock()
        if not 0 <= now - self._doubted_at < DOUBT_EVERY:
            self._doubted_at, self._doubting = now, asyncio.create_task(self._look_through())

    async def _look_through(self) -> None:
        with suppress(StoreUnavailable):  # alarmed by the recorder
            await self._recorder.run(CacheWriter.check)

    def seen(self, urls: Iterable[str]) -> None:
        """Note that calls ask for these; what is missing or due is fetched for the next call."""
        now = self._clock()
        for url in urls:
            known = self.index.get(url)
            if known is None:
                self._begin(url)
            elif abs(now - known.document.seen_at) >= SEEN_EVERY:
                touched = self.index.touch(url, now)
                assert touched is not None
                self._recorder.later(touched.document)
                if url not in self._schedule:
                    self._plan(touched)

    def _begin(self, url: str) -> str | asyncio.Task[str]:
        """The download of a URL, begun now or before; or why there is none."""
        if (flying := self._flying.get(url)) is not None:
            return flying
        now = self._clock()
        try:
            x5u.check(url, self.limits.lab_hosts)
        except VerificationFailure:
            return "refused"
        known = self.index.touch(url, now)
        if known is not None and _is_down(known, now) and not _serves(known, now):
            if known.size:  # it grew too old since it failed
                self._recorder.later(self._without_body(known.document))
            return "failed"
        if not self._has_room(url, known):
            text = f"{len(self._flying)} downloads are going on; further certificates are turned away"
            self._alarms.on("overloaded", text, lasts=OVERLOAD_LASTS)
            return "overloaded"
        return self._fly(url, self._missed(url))

    def _has_room(self, url: str, known: Known | None) -> bool:
        # A flood of made-up signers leaves places to those that we know. One slow host still takes
        # `max_per_host` of them: with many such hosts strangers wait, not the signers we know.
        places = self.limits.max_fetches
        if known is None or not known.document.trusted:
            places -= places // 4
        return len(self._flying) < places and self._hosts[_host(url)] < self.limits.max_per_host

    def _fly(self, url: str, work: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
        host = _host(url)
        task = self._flying[url] = asyncio.create_task(work)
        self._hosts[host] += 1
        self._metrics.outstanding.set(len(self._flying))

        def landed(_: asyncio.Task[str]) -> None:
            del self._flying[url]
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]
            self._metrics.outstanding.set(len(self._flying))

        task.add_done_callback(landed)
        return task

    async def _missed(self, url: str) -> str:
        """A worker does not find it: it is missing, or too old, or its row is damaged."""
        known, now = self.index.get(url), self._clock()
        if known is None or known.size is None:
            return await self._fetch(url, None)
        body = await self._body(url)
        if body is not None and _serves(known, now):
            return "stored"  # it came while this worker asked
        if _is_down(known, now):
            return "failed"
        return await self._fetch(url, body)

    async def _body(self, url: str) -> bytes | None:
        if (pending := self._recorder.pending(url)) is not None:
            return pending.body
        try:
            return await self._recorder.run(partial(_read_body, url))
        except StoreUnavailable:
            return None

    # --- Downloading --------------------------------------------------------------------------

    async def _fetch(self, url: str, body: bytes | None) -> str:
        known, begin = self.index.get(url), perf_counter()
        try:
            async with asyncio.timeout(DEADLINE):
                download = await self._downloader.fetch(url, Kind.CERTIFICATE, _previous(known, body))
            content = body if download.not_modified and body is not None else download.body
            # In a thread: a document of 64 KiB can be made to take a tenth of a second.
            loop = asyncio.get_running_loop()
            trusted = await loop.run_in_executor(self._thread, self._judge, content, self._clock())
        except FetchFailure as exc:
            code = exc.code.value
            if exc.code is FetchCode.OVERLOADED:  # says nothing of this URL
                self._metrics.downloads.labels(Kind.CERTIFICATE.value, code).inc()
                return code
            result = await self._failed(url, str(exc), code, exc.retry_after)
        except VerificationFailure as exc:
            result = await self._failed(url, str(exc), exc.code.code, None)
        except TimeoutError:
            result = await self._failed(url, "timeout", "timeout", None)
        except Exception as exc:
            # A fault of ours must not leave workers waiting, nor come back at once.
            self._alarms.on("fault", f"download of {url}: {exc!r}", lasts=OVERLOAD_LASTS)
            result = await self._failed(url, f"fault: {type(exc).__name__}", "fault", None)
        else:
            self._metrics.downloads.labels(Kind.CERTIFICATE.value, "ok").inc()
            result = await self._keep(url, download, content, trusted=trusted)
        self._metrics.seconds.labels(Kind.CERTIFICATE.value).observe(perf_counter() - begin)
        return result

    async def _keep(self, url: str, download: Fetched, content: bytes, *, trusted: bool) -> str:
        now = self._clock()
        fresh = min(max(download.fresh_until, now + MIN_FRESH), now + MAX_FRESH)
        document = StoredDocument(
            url,
            content,
            download.fetched_at,
            fresh,
            fresh + self.limits.stale,
            download.etag,
            download.last_modified,
            seen_at=self._seen_at(url),
            trusted=trusted,
        )
        await self._store(document, len(content))
        return "stored"

    async def _failed(self, url: str, why: str, code: str, retry_after: float | None) -> str:
        """Remember a failure. A document that is there goes on serving for as long as it may."""
        self._metrics.downloads.labels(Kind.CERTIFICATE.value, code).inc()
        now, known = self._clock(), self.index.get(url)
        failures = 1 if known is None else known.document.failures + 1
        backoff = min(FIRST_BACKOFF * 2 ** min(failures - 1, 16), MAX_BACKOFF) * self._random.uniform(0.9, 1.1)
        if retry_after is not None:
            backoff = min(max(backoff, retry_after), MAX_BACKOFF)
        old = StoredDocument(url, None, now, now, 0.0) if known is None else known.document
        document = replace(
            old, failure=why[:200], failures=failures, retry_at=now + backoff, seen_at=self._seen_at(url)
        )
        if known is not None and known.size and not _serves(known, now):
            document = self._without_body(document)
            await self._recorder.put(document)
        else:
            await self._store(document, None if known is None else known.size)
        return "failed"

    def _without_body(self, document: StoredDocument) -> StoredDocument:
        """Of a document that is too old to be used only its failure is of use to workers."""
        failed = replace(document, usable_until=0.0, etag=None, last_modified=None)
        self._schedule.remove(document.url)
        self._drop(self.index.put(failed, None))
        self._measure()
        return failed

    def _seen_at(self, url: str) -> float:
        known = self.index.get(url)
        return self._clock() if known is None else known.document.seen_at

    async def _store(self, document: StoredDocument, size: int | None) -> None:
        self._drop(self.index.put(document, size))
        known = self.index.get(document.url)
        if known is not None:
            self._plan(known)
            await self._recorder.put(document)
        self._measure()

    def _drop(self, evicted: Iterable[str]) -> None:
        for url in evicted:
            self._schedule.remove(url)
            self._recorder.forget(url)
            self._metrics.evicted.inc()

    # --- Keeping fresh ------------------------------------------------------------------------

    def load(self, rows: Iterable[tuple[StoredDocument, int | None]]) -> None:
        """Take over what lies in the file; what calls asked for lately is looked at first."""
        now = self._clock()
        for document, size in sorted(rows, key=lambda row: row[0].seen_at):
            if self.index.get(document.url) is not None:
                continue  # fetched before the file could be read
            if size is None and document.retry_at < now:
                self._recorder.forget(document.url)
                continue
            self._drop(self.index.put(document, size))
        for known in self.index:
            self._plan(known)
        self._measure()

    def lost(self) -> None:
        """The file is empty: fetch all that calls asked for lately."""
        self._schedule.clear()
        now = self._clock()
        for number, (document, size) in enumerate(sorted(self.index, key=lambda known: -known.document.seen_at)):
            self.index.remove(document.url)
            if size is not None and now - document.seen_at < self.limits.keep:
                gone = replace(document, fresh_until=0.0, usable_until=0.0, etag=None, last_modified=None)
                self.index.put(gone, 0)
                self._schedule.put(document.url, now + number * LOST_PACE)

    def _plan(self, known: Known) -> None:
        """Have a document refreshed in time; one that no call asks for waits until one does."""
        if known.size is not None and self._clock() - known.document.seen_at < self.limits.keep:
            self._schedule.plan(known)

    def refresh(self) -> None:
        """Begin the downloads that are due, as far as there is room. Called every second or so."""
        now, most = self._clock(), max(1, self.limits.max_fetches // 2)
        put_off = []
        for url in self._schedule.take(now):
            if (known := self.index.get(url)) is None or url in self._flying:
                continue
            if self._refreshing >= most or not self._has_room(url, known):
                put_off.append(url)
                if len(put_off) > most:
                    break
                continue
            self._refreshing += 1
            self._fly(url, self._refreshed(url))
        for url in put_off:
            self._schedule.put(url, now + 1.0)

    async def _refreshed(self, url: str) -> str:
        try:
            return await self._fetch(url, await self._body(url))
        finally:
            self._refreshing -= 1

    def sweep(self) -> None:
        """Forget what is of no use any more. Called every few minutes."""
        now = self._clock()
        for document, size in self.index:
            over = (
                document.retry_at if size is None else max(document.usable_until, document.seen_at + self.limits.keep)
            )
            if now >= over and document.url not in self._flying:
                self.index.remove(document.url)
                self._schedule.remove(document.url)
                self._recorder.forget(document.url)
        self._measure()

    def _measure(self) -> None:
        self._metrics.documents.set(len(self.index))
        self._metrics.bytes.set(self.index.bytes)

    async def close(self) -> None:
        """Give up what is going on."""
        tasks: list[asyncio.Task[Any]] = list(self._flying.values())
        if self._doubting is not None:
            tasks.append(self._doubting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _serves(known: Known, now: float) -> bool:
    """Whether workers may use the document."""
    return known.size is not None and now < known.document.usable_until


def _is_down(known: Known, now: float) -> bool:
    """Whether its last download failed so short a while ago that this is believed."""
    return known.document.failure is not None and now < known.document.retry_at


def _read_body(url: str, writer: CacheWriter) -> bytes | None:
    return writer.body(url)


def _previous(known: Known | None, body: bytes | None) -> Fetched | None:
    """What to ask a server about, None to get the whole document: without a body a 304 is no use."""
    if known is None or body is None:
        return None
    document = known.document
    return Fetched(document.url, body, document.fetched_at, document.fresh_until, document.etag, document.last_modified)
