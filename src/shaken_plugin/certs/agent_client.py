r"""Asking the agent of this host for certificates, from a SIP worker.

The protocol: a connection to the Unix socket for each request, one line of JSON each way, each
ended by ``\n``; version 1. Lines of workers have at most 16 KiB, those of the agent 1 MiB.

    {"v": 1, "op": "fetch", "urls": ["https://…", …], "wait": 1.5}
    {"v": 1, "results": {"https://…": "stored", …}, "lent": {"https://…": [until, "base64"], …}}

``urls`` has at most 8, ``wait`` is in seconds. A result is ``stored`` (it is in the cache now, or
in ``lent``: the agent has it, but could not record it), ``failed`` (the cache says why, for a
while), ``waiting`` (its download goes on), ``overloaded`` (none was begun) or ``refused`` (the URL
breaks the rules). With ``"lend": true`` all that is ``stored`` is in ``lent``, too: this worker
cannot read the cache, and the agent looks whether it is damaged. What is answered to something
else is ``{"v": 1, "error": "…"}``.

    {"v": 1, "op": "seen", "urls": ["https://…", …]}

tells which URLs calls asked for, at most 256 in as many lines as they need; nothing is answered.
``"op": "need"`` likewise asks to have them fetched, for a call that does not wait.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PROTOCOL: Final = 1
MAX_REQUEST: Final = 16_384
"""Longest line of a worker, octets."""
MAX_ANSWER: Final = 1_048_576
"""Longest line of the agent, octets: eight documents of 64 KiB in base64."""
MAX_URLS: Final = 8
"""Most URLs of one request; a call has a handful of Identity headers."""
DOWN: Final = 1.0
"""Seconds for which an agent that did not take a connection is not asked again."""
GRACE: Final = 0.1
"""Seconds the agent gets beyond ``wait`` to say that it is still waiting."""

Lend = Callable[[str, bytes, float], None]
"""Takes URL, document and POSIX seconds until which it may be used."""


class AgentClient:
    """A `ports.CertificateFetcher` on the agent's Unix socket.

    Blocks for the caller's timeout at most; for a process that is in a task of its own, or a
    thread. Holds nothing between requests, so that it may be made before a fork.

    Args:
        path: the socket.
        lend: given documents that the agent could not record, or that we could not read.
        blind: says whether this process cannot read the cache.
        answers: says, in no time to speak of, whether the agent does; `fetch` waits for no other.
    """

    def __init__(
        self,
        path: Path,
        lend: Lend | None = None,
        blind: Callable[[], bool] = lambda: False,
        answers: Callable[[], bool] = lambda: True,
    ) -> None:
        self._path = str(path)
        self._lend = lend
        self._blind = blind
        self._answers = answers
        self._down_until = 0.0

    def fetch(self, urls: Sequence[str], timeout: float) -> None:
        """See `ports.CertificateFetcher.fetch`."""
        # Only an agent that answers is given so long: one that hangs would cost each call all of it.
        end = time.monotonic() + (timeout if timeout > 0 and self._answers() else 0.0)
        for first in range(0, len(urls), MAX_URLS):
            # One deadline for all: a call that is held waits no longer for many certificates than for one.
            if (left := end - time.monotonic()) <= 0:
                self._post("need", urls[first:])
                return
            self.ask(urls[first : first + MAX_URLS], left)

    def ask(self, urls: Sequence[str], timeout: float) -> Mapping[str, str]:
        """Like `fetch` for at most `MAX_URLS` URLs; the results by URL, empty without an agent."""
        end = time.monotonic() + timeout
        try:
            request = {"op": "fetch", "urls": list(urls), "wait": max(0.0, timeout - GRACE)}
            answer = self._exchange(_line(request | ({"lend": True} if self._blind() else {})), end)
            results = answer.get("results", {})
            self._borrow(answer.get("lent", {}))
            return {url: results[url] for url in urls if isinstance(results.get(url), str)}
        except Exception:  # a call must go on, whatever it was that answered
            return {}

    def tell(self, urls: Iterable[str]) -> None:
        """Say which URLs calls asked for: never waits, and loses them where the agent is down."""
        self._post("seen", urls)

    def _post(self, op: str, urls: Iterable[str]) -> None:
        """Send what is not answered; never waits."""
        if time.monotonic() < self._down_until:
            return
        try:
            with self._connection() as connection:
                for line in _lines(op, urls):
                    connection.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except (OSError, ValueError):
            return

    def alive(self) -> bool:
        """Whether somebody takes connections on the socket."""
        try:
            self._connection().close()
        except OSError:
            return False
        return True

    def _connection(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # On a Unix socket this succeeds or fails at once, also where the queue is full.
            connection.setblocking(False)
            connection.connect(self._path)
        except OSError:
            connection.close()
            self._down_until = time.monotonic() + DOWN
            raise
        return connection

    def _exchange(self, request: bytes, end: float) -> dict[str, Any]:
        if time.monotonic() < self._down_until:
            return {}
        with self._connection() as connection:
            connection.settimeout(max(0.001, end - time.monotonic()))
            connection.sendall(request)
            answer = bytearray()
            while not answer.endswith(b"\n"):
                connection.settimeout(max(0.001, end - time.monotonic()))
                part = connection.recv(65_536)
                if not part or len(answer) + len(part) > MAX_ANSWER or time.monotonic() > end:
                    return {}
                answer += part
        data = json.loads(answer)
        return data if isinstance(data, dict) and data.get("v") == PROTOCOL else {}

    def _borrow(self, lent: Mapping[str, Any]) -> None:
        for url, (until, text) in lent.items():
            if self._lend is not None:
                self._lend(url, base64.b64decode(text, validate=True), float(until))


def _line(content: dict[str, Any]) -> bytes:
    line = json.dumps({"v": PROTOCOL, **content}, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_REQUEST:
        raise ValueError("too much for one request")
    return line


def _lines(op: str, urls: Iterable[str]) -> Iterator[bytes]:
    """Messages of a few URLs each, so that none is too long."""
    every = list(urls)
    for first in range(0, len(every), MAX_URLS):
        yield _line({"op": op, "urls": every[first : first + MAX_URLS]})
