"""The agent put together for real: the fetcher, and those who check signed lists."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.agent.lists import RevocationParser, TrustListContent, TrustListParser
from shaken_plugin.agent.parts import Parts
from shaken_plugin.core.crl import parse_crl
from shaken_plugin.core.trustlist import parse_trust_list
from shaken_plugin.fetch import Fetcher
from shaken_plugin.runtime.downloads import fetch_rules


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


def parts() -> Parts:
    """The real parts."""
    return Parts(lambda settings: Fetcher(fetch_rules(settings)), trust_list_parser, revocation_parser)
