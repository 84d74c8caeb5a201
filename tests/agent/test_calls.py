"""The real daemon that serves calls: beside its own work, and whatever their settings are like."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import AgentServer, free_port
from tests.adapter.esl_peer import Leg
from tests.agent.host import until

LEAVING = {"direction": "outbound", "caller_id_number": "+12155551212", "destination_number": "+12025550143"}
CUSTOMER = {"direction": "inbound", "sip_network_ip": "127.0.0.2"}


class Serving:
    """An agent that serves calls, and its provider."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.port = free_port()
        listen = f"127.0.0.1:{self.port}"
        self.provider = Provider.make(folder, authority, time.time(), agent={"esl": {"listen": listen}})
        self.agent = AgentServer("agent", folder, self.provider.settings, folder / "agent.sock")

    def sign(self) -> Leg:
        return Leg(self.port, "sign", LEAVING, CUSTOMER).run()


@pytest.fixture
def serving(tmp_path: Path, today: Authority) -> Serving:
    return Serving(tmp_path / "provider", today)


@pytest.fixture
def running(serving: Serving) -> Iterator[Serving]:
    with serving.agent:
        yield serving


def test_a_call_is_signed_logged_and_counted(running: Serving) -> None:
    assert running.sign().variables["shaken_as_level"] == "A"
    assert 'info: shaken {"event":"sign"' in running.agent.log_text()
    assert running.agent.counters()["signed_a"] == 1


def test_refused_settings_are_an_alarm_and_downloads_go_on(serving: Serving) -> None:
    key = serving.provider.folder / "signing.key"
    good = key.read_bytes()
    key.write_bytes(b"")
    with serving.agent:
        until(lambda: "calls_not_served" in serving.agent.log_text())
        with pytest.raises(OSError, match="refused"):
            serving.sign()
        key.write_bytes(good)
        os.kill(serving.agent.pid, signal.SIGHUP)
        until(lambda: _listens(serving))
        assert serving.sign().variables["shaken_as_level"] == "A"


def _listens(serving: Serving) -> bool:
    try:
        Leg(serving.port).close()
    except OSError:
        return False
    return True


def test_a_stop_ends_it_while_a_leg_is_connected(serving: Serving) -> None:
    with ExitStack() as stack:
        stack.enter_context(serving.agent)
        silent = Leg(serving.port)
        stack.callback(silent.close)
        begun = time.monotonic()
        serving.agent.stop()
        assert time.monotonic() - begun < 8
        assert "agent: ended" in serving.agent.log_text()
