"""What connects the agent and the command with a fleet's Redis, as settings say. No switch process loads this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shaken_plugin.config.fleet import RedisSettings
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import resolve
from shaken_plugin.errors import StoreError
from shaken_plugin.ports import Author
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.redis.connection import RedisAccess
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.sqlite import InForce


def access(chosen: RedisSettings) -> RedisAccess:
    """How a fleet's Redis is reached.

    Raises:
        StoreError: a password is not where the settings say.
    """
    return RedisAccess(
        servers=chosen.addresses,
        mode=chosen.mode,
        master=chosen.master or "",
        username=chosen.username,
        password=_secret("password", chosen.password),
        sentinel_username=chosen.sentinel_username,
        sentinel_password=_secret("sentinel_password", chosen.sentinel_password),
        tls=chosen.tls,
        ca=chosen.ca,
        certificate=chosen.certificate,
        key=chosen.key,
        database=chosen.database,
        timeout=chosen.timeout,
    )


def _secret(name: str, reference: str | None) -> str | None:
    try:
        return None if reference is None else resolve(reference).decode().strip()
    except ValueError as exc:
        raise StoreError(f"store.redis.{name}: {exc}") from exc


def fleet_log(settings: Settings) -> FleetLog:
    """The log of the fleet that a host is of.

    Raises:
        StoreError: it is of none, or a password is not where the settings say.
    """
    chosen = settings.store.redis
    if chosen is None:
        raise StoreError("this host is of no fleet: there is no store.redis in its settings")
    return FleetLog(access(chosen), chosen.fleet)


Tell = Callable[[str], object]
"""Told where fewer of Redis' replicas have a change than settings want, and of a copy that was made anew."""


def share(settings: Settings, policy: Policy, author: Author, origin: str, overwrite: bool) -> InForce:
    """A `runtime.force.Share`: puts a whole policy in force for a fleet."""
    told: list[str] = []
    done = fleet_policy(settings, told.append).replace_policy(policy, author, origin=origin, overwrite=overwrite)
    return done._replace(notes=(*done.notes, *told))


def fleet_policy(settings: Settings, tell: Tell) -> RedisPolicy:
    """The policy of the fleet that a host is of. Raises as `fleet_log` does."""
    log = fleet_log(settings)
    assert settings.store.redis is not None
    return RedisPolicy(Path(settings.store.path), log, settings.store.redis.replicas, tell)
