"""A wire between a host and Redis that a test can cut, or make slow."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self


class Proxy:
    """Passes bytes on to a port of loopback, until it is cut; what comes back after ``delay`` seconds.

    Args:
        target: the port.
        address: the loopback address that it listens on.
    """

    def __init__(self, target: int, address: str) -> None:
        self.delay = 0.0
        self._target = target
        self._listener = socket.create_server((address, 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        with self._lock:
            self._is_cut = True
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                try:
                    outer = None if self._is_cut else socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    outer = None  # Redis is away
                if outer is None:
                    inner.close()
                    continue
                self._open |= {inner, outer}
            for one, other, delayed in ((inner, outer, False), (outer, inner, True)):
                threading.Thread(target=self._pump, args=(one, other, delayed), daemon=True).start()

    def _pump(self, source: socket.socket, drain: socket.socket, delayed: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if delayed and self.delay:
                    time.sleep(self.delay)
                drain.sendall(data)
        for one in (source, drain):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
