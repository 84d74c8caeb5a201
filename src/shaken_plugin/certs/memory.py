"""Certificate documents and revocation lists in memory: for tools and tests."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from shaken_plugin.core.crl import RevocationList
from shaken_plugin.errors import FailureCode, VerificationFailure


class CertificateMemory:
    """A `ports.CertificateSource` on a mapping from URL to document, which may change."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self.documents = dict(documents)

    def version(self, url: str, now: float) -> Hashable | None:  # noqa: ARG002  # what is put here does not age
        """See `ports.CertificateSource.version`."""
        return self.documents.get(url)

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`."""
        try:
            return self.documents[url]
        except KeyError as exc:
            raise VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE) from exc


class RevocationMemory:
    """A `ports.RevocationSource` on lists that were put there, one for each issuer of lists."""

    def __init__(self, *lists: RevocationList) -> None:
        self._lists = {one.issuer: one for one in lists}

    def put(self, new: RevocationList) -> None:
        """Take a list in place of the one from the same issuer.

        Raises:
            RevocationListError: it is older than that one.
        """
        if (old := self._lists.get(new.issuer)) is not None:
            new.check_replaces(old)
        self._lists[new.issuer] = new

    def revoked(self, issuer: bytes, serial: int) -> bool:
        """See `ports.RevocationSource.revoked`."""
        return any((issuer, serial) in one.revoked for one in self._lists.values())

    def trouble(self, now: float) -> str | None:
        """See `ports.RevocationSource.trouble`."""
        if not self._lists:
            return "there is no revocation list yet"
        return next((trouble for one in self._lists.values() if (trouble := one.trouble(now))), None)
