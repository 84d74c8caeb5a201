"""Suspensions and offences with a real Kamailio under calls, and the agent beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from shaken_plugin.conduct import decisions, view
from shaken_plugin.conduct.state import State
from tests.agent.hook import SECRET, Hook
from tests.agent.host import until
from tests.agent.prepared import PreparedAgent
from tests.e2e.conftest import Network
from tests.e2e.phone import Phone

TELEPHONES = 4


class Placed(NamedTuple):
    """A call: when it was sent, and how it was answered."""

    at: float
    status: int


PAUSE = 0.01
"""Seconds between two calls of a telephone: Kamailio keeps each for some seconds, and its memory is small."""


@contextmanager
def calling(port: int) -> Iterator[list[Placed]]:
    """Telephones that call one after another until the end of the context."""
    placed: list[Placed] = []
    end = threading.Event()

    def telephone() -> None:
        phone = Phone()
        while not end.is_set():
            request = phone.invite()
            at = time.time()
            phone.send(request, port)
            answer = phone.final(request)
            placed.append(Placed(at, answer[0] if answer else 0))
            end.wait(PAUSE)
        phone.close()

    threads = [threading.Thread(target=telephone) for _ in range(TELEPHONES)]
    for thread in threads:
        thread.start()
    try:
        yield placed
    finally:
        end.set()
        for thread in threads:
            thread.join(10)


def test_a_suspension_and_its_end_decide_calls_in_every_worker_within_a_second(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    signer = network.kamailio(provider, outside_peer=called.uri, workers=4)
    state = State(provider.folder / "state.db")
    with calling(signer.inside_port) as placed:
        until(lambda: len(placed) > 20)
        suspended = time.time()
        decisions.suspend(state, "acme", "Ann", "a test", suspended)
        time.sleep(1.5)
        reinstated = time.time()
        decisions.reinstate(state, "acme", "Ann", "it is over", reinstated)
        time.sleep(1.5)
    before = [call.status for call in placed if call.at < suspended - 0.1]
    between = [call for call in placed if suspended <= call.at < reinstated - 0.1]
    after = [call for call in placed if call.at >= reinstated]
    assert before
    assert set(before) == {200}
    assert {call.status for call in between if call.at >= suspended + 1} == {403}
    assert {call.status for call in after if call.at >= reinstated + 1} == {200}
    obeyed = min(call.at for call in between if call.status == 403) - suspended
    freed = min(call.at for call in after if call.status == 200) - reinstated
    assert max(obeyed, freed) < 0.5
    counters = signer.counters()
    assert counters["signed_a"] > 0
    assert counters["refused"] == sum(call.status == 403 for call in placed)


def test_a_dialler_is_warned_and_then_suspended(network: Network) -> None:
    called = network.called()
    with Hook() as hook:
        provider = network.provider(
            "origin",
            offences={
                "suspend": "automatic",
                "grace": 0,
                "gather": 3,
                "webhook": {"url": hook.url, "secret": "file:secret"},
            },
        )
        (provider.folder / "secret").write_bytes(SECRET)
        signer = network.kamailio(provider, outside_peer=called.uri, workers=2)
        network.stack.enter_context(
            PreparedAgent("agent", provider.folder, provider.settings, provider.folder / "agent.sock")
        )
        phone = Phone()

        def call(number: str) -> int:
            request = phone.invite(number=number)
            phone.send(request, signer.inside_port)
            answer = phone.final(request)
            return answer[0] if answer else 0

        assert {call(f"+131255599{index:02}") for index in range(12)} == {200}
        until(lambda: hook.requests)
        told = hook.requests[0].told["data"]
        assert (told["customer"], told["calls"], told["numbers"]) == ("acme", 12, 12)
        assert told["evidence"][0]["level"] == "B"
        assert told["evidence"][0]["missing"]
        state = State(provider.folder / "state.db")

        def stages() -> list[str]:
            with state.reading() as connection:
                return [case.offence.stage.value for case in view.cases(connection)]

        until(lambda: stages() == ["warned"])
        assert call("+13125559900") == 200  # within 24 hours it is the same offence
        assert call("+13125559999") == 200
        until(lambda: stages() == ["suspended", "warned"])
        assert call("+12155551212") == 403
        until(lambda: len(hook.requests) == 2)
        assert hook.requests[1].told["type"] == "offence.suspended"
        phone.close()
