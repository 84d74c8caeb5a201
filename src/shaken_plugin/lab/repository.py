"""A certificate repository on loopback that misbehaves as it is told, path by path, at run time.

    with Repository(folder) as repository:
        repository.set("/709J.pem", Behaviour(body=chain))
        repository.set("/slow.pem", Behaviour(body=chain, delay=2.0))
        repository.set("/flaps.pem", Behaviour(status=500), Behaviour(body=chain))   # in turn
        FetchRules(lab_hosts=repository.hosts, ca_bundle=repository.ca_file)
        repository.url("/709J.pem"), repository.url("/709J.pem", Face.EXPIRED), repository.count("/709J.pem")

It runs in a thread. What TLS gets wrong belongs to a port, not to a path: see `Face`. Another process tells it
what to do over its plain port: PUT /-/behaviours, GET /-/requests, both JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import trustme

from shaken_plugin.lab.servers import LOOPBACK, START_TIMEOUT, STOP_TIMEOUT, LabError

MAX_REQUEST: Final = 65_536
CONTROL: Final = "/-/behaviours"
COUNTS: Final = "/-/requests"


class Face(Enum):
    """What a port of the repository is like before any HTTP is spoken."""

    GOOD = "good"
    WRONG_NAME = "wrong-name"
    UNTRUSTED = "untrusted"
    EXPIRED = "expired"
    PLAIN = "plain"
    """http, for CRLs and for control."""
    MUTE = "mute"
    """Accepts connections and says nothing, not even TLS."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What happens to a request. Times in seconds, lengths in octets.

    Attributes:
        status: of the answer.
        headers: beside Content-Length, Date and Connection; a Content-Length or Date here replaces ours.
        body: of the answer; a str is sent as Latin-1.
        repeat: how often the body is sent, so that a large one needs no memory.
        delay: before the answer begins.
        drip: between any two octets of the body.
        reset_after: octets of the body after which the connection is reset.
        silent: no answer ever; the connection stays open until the client goes.
        etag: sent along; who has it gets 304.
        raw: sent instead of all of it, head included; Latin-1.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | str = b""
    repeat: int = 1
    delay: float = 0.0
    drip: float = 0.0
    reset_after: int | None = None
    silent: bool = False
    etag: str | None = None
    raw: str | None = None

    @property
    def octets(self) -> bytes:
        """The body once."""
        return self.body.encode("latin-1") if isinstance(self.body, str) else self.body

    def head(self, status: int, length: int) -> bytes:
        """Status line and header fields."""
        fields = [("Connection", "close"), *((name, value) for name, value in self.headers)]
        named = {name.lower() for name, _ in fields}
        if not named & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(length)))
        if "date" not in named:
            fields.append(("Date", formatdate(usegmt=True)))
        if self.etag is not None:
            fields.append(("ETag", self.etag))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"HTTP/1.1 {status} {status}\r\n{lines}\r\n".encode("latin-1")


MISSING: Final = Behaviour(404, body=b"not found")


class Repository:
    """The server; a context manager.

    Args:
        folder: where its CA certificate is written, ``tls-ca.pem``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._behaviours: dict[str, tuple[Behaviour, ...]] = {}
        self._requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ports: dict[Face, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="lab repository", daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT) or self._loop is None:
            raise LabError("the lab repository does not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_TIMEOUT)

    @property
    def ca_file(self) -> Path:
        """PEM of the authority that its TLS certificates lead to."""
        return self._folder / "tls-ca.pem"

    @property
    def hosts(self) -> frozenset[str]:
        """For the setting that opens hosts for a lab."""
        return frozenset(f"{LOOPBACK}:{port}" for port in self._ports.values())

    def urls(self) -> dict[str, str]:
        """Where each face is to be had, by its name."""
        return {face.value: self.url("", face) for face in self._ports}

    def url(self, path: str, face: Face = Face.GOOD) -> str:
        """Where a path is to be had."""
        return f"{'http' if face is Face.PLAIN else 'https'}://{LOOPBACK}:{self._ports[face]}{path}"

    def set(self, path: str, *behaviours: Behaviour) -> None:
        """What the following requests for a path get, in turn and from the beginning again; none: 404."""
        with self._lock:
            self._behaviours[path] = behaviours or (MISSING,)
            self._requests[path] = 0

    def count(self, path: str) -> int:
        """Requests for a path since it was `set`."""
        with self._lock:
            return self._requests[path]

    def _next(self, path: str) -> Behaviour:
        with self._lock:
            behaviours = self._behaviours.get(path, (MISSING,))
            behaviour = behaviours[self._requests[path] % len(behaviours)]
            self._requests[path] += 1
            return behaviour

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            for face, context in _contexts(self.ca_file).items():
                server = await asyncio.start_server(
                    self._mute if face is Face.MUTE else self._talk, LOOPBACK, 0, ssl=context
                )
                stack.callback(server.close)
                self._ports[face] = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    async def _mute(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(MAX_REQUEST):
                pass
        writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that goes away in the middle is what is being tested.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.split("\r\n")
            method, path = line.split(" ")[:2]
            fields = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
            if path.startswith("/-/"):
                body = await reader.readexactly(min(int(fields.get("content-length", "0")), MAX_REQUEST))
                writer.write(self._control(method, path, body))
            else:
                await _behave(self._next(path), fields, reader, writer)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    def _control(self, method: str, path: str, body: bytes) -> bytes:
        if (method, path) == ("GET", COUNTS):
            with self._lock:
                return _json(200, dict(self._requests))
        if (method, path) != ("PUT", CONTROL):
            return _json(404, f"only PUT {CONTROL} and GET {COUNTS}")
        try:
            for target, behaviours in json.loads(body).items():
                self.set(target, *(Behaviour(**one) for one in behaviours))
        except (ValueError, TypeError, AttributeError) as exc:
            return _json(400, str(exc))
        return _json(200, "done")


def as_json(behaviours: Mapping[str, Sequence[Behaviour]]) -> str:
    """The body of a PUT to `CONTROL`."""
    plain = {
        path: [asdict(one) | {"body": one.octets.decode("latin-1")} for one in several]
        for path, several in behaviours.items()
    }
    return json.dumps(plain)


def _json(status: int, content: Any) -> bytes:
    body = json.dumps(content).encode()
    return Behaviour(headers=[("Content-Type", "application/json")]).head(status, len(body)) + body


async def _behave(
    behaviour: Behaviour, fields: Mapping[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await asyncio.sleep(behaviour.delay)
    if behaviour.silent:
        await reader.read()
        return
    if behaviour.raw is not None:
        writer.write(behaviour.raw.encode("latin-1"))
        return
    if behaviour.etag is not None and fields.get("if-none-match") == behaviour.etag:
        writer.write(behaviour.head(304, 0))
        return
    body = behaviour.octets
    writer.write(behaviour.head(behaviour.status, len(body) * behaviour.repeat))
    if behaviour.reset_after is not None:
        writer.write(body[: behaviour.reset_after])
        await writer.drain()
        # An RST instead of a FIN: the client must not take what it has for the whole.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return
    for _ in range(behaviour.repeat):
        for part in _parts(body, behaviour.drip):
            if writer.is_closing():
                return  # the client has had enough
            writer.write(part)
            await writer.drain()
            if behaviour.drip:
                await asyncio.sleep(behaviour.drip)


def _parts(body: bytes, drip: float) -> list[bytes]:
    return [body[index : index + 1] for index in range(len(body))] if drip else [body]


def _contexts(ca_file: Path) -> dict[Face, ssl.SSLContext | None]:
    """The TLS of each face; the CA certificate is written to a file."""
    authority, unknown = trustme.CA(organization_name="Lab TLS"), trustme.CA(organization_name="Unknown TLS")
    authority.cert_pem.write_to_path(ca_file)
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    certificates = {
        Face.GOOD: authority.issue_cert(LOOPBACK, "localhost"),
        Face.WRONG_NAME: authority.issue_cert("elsewhere.example.com"),
        Face.UNTRUSTED: unknown.issue_cert(LOOPBACK, "localhost"),
        Face.EXPIRED: authority.issue_cert(LOOPBACK, "localhost", not_after=long_ago),
    }
    contexts: dict[Face, ssl.SSLContext | None] = {Face.PLAIN: None, Face.MUTE: None}
    for face, certificate in certificates.items():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        contexts[face] = context
    return contexts
