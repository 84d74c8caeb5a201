"""One leg over an event socket: its variables are read, and what is to be done to it is done.

The protocol is spoken by genesis. What it does not do is done here: nobody waits for an answer of a
peer that went away, and what is read is bounded. FreeSWITCH runs the commands in the thread of the
leg, which goes on when the connection ends, however it ends. ``resume`` is never sent: see `RESUME`.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final

from genesis import Session
from genesis.exceptions import GenesisError
from genesis.logger import logger

from shaken_plugin.adapters.freeswitch.dump import leg_variables
from shaken_plugin.adapters.freeswitch.esl.text import (
    ConversationError,
    checked_uuid,
    global_variables,
    set_variable,
    set_variables,
)
from shaken_plugin.adapters.freeswitch.leg import (
    PROFILE,
    Answer,
    Caller,
    Command,
    Export,
    Follow,
    HangUp,
    MappedLeg,
    Set,
    SetPartner,
)
from shaken_plugin.errors import ShakenError

logger.disabled = True  # the library's: it would write what strangers sent to the standard output

MAX_LINE: Final = 1024 * 1024
"""Longest line that is read, octets: a header of 64 KiB is three times as long where it is escaped."""

MAX_READ: Final = 8 * 1024 * 1024
"""Most octets that are read of one connection."""

RESUME: Final = "socket_resume"
"""With this variable, also if it is one of the whole switch, FreeSWITCH resets a leg when the connection
ends, and the call is lost."""


class PeerGone(ShakenError):
    """The connection ended: the call was given up, or the switch was."""


class BoundedReader:
    """What a `Session` reads from: no more than `MAX_READ` octets, all of them UTF-8."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._left = MAX_READ

    def renew(self) -> None:
        """What was read so far counts no more."""
        self._left = MAX_READ

    async def readline(self) -> bytes:
        """A line, empty at the end; one that is too long is a `ValueError`."""
        line = await self._reader.readline()
        self._take(len(line))
        return line

    async def readexactly(self, length: int) -> bytes:
        """So many octets. Those that are no UTF-8 become what JSON reads as their surrogate escapes.

        Any caller could otherwise stop us from reading the variables of the call.
        """
        self._take(length)
        data = await self._reader.readexactly(length)
        return data.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace")

    def _take(self, length: int) -> None:
        self._left -= length
        if length < 0 or self._left < 0:
            raise ConversationError("more than anybody has to say")


class _Session(Session):  # type: ignore[misc]  # the library has no types
    """A session that tells nobody what it hears but those who asked.

    The library's own way describes each header of each message to OpenTelemetry first, and an answer has a
    hundred and fifty of them: half of what a call cost the agent.
    """

    async def consume(self) -> None:
        """Hand on what came: answers to who waits for them, events to their handlers."""
        while self.is_connected:
            event = await self.events.get()
            kind = event.get("Content-Type")
            if kind in {"command/reply", "api/response"}:
                await self.commands.put(event)
            elif kind in {"text/rude-rejection", "text/disconnect-notice"}:
                if event.get("Content-Disposition") != "linger":
                    await self.stop()
            else:
                for handler in self.handlers.get(event.get("Event-Name"), ()):
                    await handler(event)


class Conversation:
    """A connection that FreeSWITCH made for one leg.

    Args:
        reader, writer: the connection.
        follow: has the end of a leg told: UUID, slot, and this conversation.
    """

    def __init__(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        follow: Callable[[str, str, Conversation], Awaitable[None]] | None = None,
    ) -> None:
        self._reader = BoundedReader(reader)
        self._session: Any = _Session(self._reader, writer)
        self._follow = follow
        self.uuid = ""
        self.core = ""
        self.follows = False
        """Whether it came to a `Follow`."""
        self._exports: list[str] = []
        self.leg = MappedLeg({}, {})

    async def begin(self) -> None:
        """Read the variables of the leg, and of the one it was made for.

        Raises:
            PeerGone: the connection ended.
            DumpError, ConversationError: whoever connected is no FreeSWITCH, or the dialplan lacks ``full``.
        """
        await self._session.start()
        # The first command must be this one. Names and values are told apart before they are
        # unescaped, so that no value can pass for another field.
        leg = await self._within(self._session.send("connect"))
        if leg.get("Control") != "full":
            raise ConversationError('the application socket needs the word "full" after the address')
        self.uuid = checked_uuid(leg.get("Unique-ID"))
        self.core = checked_uuid(leg.get("Core-UUID"))
        switch = global_variables(await self._api("global_getvar"))
        own = {**switch, **leg_variables(await self._api(f"uuid_dump {self.uuid} json"))}
        if own.get(RESUME, "false") != "false":
            await self._set([(RESUME, "false")])
        self._exports = [name for name in own.get("export_vars", "").split(",") if name]
        self.leg = MappedLeg(own, await self._partner(own, switch))

    async def _partner(self, own: Mapping[str, str], switch: Mapping[str, str]) -> Mapping[str, str]:
        uuid = own.get("originating_leg_uuid")
        if not uuid:
            return {}
        dump = await self._api(f"uuid_dump {checked_uuid(uuid)} json")
        # It may have ended meanwhile.
        return {} if dump.startswith("-") else {**switch, **leg_variables(dump)}

    @property
    def first_uuid(self) -> str:
        """Of the leg that this one was made for, which outlives it; its own where it was made for none."""
        return checked_uuid(self.leg.get("originating_leg_uuid") or self.uuid)

    async def carry_out(self, commands: Iterable[Command]) -> None:
        """Do what is to be done to the leg.

        Raises:
            PeerGone: the connection ended before everything was done.
        """
        due: list[tuple[str, str]] = []
        """Variables that are to be set: a question and an answer for each cost most of a call's time."""
        for command in commands:
            if isinstance(command, Set):
                due.append((command.name, command.value))
                continue
            if isinstance(command, Export):
                due += self._exported(command)
                continue
            await self._set(due)
            due = []
            await self._done(command)
        await self._set(due)

    async def _done(self, command: Command) -> None:
        if isinstance(command, SetPartner):
            await self._set_partner(command)
        elif isinstance(command, Caller):
            for name in PROFILE:
                await self._within(self._session.sendmsg("execute", "set_profile_var", f"{name}={command.number}"))
        elif isinstance(command, Answer):
            if command.reasons:
                await self._set([("sip_reason", ", ".join(command.reasons))])
            await self._finally("execute", "respond", f"{command.status} {command.phrase.replace('$', '')}")
        elif isinstance(command, HangUp):
            await self._finally("hangup", "", command.cause)
        elif isinstance(command, Follow) and self._follow is not None:
            self.follows = True
            await self._follow(self.first_uuid, command.slot, self)

    async def mark(self, uuid: str, name: str, value: str) -> bool:
        """Set a variable of any leg; whether it is there."""
        return (await self._command(set_variable(uuid, name, value))).startswith("+OK")

    async def ask(self, command: str) -> str:
        """The answer to an API command."""
        return await self._api(command)

    async def watch(self, variable: str, told: Callable[[str], object]) -> None:
        """See `ends.Watch`."""

        async def ended(event: Mapping[str, Any]) -> None:
            self._reader.renew()
            if isinstance(uuid := event.get("Unique-ID"), str):
                told(uuid)

        self._session.on("CHANNEL_DESTROY", ended)
        for command in ("event plain CHANNEL_DESTROY", f"filter variable_{variable} /.+/"):
            await self._within(self._session.send(command))

    async def is_there(self, uuid: str) -> bool:
        """See `ends.Watch`."""
        self._reader.renew()
        return (await self._api(f"uuid_exists {checked_uuid(uuid)}")).strip() == "true"

    async def closed(self, seconds: float) -> bool:
        """See `ends.Watch`."""
        done, _ = await asyncio.wait({self._session.producer}, timeout=seconds)
        return bool(done)

    async def hang_up(self) -> None:
        """End the leg."""
        await self._finally("hangup", "", "NORMAL_CLEARING")

    async def _set(self, variables: Iterable[tuple[str, str]]) -> None:
        for command in set_variables(self.uuid, variables):
            if not (await self._command(command)).startswith("+OK"):
                raise PeerGone("the leg has ended")

    async def _set_partner(self, command: SetPartner) -> None:
        # It may have ended meanwhile; then nothing else is made for it.
        if uuid := self.leg.get("originating_leg_uuid"):
            await self._command(set_variable(checked_uuid(uuid), command.name, command.value))

    def _exported(self, command: Export) -> Iterator[tuple[str, str]]:
        """As the application ``export`` would with ``nolocal:``, but without expanding the value."""
        name = f"nolocal:{command.name}"
        yield name, command.value
        if name not in self._exports:
            self._exports.append(name)
            yield "export_vars", ",".join(self._exports)

    async def _finally(self, command: str, application: str, data: str) -> None:
        """The last thing of a leg; FreeSWITCH may be gone before it has said that it did it."""
        try:
            await self._within(self._session.sendmsg(command, application, data))
        except PeerGone:
            return

    async def _api(self, command: str) -> str:
        return await self._command(f"api {command}")

    async def _command(self, command: str) -> str:
        answer = await self._within(self._session.send(command))
        return answer.body or ""

    async def _within(self, asking: Coroutine[Any, Any, Any]) -> Any:
        """The answer, unless the connection ends before: the library would wait for ever."""
        answer = asyncio.ensure_future(asking)
        try:
            await asyncio.wait({answer, self._session.producer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise PeerGone("the connection ended")
            return answer.result()
        except (OSError, GenesisError) as exc:
            raise PeerGone("the connection ended") from exc
        finally:
            answer.cancel()

    async def end(self) -> None:
        """Close the connection, and with it let the leg go on."""
        await self._session.stop()
