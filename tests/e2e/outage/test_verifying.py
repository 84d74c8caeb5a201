"""Agent, Redis or files gone while calls come from other carriers: each is verified in time, or has no verdict."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest

from shaken_plugin.authentication import identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab import sipp
from shaken_plugin.lab.demo import events
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import KamailioServer
from tests.agent.host import until
from tests.e2e.conftest import pair_of
from tests.e2e.edge import CALLED, CALLER, Delays, Edge, undisturbed
from tests.e2e.outage.riding import NOTICED, sqlite_files
from tests.stores.locking import recovering

pytestmark = pytest.mark.alone


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
