"""A webhook on loopback that answers as it is told, and remembers what came."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

import trustme

SECRET = b"a secret of thirty-two octets...."


class Request(NamedTuple):
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed(self, now: float, secret: bytes = SECRET) -> bool:
        """As a receiver checks it who has read the specification of Standard Webhooks."""
        stamp = self.headers["webhook-timestamp"]
        assert abs(int(stamp) - now) < 300
        signed = f"{self.id}.{stamp}.".encode() + self.body
        expected = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
        given = [part.partition(",")[2] for part in self.headers["webhook-signature"].split()]
        return any(hmac.compare_digest(one, expected) for one in given)


class Hook:
    """See the module. ``answers`` are statuses, one after the other, the last for ever; 0 hangs up, -1 waits."""

    def __init__(self, *answers: int, authority: trustme.CA | None = None) -> None:
        self.answers = list(answers or (204,))
        self.requests: list[Request] = []
        self.end = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fields = {name.lower(): value for name, value in self.headers.items()}
                hook.requests.append(Request(self.path, fields, body))
                status = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
                if status == -1:
                    hook.end.wait(30)
                if status > 0:
                    self.send_response(status)
                    self.send_header("Location", f"{hook.url}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nothing: the test has it all."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if authority is not None:
            scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/offences"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
