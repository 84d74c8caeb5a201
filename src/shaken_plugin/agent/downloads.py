"""What the agent needs of whoever speaks HTTP: a `fetch.Fetcher`, or a stand-in."""

from __future__ import annotations

from typing import Protocol

from shaken_plugin.fetch import Fetched, Kind


class Downloader(Protocol):
    """Downloads one document under all rules: URL, address, size, deadline, breaker per host."""

    async def fetch(self, url: str, kind: Kind, previous: Fetched | None = None) -> Fetched:
        """See `fetch.Fetcher.fetch`, which raises `fetch.FetchFailure` and nothing else."""

    async def close(self) -> None:
        """Close all connections."""
