"""What is fetched, by which rules, and every way in which it fails."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from shaken_plugin.core.certificates import MAX_DOCUMENT_LENGTH
from shaken_plugin.errors import ShakenError

HOUR: Final = 3_600.0
DAY: Final = 24 * HOUR


class Kind(Enum):
    """What a document is; each kind has its own limits in `FetchRules`."""

    CERTIFICATE = "certificate"
    TRUST_LIST = "trust_list"
    CRL = "crl"


class FetchCode(Enum):
    """Named failures of a download. The value is the stable code for logs and metrics."""

    URL_NOT_ALLOWED = "url_not_allowed"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    DNS_FAILED = "dns_failed"
    CONNECT_FAILED = "connect_failed"
    TLS_FAILED = "tls_failed"
    TIMEOUT = "timeout"
    STATUS = "status"
    REDIRECT = "redirect"
    TOO_LARGE = "too_large"
    BODY_BROKEN = "body_broken"
    ENCODED = "encoded"
    WRONG_CONTENT = "wrong_content"
    CIRCUIT_OPEN = "circuit_open"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


class FetchFailure(ShakenError):
    """A document could not be fetched.

    ``detail`` may quote the wire and is therefore sanitised and cut by whoever prints it.
    ``retry_after`` is the number of seconds after which it is worth trying again, where known:
    from the server's Retry-After, or until the circuit closes. ``status``: of the HTTP answer, for
    STATUS and REDIRECT.
    """

    def __init__(
        self, code: FetchCode, detail: str, retry_after: float | None = None, *, status: int | None = None
    ) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.status = status


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one download gave.

    Times in POSIX seconds. ``not_modified``: the server confirmed the document we had (304);
    ``body`` is that document. ``headers`` as received, names in lower case.
    """

    url: str
    body: bytes
    fetched_at: float
    fresh_until: float
    etag: str | None
    last_modified: str | None
    not_modified: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KindRules:
    """Limits for one kind of document.

    ``deadline``: seconds from looking up the name to the last octet; waiting for a slot before that may
    take as long again.
    ``max_body``: octets. ``min_fresh`` and ``max_fresh``: seconds between which the freshness that
    the server gives is kept; ``default_fresh``: seconds where it gives none.
    """

    deadline: float
    max_body: int
    min_fresh: float
    max_fresh: float
    default_fresh: float


@dataclass(frozen=True, slots=True)
class FetchRules:
    """By which rules to fetch; a change needs a new `Fetcher`.

    Attributes:
        lab_hosts: ``host`` or ``host:port`` for which the port and address rules do not hold.
        ca_bundle: PEM file of the authorities that TLS certificates lead to, instead of the system's.
        certificate: ATIS-1000074: a response that "does not include any recognized caching directives
            or indicates caching for less than 24 hours" should be cached for 24 hours.
        trust_list: limits for trust lists.
        crl: limits for CRLs.
        connect_timeout: seconds for each address that is tried.
        concurrency: downloads at the same time; ``concurrency_per_host`` of them from one host and port.
        outstanding: downloads under way or waiting for a slot, likewise ``outstanding_per_host``;
            more are refused at once.
        breaker_failures: failures in a row after which a host and port is left alone …
        breaker_pause: … for this many seconds; then one request tries again.
    """

    lab_hosts: frozenset[str] = frozenset()
    ca_bundle: Path | None = None
    certificate: KindRules = KindRules(5.0, MAX_DOCUMENT_LENGTH, DAY, 7 * DAY, DAY)
    trust_list: KindRules = KindRules(20.0, 2_000_000, 300.0, DAY, HOUR)
    crl: KindRules = KindRules(30.0, 10_000_000, 300.0, DAY, HOUR)
    connect_timeout: float = 2.0
    concurrency: int = 16
    concurrency_per_host: int = 4
    outstanding: int = 256
    outstanding_per_host: int = 32
    breaker_failures: int = 5
    breaker_pause: float = 30.0

    def of(self, kind: Kind) -> KindRules:
        """The limits for one kind."""
        return {Kind.CERTIFICATE: self.certificate, Kind.TRUST_LIST: self.trust_list, Kind.CRL: self.crl}[kind]
