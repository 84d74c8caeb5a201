"""The part of the settings about the Redis that several hosts share a policy by."""

from __future__ import annotations

import platform
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shaken_plugin.config.fields import Reference
from shaken_plugin.config.models import Label, Matching, Name, Section, Switch

Server = Annotated[str, Matching(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", "not HOST:PORT")]
Fleet = Annotated[str, Matching(r"[a-z0-9-]{1,32}", "not 1 to 32 small letters, digits and dashes")]


class RedisSettings(Section):
    """The Redis (7 or later, or Valkey) that the fleet's policy is in; without this section a host is on its own."""

    servers: Annotated[list[Server], Field(min_length=1)]
    """HOST:PORT of the server, of the Sentinels, or of some nodes of the Cluster."""
    mode: Literal["single", "sentinel", "cluster"] = "single"
    """What those are: single, sentinel or cluster."""
    master: Name | None = None
    """The Sentinels' name for the server."""
    username: Label | None = None
    """The user of Redis' ACL; none: its default user."""
    password: Reference | None = None
    """That user's password by reference: file:PATH or env:NAME, never itself."""
    sentinel_username: Label | None = None
    """The user towards the Sentinels."""
    sentinel_password: Reference | None = None
    """That user's password, by reference."""
    tls: Switch = False
    """Whether the connections are encrypted, and the servers shown to be who they are."""
    ca: str | None = None
    """PEM file of the only authorities that the servers' certificates may lead to; the system's by default."""
    certificate: str | None = None
    """PEM file of this host's own certificate, where the servers ask for one."""
    key: str | None = None
    """PEM file of that certificate's key."""
    database: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Number of the database; a Cluster has 0 alone."""
    fleet: Fleet = "main"
    """Name of the fleet: several may share one Redis."""
    replicas: Annotated[int, Field(ge=0, le=16)] = 0
    """How many of Redis' replicas must have a change before it counts as kept; fewer are reported."""
    timeout: Annotated[float, Field(ge=0.05, le=30)] = 1.0
    """Seconds that connecting to Redis may take, and any of its answers."""
    host: Name | None = None
    """This host's name in the fleet, of which each must be another; by default the machine's."""

    @property
    def host_name(self) -> str:
        """This host's name in the fleet."""
        return self.host or platform.node() or "localhost"

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each server."""
        parts = (server.rpartition(":") for server in self.servers)
        return tuple((host.strip("[]"), int(port)) for host, _, port in parts)

    @model_validator(mode="after")
    def _fits(self) -> RedisSettings:
        if any(not 0 < port < 65_536 for _, port in self.addresses):
            raise ValueError("servers: a port is 1 to 65535")
        if self.mode == "single" and len(self.servers) > 1:
            raise ValueError("servers: one, or mode: sentinel or cluster")
        if (self.mode == "sentinel") != (self.master is not None):
            raise ValueError("master: the Sentinels' name for the server, with mode: sentinel and no other")
        if self.mode != "sentinel" and (self.sentinel_username or self.sentinel_password):
            raise ValueError("sentinel_username and sentinel_password belong to mode: sentinel")
        if self.mode == "cluster" and self.database:
            raise ValueError("database: a Cluster has 0 alone")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        if not self.tls and (self.ca or self.certificate):
            raise ValueError("ca, certificate and key need tls: true")
        if self.username is not None and self.password is None:
            raise ValueError("username: needs a password")
        return self
