"""Calls under load leave one record each in the ledger, also when the agent is killed meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab import sipp
from shaken_plugin.lab.demo import events
from shaken_plugin.lab.provider import dump, sample_policy
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.search import Wanted, search
from shaken_plugin.runtime import apply
from tests.agent.host import until
from tests.agent.prepared import PreparedAgent
from tests.e2e.conftest import Network
from tests.e2e.phone import Phone
from tests.records.test_spool import is_locked

ROUNDS, CALLS, RATE, WORKERS = 2, 100, 50, 4


def counted(ledger: Ledger, kind: str) -> Counter[str]:
    """How many records there are by Call-ID."""
    try:
        return Counter(found.record["call_id"] for found in search(ledger, Wanted(kind=kind)))
    except StoreUnavailable:
        return Counter()


def signatures(ledger: Ledger) -> Counter[str]:
    """How many records there are by signature."""
    return Counter(found.record["signature_sha256"] for found in search(ledger, Wanted(kind="sign")))


def spooled(folder: Path) -> list[Path]:
    """The files of writers that are gone, and that lie there still."""
    return [file for file in folder.iterdir() if not is_locked(file)]


def has_more_than(ledger: Ledger, seen: int) -> bool:
    return sum(counted(ledger, "sign").values()) > seen


@pytest.mark.alone
def test_every_call_has_one_record_though_the_agent_is_killed_under_load(network: Network) -> None:
    origin = network.provider("origin", signing={"origid": {"per": "call"}}, records={"rotate_bytes": 65_536})
    target = network.provider("target", spc="123T", policy={})
    target.publish(origin.x5u, origin.credential.chain)
    called = network.called()
    verifier = network.kamailio(target, inside_peer=called.uri)
    signer = network.kamailio(origin, outside_peer=f"sip:127.0.0.1:{verifier.outside_port}")
    ledger = Ledger(f"sqlite:{origin.folder / 'ledger.db'}")

    def agent(name: str) -> PreparedAgent:
        return PreparedAgent(name, origin.folder, origin.settings, origin.folder / "agent.sock")

    with closing(ledger), ThreadPoolExecutor(1) as beside:
        for turn in range(ROUNDS):
            before = sum(counted(ledger, "sign").values())
            with agent(f"agent-{turn}") as one:
                load = beside.submit(network.call, "uac_call", signer.inside_port, calls=CALLS, rate=RATE, trace=False)
                until(partial(has_more_than, ledger, before))  # it is in the midst of it
                one.kill()
            run = load.result()
            assert (run.counts.successful, run.counts.failed) == (CALLS, 0), run.errors
        with agent("agent-last"):
            until(lambda: len(counted(ledger, "sign")) == ROUNDS * CALLS)
            found = counted(ledger, "sign")
            assert sum(found.values()) == signer.counters()["signed_a"] == ROUNDS * CALLS
            assert set(found.values()) == {1}
            assert ledger.status().tables["damaged"] == 0
    tokens = {value for invite in called.invites() for value in invite.header("Identity")}
    assert len(tokens) == ROUNDS * CALLS


def digest(identity: str) -> str:
    return hashlib.sha256(identity.partition(";")[0].rpartition(".")[2].encode()).hexdigest()


@pytest.mark.alone
def test_what_left_a_kamailio_that_is_killed_under_load_has_one_record(network: Network) -> None:
    # A worker that dies ends the whole Kamailio, so all of it is killed at once, and the agent beside it.
    origin = network.provider("origin", signing={"origid": {"per": "call"}}, records={"rotate_bytes": 65_536})
    called = network.called()
    signer = network.kamailio(origin, outside_peer=called.uri, workers=WORKERS)
    ledger = Ledger(f"sqlite:{origin.folder / 'ledger.db'}")

    def agent(name: str) -> PreparedAgent:
        return PreparedAgent(name, origin.folder, origin.settings, origin.folder / "agent.sock")

    def load() -> sipp.Run:
        patience = ("-recv_timeout", "3000")
        return network.call("uac_call", signer.inside_port, calls=CALLS, rate=RATE, trace=False, arguments=patience)

    with closing(ledger), ThreadPoolExecutor(1) as beside:
        with agent("agent-first") as one:
            running = beside.submit(load)
            until(partial(has_more_than, ledger, CALLS // 4))
            os.killpg(signer.pid, signal.SIGKILL)
            one.kill()
        signer.stop()
        signer.__enter__()  # on the same ports: what is sent again is signed again
        running.result()
        with agent("agent-last"):
            left = {digest(value) for invite in called.invites() for value in invite.header("Identity")}
            until(lambda: left <= signatures(ledger).keys())
            until(lambda: not spooled(origin.folder / "calls"))
    found = signatures(ledger)
    assert len(left) > CALLS // 2
    assert set(found.values()) == {1}
    # Each worker was with one call at most when it was killed, whose INVITE then never left.
    assert len(found.keys() - left) <= WORKERS


@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_a_refused_call_that_is_sent_again_has_one_record_and_stays_refused(network: Network, kemi: bool) -> None:
    """By whatever the records say by then: whoever called has heard the refusal."""
    origin, called = network.provider("origin", signing={"unknown_source": "refuse"}), network.called()
    signer = network.kamailio(origin, outside_peer=called.uri, kemi=kemi, workers=1)
    phone = Phone("127.0.0.9")
    invite = phone.invite()
    answer = phone.ask(invite, signer.inside_port)
    assert answer is not None
    assert answer[0] == 403
    policy = sample_policy(time.time())
    policy["customers"][0]["trunks"][0]["addresses"].append(phone.address)
    dump(origin.folder / "policy.yaml", policy)
    apply(origin.settings, time.time())
    for _ in range(3):
        phone.send(invite, signer.inside_port)
    other = phone.ask(phone.invite(), signer.inside_port)  # the only worker has done with them when it answers this
    phone.close()
    assert other is not None
    assert other[0] == 200
    call_id = next(line.split()[1].decode() for line in invite.splitlines() if line.startswith(b"Call-ID:"))
    assert len(list(events(signer.log_text(), call_id))) == 1
    assert call_id not in {found.header("Call-ID")[0] for found in called.invites()}
