"""What the services need from outside, as Protocols. Implementations live further down.

Every Protocol has a shipped, tested stand-in: `stores.memory`, `certs.memory`, `telemetry`.
"""

from __future__ import annotations

from collections.abc import Hashable
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

    def version(self, url: str) -> Hashable | None:
        """A value that changes with the document, None where there is none for this URL."""

    def read(self, url: str) -> bytes:
        """The document.

        Raises:
            VerificationFailure: CERTIFICATE_UNAVAILABLE.
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
