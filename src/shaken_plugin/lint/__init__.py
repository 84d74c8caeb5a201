"""Lints: what is wrong with a certificate, its chain and its repository, before a verifier says so.

    report = examine("709J.pem", data, Expectations(now))

Names and rules of those in the tables of ``fields`` and ``extensions`` that begin with ``e_atis``,
``e_us_cp``, ``e_shaken`` and ``e_issuer`` are those of martinisecurity/zlint, those with ``_ext_``,
``e_incorrect_ku_encoding`` and ``e_wrong_time_format_pre2050`` are of zmap/zlint, and of the first ones
in ``repository`` those of martinisecurity/shaken-pki-reports. The others are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.chain import CHAIN_LINTS, Expectations, Place, key_holders
from shaken_plugin.lint.document import DOCUMENT_LINTS, Document
from shaken_plugin.lint.encoding import ENCODING_LINTS, UNREADABLE
from shaken_plugin.lint.extensions import EXTENSION_LINTS
from shaken_plugin.lint.fields import FIELD_LINTS
from shaken_plugin.lint.model import Finding, Lint, Severity, run
from shaken_plugin.lint.repository import REPOSITORY_LINTS, Exchange
from shaken_plugin.lint.revocation import CRL_LINTS
from shaken_plugin.lint.selftest import SELF_TEST_LINTS, Trial

__all__ = ["LINTS", "Expectations", "Finding", "Report", "Severity", "Source", "examine"]

LINTS: Final[Mapping[str, Sequence[Lint[Any]]]] = {
    "Fields": FIELD_LINTS,
    "Extensions": EXTENSION_LINTS,
    "Encoding": ENCODING_LINTS + UNREADABLE,
    "Document": DOCUMENT_LINTS,
    "Chain, time and key": CHAIN_LINTS,
    "Self-test": SELF_TEST_LINTS,
    "Revocation list": CRL_LINTS,
    "Repository": REPOSITORY_LINTS,
}
"""All of them, by what they look at, in the order in which they are run."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is examined: a document, and the download it came from, if it did."""

    name: str
    data: bytes
    exchange: Exchange | None = None

    @property
    def is_document(self) -> bool:
        """Whether ``data`` should be certificates; the body of an error page should not."""
        return self.exchange is None or self.exchange.status == 200


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in one source. Unreadable certificates are None in ``certificates``."""

    source: str
    certificates: tuple[Certificate | None, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings have a severity."""
        return sum(finding.severity is severity for finding in self.findings)


def examine(sources: Sequence[Source], expected: Expectations) -> list[Report]:
    """All findings, by source, the revocation list last. Never raises, whatever the sources hold."""
    documents = [Document.parse(source.data if source.is_document else b"") for source in sources]
    named = {source.name: document.certificates for source, document in zip(sources, documents, strict=True)}
    holders = key_holders(named)
    reports = [
        _report(source, document, expected, holders) for source, document in zip(sources, documents, strict=True)
    ]
    if (crl := expected.crl) is not None:
        reports.append(Report(crl.name, (), tuple(run(CRL_LINTS, crl))))
    return reports


def _report(
    source: Source, document: Document, expected: Expectations, holders: Mapping[bytes, Mapping[bytes, str]]
) -> Report:
    found: list[Finding] = []
    if source.exchange is not None:
        found += run(REPOSITORY_LINTS, source.exchange)
    if source.is_document:
        found += run(DOCUMENT_LINTS, document)
    for index, one in enumerate(document.certificates):
        if not isinstance(one, Certificate):
            found += run(UNREADABLE, one, index=index)
            continue
        others = holders.get(one.spki, {})
        sharing = [name for whole, name in others.items() if whole != one.whole] if one.whole in others else []
        place = Place(one, index, document.certificates, expected, document.is_chain, sharing)
        found += run(ENCODING_LINTS + FIELD_LINTS + EXTENSION_LINTS, one, one, index)
        found += run(CHAIN_LINTS, place, one, index)
    if source.is_document:
        found += run(SELF_TEST_LINTS, Trial(source.data, document, expected))
    readable = tuple(one if isinstance(one, Certificate) else None for one in document.certificates)
    return Report(source.name, readable, tuple(found))
