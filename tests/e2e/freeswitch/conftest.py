"""A real FreeSWITCH for these tests, by each way our functions get into it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
import yaml

from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way, find_freeswitch
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.lab.servers import LOOPBACK, AgentServer, LabError, free_port
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.party import Party

REQUIRED = "SHAKEN_REQUIRE_FREESWITCH"
"""Set where the lack of a FreeSWITCH is an error and not a reason to skip."""


@pytest.fixture(scope="session", autouse=True)
def freeswitch() -> None:
    """Skip, saying why, where no FreeSWITCH is found."""
    try:
        find_freeswitch()
    except LabError as exc:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(str(exc))


@pytest.fixture(scope="module", params=["mod_python3", "esl"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way.esl(ANY_AGENT) if request.param == "esl" else Way.mod_python3()


ANY_AGENT = 9
"""The port of the agent in a `Way`, until it is known whose agent it is."""


def with_port(argument: Any, port: int) -> Any:
    """What `FreeSwitchServer` is given, with the port of the agent."""
    if isinstance(argument, dict):
        return {name: with_port(value, port) for name, value in argument.items()}
    if isinstance(argument, str):
        return argument.replace(f"{LOOPBACK}:{ANY_AGENT}/", f"{LOOPBACK}:{port}/")
    return argument


class Agents:
    """One agent for each provider, for FreeSWITCHes that have their calls served by it."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._found: dict[str, tuple[AgentServer, int]] = {}

    def of(self, provider: Provider) -> tuple[AgentServer, int]:
        """Its agent, and the port on which that waits for legs."""
        name = str(provider.settings)
        if name not in self._found:
            port = free_port()
            settings = yaml.safe_load(provider.settings.read_text())
            settings["agent"]["esl"] = {"listen": f"{LOOPBACK}:{port}"}
            dump(provider.settings, settings)
            server = AgentServer("agent", provider.folder, provider.settings, provider.folder / "agent.sock")
            self._found[name] = self._network.stack.enter_context(server), port
        return self._found[name]

    def serve(self, way: Way, provider: Provider | None, arguments: dict[str, Any]) -> dict[str, Any]:
        """What a `FreeSwitchServer` is to be given, so that its calls are served in this way."""
        arguments.setdefault("python", way.python)
        if provider is None or way.python:
            return arguments
        agent, port = self.of(provider)
        return {name: with_port(value, port) for name, value in arguments.items()} | {"agent": agent}


def kill(server: FreeSwitchServer) -> None:
    """End it at once: a clean end takes FreeSWITCH four seconds, and one test looks at that."""
    if server.running():
        os.kill(server.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def agents(shared: Network) -> Agents:
    return Agents(shared)


@pytest.fixture(scope="module")
def start(shared: Network, agents: Agents, way: Way) -> Callable[..., FreeSwitchServer]:
    """Starts FreeSWITCHes that end with the module."""

    def begin(provider: Provider | None, **arguments: Any) -> FreeSwitchServer:
        name = f"{way.name}-{next(shared._names)}"
        settings = None if provider is None else provider.settings
        arguments = agents.serve(way, provider, arguments)
        server = shared.stack.enter_context(FreeSwitchServer(name, shared.folder / name, settings, **arguments))
        shared.stack.callback(kill, server)
        return server

    return begin


Start = Callable[..., FreeSwitchServer]


@pytest.fixture
def caller() -> Iterator[Party]:
    """The customer acme, by the address of its trunk."""
    with Party("127.0.0.2") as party:
        yield party


@pytest.fixture(scope="module")
def carrier() -> Iterator[Party]:
    """Whom calls to outside reach."""
    with Party() as party:
        yield party


@pytest.fixture(autouse=True)
def quiet(carrier: Party) -> None:
    """Each test sees its own calls only."""
    carrier.forget()


def when(name: str, actions: str) -> str:
    """A dialplan extension for calls with ``X-Test: name``."""
    condition = f'<condition field="${{sip_h_X-Test}}" expression="^{name}$"/>'
    return (
        f'<extension name="{name}">{condition}<condition field="destination_number" expression="^(.+)$">'
        f"{actions}</condition></extension>"
    )


def action(application: str, data: str = "") -> str:
    """A dialplan action."""
    return f"<action application={quoteattr(application)} data={quoteattr(data)}/>"


def choose(name: str) -> bytes:
    return f"X-Test: {name}\r\n".encode()


def claims(value: str) -> dict[str, Any]:
    return dict(Passport.parse(IdentityHeader.parse(value).digest).claims)


def said(server: FreeSwitchServer, event: str) -> list[dict[str, Any]]:
    """The plugin's log lines of one kind, in order."""
    found = []
    for line in server.log_text().splitlines():
        _, there, text = line.partition("shaken {")
        if there and (fields := json.loads("{" + text))["event"] == event:
            found.append(fields)
    return found
