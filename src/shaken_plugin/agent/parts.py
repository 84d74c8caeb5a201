"""What the agent is given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509

from shaken_plugin.agent.counting import Follower
from shaken_plugin.agent.downloads import Downloader
from shaken_plugin.agent.lists import RevocationParser, TrustListParser
from shaken_plugin.agent.shared import Counts
from shaken_plugin.config.sections import Settings
from shaken_plugin.ports import Observer
from shaken_plugin.stores.redis.hosts import Hosts, HostStatus


class Calls(Follower, Protocol):
    """Signs and verifies calls of a switch that asks the agent for it."""

    async def look(self, *, anew: bool = False) -> None:
        """Begin, or take the settings that are in force, if they changed or are asked for ``anew``.

        Raises:
            RuntimeError: the settings are refused.
            OSError: the address is taken.
        """

    async def close(self) -> None:
        """End."""


class Progress(Protocol):
    """How far a copy is."""

    @property
    def version(self) -> int:
        """The policy version of the copy."""

    @property
    def head(self) -> int:
        """That of the fleet."""

    @property
    def resynced(self) -> str | None:
        """Why the copy was made anew, None where it was not."""


class Replica(Protocol):
    """Keeps a host's copy of a fleet's policy."""

    def follow(self, wait: float) -> Progress:
        """Take over what is new, waiting for it at most so many seconds.

        Raises:
            StoreUnavailable: Redis cannot be had.
            StoreError: the copy cannot be written, or Redis holds what this release does not know.
        """

    def probe(self) -> None:
        """Ask Redis alone, whatever the copy is like.

        Raises:
            StoreUnavailable: Redis cannot be had.
            StoreError: it answers, and has no such fleet, or what this release does not know.
        """


class HostTable(Protocol):
    """What the hosts of a fleet say of themselves."""

    def report(self, status: HostStatus) -> Hosts:
        """Say how this host is, and read what all say; raises as `Replica.follow` does."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What connects a host with its fleet."""

    host: str
    """This host's name."""
    replica: Replica
    hosts: HostTable
    compact: Callable[[], object]
    """Make a new snapshot of the copy in Redis, if one is due; raises as `Replica.follow` does."""
    schema: int
    """Newest schema of Redis that this release knows."""
    counts: Counts | None = None
    """The counts of calls of all hosts."""
    own: Callable[[], object] = lambda: None
    """Have the copy say what is this host's own, after it followed. Raises StoreError where it cannot be written."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the agent is given: whoever speaks HTTP, who reads signed lists, and who serves calls."""

    downloader: Callable[[Settings], Downloader]
    trust_list: Callable[[Sequence[x509.Certificate]], TrustListParser]
    """Gives, for the configured signers, what checks a trust list."""
    revocation: Callable[[Sequence[x509.Certificate]], RevocationParser]
    """Likewise for revocation lists."""
    calls: Callable[[Settings, Observer], Calls | None] = lambda _settings, _observer: None
    """Gives what serves calls, where the settings want that."""
    fleet: Callable[[Settings], Fleet | None] = lambda _settings: None
    """Gives what connects with the fleet, where the host is of one."""
