"""The fetcher: URL rules, one flight per URL, bounded concurrency, breaker, deadline.

It raises nothing but `FetchFailure`, whatever the other side does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

import httpcore

from shaken_plugin.core.x5u import Target, parse
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.fetch.breaker import Breakers, counts_against_host
from shaken_plugin.fetch.download import FRAMING_OCTETS, Question, download
from shaken_plugin.fetch.model import FetchCode, Fetched, FetchFailure, FetchRules, Kind
from shaken_plugin.fetch.sockets import GuardedBackend, Resolver, SystemResolver


class Fetcher:
    """Downloads documents; belongs to one event loop.

    Args:
        rules: never changed; another set of rules needs another fetcher.
        clock: POSIX seconds, for freshness.
        monotonic: seconds that only grow, for the circuit breaker.
        resolve: names to addresses; by default the system's name servers.
        sockets: connects to addresses; by default TCP.

    Raises:
        FetchFailure: TLS_FAILED, where ``rules.ca_bundle`` cannot be read.
    """

    def __init__(
        self,
        rules: FetchRules,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        resolve: Resolver | None = None,
        sockets: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._system = SystemResolver()
        self._resolve = resolve or self._system
        self._sockets = sockets or httpcore.AnyIOBackend()
        self._tls = _tls_context(rules)
        self._breakers = Breakers(rules.breaker_failures, rules.breaker_pause, monotonic)
        self._flights: dict[tuple[str, Kind], asyncio.Task[Fetched]] = {}
        self._slots = asyncio.Semaphore(rules.concurrency)
        self._host_slots: dict[str, asyncio.Semaphore] = {}
        self._host_flights: Counter[str] = Counter()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything that is under way; what waited for it gets OVERLOADED."""
        self._closed = True
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._system.close()

    async def fetch(self, url: str, kind: Kind, previous: Fetched | None = None) -> Fetched:
        """Download a document. Whoever asks while it is under way gets the same result.

        Args:
            url: for a certificate and a trust list https alone; a CRL, which is signed, may come by http.
            kind: decides over limits and the quick look at the body.
            previous: what an earlier download of this URL gave; where it has an ETag or a
                Last-Modified, the server is asked whether it still holds.

        Raises:
            FetchFailure: nothing else, save the cancellation of the caller.
        """
        target = self._judge(url, kind)
        flight = self._flights.get((url, kind))
        if flight is None:
            if previous is not None and previous.url != url:
                previous = None
            flight = self._take_off(Question(url, target, kind, self._rules.of(kind), previous))
        try:
            # Shielded: one caller who gives up takes nothing away from the others.
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not flight.cancelled() or (caller is not None and caller.cancelling()):
                raise
            raise FetchFailure(FetchCode.OVERLOADED, "the fetcher was closed") from None

    def _judge(self, url: str, kind: Kind) -> Target:
        try:
            return parse(url, self._rules.lab_hosts, http_too=kind is Kind.CRL)
        except VerificationFailure as exc:
            raise FetchFailure(FetchCode.URL_NOT_ALLOWED, exc.detail) from exc

    def _take_off(self, question: Question) -> asyncio.Task[Fetched]:
        """Start a download.

        Raises:
            FetchFailure: OVERLOADED or CIRCUIT_OPEN.
        """
        host = f"{question.target.host}:{question.target.port}"
        if self._closed:
            raise FetchFailure(FetchCode.OVERLOADED, "the fetcher is closed")
        if len(self._flights) >= self._rules.outstanding:
            raise FetchFailure(FetchCode.OVERLOADED, f"{len(self._flights)} downloads are under way or waiting")
        if self._host_flights[host] >= self._rules.outstanding_per_host:
            raise FetchFailure(FetchCode.OVERLOADED, f"{self._host_flights[host]} downloads from {host} already")
        self._breakers.check(host)
        key = (question.url, question.kind)
        self._host_flights[host] += 1
        flight = asyncio.get_running_loop().create_task(self._fly(question, host))
        self._flights[key] = flight

        def landed(task: asyncio.Task[Fetched]) -> None:
            del self._flights[key]
            self._host_flights[host] -= 1
            if not self._host_flights[host]:
                del self._host_flights[host]
                self._host_slots.pop(host, None)
            if not task.cancelled():
                task.exception()  # seen, even where every caller has gone

        flight.add_done_callback(landed)
        return flight

    async def _fly(self, question: Question, host: str) -> Fetched:
        try:
            fetched = await self._in_time(question, host)
        except FetchFailure as failure:
            if counts_against_host(failure):
                self._breakers.failed(host)
            elif failure.code is not FetchCode.OVERLOADED:
                self._breakers.answered(host)
            raise
        except Exception as exc:
            raise FetchFailure(FetchCode.INTERNAL, f"{type(exc).__name__}: {exc}") from exc
        self._breakers.answered(host)
        return fetched

    async def _in_time(self, question: Question, host: str) -> Fetched:
        async with contextlib.AsyncExitStack() as slots:
            try:
                async with asyncio.timeout(question.rules.deadline):
                    # The host's own slots come first, so that its queue holds up nobody else.
                    own = asyncio.Semaphore(self._rules.concurrency_per_host)
                    await slots.enter_async_context(self._host_slots.setdefault(host, own))
                    await slots.enter_async_context(self._slots)
            except TimeoutError:
                raise FetchFailure(FetchCode.OVERLOADED, "too many other downloads") from None
            return await self._download(question)

    async def _download(self, question: Question) -> Fetched:
        """One deadline over DNS, connecting, TLS, header and body, however slowly they drip."""
        doing = "nothing"

        def phase(now_doing: str) -> None:
            nonlocal doing
            doing = now_doing

        octets = question.rules.max_body + FRAMING_OCTETS
        backend = GuardedBackend(
            question.target, self._resolve, self._sockets, phase, octets, self._rules.connect_timeout
        )
        try:
            async with asyncio.timeout(question.rules.deadline):
                return await download(question, backend, self._tls, self._clock)
        except TimeoutError:
            raise FetchFailure(FetchCode.TIMEOUT, f"not done in {question.rules.deadline:g} s; last: {doing}") from None


def _tls_context(rules: FetchRules) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(rules.ca_bundle) if rules.ca_bundle else None)
    except (OSError, ssl.SSLError) as exc:
        raise FetchFailure(FetchCode.TLS_FAILED, f"the CA bundle {rules.ca_bundle} cannot be read: {exc}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def fetch_once(
    url: str,
    kind: Kind,
    rules: FetchRules,
    previous: Fetched | None = None,
    *,
    clock: Callable[[], float] = time.time,
    resolve: Resolver | None = None,
    sockets: httpcore.AsyncNetworkBackend | None = None,
) -> Fetched:
    """One download for a program without an event loop.

    Args:
        url: as for `Fetcher.fetch`, like ``kind`` and ``previous``.
        kind: see there.
        previous: see there.
        rules: for a `Fetcher` of its own, like ``clock``, ``resolve`` and ``sockets``.
        clock: see there.
        resolve: see there.
        sockets: see there.

    Raises:
        FetchFailure: as `Fetcher.fetch`.
    """

    async def once() -> Fetched:
        async with Fetcher(rules, clock=clock, resolve=resolve, sockets=sockets) as fetcher:
            return await fetcher.fetch(url, kind, previous)

    return asyncio.run(once())
