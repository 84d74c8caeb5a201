"""Sockets of the probe: one `Side` is one place of ours, reached by UDP, TCP and TLS.

What comes in is given to a callback as a `Packet`; what is no SIP is dropped. Answers go back the
way the request came.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from shaken_plugin.errors import ShakenError, SipSyntaxError
from shaken_plugin.probe.dialogs import Place
from shaken_plugin.probe.message import Message, Stream

MAX_CONNECTIONS: Final = 64
"""Most TCP connections to one side at a time; a PBX needs one or two."""

ATTEMPTS: Final = 20
"""Free UDP ports that are tried until TCP, and the next port for TLS, are free, too."""

READ_SIZE: Final = 65_536
_IP_MTU: Final = 14
"""Linux: the path MTU of a connected socket, as far as it is known (ip(7))."""


class ProbeError(ShakenError):
    """The probe cannot run; the text says what to do."""


class Packet(NamedTuple):
    """A message that came in, and the way back."""

    message: Message
    transport: str
    peer: tuple[str, int]
    at: float
    send: Callable[[bytes], None]
    """Sends bytes back to where it came from."""


def bracketed(host: str) -> str:
    """A host as it stands in SIP: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def path_mtu(host: str, port: int) -> int | None:
    """What the system knows of the MTU to an address, None where nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    level = socket.IPPROTO_IPV6 if ":" in host else socket.IPPROTO_IP
    option = getattr(socket, "IPV6_MTU", 24) if ":" in host else _IP_MTU
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((host, port))
        return int(probe.getsockopt(level, option))
    return None


def local_address(host: str, port: int) -> str:
    """The address of ours from which packets to another go; nothing is sent to find it.

    Raises:
        ProbeError: there is no way there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))
        except OSError as exc:
            raise ProbeError(f"no way to {host}: {exc.strerror}") from exc
        return str(probe.getsockname()[0])


class Side(asyncio.DatagramProtocol):
    """One place of ours; `open` makes it, `close` ends it.

    Args:
        receive: called with every message that comes in.
    """

    def __init__(self, receive: Callable[[Packet], None]) -> None:
        self._receive = receive
        self._udp: asyncio.DatagramTransport | None = None
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: dict[tuple[str, tuple[str, int]], asyncio.StreamWriter] = {}
        self._ports: dict[str, int] = {}
        self._host = ""

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen on UDP and TCP of one port, and with a context on TLS of the next; port 0 is any free one.

        Raises:
            ProbeError: an address or port that is not ours or not free.
        """
        self._host = host
        for attempt in range(ATTEMPTS):
            try:
                await self._listen(host, port, tls)
                return
            except (OSError, OverflowError, UnicodeError) as exc:
                await self.close()
                self._servers.clear()
                if port or attempt == ATTEMPTS - 1:
                    raise ProbeError(f"cannot listen on {host}:{port}: {getattr(exc, 'strerror', '') or exc}") from exc

    async def _listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        self._udp = transport
        port = int(transport.get_extra_info("sockname")[1])
        self._ports["udp"] = port
        for name, number, context in (("tcp", port, None), ("tls", port + 1, tls)):
            if name == "tcp" or context is not None:
                server = await asyncio.start_server(self._accept(name), host, number, ssl=context)
                self._servers.append(server)
                self._ports[name] = number

    async def close(self) -> None:
        """End all connections and listeners."""
        if self._udp is not None:
            self._udp.close()
        for server in self._servers:
            server.close()
        writers = list(self._writers.values())
        for writer in writers:
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Until they are closed: a loop that ends before leaves sockets open.
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        except TimeoutError:  # of TLS, whose other side says no farewell
            for writer in writers:
                writer.transport.abort()
        await asyncio.sleep(0)  # in which what was aborted, and the port of UDP, are closed

    def place(self, transport: str) -> Place:
        """Where it is reached."""
        return Place(bracketed(self._host), self._ports[transport], transport)

    # --- UDP ----------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See `asyncio.DatagramProtocol`."""
        peer = (addr[0], addr[1])
        with suppress(SipSyntaxError):
            self._receive(
                Packet(Message.parse(data), "udp", peer, time.time(), lambda back: self._datagram(back, peer))
            )

    def _datagram(self, data: bytes, peer: tuple[str, int]) -> None:
        if self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(data, peer)

    # --- TCP and TLS --------------------------------------------------------------------------

    def _accept(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._writers) >= MAX_CONNECTIONS:
                writer.close()
                return
            self._keep(name, reader, writer)

        return accepted

    def _keep(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        key = (name, (str(peer[0]), int(peer[1])))
        self._writers[key] = writer
        task = asyncio.get_running_loop().create_task(self._read(key, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(
        self, key: tuple[str, tuple[str, int]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        stream = Stream()

        def send(data: bytes) -> None:
            if not writer.is_closing():
                writer.write(data)

        with suppress(SipSyntaxError, OSError):
            while data := await reader.read(READ_SIZE):
                for message in stream.feed(data):
                    self._receive(Packet(message, key[0], key[1], time.time(), send))
        self._writers.pop(key, None)
        writer.close()

    async def send(
        self, data: bytes, transport: str, target: tuple[str, int], tls: ssl.SSLContext | None, name: str
    ) -> None:
        """Send a request; a connection is opened where there is none.

        Args:
            data: the request.
            transport: udp, tcp or tls.
            target: address and port.
            tls: for tls.
            name: host name that the certificate must have.

        Raises:
            ProbeError: there is no connection.
        """
        if transport == "udp":
            self._datagram(data, target)
            return
        key = (transport, target)
        if key not in self._writers:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    reader, writer = await asyncio.open_connection(
                        *target, ssl=tls, server_hostname=name if tls is not None else None
                    )
            except (OSError, TimeoutError) as exc:
                why = getattr(exc, "verify_message", "") or getattr(exc, "strerror", "") or "no answer"
                raise ProbeError(f"no {transport} connection to {target[0]}:{target[1]}: {why}") from exc
            self._keep(transport, reader, writer)
        self._writers[key].write(data)


CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the farewell of TLS."""

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a TCP or TLS connection; a loaded SBC far away takes less than one."""
