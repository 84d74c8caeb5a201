"""A host of a fleet: its policy in a Redis, with limits on all calls, and the agent that keeps the copy and counts."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import stage
from bench.processes import children, cpu_seconds
from shaken_plugin import runtime
from shaken_plugin.core.records import Customer, Limits, Rate
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.redis import RedisServer, wait_until
from shaken_plugin.lab.servers import AgentServer
from shaken_plugin.ports import Author
from shaken_plugin.stores.freshness import mark_of
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.upkeep import upload_snapshot

NAME: Final = "bench"

MOST: Final = 1_000_000
"""Calls a second, and at a time: no call is over these limits, and each is counted."""


class Fleet:
    """One host with everything it needs.

    Args:
        folder: for its files, in folders of their own.
        authority: of its certificate.
        stack: ends Redis and agent.

    Raises:
        LabError: there is no Redis, or something does not start.
    """

    def __init__(self, folder: Path, authority: Authority, stack: ExitStack) -> None:
        self._redis = stack.enter_context(RedisServer("redis", folder / "redis"))
        _begin(folder / "elsewhere", authority, self._redis)
        servers = {"servers": [f"127.0.0.1:{self._redis.port}"], "fleet": NAME}
        made = stage.provider(folder / "member", authority, store={"path": "policy.db", "redis": servers})
        self.member, self.settings = made, made.settings
        socket = made.folder / "agent.sock"
        self._agent = stack.enter_context(AgentServer("agent", made.folder, made.settings, socket))
        wait_until(mark_of(made.folder / "policy.db").exists, "the agent has a copy of the policy")
        runtime.start(made.settings, time.time())

    def agent_cpu(self) -> float:
        """CPU seconds of the agent so far."""
        return sum(map(cpu_seconds, (self._agent.pid, *children(self._agent.pid))))

    def redis_cpu(self) -> float:
        """CPU seconds of Redis so far."""
        return cpu_seconds(self._redis.pid)

    def forget(self) -> None:
        """Have Redis forget when the customer called, and which PASSporTs came."""
        self._redis.command("DEL", _ARRIVALS, *self._seen())

    def has_counted(self) -> bool:
        """Whether Redis has counted a call of the customer since."""
        return bool(self._redis.command("EXISTS", _ARRIVALS))

    def has_seen(self) -> bool:
        """Whether Redis was asked about a PASSporT since."""
        return bool(self._seen())

    def _seen(self) -> list[str]:
        found: list[str] = self._redis.command("KEYS", f"shaken:{NAME}:seen:*")
        return found


_ARRIVALS: Final = f"shaken:{NAME}:{{acme}}:arrivals"


def _begin(folder: Path, authority: Authority, redis: RedisServer) -> None:
    """The fleet's policy: that of the lab, with limits on the customer's calls."""
    first = stage.provider(folder, authority)
    runtime.start(first.settings, time.time())
    log = FleetLog(redis.access, NAME)
    try:
        upload_snapshot(folder / "policy.db", log)
        store = RedisPolicy(folder / "policy.db", log)
        with store.change(Author("bench", "limits", time.time()), "limits") as draft:
            acme = draft.get(Customer, "acme")
            assert acme is not None
            draft.put(replace(acme, limits=Limits(Rate(float(MOST), MOST))))
    finally:
        log.close()
