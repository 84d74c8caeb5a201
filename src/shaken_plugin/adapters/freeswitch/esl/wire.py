"""The protocol of FreeSWITCH's event socket, as far as a leg's connection speaks it: commands go, messages come.

A message is a block of fields, then as many octets as its Content-Length says. What is read is bounded, and whoever
waits for an answer is told when the peer goes away.
"""

from __future__ import annotations

import re
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from shaken_plugin.adapters.freeswitch.esl.text import ConversationError
from shaken_plugin.errors import ShakenError

MAX_READ: Final = 8 * 1024 * 1024
"""Most octets that are read of one connection."""

MAX_FIELDS: Final = MAX_READ // 2
"""Most octets of the fields of a message: a header of 64 KiB is thrice as long where it is escaped. It is the limit
of the `StreamReader`, which takes in twice as much."""

_END: Final = b"\n\n"
_LENGTH: Final = re.compile(r"[0-9]{1,9}")


class PeerGone(ShakenError):
    """The connection ended: the call was given up, or the switch was."""


class Fields:
    """The fields of a message, read when they are asked for: of a leg's two hundred a few are.

    Values are told apart before they are unescaped, so that none can pass for another field.
    """

    def __init__(self, block: bytes) -> None:
        self._block = b"\n" + block

    def get(self, name: str) -> str | None:
        """The value of a field, the first where there are several."""
        begin = f"\n{name}: ".encode()
        at = self._block.find(begin)
        if at < 0:
            return None
        at += len(begin)
        return unquote(self._block[at : self._block.find(b"\n", at)].decode("utf-8", "surrogateescape").strip())


class Wire:
    """A connection that FreeSWITCH has made; one task at a time uses it.

    Args:
        reader, writer: the connection.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left = MAX_READ
        self._begun: bytes | None = None
        """The fields of a message whose body has not come yet."""
        self._due = 0
        """Answers that are to come; more than are waited for, where somebody gave up waiting."""
        self.told: Callable[[Fields], object] = lambda _: None
        """Is told the events."""

    async def ask(self, *commands: str) -> list[tuple[Fields, str]]:
        """Send commands, all at once; their answers: fields and body of each.

        Raises:
            PeerGone: the connection ended.
            ConversationError: whoever connected speaks something else, or too much.
        """
        self._due += len(commands)
        self._writer.write("".join(f"{command}\n\n" for command in commands).encode())
        try:
            await self._writer.drain()
        except OSError as exc:
            raise PeerGone("the connection ended") from exc
        answers = []
        while self._due:
            answers.append(await self._answer())
        return answers[len(answers) - len(commands) :]

    async def listen(self) -> None:
        """Tell of events until the connection ends; may be cancelled at any time.

        Raises:
            ConversationError: see `ask`.
        """
        try:
            while True:
                await self._answer()
        except PeerGone:
            return

    def renew(self) -> None:
        """What was read so far counts no more."""
        self._left = MAX_READ

    def close(self) -> None:
        """End the connection."""
        self._writer.close()

    async def _answer(self) -> tuple[Fields, str]:
        """The next message that answers a command; those that come before it are events."""
        while True:
            fields, body = await self._message()
            kind = fields.get("Content-Type")
            if kind in {"command/reply", "api/response"}:
                self._due = max(0, self._due - 1)
                return fields, body.decode("utf-8", "surrogateescape")
            if kind == "text/event-plain":
                self.told(Fields(body))
            elif kind not in {"text/disconnect-notice", "text/rude-rejection"}:
                raise ConversationError("a message of a kind that was not asked for")
            elif fields.get("Content-Disposition") != "linger":
                raise PeerGone("the connection ended")

    async def _message(self) -> tuple[Fields, bytes]:
        try:
            if self._begun is None:
                self._begun = self._taken(await self._reader.readuntil(_END))
            fields = Fields(self._begun)
            length = fields.get("Content-Length") or "0"
            if not _LENGTH.fullmatch(length) or int(length) > self._left:
                raise ConversationError("more than anybody has to say")
            body = self._taken(await self._reader.readexactly(int(length)))
        except LimitOverrunError:
            raise ConversationError("more than anybody has to say") from None
        except (IncompleteReadError, OSError) as exc:
            raise PeerGone("the connection ended") from exc
        self._begun = None
        return fields, body

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ConversationError("more than anybody has to say")
        return data
