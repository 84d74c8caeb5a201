"""Real servers for end-to-end tests: own instances on free loopback ports, in temporary folders."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.lab import sipp
from shaken_plugin.lab.demo import events
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import KamailioServer, LabError, find_program

REQUIRE_ALL = "SHAKEN_REQUIRE_ALL"
"""Set where a missing program is an error and not a reason to skip, as in continuous integration."""


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Skip, saying why, where Kamailio or SIPp is not installed."""
    for name in ("kamailio", "kamcmd", "sipp"):
        try:
            find_program(name)
        except LabError as exc:
            if os.environ.get(REQUIRE_ALL):
                raise
            pytest.skip(str(exc))


@dataclass
class Network:
    """An originating and a terminating Kamailio with everything behind and before them."""

    folder: Path
    authority: Authority
    stack: ExitStack
    _names: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    @classmethod
    def new(cls, folder: Path, stack: ExitStack) -> Network:
        return cls(folder, Authority.new(time.time()), stack)

    def name(self, what: str) -> str:
        """A name that nothing else has here."""
        return f"{what}-{next(self._names)}"

    def provider(self, name: str, **settings: Any) -> Provider:
        return Provider.make(self.folder / name, self.authority, time.time(), **settings)

    def called(self, scenario: str = "uas_answer", *, arguments: tuple[str, ...] = (), **keys: str) -> sipp.Answerer:
        label = self.name(scenario)
        return self.stack.enter_context(
            sipp.Answerer(self.folder / label, scenario, label=label, keys=keys, arguments=arguments)
        )

    def kamailio(self, provider: Provider, **arguments: Any) -> KamailioServer:
        name = self.name("kamailio")
        arguments = {"inside_peer": "sip:127.0.0.1:9", "outside_peer": "sip:127.0.0.1:9", **arguments}
        return self.stack.enter_context(KamailioServer(name, provider.folder / name, provider.settings, **arguments))

    def call(self, scenario: str, port: int, **arguments: Any) -> sipp.Run:
        arguments.setdefault("label", self.name("call"))
        arguments["keys"] = {
            "from": "+12155551212",
            "to": "+12025550143",
            "pai_user": "+12155551212",
            **arguments.get("keys", {}),
        }
        arguments.setdefault("address", "127.0.0.2")
        return sipp.call(scenario, self.folder, f"127.0.0.1:{port}", **arguments)


def logged(server: KamailioServer, run: sipp.Run, name: str) -> dict[str, Any]:
    """The plugin's last log line of a kind about a run's first call."""
    call_id = run.messages[0].header("Call-ID")[0]
    return [event for event in events(server.log_text(), call_id) if event["event"] == name][-1]


def pair_of(provider: Provider) -> SigningPair:
    """What a provider signs with, to make headers beside the switch."""
    return load_pair(
        key=provider.credential.key, chain=provider.credential.chain, x5u=provider.x5u, live_from=0, spc=None
    )


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network.new(tmp_path, stack)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """One network for the tests of a module that change nothing in it."""
    with ExitStack() as stack:
        yield Network.new(tmp_path_factory.mktemp("network"), stack)
