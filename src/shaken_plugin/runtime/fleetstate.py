"""The state file's part in a fleet, as settings say: standings of customers, offences. No switch process loads this."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from shaken_plugin.conduct.fleet import leave, place_of
from shaken_plugin.conduct.replica import StateReplica, Synced, refill
from shaken_plugin.conduct.state import State
from shaken_plugin.config.fleet import RedisSettings
from shaken_plugin.config.sections import Settings
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.runtime.fleet import access
from shaken_plugin.stores.redis.state import StateStream
from shaken_plugin.stores.sqlite.sharing import own_policy
from shaken_plugin.stores.sqlite.writer import READER_TIMEOUT


def ledger_name(settings: Settings, redis: RedisSettings) -> str:
    """How the fleet calls the ledger that this host's calls are read from: hosts may share a PostgreSQL."""
    place = settings.records.ledger
    return redis.host_name if place.startswith("sqlite:") else place


def state_replica(settings: Settings, redis: RedisSettings) -> StateReplica:
    """What keeps this host's state file the same as those of its fleet.

    Raises:
        StoreUnavailable, StoreError: Redis cannot be had, or a password is not where the settings say.
    """
    state = State(Path(settings.store.state), Path(settings.store.path))
    stream = StateStream(access(redis), redis.fleet)
    return StateReplica(state, stream, ledger_name(settings, redis), may_join=partial(_is_no_host_alone, settings))


def _is_no_host_alone(settings: Settings) -> bool:
    return not own_policy(Path(settings.store.path), READER_TIMEOUT)


def fill_lost(settings: Settings, redis: RedisSettings) -> Synced | None:
    """Make a state file that is lost anew from the fleet; None where it is not lost, or the fleet has none.

    Raises:
        StoreUnavailable, StoreError: Redis cannot be had, or the file cannot be made.
    """
    stream = StateStream(access(redis), redis.fleet)
    try:
        name = ledger_name(settings, redis)
        return refill(Path(settings.store.state), Path(settings.store.path), stream, name)
    finally:
        stream.close()


def leave_fleet(settings: Settings) -> bool:
    """Have the state file be one of a host of its own, where the settings name no fleet; whether it was of one."""
    state = State(Path(settings.store.state), Path(settings.store.path))
    with suppress(StoreUnavailable):  # who needs it says so
        with state.reading() as connection:
            joined = place_of(connection) is not None
        if joined:
            with state.changing() as connection:
                return leave(connection)
    return False


def tell_fleet(settings: Settings) -> Synced | None:
    """Have what was said on this host known to its fleet at once; None where the agent has not joined one yet.

    Raises:
        StoreUnavailable, StoreError: it cannot be now; what was said waits for the agent.
    """
    redis = settings.store.redis
    state = State(Path(settings.store.state), Path(settings.store.path))
    with state.reading() as connection:
        joined = place_of(connection) is not None
    return state_replica(settings, redis).sync() if redis is not None and joined else None
