"""Prometheus metrics and a health page over HTTP, on loopback.

``/metrics``  for Prometheus
``/health``   JSON: status (ok, alarm or stalled), alarms, counts; 503 when the agent is stalled
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

STALLED: Final = 15.0
"""Seconds without a sign of life after which the agent counts as stalled."""


class _Handler(WSGIRequestHandler):
    timeout = 5  # one slow reader must not keep the others out for long

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
        """Say nothing: who asks is a machine that asks every few seconds."""


class _Server(WSGIServer):
    def server_bind(self) -> None:
        """Like the base class, without asking DNS for our own name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is no fault of ours."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class Web:
    """The HTTP server, in a thread of its own.

    Args:
        host: address to listen on.
        port: 0 for any.
        registry: the metrics.

    Raises:
        OSError: the address is taken.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._metrics = make_wsgi_app(registry)
        self._health: tuple[float, dict[str, Any]] = (time.monotonic(), {"status": "starting"})
        _, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        family = _Server6 if ":" in str(address[0]) else _Server
        self._server = make_server(str(address[0]), port, self._answer, family, _Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="web", daemon=True)
        self._thread.start()

    def alive(self, health: dict[str, Any]) -> None:
        """A sign of life, with what the health page shall say."""
        self._health = (time.monotonic(), health)

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return cast("Iterable[bytes]", self._metrics(environ, start))
        if path not in {"/", "/health"}:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics or /health\n"]
        at, health = self._health
        stalled = time.monotonic() - at > STALLED
        if stalled:
            health = {**health, "status": "stalled"}
        start("503 Service Unavailable" if stalled else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps(health, indent=2).encode() + b"\n"]

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
