"""Plays the canaries: a caller and a listener of ours, and the PBX between them.

One call at a time, so that what arrives late or without any token can be told apart. A call goes
caller -> PBX -> listener; the listener answers 200, the caller ends it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from shaken_plugin.core.sip import format_date
from shaken_plugin.probe import compare
from shaken_plugin.probe.canaries import FIRST_CALLED, Canary, Scene, Signer, number_after
from shaken_plugin.probe.compare import by_size, judge
from shaken_plugin.probe.dialogs import Dialog, answer, authorization, beside, sdp
from shaken_plugin.probe.findings import Finding, Kind, Leg, Verdict
from shaken_plugin.probe.listener import Listener
from shaken_plugin.probe.message import HeaderLine, Message
from shaken_plugin.probe.play import CALLER_SIDE, LISTENER, MAX_PACKETS, PBX, T1, Options, Play
from shaken_plugin.probe.transport import Packet, ProbeError, Side, bracketed, path_mtu

_NOT_PASSED_ON: Final = {
    Scene.REINVITE: "the PBX did not send the re-INVITE on to the other side",
    Scene.REFER: "the PBX did not call the new target, nor hand the REFER on to the caller",
}


class Session:
    """One run of the probe.

    Args:
        options: see `Options`.
        canaries: in the order of sending.
        signer: signs them.
    """

    def __init__(self, options: Options, canaries: Sequence[Canary], signer: Signer) -> None:
        self._options = options
        self._canaries = canaries
        self._signer = signer
        self._plays: list[Play] = []
        self._caller = Side(self._to_caller)
        self._listener = Listener(self._plays, one_number=options.called is not None, via=options.via[0])
        self._responses: dict[str, asyncio.Queue[Packet]] = {}

    @property
    def strangers(self) -> Mapping[str, int]:
        """Calls at the listener that were not of this run, by the host they came from."""
        return self._listener.strangers

    async def run(self, progress: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
        """Play all; ``progress`` hears of each as it ends.

        Raises:
            ProbeError: cannot listen, or not connect at all. Where a later call cannot be sent, that is its verdict.
        """
        options = self._options
        try:
            await self._listener.side.open(*options.listen, options.tls_server)
            await self._caller.open(options.listen[0], 0, options.tls_server)
            verdicts: list[Verdict] = []
            for index, canary in enumerate(self._canaries):
                play = self._new_play(canary, index)
                try:
                    await self._play(play)
                except ProbeError as exc:
                    if not verdicts or play.sent is None:
                        raise
                    play.error = str(exc)
                verdicts.append(self._verdict(play))
                progress(verdicts[-1])
                if not canary.headers and not play.copies[Scene.CALL]:
                    break  # a plain call does not come through: the others would tell nothing
            # Judged once more: what came late was recognised by its token.
            return by_size([self._verdict(play) for play in self._plays])
        finally:
            await self._caller.close()
            await self._listener.close()

    def _new_play(self, canary: Canary, index: int) -> Play:
        called = self._options.called or number_after(FIRST_CALLED, index)
        transfer = self._options.called or number_after(FIRST_CALLED, index + len(self._canaries))
        self._plays.append(Play(canary, called, transfer))
        return self._plays[-1]

    # --- The caller ---------------------------------------------------------------------------

    async def _play(self, play: Play) -> None:
        canary = play.canary
        dialog = self._dialog(play.called)
        also = (play.transfer,) if canary.scene is Scene.REFER else ()
        response = await self._invite(play, dialog, self._lines(canary, play.called, also), new=True)
        if response is None or (response.message.status or 0) >= 300:
            await asyncio.sleep(self._options.settle)
            return
        if not play.copies[Scene.CALL]:
            with suppress(TimeoutError):
                await asyncio.wait_for(play.arrived.wait(), min(1.0, self._options.timeout))
        if canary.scene is Scene.REINVITE:
            await self._invite(play, dialog, self._lines(canary, play.called, ()), new=False)
        elif canary.scene is Scene.REFER:
            await self._transfer(play)
        await asyncio.sleep(self._options.settle)
        await self._hang_up(play, dialog)

    async def _hang_up(self, play: Play, dialog: Dialog) -> None:
        """End a call, so that the PBX is left with none; over UDP a BYE may be lost."""
        data = dialog.request("BYE")
        for wait in (T1, 2 * T1, 4 * T1):
            await self._send(data, play)
            with suppress(TimeoutError):
                await asyncio.wait_for(play.ended.wait(), wait)
                return

    def _dialog(self, called: str) -> Dialog:
        options = self._options
        place = self._caller.place(options.transport)
        call_id = f"{uuid.uuid4().hex}@{place.host}"
        host = f"{bracketed(options.name or options.via[0])}:{options.via[1]}"
        return Dialog.of_caller(place, caller=options.caller, called=called, host=host, call_id=call_id)

    def _lines(self, canary: Canary, called: str, also: tuple[str, ...]) -> tuple[HeaderLine, ...]:
        now = time.time()
        lines = self._signer.sign(canary, self._options.caller, called, now, also)
        if canary.date:
            return (HeaderLine("Date", format_date(now)), *lines)
        return lines

    async def _invite(self, play: Play, dialog: Dialog, lines: tuple[HeaderLine, ...], *, new: bool) -> Packet | None:
        """Send an INVITE, with credentials if they are asked for; the final answer, acknowledged."""
        options = self._options
        body = sdp(dialog.place.host) if play.canary.sdp else b""
        extra: tuple[HeaderLine, ...] = ()
        response = None
        for _ in range(2):
            data = dialog.request("INVITE", (*extra, *lines), body)
            message = Message.parse(data)
            if play.sent is None or play.canary.scene is not Scene.REINVITE or not new:
                play.sent = Leg(message, time.time(), options.transport, self._fragments(len(data)))
            response = await self._answered(play, dialog, data)
            play.status = response.message.status if response is not None else None
            if response is None or not response.message.status or response.message.status < 300:
                break
            await self._send(beside(message, "ACK", response.message.first("to")), play)
            header = None
            if response.message.status in {401, 407} and options.user and not extra:
                header = authorization(response.message, "INVITE", message.uri, options.user, options.password)
            if header is None:
                return response
            extra = (header,)
        if response is not None and response.message.status and response.message.status < 300:
            dialog.answered(response.message)
            await self._send(
                dialog.request("ACK", cseq=dialog.cseq, body=b"" if body else sdp(dialog.place.host)), play
            )
        return response

    async def _answered(self, play: Play, dialog: Dialog, data: bytes) -> Packet | None:
        """Send an INVITE until it is answered; its final answer, None where none came in time."""
        queue = self._responses.setdefault(dialog.call_id, asyncio.Queue(MAX_PACKETS))
        await self._send(data, play)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.timeout
        again, provisional = T1, False
        while (left := deadline - loop.time()) > 0:
            wait = left if provisional or self._options.transport != "udp" else min(again, left)
            try:
                packet = await asyncio.wait_for(queue.get(), wait)
            except TimeoutError:
                if wait < left:
                    again *= 2
                    await self._send(data, play)
                continue
            if packet.message.first("cseq").partition(" ")[0] != str(dialog.cseq):
                continue
            provisional = True
            if (packet.message.status or 0) >= 200:
                return packet
        if provisional:
            await self._send(beside(Message.parse(data), "CANCEL", dialog.remote), play)
        return None

    async def _transfer(self, play: Play) -> None:
        """The called side sends REFER; the PBX calls the new target, or hands REFER on to the caller, who does."""
        leg = next(
            ((dialog, packet) for dialog, packet in self._listener.legs.values() if packet in play.copies[Scene.CALL]),
            None,
        )
        if leg is None:
            return
        dialog, packet = leg
        play.transferring = True
        play.arrived.clear()
        host = f"{bracketed(self._options.name or self._options.via[0])}:{self._options.via[1]}"
        request = dialog.request(
            "REFER",
            (
                HeaderLine("Refer-To", f"<sip:{play.transfer}@{host}>"),
                HeaderLine("Referred-By", f"<sip:{play.called}@{dialog.place.host}>"),
            ),
        )
        play.record(LISTENER, PBX, Message.parse(request))
        packet.send(request)
        waiting = [asyncio.ensure_future(event.wait()) for event in (play.arrived, play.referred)]
        await asyncio.wait(waiting, timeout=self._options.timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if play.referred.is_set() and not play.arrived.is_set():
            second = self._dialog(play.transfer)
            response = await self._invite(
                play, second, self._lines(play.canary, play.transfer, (play.called,)), new=True
            )
            if response is not None and (response.message.status or 0) < 300:
                play.ended.clear()
                await self._hang_up(play, second)
                play.ended.clear()

    async def _send(self, data: bytes, play: Play) -> None:
        options = self._options
        play.record(CALLER_SIDE, PBX, Message.parse(data))
        await self._caller.send(data, options.transport, options.via, options.tls_client, options.name)

    def _fragments(self, size: int) -> int:
        if self._options.transport != "udp":
            return 1
        return compare.fragments(size, self._options.mtu or path_mtu(*self._options.via) or compare.MTU)

    def _to_caller(self, packet: Packet) -> None:
        """What comes to the caller: answers, and requests of the PBX within its calls."""
        message = packet.message
        play = self._plays[-1]
        play.record(PBX, CALLER_SIDE, message)
        play.learn(message)
        if message.method == "BYE":
            play.ended.set()  # an answer to ours, or theirs
        if message.status is not None:
            if message.method == "INVITE" and (queue := self._responses.get(message.call_id)) is not None:
                with suppress(asyncio.QueueFull):
                    queue.put_nowait(packet)
            return
        if message.method == "REFER":
            play.reply(packet, answer(message, 202, "Accepted"), CALLER_SIDE)
            play.referred.set()
        elif message.method != "ACK":
            place = self._caller.place(packet.transport)
            body = sdp(place.host) if message.method == "INVITE" else b""
            play.reply(packet, answer(message, 200, "OK", contact=place.uri, body=body), CALLER_SIDE)

    # --- What is known ------------------------------------------------------------------------

    def _verdict(self, play: Play) -> Verdict:
        options, scene = self._options, play.canary.scene
        assert play.sent is not None
        legs = [
            Leg(
                packet.message,
                packet.at,
                packet.transport,
                compare.fragments(len(packet.message.raw), options.mtu or path_mtu(*packet.peer) or compare.MTU)
                if packet.transport == "udp"
                else 1,
                f"{packet.peer[0]}:{packet.peer[1]}",
            )
            for packet in play.copies[scene]
        ]
        missing = Finding(Kind.NOT_SENT, play.error) if play.error else None
        if play.copies[Scene.CALL] and scene is not Scene.CALL:
            missing = Finding(Kind.NOT_PASSED_ON, _NOT_PASSED_ON[scene])
        verdict = judge(
            play.canary.name, play.sent, legs, self._signer.checker(options.plan), options.plan,
            status=play.status, within_dialog=scene is Scene.REINVITE, missing=missing,
        )  # fmt: skip
        return replace(verdict, what=play.canary.what, server=play.server, trace=tuple(play.trace))
