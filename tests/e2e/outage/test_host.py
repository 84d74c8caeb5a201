"""The agent or a file gone under load: no call is lost or late, none unsigned, and each has one record."""

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
from shaken_plugin.lab import sipp
from shaken_plugin.lab.demo import events
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import KamailioServer
from tests.agent.host import until
from tests.agent.proxy import Proxy
from tests.e2e.conftest import pair_of
from tests.e2e.edge import CALLED, CALLER, Delays, Edge, attest, undisturbed
from tests.e2e.outage.riding import NOTICED, alarmed, ride
from tests.stores.locking import recovering

pytestmark = pytest.mark.alone


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
