"""What in a Redis' own settings would lose the changes of a fleet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from shaken_plugin.errors import StoreError
from shaken_plugin.stores.redis.log import FleetLog

OLDEST: Final = 7
"""Of Redis; every release of Valkey is newer."""


def advise(log: FleetLog) -> list[str]:
    """What should be changed in the settings of a fleet's Redis, for people; empty where all is well.

    Raises:
        StoreUnavailable: it cannot be had.
    """
    try:
        found = log.command("INFO")
    except StoreError as exc:
        return [f"its settings cannot be looked at ({exc}); allow its user +info"]
    nodes = found if all(isinstance(value, dict) for value in found.values()) else {"": found}
    said = {f"{node}: {text}" if node else text for node, info in nodes.items() for text in _of_one(info)}
    return sorted(said)


def _of_one(info: dict[str, Any]) -> Iterator[str]:
    release = str(info.get("redis_version", ""))
    if release.partition(".")[0].isdecimal() and int(release.partition(".")[0]) < OLDEST:
        yield f"release {release} is older than {OLDEST}, which no test of ours has seen"
    if not info.get("aof_enabled"):
        yield "appendonly is no: a Redis that is started again has lost what was changed since its last dump, or all"
    if info.get("maxmemory") and info.get("maxmemory_policy") != "noeviction":
        yield f"maxmemory-policy is {info.get('maxmemory_policy')}: it must be noeviction, or policy is thrown away"
