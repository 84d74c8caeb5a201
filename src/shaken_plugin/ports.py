"""What the services need from outside, as Protocols. Implementations live further down.

Every Protocol has a shipped, tested stand-in: `stores.memory`, `certs.memory`, `telemetry`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Protocol

from shaken_plugin.core.records import PolicyFacts


class Signer(Protocol):
    """A private key that signs and does nothing else. It is never handed out."""

    def sign(self, data: bytes) -> bytes:
        """The ES256 signature of ``data``: R‖S, 64 octets (RFC 7518 §3.4).

        Raises:
            SigningError: the key cannot be used now.
        """


class PolicyStore(Protocol):
    """The records that attestation is decided from."""

    def facts(self, source: str | None, user: str | None, number: str | None) -> PolicyFacts:
        """What is known of a call.

        Args:
            source: IP address the call came from.
            user: account that the switch authenticated; it wins over the address.
            number: the canonical calling number, None where the caller is no number.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """


class CertificateSource(Protocol):
    """Where certificate documents lie ready. Nothing is downloaded by asking."""

    def version(self, url: str, now: float) -> Hashable | None:
        """A value that changes with what is known of this URL.

        None where nothing is known, or what is known has grown too old at ``now`` (POSIX seconds)
        to be used: then whoever may download should be asked. A download that failed a short
        while ago is known, too: `read` raises its failure.
        """

    def read(self, url: str) -> bytes:
        """The document.

        Raises:
            VerificationFailure: CERTIFICATE_UNAVAILABLE, with what went wrong.
        """


class RevocationSource(Protocol):
    """What the certificate revocation lists say, taken from lists whose signature was checked."""

    def revoked(self, issuer: bytes, serial: int) -> bool:
        """Whether a list names this certificate. Never raises: what hinders it is `trouble`.

        Args:
            issuer: the issuer's name as `core.names.canonical_name` makes it.
            serial: the certificate's serial number.
        """

    def trouble(self, now: float) -> str | None:
        """Why the lists cannot be relied on at ``now`` (none yet, out of date, unreadable), or None."""


class ReplayMemory(Protocol):
    """Remembers which PASSporT came with which call, for all workers of a host."""

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """Whether the token came with no other call before, and from now on with this one.

        Retransmissions and forks of one call are the same call.

        Args:
            token: names the PASSporTs, at most 32 octets.
            call: names the call, likewise.
            until: POSIX seconds after which the token is stale anyway and may be forgotten.
            now: POSIX seconds.

        Raises:
            StoreUnavailable: nothing can be remembered now.
        """


class CertificateFetcher(Protocol):
    """Whoever may download: the agent of this host."""

    def alive(self) -> bool:
        """Whether it answers just now."""

    def fetch(self, urls: Sequence[str], timeout: float) -> None:
        """Have documents fetched into the `CertificateSource`; returns when they are there, or not.

        Never raises: afterwards the source is asked again, and says what is known.

        Args:
            urls: certificate URLs that passed `core.x5u.check`.
            timeout: seconds to wait at most.
        """


class Severity(Enum):
    """How loud a log line is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Observer(Protocol):
    """Where log lines and counts go: the switch's own log and counters."""

    def log(self, severity: Severity, text: str) -> None:
        """One line, already free of control characters."""

    def count(self, name: str) -> None:
        """One more of ``name``, for instance ``signed_a``."""
