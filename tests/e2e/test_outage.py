"""Redis, the agent or a file gone under load: no call is lost or late, none unsigned, and each has one record."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shaken_plugin.authentication import identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.lab import sipp
from shaken_plugin.lab.demo import events
from shaken_plugin.lab.redis import RedisServer, Sentinels
from shaken_plugin.lab.servers import LOOPBACK, KamailioServer, LabError, find_program
from shaken_plugin.stores.freshness import mark_of
from tests.agent.host import until
from tests.agent.proxy import Proxy
from tests.e2e.conftest import REQUIRE_ALL, Network, pair_of
from tests.e2e.edge import CALLED, CALLER, MAX_AGE, Delays, Edge, Load, attest, undisturbed
from tests.stores.locking import recovering

pytestmark = pytest.mark.alone

NOTICED = 0.5
"""Seconds in which every worker has met the trouble once, at the rate of the load."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that keeps what it said it has, also when it is killed."""
    try:
        find_program("redis-server")
    except LabError as exc:
        if os.environ.get(REQUIRE_ALL):
            raise
        pytest.skip(str(exc))
    with RedisServer("redis", tmp_path_factory.mktemp("redis"), {"appendonly": "yes"}) as server:
        yield server


@pytest.fixture(scope="module")
def wire(redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis.port, LOOPBACK) as one:
        yield one


@pytest.fixture(scope="module")
def edge(shared: Network, redis: RedisServer, wire: Proxy) -> Edge:
    return Edge(shared, redis.access, servers=[f"{LOOPBACK}:{wire.port}"])


def ride(
    edge: Edge,
    hurt: Callable[[], object],
    meanwhile: Callable[[], object],
    heal: Callable[[], object],
    *,
    known: bool = False,
) -> Delays:
    """Calls before, while something is wrong, and after it; then a change of the policy decides again."""
    load, before = edge.calls(known=known), edge.level
    load.run(1.0)
    begin = time.time()
    hurt()
    noticed = time.time() + NOTICED
    meanwhile()
    load.run(max(0.0, noticed + 0.75 - time.time()))
    end = time.time()
    heal()
    changed, seen = recovered(edge, load)
    calls = load.end()
    assert {call.carries for call in calls if call.sent < changed} == {before}
    assert {call.carries for call in calls if call.sent > seen} <= {edge.level}
    return Delays.of(calls, begin, noticed, end)


def recovered(edge: Edge, load: Load) -> tuple[float, float]:
    """All is well by itself, and a change decides calls: when it was made, and when it was first seen to."""
    until(lambda: not edge.alarms())
    changed = time.time()
    edge.change()
    until(lambda: load.latest() == edge.level)
    return changed, time.time()


def refused(edge: Edge, text: str) -> None:
    """No change can be made now, and it is said why."""
    level = edge.level
    with pytest.raises((StoreUnavailable, StoreError), match=text):
        edge.change()
    assert edge.level == level


def alarmed(edge: Edge, name: str) -> None:
    until(lambda: name in edge.alarms())


def test_redis_is_killed(edge: Edge, redis: RedisServer) -> None:
    def meanwhile() -> None:
        alarmed(edge, "breaker_open")
        refused(edge, "refused")

    undisturbed(lambda: ride(edge, redis.kill, meanwhile, redis.restart))


def test_redis_hangs(edge: Edge, redis: RedisServer) -> None:
    def meanwhile() -> None:
        alarmed(edge, "breaker_open")
        refused(edge, "in time")

    undisturbed(lambda: ride(edge, redis.pause, meanwhile, redis.resume))


def test_redis_has_no_memory(edge: Edge, redis: RedisServer) -> None:
    def meanwhile() -> None:
        refused(edge, "memory")
        alarmed(edge, "status_unreported")
        alarmed(edge, "counted_apart")
        assert "breaker_open" not in edge.alarms()

    undisturbed(
        lambda: ride(
            edge,
            lambda: redis.command("CONFIG", "SET", "maxmemory", 1),
            meanwhile,
            lambda: redis.command("CONFIG", "SET", "maxmemory", 0),
        )
    )


def test_redis_answers_slowly(edge: Edge, wire: Proxy) -> None:
    """Too late for a call, and in time for all else."""

    def delay(seconds: float) -> None:
        wire.delay = seconds

    def meanwhile() -> None:
        alarmed(edge, "counted_apart")
        time.sleep(2.0)
        assert edge.alarms().keys() == {"counted_apart"}

    undisturbed(lambda: ride(edge, lambda: delay(0.2), meanwhile, lambda: delay(0.0)))


def test_the_agent_is_killed_and_comes_back_before_redis_does(edge: Edge, wire: Proxy) -> None:
    def kill() -> None:
        edge.agent.kill()
        wire.cut()

    def meanwhile() -> None:
        time.sleep(NOTICED)
        edge.start_agent()
        alarmed(edge, "breaker_open")

    undisturbed(lambda: ride(edge, kill, meanwhile, wire.mend))
    assert "calls of customers with limits are not counted: the agent on" in edge.signer.log_text()


def test_the_agent_hangs(edge: Edge) -> None:
    def send(number: int) -> None:
        os.kill(edge.agent.pid, number)

    undisturbed(lambda: ride(edge, lambda: send(signal.SIGSTOP), lambda: None, lambda: send(signal.SIGCONT)))


@contextmanager
def locked(files: list[Path]) -> Iterator[None]:
    """Another program writes to all these SQLite files and does not end: they can be read, and not written to."""
    with ExitStack() as stack:
        for file in files:
            connection = stack.enter_context(closing(sqlite3.connect(file, timeout=5, isolation_level=None)))
            connection.execute("BEGIN EXCLUSIVE")
        yield


def sqlite_files(edge: Edge) -> list[Path]:
    """Those of the host."""
    files = [file for file in edge.folder.iterdir() if file.suffix in {".db", ".sqlite"}]
    assert {"policy.db", "state.db", "ledger.db", "agent.slots.sqlite"} <= {file.name for file in files}
    return files


def test_the_local_files_cannot_be_written_to(edge: Edge) -> None:
    def lock() -> None:
        stack.enter_context(locked(sqlite_files(edge)))

    with ExitStack() as stack:
        undisturbed(lambda: ride(edge, lock, lambda: time.sleep(1.0), stack.close))


def test_the_local_files_can_be_neither_read_nor_written_to(edge: Edge) -> None:
    """What is known of the caller decides; of another one nothing is."""

    def lock() -> None:
        stack.enter_context(recovering(*sqlite_files(edge)))

    def meanwhile() -> None:
        time.sleep(1.0)
        another = "+12155551299"  # of the customer, and of no load
        run = edge.network.call("uac_call", edge.signer.inside_port, keys={"from": another, "pai_user": another})
        call_id = run.messages[0].header("Call-ID")
        assert [attest(invite) for invite in edge.called.invites() if invite.header("Call-ID") == call_id] == [None]
        assert "locked" in str([*events(edge.signer.log_text(), call_id[0])])

    with ExitStack() as stack:
        undisturbed(lambda: ride(edge, lock, meanwhile, stack.close, known=True))


def test_redis_fails_over(network: Network) -> None:
    with Sentinels(network.folder / "sentinels") as sentinels:
        access = sentinels.access
        servers = [f"{host}:{port}" for host, port in access.servers]
        edge = Edge(network, access, servers=servers, mode="sentinel", master=access.master)
        old = sentinels.master
        assert ride(edge, old.kill, lambda: sentinels.wait_for_failover(old), lambda: None).trouble() is None


@pytest.fixture(scope="module")
def either(shared: Network) -> Path:
    """A scenario of calls that are answered, or refused because of us."""
    text = sipp.scenario("uac_call").read_text("utf-8")
    end = sipp.scenario("uac_refused").read_text("utf-8").partition('<label id="1"/>')[2].removesuffix("</scenario>\n")
    answered = '<recv response="200" rtd="1" rrs="true"/>'
    assert answered in text
    text = text.replace(answered, f'<recv response="500" optional="true" next="1"/>{answered}')
    last = '<recv response="200"/>\n</scenario>'
    assert last in text
    over = f'<recv response="200" next="2"/><label id="1"/>{end}<label id="2"/></scenario>'
    file = shared.folder / "either.xml"
    file.write_text(text.replace(last, over))
    return file


@pytest.fixture
def stale(edge: Edge) -> Iterator[Callable[[str], None]]:
    """Sets a mode for the test."""
    yield edge.decide_when_stale
    edge.decide_when_stale("last_known")


@pytest.mark.parametrize(
    ("mode", "status", "signed"), [("last_known", 200, True), ("unsigned", 200, False), ("refuse", 500, False)]
)
def test_the_copy_becomes_older_than_allowed(
    edge: Edge, wire: Proxy, either: Path, stale: Callable[[str], None], mode: str, status: int, signed: bool
) -> None:
    stale(mode)
    load, before = edge.calls(either), edge.level
    load.run(0.75)
    wire.cut()
    alarmed(edge, "copy_stale")
    load.run(0.5)
    too_old = mark_of(edge.folder / "policy.db").stat().st_mtime + MAX_AGE
    end = time.time()
    wire.mend()
    _, seen = recovered(edge, load)
    calls = load.end()
    outcome = {(call.status, call.carries) for call in calls if call.sent < too_old - 0.1}
    assert outcome == {(200, before)}
    outcome = {(call.status, call.carries) for call in calls if too_old + 0.1 < call.sent < end}
    assert outcome == {(status, before if signed else None)}
    assert {(call.status, call.carries) for call in calls if call.sent > seen} <= {(200, edge.level)}
    assert "this host's copy of its fleet's policy is too old" in edge.signer.log_text()


@pytest.fixture(scope="module")
def verifier(edge: Edge) -> KamailioServer:
    """The same host's other Kamailio, which calls from other carriers come to."""
    edge.provider.publish(edge.provider.x5u, edge.provider.credential.chain)
    return edge.network.kamailio(edge.provider, inside_peer=edge.called.uri)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def verifying(edge: Edge, verifier: KamailioServer, trouble: Callable[[], AbstractContextManager[None]]) -> Delays:
    """Calls from another carrier before, in and after some trouble: each is verified all the same."""
    load = edge.incoming(verifier)
    load.run(1.0)
    begin = time.time()
    with trouble():
        load.run(NOTICED + 1.0)
        end = time.time()
    until(lambda: not edge.alarms())
    calls = load.end()
    assert {call.carries for call in calls} == {"TN-Validation-Passed"}
    return Delays.of(calls, begin, begin + NOTICED, end)


@pytest.mark.parametrize("what", ["redis", "agent"])
def test_replays_cannot_be_asked_for(edge: Edge, redis: RedisServer, verifier: KamailioServer, what: str) -> None:
    def trouble() -> AbstractContextManager[None]:
        return stopped(redis.pid if what == "redis" else edge.agent.pid)

    undisturbed(lambda: verifying(edge, verifier, trouble))


def test_calls_are_verified_while_the_local_files_can_be_neither_read_nor_written_to(
    edge: Edge, verifier: KamailioServer
) -> None:
    undisturbed(lambda: verifying(edge, verifier, lambda: recovering(*sqlite_files(edge))))


def strange(edge: Edge) -> str:
    """An Identity header of a signer whose certificate is not at hand, and no other call's."""
    name = str(uuid.uuid4())
    pair = replace(pair_of(edge.provider), x5u=edge.provider.x5u.replace(".pem", f"-{name}.pem"))
    claims = shaken_claims(
        attest=Attest.A, orig=TelephoneNumber(CALLER[1:]), dest=TelephoneNumber(CALLED[1:]), iat=int(time.time()),
        origid=name,
    )  # fmt: skip
    return identity_header(pair, claims).format()


def test_the_agent_hangs_while_calls_come_whose_certificates_are_not_at_hand(
    edge: Edge, verifier: KamailioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them waits for it, as for a certificate that is on its way; the others are verified."""

    def attempt() -> Delays:
        load = edge.incoming(verifier)
        load.run(1.0)
        begin = time.time()
        os.kill(edge.agent.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(edge, "_identity", lambda: strange(edge))
            strangers = edge.incoming(verifier)
            end_calls = strangers._caller.end

            def ended() -> sipp.Run:
                """All of them came while the agent hung: another in its place fetches nothing."""
                run = end_calls()
                edge.agent.kill()
                edge.start_agent()
                return run

            patch.setattr(strangers._caller, "end", ended)
            strangers.run(NOTICED + 1.0)
            end = time.time()
            late = strangers.end()
        until(lambda: not edge.alarms())
        calls = load.end()
        assert {call.carries for call in calls} == {"TN-Validation-Passed"}
        assert {call.carries for call in late} == {"No-TN-Validation"}
        both = sorted([*calls, *late], key=lambda call: call.sent)
        return Delays.of(both, begin, begin + NOTICED, end)

    undisturbed(attempt)
    verdicts = [event for event in events(verifier.log_text(), "") if event["event"] == "verify"]
    assert {one["code"] for one in verdicts if one["verstat"] == "No-TN-Validation"} == {"certificate_not_yet"}
