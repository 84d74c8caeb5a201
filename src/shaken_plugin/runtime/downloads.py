"""By which rules settings have documents downloaded, by the agent or inside a process without one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from shaken_plugin.certs.fetched import FetchedCertificates
from shaken_plugin.config.sections import Settings
from shaken_plugin.fetch import FetchRules
from shaken_plugin.fetch.inline import InlineFetcher

LISTS: Final = 16
"""Room for downloads of lists beside those of certificates."""

kept: Final = FetchedCertificates()
"""What this process downloaded itself; it outlives a reload."""


def fetch_rules(settings: Settings) -> FetchRules:
    """By which rules documents are downloaded with these settings."""
    bundle = settings.agent.ca_bundle
    return FetchRules(
        lab_hosts=frozenset(settings.verification.lab_hosts),
        ca_bundle=None if bundle is None else Path(bundle),
        concurrency=settings.agent.max_fetches,
        concurrency_per_host=settings.agent.max_per_host,
        # The agent itself begins no more than these; what is beyond them are its few lists.
        outstanding=settings.agent.max_fetches + LISTS,
        outstanding_per_host=settings.agent.max_per_host + LISTS,
    )


def inline_fetcher(settings: Settings) -> InlineFetcher:
    """The fetcher of this process for these settings: one for each set of rules, each with a thread at most.

    None is closed: calls that began before a reload may still wait for it.
    """
    return _fetcher(fetch_rules(settings))


@cache
def _fetcher(rules: FetchRules) -> InlineFetcher:
    return InlineFetcher(kept, rules)
