"""What the agent is given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509

from shaken_plugin.agent.downloads import Downloader
from shaken_plugin.agent.lists import RevocationParser, TrustListParser
from shaken_plugin.config.sections import Settings
from shaken_plugin.ports import Observer


class Calls(Protocol):
    """Signs and verifies calls of a switch that asks the agent for it."""

    async def look(self, *, anew: bool = False) -> None:
        """Begin, or take the settings that are in force, if they changed or are asked for ``anew``.

        Raises:
            RuntimeError: the settings are refused.
            OSError: the address is taken.
        """

    async def close(self) -> None:
        """End."""


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
