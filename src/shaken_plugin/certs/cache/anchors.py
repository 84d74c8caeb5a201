"""The trust anchors of a trust list that the agent keeps, together with the operator's own."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509

from shaken_plugin.certs.cache.file import Reader
from shaken_plugin.core.certificates import TrustAnchors, TrustedPath
from shaken_plugin.errors import FailureCode, StoreUnavailable, VerificationFailure

LOOK_AFTER: Final = 1.0
"""Seconds after which the file is asked again whether the list changed."""


def pack(anchors: Iterable[bytes]) -> bytes:
    """Certificates in DER, one after the other; each says its own length."""
    return b"".join(anchors)


def unpack(data: bytes) -> list[bytes]:
    """What `pack` made.

    Raises:
        ValueError: it did not make this.
    """
    found = []
    while data:
        if data[:2] != b"\x30\x82" or len(data) < 4:
            raise ValueError("not certificates one after the other")
        length = 4 + int.from_bytes(data[2:4], "big")
        if length > len(data):
            raise ValueError("a certificate is cut off")
        found.append(data[:length])
        data = data[length:]
    return found


class ListedAnchors:
    """A `core.certificates.PathValidator` on a trust list in the cache, and on PEM files of the operator.

    Args:
        path: the cache.
        name: the trust list.
        fixed: anchors that are believed beside those of the list.
    """

    def __init__(self, path: Path, name: str, fixed: Sequence[x509.Certificate]) -> None:
        self._reader = Reader(path)
        self._name = name
        self._fixed = tuple(fixed)
        self._anchors = TrustAnchors(self._fixed) if fixed else None
        self._listed: tuple[bytes, float] | None = None
        self._trouble = "it was not downloaded yet; is the agent running?"
        self._looked_at = float("-inf")

    def version(self, now: float) -> Hashable:
        """A value that changes with the anchors in force at ``now`` (POSIX seconds)."""
        self._look(now)
        return None if self._listed is None else self._listed[0]

    @property
    def count(self) -> int:
        """How many roots are believed now."""
        return self._anchors.count if self._anchors else 0

    @property
    def trouble(self) -> tuple[str, ...]:
        """See `core.certificates.PathValidator`; a list that is missing is an alarm of the agent."""
        return ()

    def validate(self, chain: Sequence[x509.Certificate], now: float) -> TrustedPath:
        """See `core.certificates.TrustAnchors.validate`.

        Raises:
            VerificationFailure: also TRUST_LIST_UNAVAILABLE, where no list is in force that could
                have the signer's root.
        """
        self._look(now)
        if self._anchors is not None:
            try:
                return self._anchors.validate(chain, now)
            except VerificationFailure as failure:
                if self._listed is not None or failure.code is not FailureCode.CERTIFICATE_UNTRUSTED:
                    raise
        raise VerificationFailure(FailureCode.TRUST_LIST_UNAVAILABLE, f"no trust list {self._name}: {self._trouble}")

    def _look(self, now: float) -> None:
        if self._listed is not None and now >= self._listed[1]:
            self._drop("it has expired, and no newer one could be had")
        if 0 <= now - self._looked_at < LOOK_AFTER:
            return
        self._looked_at = now
        try:
            row = self._reader.row("SELECT digest, usable_until FROM trust_list WHERE name = ?", (self._name,))
            if row is None or not isinstance(row[1], float) or now >= row[1]:
                if row is not None:
                    self._drop("it has expired, and no newer one could be had")
                return
            if self._listed is None or self._listed[0] != row[0]:
                self._load()
            elif self._listed[1] != row[1]:
                self._listed = (self._listed[0], row[1])
        except StoreUnavailable as exc:
            # What is known stays in force until it expires.
            self._trouble = str(exc)
        except (ValueError, TypeError, x509.InvalidVersion, VerificationFailure) as exc:
            self._trouble = f"its row in the certificate cache is damaged: {exc}"

    def _load(self) -> None:
        row = self._reader.row("SELECT digest, usable_until, anchors FROM trust_list WHERE name = ?", (self._name,))
        if row is None or hashlib.sha256(row[2]).digest() != row[0]:
            raise ValueError("the digest does not match")
        listed = [x509.load_der_x509_certificate(der) for der in unpack(row[2])]
        self._anchors = TrustAnchors([*self._fixed, *listed])
        self._listed = (row[0], float(row[1]))

    def _drop(self, why: str) -> None:
        self._listed, self._trouble = None, why
        self._anchors = TrustAnchors(self._fixed) if self._fixed else None
