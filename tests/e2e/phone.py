"""A telephone of a few lines, for what SIPp cannot send: raw bytes, retransmissions, bad SIP."""

from __future__ import annotations

import itertools
import re
import socket
import time

_numbers = itertools.count(1)


class Phone:
    """Sends and receives SIP over UDP on a loopback address."""

    def __init__(self, address: str = "127.0.0.2") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.address, self.port = self.socket.getsockname()

    def close(self) -> None:
        self.socket.close()

    def invite(
        self, extra: bytes = b"", *, number: str = "+12155551212", to: str = "+12025550143", **parts: str
    ) -> bytes:
        """An INVITE; ``parts``: ruri, to_value, from_value."""
        tag = f"{self.port}-{next(_numbers)}"
        lines = [
            f"INVITE {parts.get('ruri') or f'sip:{to}@127.0.0.1;user=phone'} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bK{tag}",
            "Max-Forwards: 70",
            f"From: {parts.get('from_value') or f'<sip:{number}@{self.address};user=phone>'};tag={tag}",
            f"To: {parts.get('to_value') or f'<sip:{to}@127.0.0.1;user=phone>'}",
            f"Call-ID: {tag}@{self.address}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:{self.address}:{self.port}>",
        ]
        return "\r\n".join(lines).encode() + b"\r\n" + extra + b"Content-Length: 0\r\n\r\n"

    def send(self, data: bytes, port: int) -> None:
        self.socket.sendto(data, ("127.0.0.1", port))

    def receive(self, seconds: float) -> bytes | None:
        """The next datagram, None if there is none in time."""
        self.socket.settimeout(max(seconds, 0.001))
        try:
            return self.socket.recv(65_535)
        except TimeoutError:
            return None

    def final(self, request: bytes, seconds: float = 5.0) -> tuple[int, str] | None:
        """The final answer to a request: status and the whole text; answers it with ACK."""
        deadline = time.monotonic() + seconds
        call_id = re.search(rb"Call-ID: (\S+)", request)
        while (left := deadline - time.monotonic()) > 0:
            data = self.receive(left)
            if data is None:
                return None
            if call_id is not None and call_id.group(1) not in data:
                continue
            status = int(data[8:11])
            if status >= 200:
                self.acknowledge(request, data)
                return status, data.decode("utf-8", "replace")
        return None

    def acknowledge(self, request: bytes, response: bytes) -> None:
        """ACK a final response, so that nobody goes on retransmitting."""
        head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
        to = next(line for line in response.split(b"\r\n") if line.lower().startswith(b"to:"))
        kept = [
            line for line in head[1:] if line.lower().startswith((b"via:", b"from:", b"call-id:", b"max-forwards:"))
        ]
        ack = b"\r\n".join([head[0].replace(b"INVITE", b"ACK", 1), *kept, to, b"CSeq: 1 ACK", b"Content-Length: 0"])
        target = re.search(rb"Via: SIP/2.0/UDP \S+", request)
        assert target is not None
        self.socket.sendto(ack + b"\r\n\r\n", self.last)

    @property
    def last(self) -> tuple[str, int]:
        """Where the last request went."""
        return self._last

    _last: tuple[str, int] = ("127.0.0.1", 9)

    def ask(self, data: bytes, port: int, seconds: float = 5.0) -> tuple[int, str] | None:
        """Send a request and return its final answer."""
        self._last = ("127.0.0.1", port)
        self.send(data, port)
        return self.final(data, seconds)
