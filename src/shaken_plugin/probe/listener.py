"""The called side of the probe: answers every call that arrives, and knows whose it is."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

from shaken_plugin.bounded import Bounded
from shaken_plugin.probe import headers
from shaken_plugin.probe.canaries import Scene
from shaken_plugin.probe.dialogs import Dialog, answer, sdp
from shaken_plugin.probe.message import Message, parameter
from shaken_plugin.probe.play import LISTENER, MAX_PACKETS, PBX, T1, Play
from shaken_plugin.probe.transport import Packet, Side

MAX_STRANGERS: Final = 1_024
"""Most calls of others that are remembered, so that each counts once."""

MAX_HOSTS: Final = 64
"""Most hosts of others that are named."""


class Listener:
    """Where the PBX sends the canaries.

    Args:
        plays: the canaries so far, the last one under way.
        one_number: all have one called number.
        via: address of the PBX. Calls with neither a token nor a number of ours are taken from there alone.
    """

    def __init__(self, plays: list[Play], *, one_number: bool, via: str) -> None:
        self.side = Side(self._receive)
        self.legs: dict[str, tuple[Dialog, Packet]] = {}
        """Calls that were answered, by Call-ID."""
        self._plays = plays
        self._one_number, self._via = one_number, via
        self.strangers: dict[str, int] = {}
        """Calls that were not ours, by the host they came from."""
        self._refused: Bounded[tuple[str, str, str], bool] = Bounded(MAX_STRANGERS)
        self._answers: dict[tuple[str, str, str], bytes] = {}
        self._acknowledged: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End all that is under way."""
        for task in list(self._tasks):
            task.cancel()
        await self.side.close()

    def _receive(self, packet: Packet) -> None:
        message = packet.message
        if not self._plays or (message.status is not None and message.method != "REFER"):
            return
        play = self._owner(packet)
        if play is None:
            self._refuse(packet)
            return
        play.record(PBX, LISTENER, message)
        play.learn(message)
        if message.status is not None:
            return
        if message.method == "ACK":
            if message.call_id in self.legs:
                self._acknowledged.add(message.call_id)
        elif message.method != "INVITE":
            play.reply(packet, answer(message, 200, "OK"), LISTENER)
        elif (known := self._answers.get(message.transaction)) is not None:
            play.reply(packet, known, LISTENER)
        elif len(self._answers) < MAX_PACKETS * len(self._plays):
            self._answer_invite(play, packet)

    def _refuse(self, packet: Packet) -> None:
        """Answer a call of somebody else, counted once however often it is sent; pass over the rest."""
        message, host = packet.message, packet.peer[0]
        if message.status is not None or message.method != "INVITE":
            return
        if not self._refused.get(message.transaction) and (host in self.strangers or len(self.strangers) < MAX_HOSTS):
            self.strangers[host] = self.strangers.get(host, 0) + 1
        self._refused.put(message.transaction, True)
        packet.send(answer(message, 404, "Not Found", tag="stranger"))

    def _answer_invite(self, play: Play, packet: Packet) -> None:
        message = packet.message
        place = self.side.place(packet.transport)
        tag = uuid.uuid4().hex[:12]
        if parameter(message.first("to"), "tag"):
            play.copies[Scene.REINVITE].append(packet)
        else:
            scene = Scene.REFER if self._is_transfer(play, message) else Scene.CALL
            play.copies[scene].append(packet)
            self.legs[message.call_id] = Dialog.of_called(place, message, tag), packet
            play.arrived.set()
        data = answer(message, 200, "OK", tag=tag, contact=place.uri, body=sdp(place.host))
        self._answers[message.transaction] = data
        self._acknowledged.discard(message.call_id)
        play.reply(packet, data, LISTENER)
        if packet.transport == "udp":
            task = asyncio.get_running_loop().create_task(self._repeat(play, packet, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _repeat(self, play: Play, packet: Packet, data: bytes) -> None:
        """A 2xx is sent until it is acknowledged (RFC 3261 §13.3.1.4)."""
        for wait in (T1, 2 * T1, 4 * T1, 8 * T1):
            await asyncio.sleep(wait)
            if packet.message.call_id in self._acknowledged:
                return
            play.reply(packet, data, LISTENER)

    @staticmethod
    def _is_transfer(play: Play, message: Message) -> bool:
        if not play.transferring:
            return False
        return all(packet.message.call_id != message.call_id for packet in play.copies[Scene.CALL])

    def _owner(self, packet: Packet) -> Play | None:
        """Whose call this is: by Call-ID of a known leg, token, part of a token, number; else the one under way.

        None where nothing but its coming says so, and it did not come from the PBX: whoever scans the
        network for SIP must not become a verdict.
        """
        message, current = packet.message, self._plays[-1]
        for play in self._plays:
            if any(known.message.call_id == message.call_id for copies in play.copies.values() for known in copies):
                return play
        for of in (headers.tokens, headers.parts):
            marks = of(message)
            for play in self._plays:
                if play.sent is not None and marks & of(play.sent.message):
                    return play
        dialled = f"{message.uri} {message.first('to')}"
        for play in [current] if self._one_number else self._plays:
            if any(number.removeprefix("+") in dialled for number in (play.called, play.transfer)):
                return play
        return current if packet.peer[0] == self._via else None
