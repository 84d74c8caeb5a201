"""Fetching inside the call, for a process whose calls are threads and that has no agent.

    kept = FetchedCertificates()
    source = ChainedSources(folder, kept)           # where the verification service looks
    fetcher = InlineFetcher(kept, rules)            # asked for what is not there

Never in Kamailio, whose processes take one call at a time and may have loaded tls.so. One thread
does the downloads of all calls; a call waits for them as long as it may, and what comes too late
serves the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from threading import Lock, Thread, stack_size
from typing import Final

import httpcore

from shaken_plugin.certs.fetched import FetchedCertificates
from shaken_plugin.fetch.client import Fetcher
from shaken_plugin.fetch.model import FetchCode, FetchFailure, FetchRules, Kind
from shaken_plugin.fetch.sockets import Resolver

FAILED_FOR: Final = 30.0
"""Seconds for which a failure is believed, where the server names no longer time …"""
FAILED_AT_MOST: Final = 3_600.0
"""… and the longest time that it may name."""
STACK: Final = 1_048_576
"""Octets of stack for the thread: FreeSWITCH has made 240 KiB the default of its process."""


class InlineFetcher:
    """A `ports.CertificateFetcher` that downloads itself.

    To be made, like everything with threads, after a process has forked for the last time; its own
    thread starts with the first download.

    Args:
        kept: where results go; part of the verification service's source.
        rules: as for `Fetcher`; ``outstanding`` bounds the downloads under way or waiting.
        clock: POSIX seconds.
        resolve: as for `Fetcher`.
        sockets: likewise.
    """

    def __init__(
        self,
        kept: FetchedCertificates,
        rules: FetchRules,
        *,
        clock: Callable[[], float] = time.time,
        resolve: Resolver | None = None,
        sockets: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._kept = kept
        self._rules = rules
        self._clock = clock
        self._resolve = resolve
        self._sockets = sockets
        self._lock = Lock()
        self._flights: dict[str, Future[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._fetcher: Fetcher | None = None
        self._closed = False

    def alive(self) -> bool:
        """See `ports.CertificateFetcher.alive`."""
        return not self._closed

    def fetch(self, urls: Sequence[str], timeout: float) -> None:
        """See `ports.CertificateFetcher.fetch`. With a ``timeout`` of 0 it is fetched for the next call."""
        try:
            wait([flight for url in urls if (flight := self._flight(url)) is not None], max(0.0, timeout))
        except Exception:  # for instance no thread to be had: the call goes on without the certificate
            return

    def close(self) -> None:
        """End what is under way, and the thread; whoever waits goes on at once."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _flight(self, url: str) -> Future[None] | None:
        """The download of a URL, begun now or before; None where there is to be none."""
        with self._lock:
            if (flight := self._flights.get(url)) is not None:
                return flight
            # It may have come, or failed, since this call looked.
            known = self._kept.version(url, self._clock()) is not None
            if known or self._closed or len(self._flights) >= self._rules.outstanding:
                return None
            loop = self._running()
            flight = self._flights[url] = asyncio.run_coroutine_threadsafe(self._fly(url), loop)
        # Not under the lock: for a download that is over, this runs the callback at once.
        flight.add_done_callback(lambda _: self._landed(url))
        return flight

    def _landed(self, url: str) -> None:
        with self._lock:
            del self._flights[url]

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = Thread(target=loop.run_forever, name="shaken-fetch", daemon=True)
            usual = stack_size(STACK)
            try:
                thread.start()
            except RuntimeError:
                loop.close()
                raise
            finally:
                stack_size(usual)
            self._loop, self._thread = loop, thread
        return self._loop

    # --- In the thread ------------------------------------------------------------------------

    async def _fly(self, url: str) -> None:
        try:
            if self._fetcher is None:
                self._fetcher = Fetcher(self._rules, clock=self._clock, resolve=self._resolve, sockets=self._sockets)
            fetched = await self._fetcher.fetch(url, Kind.CERTIFICATE)
        except FetchFailure as failure:
            if failure.code is not FetchCode.OVERLOADED:  # which says nothing of this URL
                pause = min(max(FAILED_FOR, failure.retry_after or 0.0), FAILED_AT_MOST)
                self._kept.fail(url, str(failure), self._clock() + pause)
        else:
            self._kept.keep(url, fetched.body, fetched.fresh_until)

    async def _end(self) -> None:
        if self._fetcher is not None:
            await self._fetcher.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
