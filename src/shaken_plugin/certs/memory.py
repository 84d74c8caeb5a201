"""Certificate documents in memory: for tools and tests."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from shaken_plugin.errors import FailureCode, VerificationFailure


class CertificateMemory:
    """A `ports.CertificateSource` on a mapping from URL to document, which may change."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self.documents = dict(documents)

    def version(self, url: str) -> Hashable | None:
        """See `ports.CertificateSource.version`."""
        return self.documents.get(url)

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`."""
        try:
            return self.documents[url]
        except KeyError as exc:
            raise VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE) from exc
