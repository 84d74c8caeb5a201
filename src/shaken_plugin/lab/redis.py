"""Redis for tests and the laboratory: own servers on free loopback ports, nothing of which outlives them."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import redis

from shaken_plugin.lab.servers import LOOPBACK, START_TIMEOUT, LabError, Server, find_program, free_port
from shaken_plugin.stores.redis.connection import RedisAccess

TIMEOUT: Final = 1.0
"""Seconds that an answer may take; in tests the machine is busy."""

MASTER: Final = "shaken"
"""The Sentinels' name for the server they watch."""

_FOR_EVERYBODY: Final = {
    "bind": LOOPBACK,
    "protected-mode": "no",
    "daemonize": "no",
    "save": '""',
    "appendonly": "no",
    "maxmemory-policy": "noeviction",
    "unixsocket": '""',
}


def has_valkey() -> bool:
    """Whether Valkey is installed."""
    return any(shutil.which("valkey-server", path=folder) for folder in (None, "/usr/sbin:/usr/local/sbin"))


class RedisServer(Server):
    """A Redis (or Valkey), that can be paused, killed and started again on the same port.

    Args:
        name: for its log.
        folder: scratch folder of its own.
        options: lines of its configuration, beside those that every one of ours has.
        access: how to get in: password, user, TLS; host and port are filled in.
        program: ``redis-server`` or ``valkey-server``.
        tls: paths of certificate, key and authorities; then it speaks nothing else.
        extra: further lines as they are, for instance users.
        arguments: of the command, for instance ``--sentinel``.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        options: Mapping[str, str] | None = None,
        *,
        access: RedisAccess | None = None,
        program: str = "redis-server",
        tls: tuple[Path, Path, Path] | None = None,
        extra: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.config = folder / f"{name}.conf"
        settings = {**_FOR_EVERYBODY, "dir": str(folder), "port": str(self.port)}
        if tls is not None:
            certificate, key, ca = (str(path) for path in tls)
            settings |= {"port": "0", "tls-port": str(self.port), "tls-cert-file": certificate, "tls-key-file": key}
            settings |= {"tls-ca-cert-file": ca, "tls-auth-clients": "no"}
        if "--sentinel" in arguments:
            known = ("bind", "protected-mode", "daemonize", "dir", "port", "tls-")
            settings = {name: value for name, value in settings.items() if name.startswith(known)}
        settings |= options or {}
        self.settings = settings
        self._lines = [*(f"{key} {value}" for key, value in settings.items()), *extra]
        base = access or RedisAccess((), timeout=TIMEOUT)
        self.access = replace(base, servers=((LOOPBACK, self.port),))
        super().__init__(name, [find_program(program), str(self.config), *arguments], folder, {})

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            self.config.write_text("\n".join([*self._lines, ""]))
        super().__enter__()
        return self

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A client of this very server, whatever it is part of."""
        access = self.access
        # Whatever name its certificate has: a test may want a wrong one.
        own = {"ssl_ca_certs": access.ca, "ssl_certfile": access.certificate, "ssl_keyfile": access.key}
        tls = {"ssl": True, "ssl_check_hostname": False, **own} if access.tls else {}
        options: dict[str, Any] = {"socket_timeout": TIMEOUT, "protocol": 2, "decode_responses": True, **tls}
        found = redis.Redis(LOOPBACK, self.port, username=access.username, password=access.password, **options)
        try:
            yield found
        finally:
            found.close()

    def command(self, *words: str | int) -> Any:
        """The answer to one command."""
        with self.client() as client:
            return client.execute_command(*words)

    def is_ready(self) -> bool:
        """See `Server.is_ready`."""
        try:
            return bool(self.command("PING"))
        except redis.RedisError:
            return False

    def pause(self) -> None:
        """Have it answer nobody: connections stand, as with a host that hangs."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would; what it keeps on disk stays."""
        os.kill(self.pid, signal.SIGKILL)
        super().stop()

    def restart(self) -> None:
        """Start it again, on the same port."""
        if self.running():
            self.stop()
        self.__enter__()

    def stop(self) -> None:
        """See `Server.stop`; a paused one could not obey."""
        if self.running():
            with suppress(ProcessLookupError):
                self.resume()
        super().stop()


def wait_until(true: Callable[[], object], what: str, seconds: float = START_TIMEOUT) -> None:
    """Return as soon as something is true.

    Raises:
        LabError: it is not after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(redis.RedisError):
            if true():
                return
        time.sleep(0.05)
    raise LabError(f"{what}: not after {seconds:.0f} s")


class Sentinels:
    """A master, a replica of it, and three Sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self.folder = folder
        self.servers: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []

    def __enter__(self) -> Self:
        with self._stack:
            master = self._stack.enter_context(RedisServer("first", self.folder / "first"))
            following = {"replicaof": f"{LOOPBACK} {master.port}"}
            replica = self._stack.enter_context(RedisServer("second", self.folder / "second", following))
            self.servers = [master, replica]
            extra = [
                f"sentinel monitor {MASTER} {LOOPBACK} {master.port} 2",
                f"sentinel down-after-milliseconds {MASTER} 700",
                f"sentinel failover-timeout {MASTER} 3000",
            ]
            for number in range(3):
                name = f"sentinel{number}"
                server = RedisServer(name, self.folder / name, extra=extra, arguments=["--sentinel"])
                self.sentinels.append(self._stack.enter_context(server))
            wait_until(self._complete, "the Sentinels find each other and the replica")
            self._stack = self._stack.pop_all()
        return self

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            words = sentinel.command("SENTINEL", "MASTER", MASTER)
            state = dict(zip(words[::2], words[1::2], strict=True))
            if (state["num-other-sentinels"], state["num-slaves"]) != ("2", "1"):
                return False
        return bool(self.servers[1].command("INFO", "replication")["master_link_status"] == "up")

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    @property
    def access(self) -> RedisAccess:
        """How to get in."""
        places = tuple((LOOPBACK, sentinel.port) for sentinel in self.sentinels)
        return RedisAccess(places, mode="sentinel", master=MASTER, timeout=TIMEOUT)

    @property
    def master(self) -> RedisServer:
        """Who is master just now, as the first Sentinel has it."""
        _, port = self.sentinels[0].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(server for server in self.servers if server.port == int(port))

    def wait_for_failover(self, old: RedisServer) -> None:
        """Return when another than ``old`` is master, and says so itself."""

        def over() -> bool:
            now = self.master
            return now is not old and now.command("ROLE")[0] == "master"

        wait_until(over, "the Sentinels make the replica master")


class Cluster:
    """Three masters of a Redis Cluster that have all slots between them."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self.folder = folder
        self.servers: list[RedisServer] = []

    def __enter__(self) -> Self:
        with self._stack:
            for number in range(3):
                options = {
                    "cluster-enabled": "yes",
                    "cluster-node-timeout": "2000",
                    "cluster-port": str(free_port()),
                }
                server = RedisServer(f"node{number}", self.folder / f"node{number}", options)
                self.servers.append(self._stack.enter_context(server))
            bounds = (0, 5_461, 10_923, 16_384)
            for number, server in enumerate(self.servers):
                server.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
                server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, *others = self.servers
            for server in others:
                first.command("CLUSTER", "MEET", LOOPBACK, server.port, server.settings["cluster-port"])
            wait_until(self._complete, "the nodes of the Cluster find each other")
            self._stack = self._stack.pop_all()
        return self

    def _complete(self) -> bool:
        infos = [str(server.command("CLUSTER", "INFO")) for server in self.servers]
        return all("cluster_state:ok" in info and "cluster_known_nodes:3" in info for info in infos)

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    @property
    def access(self) -> RedisAccess:
        """How to get in."""
        return RedisAccess(tuple((LOOPBACK, server.port) for server in self.servers), mode="cluster", timeout=TIMEOUT)
