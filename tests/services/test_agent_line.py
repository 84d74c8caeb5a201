"""One line to the agent for all that a process asks: when it hangs, it is waited for once, whoever asks first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shaken_plugin import runtime
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.limits import Bound, Request
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores import agent_line
from tests.agent.host import until
from tests.services.bench import settings
from tests.stores.test_agent_line import Peer

URL = "https://certificates.example.com/a.pem"


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path / "agent.sock", lambda _: None)
    yield peer
    peer.end()


def admit(chosen: Settings) -> None:
    limiter = runtime.services.call_limiter(chosen)
    assert limiter is not None
    with pytest.raises(StoreUnavailable):
        limiter.admit(Request("acme", "a", (Bound("", 0, 0, 9),)))


def look_for_a_replay(chosen: Settings) -> None:
    now = time.time()
    assert runtime.services.replay_memory(chosen).first_use(b"token", b"call", now + 60, now)


def fetch(chosen: Settings) -> None:
    answers = agent_line.line_to(Path(chosen.agent.socket)).answers
    _, fetcher = runtime.services._certificates(chosen, None, answers)
    assert fetcher is not None
    fetcher.fetch([URL], 2.0)


ASKING = {"admit": admit, "first_use": look_for_a_replay, "ping": fetch}
"""By what each asks first."""


@pytest.mark.parametrize("first", ASKING)
def test_an_agent_that_hangs_is_waited_for_once_by_all_that_a_call_asks(
    tmp_path: Path, hanging: Peer, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_line, "PROBE", 60.0)
    chosen = settings(
        agent={"socket": str(hanging.path)},
        store={"path": str(tmp_path / "policy.db"), "redis": {"servers": ["127.0.0.1:1"]}},
        verification={"replay_memory": str(tmp_path / "replay"), "cache": str(tmp_path / "cache.sqlite")},
    )
    asking: list[Callable[[Settings], None]] = [ASKING[first], *ASKING.values()]
    for ask in asking:
        ask(chosen)
    until(lambda: hanging.said(first))
    until(lambda: len(hanging.said("need")) == asking.count(fetch))
    assert [request["op"] for request in hanging.requests if request["op"] not in {"need", "undo"}] == [first]
