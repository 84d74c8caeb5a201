"""What the agent is given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509

from shaken_plugin.agent.downloads import Downloader
from shaken_plugin.agent.lists import RevocationParser, TrustListParser
from shaken_plugin.config.sections import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What the agent is given: whoever speaks HTTP, and who reads signed lists."""

    downloader: Callable[[Settings], Downloader]
    trust_list: Callable[[Sequence[x509.Certificate]], TrustListParser]
    """Gives, for the configured signers, what checks a trust list."""
    revocation: Callable[[Sequence[x509.Certificate]], RevocationParser]
    """Likewise for revocation lists."""
