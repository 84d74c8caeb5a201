"""Hosts of a fleet for tests: each with settings, a file and an agent of its own, on a loopback address of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from shaken_plugin import runtime
from shaken_plugin.cli import main
from shaken_plugin.config.settings import parse_settings
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.redis import RedisServer
from shaken_plugin.lab.servers import free_port
from shaken_plugin.runtime.fleet import fleet_policy
from shaken_plugin.stores.policy import KINDS, NUMBER_KINDS
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.stores.sqlite import SqlitePolicy
from tests.agent.prepared import PreparedAgent
from tests.agent.proxy import Proxy

NAME = "test"


def begin(redis: RedisServer, folder: Path, authority: Authority) -> FleetLog:
    """A fleet whose policy is the lab's."""
    first = Provider.make(folder, authority, time.time())
    runtime.start(first.settings, time.time())
    log = FleetLog(redis.access, NAME)
    upload_snapshot(folder / "policy.db", log)
    return log


class Member:
    """A host of a fleet.

    Args:
        folder: its own.
        name: in the fleet.
        address: its loopback address.
        redis: reached by a wire of its own.
        authority: of its certificates.
        stack: ends what is started.
        settings: further sections.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        address: str,
        redis: RedisServer,
        authority: Authority,
        stack: ExitStack,
        **settings: Any,
    ) -> None:
        self.name = name
        self.wire = stack.enter_context(Proxy(redis.port, address))
        chosen = {"servers": [f"{address}:{self.wire.port}"], "fleet": NAME, "host": name}
        store = {"path": "policy.db", "redis": chosen, **settings.pop("store", {})}
        agent = {"socket": "agent.sock", "listen": f"{address}:{free_port()}"}
        self.provider = Provider.make(folder, authority, time.time(), store=store, agent=agent, **settings)
        self.path = folder / "policy.db"
        runtime.start(self.provider.settings, time.time())  # as its switch does
        self.agent = PreparedAgent(f"agent-{name}", folder, self.provider.settings, folder / "agent.sock")
        self._stack = stack

    def start(self) -> None:
        """Start its agent."""
        self._stack.enter_context(self.agent)

    def policy(self) -> RedisPolicy:
        """The policy, to be changed from here."""
        settings, document = parse_settings(self.provider.settings)
        assert settings is not None, document.problems
        return fleet_policy(settings, print)

    def run(self, *words: str) -> Result:
        """A command on this host."""
        return CliRunner().invoke(main, [words[0], *words[1:], "--settings", str(self.provider.settings)])

    def version(self) -> int:
        """Of its copy."""
        with SqlitePolicy(self.path).records() as records:
            return records.version

    def alarms(self) -> dict[str, str]:
        """The alarms of its agent, by name and what they are about."""
        done = CliRunner().invoke(main, ["agent", "--settings", str(self.provider.settings), "status", "--json"])
        return {f"{one['name']} {one['about']}".strip(): one["text"] for one in json.loads(done.output)["alarms"]}


def everything(path: Path) -> list[Any]:
    """Every record, number and change of a host's file."""
    return list(_everything(SqlitePolicy(path)))


def _everything(policy: SqlitePolicy) -> Iterator[Any]:
    with policy.records() as records:
        yield records.version
        for kind in KINDS.values():
            for record in records.all(kind):
                yield record
                if kind in NUMBER_KINDS:
                    yield list(records.numbers(kind, record.id))
    yield from policy.changes()
