"""Policies in Redis for the contract tests: real servers, started when a test first needs them, stopped at the end."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme

from shaken_plugin.lab.redis import Cluster, RedisServer, Sentinels, has_valkey
from shaken_plugin.ports import Author, PolicyDraft
from shaken_plugin.stores.redis.applying import mark_of
from shaken_plugin.stores.redis.connection import Client, RedisAccess, connect
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from shaken_plugin.stores.sqlite import SqlitePolicy, SqliteStore

PASSWORD = "correct horse battery"
ACL = (
    "~shaken:* resetchannels -@all +@read +@write +@scripting +@connection +wait +time +cluster|slots -@dangerous +info"
)
"""What docs/fleet.md tells to allow."""

NO_VALKEY = "Valkey is not installed (Debian 13: apt-get install valkey-server; Debian 12 has none)"


class Servers:
    """Each kind of Redis once, for all tests of a process."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._found: dict[str, RedisAccess] = {}
        self._clients: dict[str, Client] = {}

    def client(self, kind: str) -> Client:
        """One for all tests: first that of a Cluster reads all commands, that of TLS all authorities."""
        if kind not in self._clients:
            self._clients[kind] = connect(self.access(kind))
            self._stack.callback(self._clients[kind].close)
        return self._clients[kind]

    def access(self, kind: str) -> RedisAccess:
        """How to get in; started where it is not running yet."""
        if kind not in self._found:
            folder = Path(tempfile.mkdtemp(prefix=f"shaken-{kind}-"))
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._found[kind] = getattr(self, f"_{kind}")(folder)
        return self._found[kind]

    def _single(self, folder: Path) -> RedisAccess:
        return self._stack.enter_context(RedisServer("redis", folder)).access

    def _valkey(self, folder: Path) -> RedisAccess:
        if not has_valkey():
            pytest.skip(NO_VALKEY)
        return self._stack.enter_context(RedisServer("valkey", folder, program="valkey-server")).access

    def _tls(self, folder: Path) -> RedisAccess:
        return self._stack.enter_context(guarded(folder)).access

    def _sentinel(self, folder: Path) -> RedisAccess:
        return self._stack.enter_context(Sentinels(folder)).access

    def _cluster(self, folder: Path) -> RedisAccess:
        return self._stack.enter_context(Cluster(folder)).access

    def close(self) -> None:
        self._stack.close()
        self._found.clear()
        self._clients.clear()


SERVERS = Servers()


def guarded(folder: Path, name: str = "127.0.0.1") -> RedisServer:
    """A Redis that speaks TLS alone, under a name in its certificate, to a user of its ACL alone."""
    authority = trustme.CA()
    certificate = authority.issue_cert(name)
    paths = folder / "server.pem", folder / "server.key", folder / "ca.pem"
    certificate.cert_chain_pems[0].write_to_path(paths[0])
    certificate.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    access = RedisAccess((), username="shaken", password=PASSWORD, tls=True, ca=str(paths[2]), timeout=1.0)
    users = ["user default off", f'user shaken on ">{PASSWORD}" {ACL}']
    return RedisServer("guarded", folder, access=access, tls=paths, extra=users)


def new_fleet(kind: str) -> FleetLog:
    """The log of a fleet that nobody else has."""
    log = FleetLog(SERVERS.access(kind), f"t{uuid.uuid4().hex[:20]}")
    log._client = SERVERS.client(kind)
    return log


class FleetBackend:
    """`RedisPolicy` on one host, whose copy calls are decided from."""

    kind = "single"

    def __init__(self, folder: Path) -> None:
        self.log = new_fleet(self.kind)
        self.path = folder / "policy.db"
        upload_snapshot(self.path, self.log)
        self.writer: RedisPolicy | Replicated = RedisPolicy(self.path, self.log)
        self.store = SqliteStore(self.path)

    @contextmanager
    def broken(self) -> Iterator[None]:
        away = self.path.with_suffix(".away")
        self.path.rename(away)
        yield
        away.rename(self.path)


class Tls(FleetBackend):
    kind = "tls"


class Sentinel(FleetBackend):
    kind = "sentinel"


class OnCluster(FleetBackend):
    kind = "cluster"


class Valkey(FleetBackend):
    kind = "valkey"


class Replicated:
    """Changes on one host, read on another, which only follows the stream."""

    def __init__(self, folder: Path, log: FleetLog) -> None:
        self._here = RedisPolicy(folder / "here.db", log)
        self._mine = folder / "here.db"
        self.path = folder / "there.db"
        self.there = Replica(self.path, FleetLog(log.access, log.fleet))
        self.there.catch_up()
        self._read = SqlitePolicy(self.path)
        self.records = self._read.records
        self.changes = self._read.changes
        self.changes_of = self._read.changes_of
        self.version_at = self._read.version_at

    @contextmanager
    def change(self, author: Author, what: str) -> Iterator[PolicyDraft]:
        before = mark_of(self.path)
        with self._here.change(author, what) as draft:
            yield draft
        after = mark_of(self._mine)
        if after != before:
            progress = self.there.follow(5)
            assert progress == (after.head.version, after.head.version, None)
            assert mark_of(self.path) == after


class FollowingBackend(FleetBackend):
    """What a second host has."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.writer = Replicated(folder, self.log)
        self.path = self.writer.path
        self.store = SqliteStore(self.path)


FLEETS: dict[str, Callable[[Path], FleetBackend]] = {
    "redis": FleetBackend,
    "redis with TLS and a user": Tls,
    "redis behind Sentinels": Sentinel,
    "redis cluster": OnCluster,
    "a second host's copy": FollowingBackend,
    "valkey": Valkey,
}
