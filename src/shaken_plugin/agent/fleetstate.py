"""Standings and offences of a fleet in the agent: a thread tells the other hosts what was said here, and hears them.

Nothing here is in the way of a call: workers read the state file, in which a suspension stands before the fleet
hears of it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.offences import say
from shaken_plugin.conduct.replica import StateReplica, Synced
from shaken_plugin.config.sections import Settings
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Observer, Severity
from shaken_plugin.runtime.fleetstate import fill_lost, leave_fleet, state_replica
from shaken_plugin.telemetry import clean

WAIT: Final = 0.25
"""Seconds to wait for news; also after which what was said on this host is seen, where no command published it."""

COMPACT_EVERY: Final = 60.0
"""Seconds between looks whether the snapshot is old."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_MOST_TOLD: Final = 1_000


class FleetState:
    """One host's part in what its fleet knows of customers; nothing, where the settings name no fleet.

    Args:
        settings: checked; only a restart changes what is used of them.
        alarms: told, from the loop, while nothing can be exchanged.
        observer: takes log lines.
    """

    def __init__(self, settings: Settings, alarms: Alarms, observer: Observer) -> None:
        self._settings = settings
        self._redis = settings.store.redis
        self._alarms = alarms
        self._observer = observer
        self._replica: StateReplica | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet-state", daemon=True)
        self._told: deque[Synced] = deque(maxlen=_MOST_TOLD)
        self._trouble: str | None = None
        self._position: int | None = None

    @property
    def claims(self) -> Callable[[str, int, bytes], bytes | None] | None:
        """`claim`, where there is a fleet."""
        return None if self._redis is None else self.claim

    def start(self) -> None:
        """Begin to exchange; without a fleet, leave the one that the file is of."""
        if self._redis is not None:
            self._thread.start()
        elif leave_fleet(self._settings):
            text = "store.redis is gone from the settings: standings and offences are of this host alone from now on"
            self._observer.log(Severity.WARNING, text)

    async def look(self) -> None:
        """Say what happened, and raise or clear the alarm; in the loop."""
        while self._told:
            synced = self._told.popleft()
            for note in synced.notes:
                self._observer.log(Severity.WARNING, clean(f"fleet: {note}"))
            for outcome in synced.outcomes:
                say(self._observer, outcome)
        if self._trouble is None:
            self._alarms.clear("state_not_shared")
        else:
            text = "suspensions hold on this host at once, and on the others when this is over"
            self._alarms.on("state_not_shared", f"{self._trouble}; {text}")

    def status(self) -> str:
        """What the host says of it: how far it is, or what is wrong."""
        return f"at entry {self._position}" if self._trouble is None else f"not shared: {self._trouble}"

    async def close(self) -> None:
        """End; what is under way is done again after the next start."""
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _LONGEST_PAUSE)

    def claim(self, message: str, seconds: int, body: bytes) -> bytes | None:
        """Be the one host of the fleet that sends a message; see `StateReplica.claim`.

        Raises:
            StoreUnavailable: nobody can say now, so nobody sends it.
        """
        if self._replica is None or self._trouble is not None:
            raise StoreUnavailable(self._trouble or "this host has not joined its fleet yet")
        try:
            return self._replica.claim(message, seconds, body)
        except StoreError as exc:
            raise StoreUnavailable(str(exc)) from exc

    # --- The thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        pause, compacted = _FIRST_PAUSE, time.monotonic()
        while not self._stop.is_set():
            try:
                synced = self._round()
                if time.monotonic() - compacted > COMPACT_EVERY:
                    compacted = time.monotonic()
                    self._opened().compact()
                self._trouble, pause = None, _FIRST_PAUSE
                self._opened().wait(synced.position, WAIT)
            except (StoreUnavailable, StoreError) as exc:
                self._trouble = str(exc)
            except Exception as exc:  # the thread must go on, whatever it is
                self._trouble = f"fault: {exc!r}"
            if self._trouble is not None:
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _opened(self) -> StateReplica:
        if self._replica is None:
            assert self._redis is not None
            self._replica = state_replica(self._settings, self._redis)
        return self._replica

    def _round(self) -> Synced:
        try:
            synced = self._opened().sync()
        except StoreUnavailable:
            assert self._redis is not None
            if (filled := fill_lost(self._settings, self._redis)) is None:
                raise
            self._told.append(filled)
            synced = self._opened().sync()
        self._position = synced.position
        if synced.notes or synced.outcomes:
            self._told.append(synced)
        return synced
