"""Downloads that trust nobody: certificates, trust lists and CRLs, for the agent and the command.

Never imported in a Kamailio process; `inline` is for a switch whose calls are threads. To be read in this order:
`model`, `client`, `sockets`, `caching`, `freshness`, `inline`.

What a test may replace is names and sockets, and nothing else: ``resolve``, a `Resolver` (name to addresses), and
``sockets``, an ``httpcore.AsyncNetworkBackend`` (address to byte stream). What judges a URL, an address or an answer
stays production's own. `lab.wire.Wire` is both, in memory:

    wire = Wire({"https://cr.example.com/a.pem": Played(200, [("Age", "1")], chain)}, {"evil.example.com": "10.0.0.1"})
    fetch_once(url, Kind.CERTIFICATE, FetchRules(), clock=lambda: now, resolve=wire.resolve, sockets=wire)
"""

from shaken_plugin.fetch.client import Fetcher, fetch_once
from shaken_plugin.fetch.download import warm_up
from shaken_plugin.fetch.model import FetchCode, Fetched, FetchFailure, FetchRules, Kind, KindRules
from shaken_plugin.fetch.sockets import Resolver

__all__ = [
    "FetchCode",
    "FetchFailure",
    "FetchRules",
    "Fetched",
    "Fetcher",
    "Kind",
    "KindRules",
    "Resolver",
    "fetch_once",
    "warm_up",
]
