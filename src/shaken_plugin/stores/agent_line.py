r"""A line to the agent of this host that stays: what calls are counted by, for a few microseconds each.

The protocol is that of `certs.agent_client` (one line of JSON each way, version 1) on a connection that is
kept; each process and thread has its own, because a connection must not cross a fork. Answers
come in the order of the requests.

    {"v": 1, "op": "admit", "customer": "acme", "call": KEY, "bounds": [["", 100000, 900000, 30], …], "level": "A",
     "slot": true, "replaces": [KEY, …], "to": KEY, "sent": false, "owner": NAME, "ask": 7}
    {"v": 1, "outcome": "admitted", "scope": ""}

The fields are those of `core.limits.Request`; the owner is a file (`stores.presence`). A question may have
``"ahead": 8``, and its answer then how many of these are given, ``"ahead": 5``: calls named by the owner, the number of
the question and one from 0 on, joined by "+". Who takes one tells its leaving as that of any other call.

What is only told is ``refer`` with ``call`` and ``to``; ``followed`` with ``call`` and the new ``owner``; and what a
process has no room for in its files (`stores.presence`), where the agent mostly finds it: ``followed`` and ``ended``
with ``call``, and ``undo`` with ``call``, ``owner`` and ``ask``, which takes a question back that had no answer, unless
the same call was asked about again since. The answer is ``{"v": 1}``. What had none is left in those files; so it may
come twice.

    {"v": 1, "op": "first_use", "token": HEX, "call": HEX, "milliseconds": 60000}
    {"v": 1, "first": true}

asks whether a PASSporT came with no other call to any host of the fleet. ``{"v": 1, "op": "ping"}`` is answered, too.
What is answered to something else is ``{"v": 1, "error": "…"}``.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.processid import THIS

PROTOCOL: Final = 1
TIMEOUT: Final = 0.04
"""Seconds that a call waits at most; and for files that are locked it may have waited for `patience.BUSY_TIMEOUT`."""
PROBE: Final = 0.25
"""Seconds between two questions to an agent that did not answer; nobody waits for these."""
MAX_ANSWER: Final = 4_096
"""Longest line of the agent, octets."""

_CLOSE: Final = 0.002
"""Seconds by which a wait may be too long."""
_TIMEVAL: Final = struct.Struct("@ll")
_NOW: Final = int(socket.MSG_DONTWAIT)
_AT_ONCE: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
"""As numbers: to join two flags of the standard library takes longer than to send."""
_DONE: Final = b'{"v":1}\n'
_PING: Final = b'{"v":1,"op":"ping"}\n'


class NotAsked(StoreUnavailable):
    """The agent did not answer before, and was not asked now."""


class _Wire:
    """One connection."""

    def __init__(self, path: str, timeout: float) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._read = bytearray()
        try:
            # On a Unix socket this succeeds or fails at once, also where the queue is full.
            self.socket.setblocking(False)
            self.socket.connect(path)
            self.socket.setblocking(True)
            self._waits = self._timeout = timeout
            self._wait(timeout)
        except OSError:
            self.socket.close()
            raise

    def __del__(self) -> None:
        self.socket.close()  # that of a thread that has ended

    def _wait(self, seconds: float) -> None:
        """By the kernel's own clock, which begins anew with each receive: a question mostly costs one send and one."""
        whole, rest = divmod(max(1, int(seconds * 1_000_000)), 1_000_000)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(whole, rest))
        self._waits = seconds

    def send(self, line: bytes) -> None:
        """A whole line at once: one that does not go at once finds an agent that does not read.

        Raises:
            OSError: it did not go.
        """
        if self.socket.send(line, _AT_ONCE) < len(line):
            raise BlockingIOError("the agent does not read")

    def ask(self, line: bytes, end: float, clock: Callable[[], float]) -> bytes:
        """`send` and `line` for a question that has all its time yet: mostly two calls of the kernel, and no clock.

        Raises:
            OSError: as those do.
        """
        wire = self.socket
        if wire.send(line, _AT_ONCE) < len(line):
            raise BlockingIOError("the agent does not read")
        if not self._read and self._waits == self._timeout:
            try:
                part = wire.recv(MAX_ANSWER)
            except BlockingIOError:
                raise TimeoutError("it did not answer in time") from None
            if not part:
                raise ConnectionError("it closed the connection")
            if part.find(b"\n") == len(part) - 1:
                return part
            self._read += part
        answer = self.line(end, clock)
        assert answer is not None
        return answer

    def line(self, end: float | None, clock: Callable[[], float]) -> bytes | None:
        """The next line; None where there is none yet, and none is waited for (``end`` None).

        Raises:
            OSError: there was none until the end, or the connection is closed.
        """
        while (length := self._read.find(b"\n") + 1) == 0:
            if len(self._read) > MAX_ANSWER:
                raise ConnectionError("an answer without an end")
            if end is not None:
                left = end - clock()
                if left <= 0:
                    raise TimeoutError("it did not answer in time")
                if left < self._waits - _CLOSE or left > self._waits + _CLOSE:
                    self._wait(left if left < self._timeout - _CLOSE else self._timeout)
            try:
                part = self.socket.recv(MAX_ANSWER, _NOW if end is None else 0)
            except BlockingIOError:
                if end is None:
                    return None
                raise TimeoutError("it did not answer in time") from None
            if not part:
                raise ConnectionError("it closed the connection")
            self._read += part
        line = bytes(self._read[:length])
        del self._read[:length]
        return line


class _Own(threading.local):
    """What a thread has, and which process it was in then."""

    pid = 0
    wire: _Wire | None = None


class AgentLine:
    """Asks the agent. After the first question without an answer none waits, until it answers again.

    Args:
        path: the agent's socket.
        timeout: seconds that a question waits at most; `TIMEOUT` but in tests.
        monotonic: seconds that only grow.
    """

    def __init__(
        self, path: Path, timeout: float | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = str(path)
        self._timeout = TIMEOUT if timeout is None else timeout
        self._clock = monotonic
        self._local = _Own()
        self._trouble = ""
        """Why nobody is asked now."""
        self._probe: _Wire | None = None
        self._probe_at = 0.0
        self._probing = threading.Lock()

    def answers(self) -> bool:
        """Whether the agent does: for who is about to wait longer for it than a question does."""
        try:
            self.read(self.exchange(_PING))
        except StoreUnavailable:
            return False
        return True

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer.

        Raises:
            StoreUnavailable: there is none.
        """
        return self.read(self.exchange(message(request)))

    def exchange(self, line: bytes) -> bytes:
        """The line that answers a line of `message`; to be looked at by `read`, unless it is known.

        Raises:
            StoreUnavailable: there is none.
        """
        if self._trouble and not self._answers_again():
            raise NotAsked(self._trouble)
        end = self._clock() + self._timeout
        try:
            try:
                return self._wire().ask(line, end, self._clock)
            except ConnectionError:
                self._close()  # the agent was restarted: the connection is of the one before
                wire = self._wire()
                wire.send(line)
                answer = wire.line(end, self._clock)  # some of the time may be gone
                assert answer is not None
                return answer
        except OSError as exc:
            self._close()
            self._trouble = f"the agent on {self._path} does not answer: {exc.strerror or exc}"
            self._probe_at = self._clock() + PROBE
            raise StoreUnavailable(self._trouble) from exc

    def read(self, answer: bytes) -> dict[str, Any]:
        """What a line from the agent says.

        Raises:
            StoreUnavailable: that it does not do it, or nothing that can be read.
        """
        if answer == _DONE:
            return {"v": PROTOCOL}
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and "error" in found:
            raise StoreUnavailable(f"the agent on {self._path} does not count this call: {str(found['error'])[:200]}")
        if not isinstance(found, dict) or found.get("v") != PROTOCOL:
            self._close()
            raise StoreUnavailable(f"the agent on {self._path} answers something else; is it of another release?")
        return found

    def _wire(self) -> _Wire:
        local = self._local
        wire = local.wire
        if wire is None or local.pid != THIS.id:
            local.pid, local.wire = THIS.id, None
            wire = local.wire = _Wire(self._path, self._timeout)
        return wire

    def _close(self) -> None:
        wire, self._local.wire = self._local.wire, None
        if wire is not None:
            wire.socket.close()

    def _answers_again(self) -> bool:
        """Whether the agent answered the last probe; begins another now and then. Never waits."""
        if not self._probing.acquire(blocking=False):
            return False
        try:
            if self._probe is not None and self._probe.line(None, self._clock) is not None:
                self._trouble = ""
                self._end_probe()
                return True
            if self._clock() >= self._probe_at:
                self._probe_at = self._clock() + PROBE
                self._end_probe()
                self._probe = _Wire(self._path, self._timeout)
                self._probe.send(_PING)
        except OSError:
            self._end_probe()
        finally:
            self._probing.release()
        return False

    def _end_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            with suppress(OSError):
                probe.socket.close()


@lru_cache(4)
def line_to(path: Path) -> AgentLine:
    """The line of this process to an agent: what was waited for in vain is not waited for again, whoever asks next."""
    return AgentLine(path)


def message(content: dict[str, Any]) -> bytes:
    """A line to the agent."""
    return b'{"v":1,' + _encode(content)[1:].encode() + b"\n"


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
