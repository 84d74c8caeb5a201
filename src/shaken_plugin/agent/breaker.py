"""Whether the agent asks Redis: after the first failure nobody does but one who probes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shaken_plugin.errors import StoreUnavailable

FIRST_PAUSE: Final = 0.1
"""Seconds between the first failure and the first probe; each further pause is twice as long."""
LONGEST_PAUSE: Final = 3.0


class Breaker:
    """A circuit breaker before a fleet's Redis, for all threads of an agent.

    Closed, everybody asks. The first time-out or error opens it: then everybody else is told so at once and waits
    for nothing. Who follows the changes goes on, with pauses; the first answer of Redis closes it, whatever it is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self.why: str | None = None
        """What opened it; None while it is closed."""
        self.opened = 0
        """How often it was opened."""

    @property
    def is_open(self) -> bool:
        """Whether Redis is not to be asked."""
        return self.why is not None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask Redis something; what becomes of it is noted.

        Raises:
            StoreUnavailable: it is open, or what was asked said so.
        """
        why = self.why
        if why is not None:
            raise StoreUnavailable(f"Redis is not asked just now: {why}")
        try:
            yield
        except StoreUnavailable as exc:
            self.failed(str(exc))
            raise

    def failed(self, why: str) -> None:
        """Redis was asked, and could not be had."""
        with self._lock:
            self.opened += self.why is None
            self.why = why

    def worked(self) -> None:
        """The probe was answered."""
        with self._lock:
            self.why = None
            self._failures = 0

    def pause(self) -> float:
        """Seconds until the next probe, after one that failed."""
        with self._lock:
            self._failures += 1
            return float(min(FIRST_PAUSE * 2 ** min(self._failures - 1, 16), LONGEST_PAUSE))
