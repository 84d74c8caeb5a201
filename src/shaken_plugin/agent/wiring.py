"""The agent put together for real: the fetcher, and those who check signed lists."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.agent.lists import RevocationParser, TrustListContent, TrustListParser
from shaken_plugin.agent.parts import Fleet, Parts
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.crl import parse_crl
from shaken_plugin.core.trustlist import parse_trust_list
from shaken_plugin.fetch import Fetcher
from shaken_plugin.runtime.downloads import fetch_rules
from shaken_plugin.runtime.fleet import fleet_log
from shaken_plugin.stores.redis.hosts import HostTable
from shaken_plugin.stores.redis.limits import RedisCounts
from shaken_plugin.stores.redis.log import SCHEMA
from shaken_plugin.stores.redis.own import Own
from shaken_plugin.stores.redis.replica import Replica
from shaken_plugin.stores.redis.upkeep import compact


def trust_list_parser(signers: Sequence[x509.Certificate]) -> TrustListParser:
    """What checks a trust list that must be signed by these."""

    def parse(document: bytes, now: float) -> TrustListContent:
        found = parse_trust_list(document, signers, now)
        anchors = tuple(certificate.public_bytes(Encoding.DER) for certificate in found.certificates)
        return TrustListContent(found.sequence, found.expires, anchors)

    return parse


def revocation_parser(signers: Sequence[x509.Certificate]) -> RevocationParser:
    """What checks a revocation list that must be signed by these."""
    return lambda document, now: parse_crl(document, signers, now)


def fleet(settings: Settings) -> Fleet | None:
    """What connects with the fleet that settings name, None where they name none.

    Raises:
        StoreError: a password is not where the settings say.
    """
    chosen = settings.store.redis
    if chosen is None:
        return None
    log = fleet_log(settings)
    path = Path(settings.store.path)
    own = Own(path, Path(settings.store.state), settings.model_dump(mode="json", exclude_defaults=True))
    return Fleet(
        chosen.host_name,
        Replica(path, log),
        HostTable(log),
        partial(compact, path, log),
        SCHEMA,
        RedisCounts(log),
        own.keep,
    )


def parts() -> Parts:
    """The real parts."""
    return Parts(lambda settings: Fetcher(fetch_rules(settings)), trust_list_parser, revocation_parser, fleet=fleet)
