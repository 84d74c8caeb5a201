"""How a fleet's Redis is reached: one server, a Sentinel's master, or a Cluster; and what is said where it is not.

One client of redis-py stands for all of them. It is thread-safe, answers within a bounded time, and tries nothing
twice by itself: whoever commits has to know whether it did.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from shaken_plugin.errors import StoreError, StoreUnavailable

Client = redis.Redis | RedisCluster
"""Either takes the same commands; `execute_command` is what this package uses of it."""

_CLUSTER_TRIES: Final = 2
"""Of a Cluster's client, whenever a slot was somewhere else: the failed node, then who has it now."""


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """Where a fleet's Redis is, and who we are to it.

    Secrets are in no text of it.
    """

    servers: tuple[tuple[str, int], ...]
    """Host and port: of the server, of the Sentinels, or of some nodes of the Cluster."""
    mode: Literal["single", "sentinel", "cluster"] = "single"
    master: str = ""
    """The Sentinels' name for the server."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    """PEM file of the only authorities that the servers' certificates may lead to; by default the system's."""
    certificate: str | None = None
    """PEM file of our own certificate, where the servers ask for one; with its key."""
    key: str | None = None
    database: int = 0
    timeout: float = 1.0
    """Seconds that connecting may take, and any answer."""

    @property
    def name(self) -> str:
        """For people: what is meant, without a secret."""
        servers = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers)
        match self.mode:
            case "sentinel":
                return f"Redis {self.master} of the Sentinels {servers}"
            case "cluster":
                return f"Redis Cluster {servers}"
        return f"Redis {servers}"


def connect(access: RedisAccess) -> Client:
    """A client; where it can, it connects at its first command.

    Raises:
        StoreUnavailable: it cannot be had: the text names the server and says what to do, and has no secret.
    """
    with reaching(access):
        secrets = {"username": access.username, "password": access.password}
        options = _transport(access) | secrets
        if access.mode == "single":
            ((host, port),) = access.servers
            return _server(host, port, options | {"db": access.database})
        if access.mode == "sentinel":
            ours = {"username": access.sentinel_username, "password": access.sentinel_password}
            sentinel = Sentinel([])
            sentinel.sentinels = [_server(host, port, _transport(access) | ours) for host, port in access.servers]
            kind = _MasterByTls if access.tls else SentinelManagedConnection
            master: Client = sentinel.master_for(access.master, connection_class=kind, db=access.database, **options)
            return master
        nodes = [ClusterNode(host, port) for host, port in access.servers[1:]]
        (host, port), retry = access.servers[0], Retry(NoBackoff(), _CLUSTER_TRIES)
        # Given as a URL, for only then redis-py lets one choose the class of the connections to all nodes.
        url = f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}"
        return RedisCluster(
            url=url, startup_nodes=nodes, connection_class=_kind(access.tls), **options | {"retry": retry}
        )


class _OwnAuthorities:
    """Has a connection believe the authorities that were named alone; redis-py believes the system's beside them."""

    ca_certs: str | None
    certfile: str | None
    keyfile: str | None
    host: str

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca_certs)  # without: the system's; either checks the name
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile)
        return context.wrap_socket(sock, server_hostname=self.host)


class _ByTls(_OwnAuthorities, redis.SSLConnection):
    """To a server, a Sentinel, or a node of a Cluster."""


class _MasterByTls(_OwnAuthorities, SentinelManagedSSLConnection):
    """To whom the Sentinels name."""


def _kind(tls: bool) -> type[redis.Connection]:
    return _ByTls if tls else redis.Connection


def _server(host: str, port: int, options: dict[str, Any]) -> redis.Redis:
    kind = _kind("ssl_ca_certs" in options)
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, host=host, port=port, **options))


def _transport(access: RedisAccess) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": access.timeout,
        "socket_connect_timeout": access.timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if access.tls:
        options |= {
            "ssl_ca_certs": access.ca,
            "ssl_certfile": access.certificate,
            "ssl_keyfile": access.key,
        }
    return options


@contextmanager
def reaching(access: RedisAccess) -> Iterator[None]:
    """Have whatever Redis and its client raise be an error of ours, which names the server.

    Raises:
        StoreUnavailable: it cannot be reached, does not answer, or refuses us.
        StoreError: it has no memory left, or does not do what it was asked for.
    """
    try:
        yield
    except exceptions.OutOfMemoryError as exc:
        raise StoreError(
            f"{access.name}: has no memory left, so nothing was changed; raise its maxmemory "
            "(and its maxmemory-policy must be noeviction)"
        ) from exc
    # A Cluster of which no node answers is no RedisError to redis-py.
    except (exceptions.RedisError, exceptions.RedisClusterException, OSError, ValueError) as exc:
        if isinstance(exc, exceptions.ResponseError) and not _is_temporary(exc):
            raise StoreError(f"{access.name}: does not do what it was asked for: {_said(access, exc)}") from exc
        raise StoreUnavailable(f"{access.name}: {_said(access, exc)}") from exc


_TEMPORARY: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.MovedError,
    exceptions.AskError,
)
"""Answers that say nothing against the question."""

_STATES: Final = ("UNBLOCKED", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "BUSY")
"""Words with which others of these begin: a server that changes its role, cannot save, starts, or runs a script."""


def _is_temporary(error: exceptions.ResponseError) -> bool:
    return isinstance(error, _TEMPORARY) or str(error).startswith(_STATES)


_ADVICE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (exceptions.AuthenticationError, "refuses the user or the password (store.redis.username, .password)"),
    (exceptions.NoPermissionError, "its ACL does not allow the user what shaken needs (docs/fleet.md)"),
    (exceptions.BusyLoadingError, "is still loading its data; it will answer after that"),
    (exceptions.TimeoutError, "does not answer in time; is it running, and not overloaded?"),
    (exceptions.ReadOnlyError, "is a replica, or lost its role as master; name the master, or use its Sentinels"),
)


def _said(access: RedisAccess, error: Exception) -> str:
    text = next((advice for kind, advice in _ADVICE if isinstance(error, kind)), None)
    detail = " ".join(str(error).split())
    for secret in (access.password, access.sentinel_password):
        detail = detail.replace(secret, "***") if secret else detail
    detail = detail[:300]
    if text is None:
        away = isinstance(error, exceptions.ConnectionError | exceptions.RedisClusterException | OSError)
        return f"cannot be reached: {detail}" if away else detail
    return f"{text} ({detail})" if detail else text
