"""Kamailio and SIPp's called side as they are measured with: an allocator chosen, nothing written that nobody reads."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.processes import children, cpu_seconds
from shaken_plugin.agent.ledger import TOGETHER
from shaken_plugin.lab import sipp
from shaken_plugin.lab.servers import KamailioServer

RECORDED: Final = TOGETHER + 0.25
"""Seconds after the last call until an agent has put its record into the ledger."""

SETTLING: Final = 10.0
LOOK: Final = 0.25
IDLE: Final = 0.03
"""Part of a core's time that all processes of a Kamailio without calls take, and a little more."""


class Proxy(KamailioServer):
    """A Kamailio with the allocator that costs least: with that of Debian a plain relay costs twice as much."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # as its parent takes them
        self._command += ["-x", "tlsf", "-X", "tlsf"]

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(map(cpu_seconds, (self.pid, *children(self.pid))))

    def settle(self) -> None:
        """Return once it has nothing more to do, with what came too fast for it; or after `SETTLING` seconds."""
        deadline, before = time.monotonic() + SETTLING, self.cpu()
        while time.monotonic() < deadline:
            time.sleep(LOOK)
            before, last = self.cpu(), before
            if before - last < LOOK * IDLE:
                return

    def sip_workers(self) -> list[int]:
        """The processes that take SIP messages, by pid."""
        found = re.findall(r"PID: (\d+)\s+DSC: udp receiver", self.rpc("core.psx"))
        return [int(pid) for pid in found]

    def modules(self) -> frozenset[str]:
        """What it has loaded."""
        return frozenset(self.rpc("core.modules").split())


class Called(sipp.Answerer):
    """SIPp as the called side on a port that is known before; what it sees is not written down."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder)
        at, messages = self._command.index(str(self.port)), self._command.index("-trace_msg")
        self._command[at] = str(port)
        del self._command[messages : messages + 3]
        self.port = port

    def stop(self) -> None:
        """End it at once: SIPp waits ten seconds for calls that are open."""
        if self.running():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        super().stop()
