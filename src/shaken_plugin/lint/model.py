"""What a lint is, and what it finds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

from shaken_plugin.core.tnauthlist import TnAuthListError
from shaken_plugin.lint.certificate import CP_1_3, CP_1_4, Certificate
from shaken_plugin.lint.der import DerError

T = TypeVar("T")


class Severity(Enum):
    """How much a finding matters."""

    ERROR = "error"
    """A document demands otherwise; verifiers may refuse it."""
    WARN = "warn"
    """It should be otherwise, or trouble is near."""
    NOTICE = "notice"
    """Two documents disagree, or something is worth knowing."""


class Edition(NamedTuple):
    """An edition of a document, and from when certificates are held to it.

    CA certificates are held to it from the day it was published; end-entity certificates
    ``grace`` days later, when the issuers had to have followed. ``published`` is None for a
    document that holds for every certificate.
    """

    document: str
    published: datetime | None = None
    grace: int = 0

    def since(self, *, is_ca: bool) -> float:
        """POSIX seconds from which certificates are held to it."""
        if self.published is None:
            return 0.0
        return (self.published if is_ca else self.published + timedelta(days=self.grace)).timestamp()


def _day(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


# Dates and days of grace are those of the zlint rules of martinisecurity/zlint (v3/util/time.go):
# 90 days after a publication; for CP 1.3 45 days to hand in a CPS, 10 to approve it, then 90.
V003: Final = Edition("ATIS-1000080.v003 §6.4.1", _day(2020, 9, 4), 90)
V004: Final = Edition("ATIS-1000080.v004 §6.4.1", _day(2021, 10, 18), 90)
V005: Final = Edition("ATIS-1000080.v005 §6.4.1", _day(2022, 12, 12), 90)
RFC5280: Final = Edition("RFC 5280")
CP13: Final = Edition("United States SHAKEN Certificate Policy v1.3", _day(2021, 8, 18), 145)
CP14: Final = Edition("United States SHAKEN Certificate Policy v1.4", _day(2023, 6, 6), 90)
V003_AT_ONCE: Final = V003._replace(grace=0)


class Scope(NamedTuple, Generic[T]):
    """What a lint applies to: in words, and as a predicate."""

    words: str
    holds: Callable[[T], bool]

    def __and__(self, other: Scope[T]) -> Scope[T]:
        return Scope(f"{self.words} {other.words}", lambda item: self.holds(item) and other.holds(item))


EVERY: Final = Scope[Certificate]("every certificate", lambda _: True)
END_ENTITY: Final = Scope[Certificate]("end-entity certificates", lambda certificate: not certificate.is_ca)
CA: Final = Scope[Certificate]("CA certificates", lambda certificate: certificate.is_ca)
INTERMEDIATE: Final = Scope[Certificate](
    "intermediates", lambda certificate: certificate.is_ca and not certificate.is_root
)
ROOT: Final = Scope[Certificate]("roots", lambda certificate: certificate.is_root)
BELOW_ROOT: Final = Scope[Certificate]("every certificate but roots", lambda certificate: not certificate.is_root)
NOT_SELF_SIGNED: Final = Scope[Certificate](
    "that are not self-signed", lambda certificate: not certificate.is_self_signed
)
UNDER_13: Final = Scope[Certificate]("under policy 1.3", lambda certificate: certificate.is_under(CP_1_3))
UNDER_14: Final = Scope[Certificate]("under policy 1.4", lambda certificate: certificate.is_under(CP_1_4))


def having(oid: str, name: str) -> Scope[Certificate]:
    """Certificates with an extension."""
    return Scope(f"with {name}", lambda certificate: certificate.extension(oid) is not None)


class Finding(NamedTuple):
    """What one lint found. ``certificate`` counts from 0; None for the document or its download."""

    lint: str
    severity: Severity
    citation: str
    certificate: int | None
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Lint(Generic[T]):
    """One check.

    ``check`` says what is wrong, or None. ``remedy`` is what to do about it. With ``by_kind`` the
    name ends in ``_ca`` when the certificate is one of a CA, as in the list it was taken from.
    """

    name: str
    severity: Severity
    edition: Edition
    section: str
    scope: Scope[T]
    check: Callable[[T], str | None]
    remedy: str
    by_kind: bool = False

    @property
    def citation(self) -> str:
        """Where the requirement stands."""
        return f"{self.edition.document} {self.section}".strip()

    def findings(self, item: T, certificate: Certificate | None = None, index: int | None = None) -> Iterator[Finding]:
        """What it finds in ``item``, which belongs to a certificate or to none."""
        is_ca = certificate is not None and certificate.is_ca
        # A certificate is held to what was in force when it was issued.
        if certificate is not None and certificate.not_before < self.edition.since(is_ca=is_ca):
            return
        if not self.scope.holds(item):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the library warns of has a lint
                text = self.check(item)
        except DerError as exc:
            text = str(exc)
        except TnAuthListError as exc:
            text = f"the TNAuthList cannot be read: {exc}"
        if text is not None:
            name = f"{self.name}_ca" if self.by_kind and is_ca else self.name
            yield Finding(name, self.severity, self.citation, index, text, self.remedy)


def run(
    lints: Iterable[Lint[T]], item: T, certificate: Certificate | None = None, index: int | None = None
) -> list[Finding]:
    """What all the lints of a table find."""
    return [finding for lint in lints for finding in lint.findings(item, certificate, index)]
