"""Which process this is, without asking the kernel: a call would ask five times, and each time the caches are cold.

A child is told by Python's hook for `fork`. ``app_python3`` calls that in each process of Kamailio, too
(`PyOS_AfterFork_Child`), before it calls anything of ours there. A process that is forked past it is none where Python
may run at all: of Kamailio's modules, that of ``erlang`` for its node.
"""

from __future__ import annotations

import os
from typing import Final


class _Process:
    __slots__ = ("id",)

    def __init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Ask the kernel."""
        self.id = os.getpid()


THIS: Final = _Process()
"""The process that runs; ``id`` as `os.getpid` has it."""

os.register_at_fork(after_in_child=THIS.look)
