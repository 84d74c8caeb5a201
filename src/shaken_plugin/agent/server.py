"""The Unix socket that workers ask on; the protocol is described in `certs.agent_client`."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from shaken_plugin.agent.callrequests import CallRequests
from shaken_plugin.agent.documents import Documents
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.certs.agent_client import MAX_REQUEST, MAX_URLS, PROTOCOL
from shaken_plugin.errors import ShakenError

SOCKET_MODE: Final = 0o660
MAX_CONNECTIONS: Final = 512
"""Workers connected at one time; each holds a request of 16 KiB at most."""
MAX_WAIT: Final = 10.0
"""Longest that a worker may have the agent wait, seconds."""
MAX_LASTING: Final = 448
"""Up to so many, one that has calls counted may be idle for good."""
IDLE: Final = 5.0
"""Seconds a connection may take to send a line, or to take one."""


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_DONE: Final = _encode({"v": PROTOCOL}).encode() + b"\n"
"""The answer that says nothing more."""


class SocketTaken(ShakenError):
    """The socket cannot be had; the text says why and what to do."""


class Listener:
    """The socket's file: held by one agent, replaced where a dead one left it.

    Raises:
        SocketTaken: another agent runs, or the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = self._take_lock()
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            draft.unlink(missing_ok=True)
            self.socket.bind(str(draft))
            # The folder's group is that of the switches' users; not everybody may give it away.
            with suppress(PermissionError):
                os.chown(draft, -1, path.parent.stat().st_gid)
            draft.chmod(SOCKET_MODE)
            self.socket.listen(MAX_CONNECTIONS)
            draft.replace(path)  # only now: who finds it can connect
        except OSError as exc:
            self.socket.close()
            os.close(self._lock)
            why = exc.strerror or exc  # of a path that is too long there is no number and no text of the system
            raise SocketTaken(f"{path}: cannot listen: {why}; see agent.socket in the settings") from exc

    def _take_lock(self) -> int:
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise SocketTaken(f"{lock}: {exc.strerror}; the agent needs a folder to write to for its socket") from exc
        try:
            # A lock and not a file's presence: it ends with its process, however that ends.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(descriptor)
            raise SocketTaken(f"{self.path}: another agent is running here; one is enough for a host") from exc
        return descriptor

    def close(self) -> None:
        """Take the file away and let another agent begin."""
        self.path.unlink(missing_ok=True)
        self.socket.close()
        os.close(self._lock)


class Server:
    """Answers workers.

    Args:
        documents: what they ask for.
        metrics: counts connections.
        calls: answers what is asked about calls.
    """

    def __init__(self, documents: Documents, metrics: Metrics, calls: CallRequests | None = None) -> None:
        self._documents = documents
        self._calls = calls
        self._metrics = metrics
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, listener: Listener) -> asyncio.Server:
        """Begin to answer."""
        return await asyncio.start_unix_server(self._connected, sock=listener.socket, limit=MAX_REQUEST)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(task)
        self._metrics.connections.set(len(self._open))
        try:
            await self._serve(reader, writer)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            pass  # a worker that went away, or one that speaks something else: nothing is owed to it
        finally:
            self._open.discard(task)
            self._metrics.connections.set(len(self._open))
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lasts = False
        while True:
            if lasts:
                line = await reader.readline()
            else:
                async with asyncio.timeout(IDLE):
                    line = await reader.readline()
            if not line.endswith(b"\n"):
                return
            request = _read(line)
            if self._calls is not None and request.get("op") in self._calls.ops:
                # The line of a worker that has calls counted stays; some room is left for others.
                lasts = len(self._open) < MAX_LASTING
                answer: dict[str, Any] | None = await self._calls.answer(request)
            else:
                answer = await self._answer(request)
            if answer is not None:
                writer.write(_encode({"v": PROTOCOL, **answer}).encode() + b"\n" if answer else _DONE)
                if writer.transport.get_write_buffer_size():  # mostly it has gone at once
                    async with asyncio.timeout(IDLE):
                        await writer.drain()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        if "error" in request:
            return request
        urls = request.get("urls")
        if not isinstance(urls, list) or len(urls) > MAX_URLS or not all(isinstance(url, str) for url in urls):
            return {"error": f"urls must be a list of {MAX_URLS} texts at most"}
        if request.get("op") == "seen":
            self._documents.seen(urls)
            return None
        op, wait = request.get("op"), 0 if request.get("op") == "need" else request.get("wait")
        if op not in ("fetch", "need") or isinstance(wait, bool) or not isinstance(wait, int | float):
            return {"error": "op must be fetch, with wait in seconds, need or seen"}
        results = await self._documents.want(dict.fromkeys(urls), min(max(0.0, wait), MAX_WAIT))
        is_blind = request.get("lend") is True
        if is_blind:
            self._documents.doubt()
        lent = await self._lent(results, stored_too=is_blind)
        return None if op == "need" else {"results": results, "lent": lent}

    async def _lent(self, results: Mapping[str, str], *, stored_too: bool) -> dict[str, tuple[float, str]]:
        lent = {}
        for url in (url for url, result in results.items() if result == "stored"):
            document = await self._documents.lent(url, stored_too=stored_too)
            if document is not None and document.body is not None:
                lent[url] = (document.usable_until, base64.b64encode(document.body).decode("ascii"))
        return lent

    async def close(self) -> None:
        """End all connections."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


def _read(line: bytes) -> dict[str, Any]:
    """A request; with ``error`` where it is none."""
    try:
        request = json.loads(line.decode())
    except (ValueError, RecursionError):
        return {"error": "not JSON"}
    if not isinstance(request, dict) or request.get("v") != PROTOCOL or "error" in request:
        return {"error": f"this agent speaks version {PROTOCOL}"}
    return request
