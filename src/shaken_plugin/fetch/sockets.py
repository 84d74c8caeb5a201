"""Where a download connects to: names to addresses, addresses judged, octets counted.

The name is resolved once, the addresses are judged, and the connection is made to an address, not to the
name: a name that changes its mind in between (DNS rebinding) cannot lead inside.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import aiodns
import httpcore

from shaken_plugin.core.x5u import Target, is_public
from shaken_plugin.fetch.model import FetchCode, FetchFailure

MAX_ADDRESSES: Final = 4
"""Addresses of a name that are tried; a stranger decides how many there are."""

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Name and port to IP addresses, the best first. Raises OSError; may take as long as it likes."""


class SystemResolver:
    """The name servers of /etc/resolv.conf and the names of /etc/hosts, by c-ares.

    Not ``getaddrinfo``, which blocks a thread that nobody can stop for as long as a hostile name server likes.
    """

    def __init__(self) -> None:
        self._resolver: aiodns.DNSResolver | None = None

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """See `Resolver`."""
        if self._resolver is None:
            # Belongs to the running loop. A query outlives the download that asked it by this much at most.
            self._resolver = aiodns.DNSResolver(timeout=2.0, tries=2)
        try:
            found = await self._resolver.getaddrinfo(
                host, family=socket.AF_UNSPEC, port=port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        except aiodns.error.DNSError as exc:
            raise OSError(exc.args[-1]) from exc
        return [node.addr[0].decode("ascii") for node in found.nodes]

    async def close(self) -> None:
        """End what is under way."""
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


Phase = Callable[[str], None]
"""Told what a download is doing, for instance ``resolving cr.example.com``, for the text of its failure."""


@dataclass
class _Budget:
    """Octets that may still be read, whatever they are: header, chunk extensions, trailers or body."""

    left: int


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the public addresses of one target, and reads so many octets at most.

    Args:
        target: what the URL leads to.
        resolve: asked for the addresses of a name; not asked where the host is an address.
        sockets: connects to addresses.
        phase: told what is being done.
        max_octets: that may be read over the connection, TLS handshake not counted.
        connect_timeout: seconds for each address.
    """

    def __init__(
        self,
        target: Target,
        resolve: Resolver,
        sockets: httpcore.AsyncNetworkBackend,
        phase: Phase,
        max_octets: int,
        connect_timeout: float,
    ) -> None:
        self._target = target
        self._resolve = resolve
        self._sockets = sockets
        self.phase = phase
        self._budget = _Budget(max_octets)
        self._connect_timeout = connect_timeout
        self._opened: httpcore.AsyncNetworkStream | None = None

    async def aclose(self) -> None:
        """Close what was opened; httpcore leaves it open where a TLS handshake is cancelled."""
        if self._opened is not None:
            await self._opened.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first allowed address that takes one.

        Raises:
            FetchFailure: DNS_FAILED, ADDRESS_NOT_ALLOWED, CONNECT_FAILED.
        """
        assert (host, port) == (self._target.host, self._target.port), "a download talks to one host"
        failure: Exception | None = None
        for address in await self._allowed():
            self.phase(f"connecting to {address}")
            try:
                stream = await self._sockets.connect_tcp(address, port, self._connect_timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as exc:
                failure = exc
                continue
            self._opened = stream
            return _CountedStream(stream, self._budget, self.phase)
        code = FetchCode.TIMEOUT if isinstance(failure, httpcore.ConnectTimeout) else FetchCode.CONNECT_FAILED
        raise FetchFailure(code, f"{host} port {port}: {failure or 'no connection'}") from failure

    async def _allowed(self) -> list[str]:
        """The addresses of the target that may be connected to, in the form that is connected to.

        Raises:
            FetchFailure: DNS_FAILED, ADDRESS_NOT_ALLOWED.
        """
        host = self._target.host
        try:
            found = [ip_address(host)]
        except ValueError:
            found = [ip_address(text) for text in await self._look_up()]
        if not found:
            raise FetchFailure(FetchCode.DNS_FAILED, f"{host} has no address")
        allowed = [str(address) for address in found if self._target.is_lab or is_public(address)]
        if not allowed:
            private = ", ".join(str(address) for address in found[:MAX_ADDRESSES])
            raise FetchFailure(FetchCode.ADDRESS_NOT_ALLOWED, f"{host} leads to {private}, no public address")
        return allowed[:MAX_ADDRESSES]

    async def _look_up(self) -> Sequence[str]:
        self.phase(f"resolving {self._target.host}")
        try:
            return await self._resolve(self._target.host, self._target.port)
        except OSError as exc:
            raise FetchFailure(FetchCode.DNS_FAILED, f"{self._target.host}: {exc}") from exc


class _CountedStream(httpcore.AsyncNetworkStream):
    """A byte stream that ends in a named failure when more comes than may."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, budget: _Budget, phase: Phase) -> None:
        self._stream = stream
        self._budget = budget
        self._phase = phase

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._budget.left -= len(data)
        if self._budget.left < 0:
            raise FetchFailure(FetchCode.TOO_LARGE, "the server sends more than a document with its header can have")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        self._phase("TLS handshake")
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except (httpcore.ConnectError, OSError) as exc:
            raise FetchFailure(FetchCode.TLS_FAILED, str(exc) or "the server ended the handshake") from exc
        self._phase("waiting for the answer")
        return _CountedStream(stream, self._budget, self._phase)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
