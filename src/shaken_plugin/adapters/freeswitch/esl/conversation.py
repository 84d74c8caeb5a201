"""One leg over an event socket: its variables are read, and what is to be done to it is done.

FreeSWITCH runs the commands in the thread of the leg, which goes on when the connection ends, however it
ends. ``resume`` is never sent: see `RESUME`. What it is sent, FreeSWITCH reads octet by octet, with two calls of the
kernel for each; what needs no other answer first goes at once.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from shaken_plugin.adapters.freeswitch.dump import leg_variables
from shaken_plugin.adapters.freeswitch.esl.text import (
    ConversationError,
    checked_uuid,
    global_variables,
    set_variable,
    set_variables,
)
from shaken_plugin.adapters.freeswitch.esl.wire import Fields, PeerGone, Wire
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

RESUME: Final = "socket_resume"
"""With this variable, also if it is one of the whole switch, FreeSWITCH resets a leg when the connection
ends, and the call is lost."""


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
        self._wire = Wire(reader, writer)
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
        ((leg, _),) = await self._wire.ask("connect")  # the first command must be this one
        if leg.get("Control") != "full":
            raise ConversationError('the application socket needs the word "full" after the address')
        self.uuid = checked_uuid(leg.get("Unique-ID"))
        self.core = checked_uuid(leg.get("Core-UUID"))
        made_for = leg.get("variable_originating_leg_uuid")
        of_switch, dump, *others = await self._api(
            "global_getvar", _dumping(self.uuid), *([_dumping(made_for)] if made_for else [])
        )
        switch = global_variables(of_switch)
        own = {**switch, **leg_variables(dump)}
        if own.get(RESUME, "false") != "false":
            await self._set([(RESUME, "false")])
        self._exports = [name for name in own.get("export_vars", "").split(",") if name]
        # It may have ended meanwhile; or its name be one of those that the answer to `connect` cannot tell apart.
        there = others and not others[0].startswith("-") and own.get("originating_leg_uuid") == made_for
        self.leg = MappedLeg(own, {**switch, **leg_variables(others[0])} if there else {})

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
                await self._wire.ask(_execute("set_profile_var", f"{name}={command.number}"))
        elif isinstance(command, Answer):
            if command.reasons:
                await self._set([("sip_reason", ", ".join(command.reasons))])
            await self._finally(_execute("respond", f"{command.status} {command.phrase.replace('$', '')}"))
        elif isinstance(command, HangUp):
            await self._finally(_hangup(command.cause))
        elif isinstance(command, Follow) and self._follow is not None:
            self.follows = True
            await self._follow(self.first_uuid, command.slot, self)

    async def mark(self, uuid: str, name: str, value: str) -> bool:
        """Set a variable of any leg; whether it is there."""
        (answer,) = await self._commanded(set_variable(uuid, name, value))
        return answer.startswith("+OK")

    async def ask(self, command: str) -> str:
        """The answer to an API command."""
        (answer,) = await self._api(command)
        return answer

    async def watch(self, variable: str, told: Callable[[str], object]) -> None:
        """See `ends.Watch`."""

        def ended(event: Fields) -> None:
            self._wire.renew()
            if uuid := event.get("Unique-ID"):
                told(uuid)

        self._wire.told = ended
        await self._wire.ask("event plain CHANNEL_DESTROY", f"filter variable_{variable} /.+/")

    async def is_there(self, uuid: str) -> bool:
        """See `ends.Watch`."""
        self._wire.renew()
        return (await self.ask(f"uuid_exists {checked_uuid(uuid)}")).strip() == "true"

    async def closed(self, seconds: float) -> bool:
        """See `ends.Watch`."""
        try:
            async with asyncio.timeout(seconds):
                await self._wire.listen()
        except TimeoutError:
            return False
        return True

    async def hang_up(self) -> None:
        """End the leg."""
        await self._finally(_hangup("NORMAL_CLEARING"))

    async def _set(self, variables: Iterable[tuple[str, str]]) -> None:
        answers = await self._commanded(*set_variables(self.uuid, variables))
        if not all(answer.startswith("+OK") for answer in answers):
            raise PeerGone("the leg has ended")

    async def _set_partner(self, command: SetPartner) -> None:
        # It may have ended meanwhile; then nothing else is made for it.
        if uuid := self.leg.get("originating_leg_uuid"):
            await self._commanded(set_variable(checked_uuid(uuid), command.name, command.value))

    def _exported(self, command: Export) -> Iterator[tuple[str, str]]:
        """As the application ``export`` would with ``nolocal:``, but without expanding the value."""
        name = f"nolocal:{command.name}"
        yield name, command.value
        if name not in self._exports:
            self._exports.append(name)
            yield "export_vars", ",".join(self._exports)

    async def _finally(self, message: str) -> None:
        """The last thing of a leg; FreeSWITCH may be gone before it has said that it did it."""
        try:
            await self._wire.ask(message)
        except PeerGone:
            return

    async def _api(self, *commands: str) -> list[str]:
        return await self._commanded(*(f"api {command}" for command in commands))

    async def _commanded(self, *commands: str) -> list[str]:
        return [body for _, body in await self._wire.ask(*commands)]

    def end(self) -> None:
        """Close the connection, and with it let the leg go on."""
        self._wire.close()


def _dumping(uuid: str) -> str:
    # As JSON: in the plain form, which `connect` answers in, ``%41`` and ``A`` are the same.
    return f"uuid_dump {checked_uuid(uuid)} json"


def _execute(application: str, argument: str) -> str:
    return f"sendmsg\ncall-command: execute\nexecute-app-name: {application}\nexecute-app-arg: {argument}"


def _hangup(cause: str) -> str:
    return f"sendmsg\ncall-command: hangup\nhangup-cause: {cause}"
