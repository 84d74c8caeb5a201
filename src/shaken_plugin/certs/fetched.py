"""What a process without an agent fetched itself: certificate documents, and failures."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Final, NamedTuple

from shaken_plugin.bounded import Bounded
from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_KEPT: Final = 1_024
"""Documents kept, surely the half of them that was used last; at 64 KiB, the most a document may have, that is
64 MiB."""

MAX_FAILURES: Final = 2_048
"""Failures kept, apart from the documents: strangers choose URLs, and must not displace known signers."""


class _Kept(NamedTuple):
    version: Hashable
    content: bytes
    until: float


class FetchedCertificates:
    """A `ports.CertificateSource` in memory that somebody fills; safe for threads."""

    def __init__(self) -> None:
        self._documents: Bounded[str, _Kept] = Bounded(MAX_KEPT)
        self._failures: Bounded[str, tuple[str, float]] = Bounded(MAX_FAILURES)

    def keep(self, url: str, document: bytes, until: float) -> None:
        """Take a document, to be used until then (POSIX seconds)."""
        self._documents.put(url, _Kept(hashlib.sha256(document).digest(), document, until))
        self._failures.discard(url)

    def fail(self, url: str, why: str, until: float) -> None:
        """Believe until then (POSIX seconds) that the document cannot be had."""
        self._failures.put(url, (why, until))
        self._documents.discard(url)

    def version(self, url: str, now: float) -> Hashable | None:
        """See `ports.CertificateSource.version`."""
        if (kept := self._documents.get(url)) is not None:
            return kept.version if now < kept.until else None
        failure = self._failures.get(url)
        return ("failed", failure[0]) if failure is not None and now < failure[1] else None

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`."""
        if (kept := self._documents.get(url)) is not None:
            return kept.content
        failure = self._failures.get(url)
        why = "it was not fetched" if failure is None else f"its download failed: {failure[0]}"
        raise VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE, why)
