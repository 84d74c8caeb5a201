"""What only the way over an event socket can do wrong: hostile text on its way, and an agent that is late or gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shaken_plugin import runtime
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.provider import dump, sample_policy
from shaken_plugin.lab.servers import AgentServer, free_port
from tests.agent.host import until
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import kill
from tests.e2e.freeswitch.party import Party


class Host:
    """A FreeSWITCH without Python, and the agent that serves its calls."""

    def __init__(self, network: Network, carrier: Party) -> None:
        port = free_port()
        self.way = Way.esl(port)
        self.provider = network.provider("origin", agent={"esl": {"listen": f"127.0.0.1:{port}"}})
        self.carrier = carrier
        self._network = network
        self.agent = self.start_agent()

    def start_agent(self) -> AgentServer:
        folder = self.provider.folder
        server = AgentServer("agent", folder, self.provider.settings, folder / "agent.sock")
        return self._network.stack.enter_context(server)

    def start(self, **arguments: object) -> FreeSwitchServer:
        target = self.carrier.target
        server = FreeSwitchServer(
            "freeswitch",
            self.provider.folder / "freeswitch",
            self.provider.settings,
            **{  # type: ignore[arg-type]  # parts that a test changes
                "inside_peer": target,
                "outside_peer": target,
                "hook": self.way.hook,
                "from_outside": self.way.verify,
                "python": False,
                "agent": self.agent,
                **arguments,
            },
        )
        switch = self._network.stack.enter_context(server)
        self._network.stack.callback(kill, switch)
        return switch


@pytest.fixture
def host(network: Network, carrier: Party) -> Host:
    return Host(network, carrier)


def test_nothing_that_a_stranger_writes_means_anything_on_its_way(host: Host, caller: Party, tmp_path: Path) -> None:
    """Values arrive byte for byte, and none runs, ends a command, or stops us from reading the others."""
    switch = host.start()
    touched = tmp_path / "touched"
    values = [
        "a.b.c;info=<https://x.example/%41%0d%0aX-Evil:1>;alg=ES256;ppt=shaken;q='x y';r=\\n\\\\z;s=\"\\$\"",
        "a.b.c;info=<https://x.example/ unload mod_event_socket RELOAD MOD_EVENT_SOCKET>;alg=ES256",
        "a.b.c;info=<https://x.example/é>;x='';y=' ;z=\\'\\",
        "a.b.c;info=<https://x.example/>;x=app_disable_expand_variables=true;y=~Reply-Text",
    ]
    runs = f"a.b.c;info=<https://x.example/${{system(touch {touched})}}>;alg=ES256;ppt=shaken"
    junk = b'P-Asserted-Identity: "\xff${system(touch %b)}" <sip:+12155551212@a.example>\r\nX-Foo: \xff\xfe\r\n'
    sent = "".join(f"Identity: {value}\r\n" for value in (*values[:1], runs, *values[1:])).encode()
    assert caller.ask(switch.outside_port, junk % str(touched).encode() + sent).status == 200
    arrived = host.carrier.invite()
    # FreeSWITCH itself copies no variable with ${ in it to another leg.
    assert arrived.identity() == values
    assert "verstat=No-TN-Validation" in arrived.one("P-Asserted-Identity")
    assert not touched.exists()
    assert switch.api("module_exists mod_event_socket") == "true"
    assert not [name for name in host.agent.counters() if name.startswith(("fault", "esl_"))]


def test_a_variable_of_the_switch_that_resets_legs_loses_none(host: Host, caller: Party) -> None:
    switch = host.start(variables={"socket_resume": "true"})
    assert caller.ask(switch.outside_port).status == 200
    assert "verstat=" in host.carrier.invite().one("P-Asserted-Identity")
    assert caller.ask(switch.inside_port).status == 200
    assert host.carrier.invite().identity()


def test_settings_of_calls_are_those_that_are_in_force(host: Host, caller: Party) -> None:
    switch = host.start()
    assert caller.ask(switch.inside_port).status == 200
    settings = host.provider.settings
    settings.write_text(settings.read_text().replace("signing:\n", "signing:\n  mode: observe\n"))
    os.kill(host.agent.pid, signal.SIGHUP)  # reads its own settings; those of calls are not in force yet
    until(lambda: "settings reloaded, policy version" in host.agent.log_text(), 20)
    assert "run 'shaken apply'" in host.agent.log_text()
    dump(host.provider.folder / "policy.yaml", sample_policy(time.time()))
    runtime.apply(host.provider.settings, time.time())
    until(lambda: host.agent.log_text().count("settings reloaded, policy version") >= 2, 20)
    host.carrier.forget()
    assert caller.ask(switch.inside_port).status == 200
    assert host.carrier.invite().identity() == []


@pytest.mark.alone
def test_an_agent_that_is_killed_and_comes_back_loses_no_call(host: Host, network: Network) -> None:
    """20 calls a second, 200 of them: all go through, signed before and after."""
    called = network.called()
    switch = host.start(outside_peer=called.uri.removeprefix("sip:"))

    def trouble() -> None:
        time.sleep(3)
        host.agent.kill()
        time.sleep(3)
        host.agent = host.start_agent()

    thread = threading.Thread(target=trouble)
    thread.start()
    run = network.call("uac_call", switch.inside_port, calls=200, rate=20, trace=False)
    thread.join()
    assert (run.counts.successful, run.counts.failed) == (200, 0), run.errors
    numbers = [len(invite.header("Identity")) for invite in called.invites()]
    assert set(numbers) == {0, 1}
    assert numbers[0] == numbers[-1] == 1
    assert numbers.count(1) >= 60
    assert "Connection refused" in switch.log_text()


@pytest.fixture
def stopped(host: Host) -> Iterator[Host]:
    """The agent's process stands still: connections are taken, and nobody reads."""
    with ExitStack() as stack:
        stack.callback(os.kill, host.agent.pid, signal.SIGCONT)
        yield host


def test_an_agent_that_stands_still_delays_a_call_and_loses_none(stopped: Host, caller: Party) -> None:
    switch = stopped.start()
    os.kill(stopped.agent.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert caller.ask(switch.outside_port, seconds=40).status == 200
    assert time.monotonic() - begun < 30  # FreeSWITCH waits for the first command up to 25 s
    assert stopped.carrier.invite()
