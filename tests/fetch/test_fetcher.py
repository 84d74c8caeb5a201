"""What the fetcher does with many requests: one flight per URL, bounds, breaker, closing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shaken_plugin.core.certificates import parse_anchor_file, parse_chain
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.fetch import FetchCode, Fetched, Fetcher, FetchFailure, FetchRules, Kind
from shaken_plugin.fetch.breaker import Breakers, counts_against_host
from shaken_plugin.fetch.content import check_body
from shaken_plugin.lab.repository import Behaviour, Face, Repository
from shaken_plugin.lab.wire import PUBLIC_ADDRESS, Played, Trouble, Wire
from tests.fetch.conftest import QUICK, URL, before

RULES = FetchRules()


class Gate:
    """A resolver that holds every download up until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        await self.open.wait()
        return [PUBLIC_ADDRESS]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def url(number: int, host: str = "cr.example.com") -> str:
    return f"https://{host}/{number}.pem"


def wire_of(chain: bytes, *urls: str) -> Wire:
    return Wire({one: Played(body=chain) for one in urls})


async def outcome(awaitable: Awaitable[Fetched]) -> FetchCode | None:
    """How a fetch ended; None for a document."""
    try:
        await awaitable
    except FetchFailure as failure:
        return failure.code
    return None


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_who_asks_while_it_is_under_way_gets_the_same(chain: bytes) -> None:
    async def work() -> None:
        gate, wire = Gate(), wire_of(chain, URL)
        async with Fetcher(RULES, resolve=gate, sockets=wire) as fetcher:
            many = [asyncio.ensure_future(fetcher.fetch(URL, Kind.CERTIFICATE)) for _ in range(50)]
            await asyncio.sleep(0.01)
            gate.open.set()
            results = await asyncio.gather(*many)
            assert len(wire.asked) == 1
            assert all(result is results[0] for result in results)
            await fetcher.fetch(URL, Kind.CERTIFICATE)
            assert len(wire.asked) == 2, "the fetcher keeps nothing: that is its caller's business"

    run(work)


def test_caller_who_gives_up_takes_nothing_from_the_others(chain: bytes) -> None:
    async def work() -> None:
        gate, wire = Gate(), wire_of(chain, URL)
        async with Fetcher(RULES, resolve=gate, sockets=wire) as fetcher:
            first, second = (asyncio.ensure_future(fetcher.fetch(URL, Kind.CERTIFICATE)) for _ in range(2))
            await asyncio.sleep(0.01)
            first.cancel()
            gate.open.set()
            assert (await second).body == chain
            with pytest.raises(asyncio.CancelledError):
                await first

    run(work)


def test_flood_of_urls_stays_bounded(chain: bytes) -> None:
    """Each INVITE of a flood names another x5u: what is under way, what waits and what runs has an end."""

    async def work() -> None:
        rules = replace(RULES, concurrency=4, concurrency_per_host=2, outstanding=20, outstanding_per_host=8)
        gate = Gate()
        async with Fetcher(rules, resolve=gate, sockets=Wire({})) as fetcher:
            urls = [url(number, f"h{number % 100}.example.com") for number in range(1000)]
            flood = [asyncio.ensure_future(outcome(fetcher.fetch(one, Kind.CERTIFICATE))) for one in urls]
            await asyncio.sleep(0.05)
            assert len(gate.asked) == 4
            assert len(fetcher._flights) == 20
            assert sum(task.done() for task in flood) == 980
            await fetcher.close()
            assert set(await asyncio.gather(*flood)) == {FetchCode.OVERLOADED}
            assert not fetcher._flights
            assert not fetcher._host_flights
            assert not fetcher._host_slots

    run(work)


def test_one_slow_host_leaves_room_for_the_others(chain: bytes) -> None:
    async def work() -> None:
        rules = replace(RULES, concurrency=3, concurrency_per_host=2, outstanding_per_host=8)
        gate, wire = Gate(), wire_of(chain, URL)

        async def resolve(host: str, port: int) -> Sequence[str]:
            return await gate(host, port) if host == "slow.example.com" else [PUBLIC_ADDRESS]

        async with Fetcher(rules, resolve=resolve, sockets=wire) as fetcher:
            slow = [
                asyncio.ensure_future(outcome(fetcher.fetch(url(number, "slow.example.com"), Kind.CERTIFICATE)))
                for number in range(50)
            ]
            await asyncio.sleep(0.01)
            assert len(gate.asked) == 2
            assert (await fetcher.fetch(URL, Kind.CERTIFICATE)).body == chain
            assert sum(task.done() for task in slow) == 42
            await fetcher.close()
            assert set(await asyncio.gather(*slow)) == {FetchCode.OVERLOADED}

    run(work)


def test_waiting_in_vain_for_a_slot_is_not_held_against_the_host(chain: bytes) -> None:
    async def work() -> None:
        rules = replace(RULES, concurrency=1, breaker_failures=1, certificate=QUICK)
        gate, wire = Gate(), wire_of(chain, URL)

        async def resolve(host: str, port: int) -> Sequence[str]:
            return await gate(host, port) if host == "slow.example.com" else [PUBLIC_ADDRESS]

        async with Fetcher(rules, resolve=resolve, sockets=wire) as fetcher:
            slow = asyncio.ensure_future(outcome(fetcher.fetch("http://slow.example.com/a.crl", Kind.CRL)))
            await asyncio.sleep(0.01)
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is FetchCode.OVERLOADED
            gate.open.set()
            assert await slow is FetchCode.BODY_BROKEN
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is None

    run(work)


def test_closing_ends_what_is_under_way() -> None:
    async def work() -> None:
        gate = Gate()
        fetcher = Fetcher(RULES, resolve=gate, sockets=Wire({}))
        waiting = asyncio.ensure_future(outcome(fetcher.fetch(URL, Kind.CERTIFICATE)))
        await asyncio.sleep(0.01)
        await fetcher.close()
        assert await waiting is FetchCode.OVERLOADED
        assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is FetchCode.OVERLOADED
        await fetcher.close()

    run(work)


def test_fault_of_our_own_is_a_named_failure_too() -> None:
    async def work() -> None:
        class Broken(Wire):
            async def connect_tcp(self, *_: Any, **__: Any) -> Any:
                raise RuntimeError("a bug")

        async with Fetcher(RULES, resolve=Wire({}).resolve, sockets=Broken({})) as fetcher:
            with pytest.raises(FetchFailure, match="RuntimeError: a bug") as caught:
                await fetcher.fetch(URL, Kind.CERTIFICATE)
            assert caught.value.code is FetchCode.INTERNAL

    run(work)


def test_second_address_is_tried_when_the_first_does_not_answer(
    repository: Repository, rules: FetchRules, chain: bytes
) -> None:
    repository.set("/second.pem", Behaviour(body=chain))
    port = repository.url("").rpartition(":")[2]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.3", "127.0.0.1"]

    async def work() -> None:
        lab = replace(rules, lab_hosts=frozenset({"localhost"}))
        async with Fetcher(lab, resolve=resolve) as fetcher:
            fetched = await fetcher.fetch(f"https://localhost:{port}/second.pem", Kind.CERTIFICATE)
            assert fetched.body == chain

    run(work)


def test_only_so_many_addresses_of_a_name_are_tried() -> None:
    class BlackHole(Wire):
        async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Any:
            self.connected.append((host, port))
            raise httpcore.ConnectTimeout

    async def work() -> None:
        wire = BlackHole({}, {"cr.example.com": [f"8.8.8.{number}" for number in range(1, 100)]})
        async with Fetcher(RULES, resolve=wire.resolve, sockets=wire) as fetcher:
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is FetchCode.TIMEOUT
        assert wire.connected == [(f"8.8.8.{number}", 443) for number in range(1, 5)]

    run(work)


def test_connection_is_closed_where_the_handshake_never_ends() -> None:
    """httpcore leaves it open when it is cancelled there: every such server would cost a descriptor."""
    closed = []

    class Mute(httpcore.AsyncNetworkStream):
        async def start_tls(self, *_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            closed.append(self)

    class MuteWire(Wire):
        async def connect_tcp(self, *_: Any, **__: Any) -> Any:
            return Mute()

    async def work() -> None:
        wire = MuteWire({})
        rules = replace(RULES, certificate=replace(QUICK, deadline=0.1))
        async with Fetcher(rules, resolve=wire.resolve, sockets=wire) as fetcher:
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is FetchCode.TIMEOUT

    run(work)
    assert len(closed) == 1


# --- Circuit breaker --------------------------------------------------------------------------


def test_host_that_fails_is_left_alone_for_a_while(repository: Repository, rules: FetchRules, chain: bytes) -> None:
    async def work() -> None:
        clock = Clock()
        tripping = replace(rules, breaker_failures=3, breaker_pause=30.0)
        broken, fine = Behaviour(body=b"A" * 100, reset_after=10), Behaviour(body=chain)
        repository.set("/trip.pem", broken, broken, broken, broken, fine)
        one = repository.url("/trip.pem")
        async with Fetcher(tripping, monotonic=clock) as fetcher:
            for _ in range(3):
                assert await outcome(fetcher.fetch(one, Kind.CERTIFICATE)) is FetchCode.BODY_BROKEN
            with pytest.raises(FetchFailure) as caught:
                await fetcher.fetch(one, Kind.CERTIFICATE)
            assert (caught.value.code, caught.value.retry_after) == (FetchCode.CIRCUIT_OPEN, 30.0)
            assert repository.count("/trip.pem") == 3
            # Another port is another server.
            repository.set("/other.pem", fine)
            assert await outcome(fetcher.fetch(repository.url("/other.pem", Face.PLAIN), Kind.CRL)) is (
                FetchCode.WRONG_CONTENT
            )
            clock.now += 30
            assert await outcome(fetcher.fetch(one, Kind.CERTIFICATE)) is FetchCode.BODY_BROKEN
            assert await outcome(fetcher.fetch(one, Kind.CERTIFICATE)) is FetchCode.CIRCUIT_OPEN
            clock.now += 30
            assert await outcome(fetcher.fetch(one, Kind.CERTIFICATE)) is None
            assert await outcome(fetcher.fetch(one, Kind.CERTIFICATE)) is FetchCode.BODY_BROKEN

    run(work)


def test_only_one_request_tries_a_host_again() -> None:
    clock = Clock()
    breakers = Breakers(2, 10.0, clock)
    for _ in range(2):
        breakers.check("h")
        breakers.failed("h")
    clock.now += 10
    breakers.check("h")
    with pytest.raises(FetchFailure) as caught:
        breakers.check("h")
    assert caught.value.code is FetchCode.CIRCUIT_OPEN
    breakers.answered("h")
    breakers.check("h")
    breakers.failed("h")
    breakers.check("h")


def test_failures_must_be_in_a_row() -> None:
    breakers = Breakers(2, 10.0, Clock())
    for _ in range(5):
        breakers.failed("h")
        breakers.answered("h")
    breakers.check("h")


def test_memory_of_the_breaker_has_an_end() -> None:
    breakers = Breakers(1, 10.0, Clock())
    for number in range(5_000):
        breakers.failed(f"h{number}")
    assert 512 <= len(breakers._hosts) <= 1_024


@pytest.mark.parametrize(
    ("failure", "counts"),
    [
        (FetchFailure(FetchCode.CONNECT_FAILED, ""), True),
        (FetchFailure(FetchCode.TIMEOUT, ""), True),
        (FetchFailure(FetchCode.STATUS, "", status=503), True),
        (FetchFailure(FetchCode.STATUS, "", status=429), True),
        (FetchFailure(FetchCode.STATUS, "", status=404), False),
        (FetchFailure(FetchCode.STATUS, "", status=500), False),
        (FetchFailure(FetchCode.REDIRECT, "", status=302), False),
        (FetchFailure(FetchCode.WRONG_CONTENT, ""), False),
        (FetchFailure(FetchCode.TOO_LARGE, ""), False),
        (FetchFailure(FetchCode.OVERLOADED, ""), False),
        (FetchFailure(FetchCode.CIRCUIT_OPEN, ""), False),
    ],
)
def test_what_counts_against_a_host(failure: FetchFailure, counts: bool) -> None:
    """A stranger who asks an honest host for paths that are not there must not shut it out."""
    assert counts_against_host(failure) is counts


def test_missing_paths_do_not_open_the_circuit(chain: bytes) -> None:
    async def work() -> None:
        wire = Wire({url(number): Played(404) for number in range(20)} | {URL: Played(body=chain)})
        async with Fetcher(RULES, resolve=wire.resolve, sockets=wire) as fetcher:
            for number in range(20):
                assert await outcome(fetcher.fetch(url(number), Kind.CERTIFICATE)) is FetchCode.STATUS
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is None

    run(work)


# --- The quick look at the body, and the sockets in memory ------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\x30\x03\x02\x01\x00", Kind.CERTIFICATE),
        (b"\x30\x81\x80" + b"\x00" * 128, Kind.CRL),
        (b"0 is how this comment begins\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", Kind.CERTIFICATE),
        (b'{"caList": "a.b.c"}', Kind.TRUST_LIST),
        (b"eyJhbGciOiJFUzI1NiJ9.e30.c2ln", Kind.TRUST_LIST),
    ],
)
def test_body_that_may_be_what_was_asked_for(body: bytes, kind: Kind) -> None:
    check_body(body, kind)


@pytest.mark.parametrize(
    ("trouble", "code"), [(Trouble.TIMEOUT, FetchCode.TIMEOUT), (Trouble.TLS, FetchCode.TLS_FAILED),
                          (Trouble.RESET, FetchCode.BODY_BROKEN)]
)  # fmt: skip
def test_trouble_is_played(trouble: Trouble, code: FetchCode) -> None:
    async def work() -> None:
        wire = Wire({URL: Played(trouble=trouble)})
        async with Fetcher(RULES, resolve=wire.resolve, sockets=wire) as fetcher:
            start = time.monotonic()
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is code
            assert time.monotonic() - start < 2.5

    run(work)


def test_url_that_is_not_listed_does_not_exist(chain: bytes) -> None:
    async def work() -> None:
        wire = Wire({URL: Played(body=chain), url(1): Played(trouble=Trouble.TLS)})
        async with Fetcher(RULES, resolve=wire.resolve, sockets=wire) as fetcher:
            for missing in (url(1), url(2), url(1, "other.example.com")):
                assert await outcome(fetcher.fetch(missing, Kind.CERTIFICATE)) is not None
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE)) is None

    run(work)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].joinpath("pki").rglob("*.[pd]e[mr]")), ids=lambda p: p.name
)
def test_quick_look_refuses_no_real_document_that_can_be_read(path: Path) -> None:
    body = path.read_bytes()
    try:
        parse_anchor_file(body) if path.name == "sti_ca_certs.pem" else parse_chain(body)
    except VerificationFailure:
        with contextlib.suppress(FetchFailure):  # the core refuses it anyway
            check_body(body, Kind.CERTIFICATE)
        return
    check_body(body, Kind.CERTIFICATE)


class RawWire(Wire):
    """A server that answers everything with the same octets."""

    def __init__(self, octets: bytes) -> None:
        super().__init__({})
        self._octets = octets

    def answer(self, url: str, request: bytes) -> bytes:
        return self._octets


LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 304 Not Modified\r\n",
        b"HTTP/1.0 200\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: \xff\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: \xb9\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Encoding: \r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\n",
        b"ETag: \xff\r\n",
        b"Cache-Control: max-age=\xb2\r\n",
        b"Age: \xb2\r\n",
        b"\r\n",
        b"\n",
        b"5\r\nAAAAA\r\n0\r\n\r\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\x30\x03\x02\x01\x00",
    ]
)


@settings(deadline=None)
@given(st.lists(st.one_of(LINES, st.binary(max_size=20)), max_size=12).map(b"".join))
def test_any_answer_is_a_document_or_a_named_failure(octets: bytes) -> None:
    async def work() -> None:
        wire = RawWire(octets)
        async with Fetcher(RULES, resolve=wire.resolve, sockets=wire) as fetcher:
            assert await outcome(fetcher.fetch(URL, Kind.CERTIFICATE, before('"v1"'))) is not FetchCode.INTERNAL

    run(work)
