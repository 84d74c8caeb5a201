"""Certificate documents in a local folder, one file for each x5u URL."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from pathlib import Path

from shaken_plugin.errors import FailureCode, VerificationFailure


def file_name(url: str) -> str:
    """The name under which a URL's document lies: the SHA-256 of the URL, and ``.pem``.

    A hash, so that no URL can name a path or collide with another.
    """
    return f"{hashlib.sha256(url.encode()).hexdigest()}.pem"


class CertificateDirectory:
    """A `ports.CertificateSource` on a folder that somebody else fills."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def version(self, url: str, now: float) -> Hashable | None:  # noqa: ARG002  # what is put here does not age
        """See `ports.CertificateSource.version`."""
        try:
            stat = (self._folder / file_name(url)).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`."""
        try:
            return (self._folder / file_name(url)).read_bytes()
        except OSError as exc:
            raise VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE, exc.strerror or "") from exc
