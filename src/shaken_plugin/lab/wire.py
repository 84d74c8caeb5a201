"""Names and sockets that exist only in memory, for tests of everything above them.

    wire = Wire({"https://cr.example.com/a.pem": Played(body=chain)}, {"evil.example.com": "10.0.0.1"})
    Fetcher(rules, resolve=wire.resolve, sockets=wire)

The rules for URLs and addresses, HTTP, freshness and limits stay production's own; TLS is taken for granted.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

import httpcore

PUBLIC_ADDRESS: Final = "8.8.8.8"
"""Where names lead that are not listed; nothing is ever sent there."""


class Trouble(Enum):
    """What happens instead of an answer."""

    TIMEOUT = "timeout"
    TLS = "tls"
    """The handshake fails; where other URLs of the same host and port are fine, the connection breaks instead."""
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Played:
    """What a server answers for a URL, or what happens instead."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    trouble: Trouble | None = None

    def octets(self) -> bytes:
        """The answer on the wire."""
        named = {name.lower() for name, _ in self.headers}
        framing = [] if named & {"content-length", "transfer-encoding"} else [("Content-Length", str(len(self.body)))]
        phrase = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Unknown"
        head = "".join(f"{name}: {value}\r\n" for name, value in [*self.headers, *framing])
        return f"HTTP/1.1 {self.status} {phrase}\r\n{head}\r\n".encode("latin-1") + self.body


class Wire(httpcore.AsyncNetworkBackend):
    """Replaces the resolver and the sockets of a `Fetcher`.

    Args:
        answers: by URL; what is not listed cannot be connected to.
        names: the address, or the addresses, that a name leads to; others lead to `PUBLIC_ADDRESS`.

    ``connected`` are the addresses and ports that were connected to, ``asked`` the URLs that were asked for.
    """

    def __init__(self, answers: Mapping[str, Played], names: Mapping[str, str | Sequence[str]] | None = None) -> None:
        self._answers = {_plain(url): played for url, played in answers.items()}
        self._names = dict(names or {})
        self.connected: list[tuple[str, int]] = []
        self.asked: list[str] = []
        self.requests: list[bytes] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """See `fetch.Resolver`."""
        await asyncio.sleep(0)
        found = self._names.get(host, PUBLIC_ADDRESS)
        return [found] if isinstance(found, str) else found

    def trouble_of(self, origin: str) -> Trouble | None:
        """What befalls a connection before it is asked anything: what befalls all URLs of its origin."""
        troubles = {played.trouble for url, played in self._answers.items() if url.startswith(f"{origin}/")}
        return troubles.pop() if len(troubles) == 1 else None

    def answer(self, url: str, request: bytes) -> bytes:
        """The octets that a request gets back."""
        self.asked.append(url)
        self.requests.append(request)
        played = self._answers.get(url)
        if played is None or played.trouble in {Trouble.RESET, Trouble.TLS}:
            raise httpcore.ReadError("there is no such server")
        if played.trouble is Trouble.TIMEOUT:
            raise httpcore.ReadTimeout("no answer")
        return played.octets()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to an address."""
        await asyncio.sleep(0)
        self.connected.append((host, port))
        return _PlayedStream(self, port)


class _PlayedStream(httpcore.AsyncNetworkStream):
    def __init__(self, wire: Wire, port: int) -> None:
        self._wire = wire
        self._port = port
        self._scheme = "http"
        self._sent = b""
        self._waiting: bytes | None = None

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        self._scheme = "https"
        host = f"[{server_hostname}]" if ":" in (server_hostname or "") else server_hostname
        trouble = self._wire.trouble_of(_plain(f"https://{host}:{self._port}/").removesuffix("/"))
        if trouble is Trouble.TLS:
            raise httpcore.ConnectError("certificate verify failed")
        return self

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._sent += buffer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await asyncio.sleep(0)
        if self._waiting is None:
            lines = self._sent.decode("latin-1").split("\r\n")
            host = next(line.partition(":")[2].strip() for line in lines if line.lower().startswith("host:"))
            url = f"{self._scheme}://{host}{lines[0].split(' ')[1]}"
            self._waiting = self._wire.answer(_plain(url), self._sent)
        data, self._waiting = self._waiting[:max_bytes], self._waiting[max_bytes:]
        return data

    async def aclose(self) -> None:
        self._waiting = b""


def _plain(url: str) -> str:
    """A URL with its default port and an absent path in one spelling, host in lower case."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    scheme = scheme.lower()
    host = host.lower().removesuffix({"https": ":443", "http": ":80"}.get(scheme, "")).removesuffix(".")
    return f"{scheme}://{host}{slash or '/'}{path}"
