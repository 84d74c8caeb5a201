"""Certificate sources put together."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.ports import CertificateSource


class ChainedSources:
    """A `ports.CertificateSource` over others, asked in order."""

    def __init__(self, *sources: CertificateSource) -> None:
        self._sources = sources

    def version(self, url: str, now: float) -> Hashable | None:
        """See `ports.CertificateSource.version`."""
        for index, source in enumerate(self._sources):
            if (version := source.version(url, now)) is not None:
                return index, version
        return None

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`. The last failure is the one that tells most."""
        failure = VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE)
        for source in self._sources:
            try:
                return source.read(url)
            except VerificationFailure as exc:
                failure = exc
        raise failure


class Versioned(Protocol):
    """Something else that a validated path depends on, for instance a trust list."""

    def version(self, now: float) -> Hashable:
        """A value that changes with it."""


class DependingSource:
    """A `ports.CertificateSource` whose documents count as changed when something else changed.

    So that a path validated by a root that left the trust list is validated anew.
    """

    def __init__(self, source: CertificateSource, other: Versioned) -> None:
        self._source = source
        self._other = other

    def version(self, url: str, now: float) -> Hashable | None:
        """See `ports.CertificateSource.version`."""
        version = self._source.version(url, now)
        return None if version is None else (version, self._other.version(now))

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`."""
        return self._source.read(url)
