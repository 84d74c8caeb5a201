"""Calls of signers that nobody knows yet: each waits in its own thread, and no other waits with it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.repository import Behaviour, Repository
from shaken_plugin.lab.servers import AgentServer
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start, said
from tests.e2e.freeswitch.party import Party
from tests.e2e.test_verifying import header

SLOW, WAIT = 3.0, 1.5


@dataclass
class Verifier:
    """A FreeSWITCH that verifies, and a repository that does as it is told."""

    network: Network
    repository: Repository
    switch: FreeSwitchServer

    def signer(self, delay: float = 0.0) -> SigningPair:
        issued = self.network.authority.issue(spc="709J", now=time.time())
        path = f"/{time.monotonic_ns()}.pem"
        self.repository.set(path, Behaviour(body=issued.chain, delay=delay))
        return load_pair(
            key=issued.key, chain=issued.chain, x5u=self.repository.url(path), live_from=0, spc=None,
            lab_hosts=self.repository.hosts,
        )  # fmt: skip

    def call(self, pair: SigningPair) -> tuple[int, float]:
        """Status and seconds until it came."""
        begin = time.monotonic()
        with Party("127.0.0.3") as party:
            answer = party.ask(self.switch.outside_port, f"Identity: {header(pair).format()}\r\n".encode(), seconds=10)
        return answer.status, time.monotonic() - begin


@pytest.fixture(scope="module", params=["agent", "inline"])
def verifier(request: pytest.FixtureRequest, start: Start, shared: Network, carrier: Party, way: Way) -> Verifier:
    """With the agent that downloads, and without one."""
    agent, name = request.param == "agent", f"{way.name}-{request.param}"
    if not agent and not way.python:
        pytest.skip("by the event socket it is the agent that verifies")
    repository = shared.stack.enter_context(Repository(shared.folder / f"repository-{name}"))
    verification: dict[str, Any] = {"lab_hosts": sorted(repository.hosts), "wait": WAIT, "max_waiting": 3}
    provider = shared.provider(
        name, spc="123T", policy={}, verification=verification,
        agent={"ca_bundle": str(repository.ca_file), "enabled": agent},
    )  # fmt: skip
    if agent and way.python:
        shared.stack.enter_context(
            AgentServer("agent", provider.folder, provider.settings, provider.folder / "agent.sock")
        )
    return Verifier(shared, repository, start(provider, inside_peer=carrier.target, from_outside=way.verify))


def test_a_call_waits_for_its_certificate_and_the_next_does_not(verifier: Verifier, carrier: Party) -> None:
    pair = verifier.signer(0.5)
    status, took = verifier.call(pair)
    assert (status, took >= 0.5) == (200, True)
    assert "verstat=TN-Validation-Passed@" in carrier.invite().one("P-Asserted-Identity")
    status, took = verifier.call(pair)
    assert (status, took < 0.4) == (200, True)
    assert said(verifier.switch, "verify")[-1]["verstat"] == "TN-Validation-Passed"
    assert verifier.repository.count(pair.x5u[pair.x5u.rindex("/") :]) == 1


def test_calls_that_wait_disturb_no_other(verifier: Verifier) -> None:
    known = verifier.signer()
    assert verifier.call(known)[0] == 200
    before = verifier.switch.counters()
    slow = [verifier.signer(SLOW) for _ in range(8)]
    outcome: list[tuple[int, float]] = []
    threads = [threading.Thread(target=lambda pair=pair: outcome.append(verifier.call(pair))) for pair in slow]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    beside = [verifier.call(known) for _ in range(10)]
    for thread in threads:
        thread.join()
    assert [status for status, _ in (*beside, *outcome)] == [200] * 18
    waited = [took for _, took in outcome if took > 1]
    assert max(took for _, took in beside) < min(waited)
    assert len(waited) == 3  # places; the others went on at once
    assert max(waited) < WAIT + 1
    counters = verifier.switch.counters()
    assert counters["failure_certificate_not_yet"] == 8
    assert counters["waiting_full"] == 5
    assert counters["verified_passed"] - before["verified_passed"] == 10
