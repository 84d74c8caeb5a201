"""The locks of a fleet: in Redis, renewed as long as their holder lives, and given back also where no answer came."""

from __future__ import annotations

import platform
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.stores.redis import scripts
from shaken_plugin.stores.redis.entries import text
from shaken_plugin.stores.sqlite.schema import WRITER_TIMEOUT, Patience, patience

LOCK: Final = 15.0
"""Seconds after which a writer that says nothing more has the fleet's lock no longer."""

POLL: Final = 0.1
"""Seconds between two looks at a lock that another writer has."""


class Locked(StoreError):
    """Another has the lock."""


def allowed_now() -> Patience:
    """How long whoever runs now waits for other writers."""
    return patience.get() or Patience(WRITER_TIMEOUT)


class _Log(Protocol):
    @property
    def name(self) -> str: ...

    def key(self, name: str) -> str: ...

    def command(self, *words: Any) -> Any: ...

    def run(self, script: str, names: Iterable[str], *arguments: Any) -> Any: ...


class Locks:
    """The locks of one fleet, for one process.

    Args:
        log: of the fleet.
    """

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._ghosts: set[str] = set()
        """What locks may hold that were asked for, or given up, without an answer: nobody has them."""

    @contextmanager
    def locked(self, name: str, allowed: Patience) -> Iterator[None]:
        """Be the only one of the fleet for a while, as far as a lock can see to that; `commit` compares all the same.

        Args:
            name: of the lock: lock for writers, compacting for who makes a snapshot.
            allowed: how long to wait for it.

        Raises:
            Locked: another has it longer than that.
            StoreUnavailable: Redis cannot be had.
        """
        held = f"{uuid.uuid4().hex} {platform.node()}"
        # Asked something first: a server that hangs would give the lock later, to somebody who has gone.
        self._log.command("EXISTS", self._log.key(name))
        self._take(name, held, allowed)
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(name, held, done), name=f"fleet {name}", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            self._release(name, held)

    def _release(self, name: str, held: str) -> None:
        try:
            self._log.run(scripts.RELEASE, (name,), held)
            self._ghosts.discard(held)
        except (StoreError, StoreUnavailable):
            self._ghosts.add(held)  # it runs out by itself, or is released by whoever wants it next here

    def _take(self, name: str, held: str, allowed: Patience) -> None:
        end, told, key = time.monotonic() + allowed.seconds, False, self._log.key(name)
        self._ghosts.add(held)  # until there is an answer
        while self._log.command("SET", key, held, "NX", "PX", int(LOCK * 1000)) is None:
            other = text(self._log.command("GET", key) or b"")
            if other in self._ghosts:
                self._release(name, other)
                continue
            if time.monotonic() >= end:
                self._ghosts.discard(held)
                whose = other.partition(" ")[2][:64] or "another host"
                raise Locked(
                    f"{self._log.name}: is locked by another writer, on {whose}, "
                    f"for more than {allowed.seconds:g} seconds; try again later"
                )
            if not told:
                allowed.waits(
                    f"another change of {self._log.name} is under way: waiting for it, {allowed.seconds:g} s at most"
                )
                told = True
            time.sleep(POLL)
        self._ghosts.discard(held)

    def _renew(self, name: str, held: str, done: threading.Event) -> None:
        while not done.wait(LOCK / 3):
            with suppress(StoreError, StoreUnavailable):  # the commit compares
                self._log.run(scripts.RENEW, (name,), held, int(LOCK * 1000))
