"""A PBX of our own that does to Identity headers whatever a test wants: a relay between two places.

It stays in the way of both sides (as a B2BUA does), changes the Call-ID of every call, and gives
each initial INVITE to a function that says which INVITEs leave.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from shaken_plugin.probe.dialogs import answer, build
from shaken_plugin.probe.message import HeaderLine, Message, parameter
from shaken_plugin.probe.transport import Packet, Side

Lines = list[HeaderLine]
Change = Callable[[Message], Sequence[Message]]
"""What leaves for an INVITE that came."""

NAME = "Fake-PBX 1.0"
_FOREIGN = "-b"


def changed(message: Message, lines: Sequence[HeaderLine] | None = None, start: str | None = None) -> Message:
    """The message with other lines or another first line."""
    lines = message.lines if lines is None else lines
    head = "".join(f"{line.name}: {line.value}\r\n" for line in lines)
    start = message.start if start is None else start
    return Message.parse(f"{start}\r\n{head}\r\n".encode("utf-8", "surrogateescape") + message.body)


def identities(change: Callable[[Lines], Lines]) -> Change:
    """Changes the Identity lines alone."""

    def apply(message: Message) -> Sequence[Message]:
        others = [line for line in message.lines if line.full_name != "identity"]
        return [changed(message, [*others, *change(list(message.all("identity")))])]

    return apply


def same(message: Message) -> Sequence[Message]:
    """Leaves all as it is."""
    return [message]


class FakePbx:
    """Stands between the caller and the listener.

    Args:
        target: the listener.
        change: what leaves for an initial INVITE.
        transport: towards the listener.
        limit: bytes of the longest datagram it reads; longer ones are lost.
        transfers: carries out a REFER itself; otherwise hands it on.
        ends_reinvites: answers INVITEs within a call itself.
        refuse: answers every INVITE with this status.
        challenge: asks for credentials with this value first.
        change_within: what becomes of the Identity lines of a re-INVITE.
        transfer_to_nobody: accepts a REFER and does nothing.
        gives_up: answers what does not leave with this status.
        loses: method of a request of which the first is lost.
    """

    def __init__(
        self,
        target: tuple[str, int],
        change: Change = same,
        *,
        transport: str = "udp",
        limit: int = 65_535,
        transfers: bool = False,
        ends_reinvites: bool = False,
        refuse: int | None = None,
        challenge: str | None = None,
        change_within: Callable[[Lines], Lines] | None = None,
        transfer_to_nobody: bool = False,
        gives_up: int | None = None,
        loses: str = "",
        tls_client: ssl.SSLContext | None = None,
    ) -> None:
        self.side = Side(self._receive)
        self._target, self._change, self._transport, self._limit = target, change, transport, limit
        self._transfers, self._ends_reinvites = transfers, ends_reinvites
        self._refuse, self._challenge, self._tls = refuse, challenge, tls_client
        self._change_within, self._to_nobody = change_within, transfer_to_nobody
        self._loses, self._gives_up = loses, gives_up
        self._callers: dict[str, Packet] = {}
        self._by_branch: dict[str, Packet] = {}
        self.seen: list[Message] = []

    def _receive(self, packet: Packet) -> None:
        message = packet.message
        if packet.transport == "udp" and len(message.raw) > self._limit:
            return
        self.seen.append(message)
        if message.status is None and message.method == self._loses:
            self._loses = ""
            return
        if message.status is not None:
            self._response(packet)
        elif message.is_initial_invite:
            asyncio.get_running_loop().create_task(self._initial(packet))
        else:
            asyncio.get_running_loop().create_task(self._within(packet))

    def _response(self, packet: Packet) -> None:
        message = packet.message
        vias = message.all("via")
        asked = self._by_branch.get(parameter(vias[0].unfolded, "branch"))
        if asked is None:
            return
        lines = [line for line in message.lines if line is not vias[0]]
        own = self._call_id(lines, asked.message.call_id)
        asked.send(changed(message, own).raw)

    @staticmethod
    def _call_id(lines: Sequence[HeaderLine], call_id: str) -> Lines:
        return [HeaderLine(line.name, call_id) if line.full_name == "call-id" else line for line in lines]

    async def _initial(self, packet: Packet) -> None:
        message = packet.message
        if self._challenge and not message.first("proxy-authorization"):
            refusal = answer(message, 407, "Proxy Authentication Required", tag="pbx")
            text = refusal.replace(b"Server: ", f"Proxy-Authenticate: {self._challenge}\r\nServer: ".encode())
            packet.send(text)
            return
        if self._refuse:
            packet.send(answer(message, self._refuse, "No", tag="pbx"))
            return
        packet.send(answer(message, 100, "Trying").replace(b"Server: shaken-probe", f"Server: {NAME}".encode()))
        self._callers[message.call_id] = packet
        leave = self._change(message)
        if self._gives_up and not leave:
            packet.send(answer(message, self._gives_up, "No", tag="pbx"))
        for index, leaving in enumerate(leave):
            await self._forward(packet, leaving, f"{_FOREIGN}{index or ''}")

    async def _forward(self, packet: Packet, message: Message, suffix: str) -> None:
        place = self.side.place(self._transport)
        branch = f"{message.call_id}{suffix}{message.first('cseq')}".replace(" ", "").replace("@", "")
        self._by_branch[f"z9hG4bK{branch}"] = packet
        lines = [place.via(branch), *self._call_id(message.lines, message.call_id + suffix)]
        await self.side.send(changed(message, lines).raw, self._transport, self._target, self._tls, "localhost")

    async def _within(self, packet: Packet) -> None:
        message = packet.message
        base = message.call_id.partition(_FOREIGN)[0]
        caller = self._callers.get(base)
        if caller is None:
            return
        from_listener = message.call_id != base
        if message.method == "REFER" and self._transfers:
            packet.send(answer(message, 202, "Accepted"))
            if not self._to_nobody:
                await self._transfer(caller, message)
        elif message.method == "INVITE" and self._ends_reinvites:
            packet.send(answer(message, 200, "OK", contact=self.side.place("udp").uri, body=message.body))
        elif message.method == "ACK" and self._ends_reinvites and message.first("cseq").startswith("2 "):
            return
        elif from_listener:
            branch = f"back{base}{message.first('cseq')}".replace(" ", "").replace("@", "")
            self._by_branch[f"z9hG4bK{branch}"] = packet
            lines = [self.side.place(self._transport).via(branch), *self._call_id(message.lines, base)]
            caller.send(changed(message, lines).raw)
        elif message.method in {"ACK", "CANCEL", "BYE", "INVITE"}:
            if message.method == "INVITE" and self._change_within:
                (message,) = identities(self._change_within)(message)
            await self._forward(packet, message, _FOREIGN)

    async def _transfer(self, caller: Packet, refer: Message) -> None:
        """Call the new target with the first call's headers, as a B2BUA does."""
        target = refer.first("refer-to").strip("<>")
        place = self.side.place(self._transport)
        first = self._change(caller.message)[0]
        lines = [
            place.via("transfer" + refer.call_id.partition("@")[0]),
            HeaderLine("From", first.first("from")),
            HeaderLine("To", f"<{target}>"),
            HeaderLine("Call-ID", f"transfer-{refer.call_id}"),
            HeaderLine("CSeq", "1 INVITE"),
            HeaderLine("Contact", f"<{place.uri}>"),
            *first.all("identity"),
        ]
        data = build(f"INVITE {target} SIP/2.0", lines)
        await self.side.send(data, self._transport, self._target, self._tls, "localhost")
