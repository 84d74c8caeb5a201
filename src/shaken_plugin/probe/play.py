"""What a run is told, and one canary under way."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from typing import Final

from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.probe.canaries import CALLER, Canary, Scene
from shaken_plugin.probe.dialogs import AGENT
from shaken_plugin.probe.findings import Leg, Step
from shaken_plugin.probe.message import Message
from shaken_plugin.probe.transport import Packet

T1: Final = 0.5
"""Seconds before the first retransmission over UDP (RFC 3261 §17.1.1.1)."""

MAX_PACKETS: Final = 64
"""Most messages of one call that are kept: a loop must not fill the memory."""

CALLER_SIDE, PBX, LISTENER = range(3)
"""Columns of the ladder."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to send where. ``via`` is an address and a port, ``name`` how the user wrote the host."""

    via: tuple[str, int]
    listen: tuple[str, int]
    plan: DialPlan
    name: str = ""
    transport: str = "udp"
    caller: str = CALLER
    called: str | None = None
    """One number for all calls; None for one each, from `canaries.FIRST_CALLED` on."""
    user: str | None = None
    password: str = ""
    timeout: float = 5.0
    """Seconds for the answer to a call."""
    settle: float = 0.2
    """Seconds after an answer in which further copies of a call may arrive."""
    mtu: int | None = None
    """Of the path to the PBX; None for what the system knows."""
    tls_client: ssl.SSLContext | None = None
    tls_server: ssl.SSLContext | None = None


@dataclass(slots=True)
class Play:
    """One canary under way."""

    canary: Canary
    called: str
    transfer: str
    sent: Leg | None = None
    status: int | None = None
    error: str = ""
    """Why it could not be sent."""
    server: str = ""
    copies: dict[Scene, list[Packet]] = field(default_factory=lambda: {scene: [] for scene in Scene})
    """What arrived: INVITEs of the call, re-INVITEs, INVITEs of the leg that a transfer made."""
    trace: list[Step] = field(default_factory=list)
    transferring: bool = False
    referred: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def reply(self, packet: Packet, data: bytes, column: int) -> None:
        """Answer from a column of ours."""
        self.record(column, PBX, Message.parse(data))
        packet.send(data)

    def record(self, start: int, end: int, message: Message) -> None:
        """Keep a message for the ladder."""
        if len(self.trace) >= MAX_PACKETS:
            return
        label = message.method if message.status is None else message.start.removeprefix("SIP/2.0 ")
        count = len(message.all("identity"))
        note = f"{count} Identity, {len(message.raw)} bytes" if message.status is None and count else ""
        self.trace.append(Step(time.time(), (start, end), label, note))

    def learn(self, message: Message) -> None:
        """Take over what the PBX says it is."""
        name = message.first("server") or message.first("user-agent")
        if name and name != AGENT and not self.server:
            self.server = name
