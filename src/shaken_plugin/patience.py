"""How long a call waits for files that other processes have locked: once, whichever of them it is.

A call reads several files, and whoever locks one of them often locks them all. So what a process has waited in vain
for one is not waited for another, nor for the same once more, until a while after.
"""

from __future__ import annotations

import time
from typing import Final

BUSY_TIMEOUT: Final = 0.01
"""Seconds. With those for the agent (`stores.agent_line`) they are the 50 ms that a call waits for us at most."""

BLIND: Final = 0.25
"""Seconds for which nobody waits after it; a file that was locked is not even tried again meanwhile."""


class _Patience:
    """Of this process; all its threads share it."""

    def __init__(self) -> None:
        self._until = 0.0

    def left(self, most: float = BUSY_TIMEOUT) -> float:
        """Seconds to wait for a lock now, of those that may be waited."""
        return 0.0 if time.monotonic() < self._until else most

    def spend(self) -> None:
        """It was waited for a lock in vain."""
        self._until = time.monotonic() + BLIND


PATIENCE: Final = _Patience()
