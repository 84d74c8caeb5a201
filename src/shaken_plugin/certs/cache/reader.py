"""The certificate documents of the cache, as a SIP worker reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Final

from shaken_plugin.bounded import Bounded
from shaken_plugin.certs.cache.file import Reader
from shaken_plugin.errors import FailureCode, StoreUnavailable, VerificationFailure

MAX_REMEMBERED: Final = 2_048
"""URLs whose last known version a process remembers for when the file cannot be read."""

MAX_LENT: Final = 256
"""Documents that a process holds itself because the agent could not record them."""

TELL_AFTER: Final = 10.0
"""Seconds between two reports of URLs that calls asked for."""

MAX_TOLD: Final = 256
"""Most URLs of one report; more are reported earlier."""

_VERSION: Final = "SELECT digest, usable_until, failure, retry_at, fetched_at FROM document WHERE url = ?"
_READ: Final = "SELECT digest, body, failure, fetched_at FROM document WHERE url = ?"


class CertificateCache:
    """A `ports.CertificateSource` on the file that the agent fills.

    A question costs some 30 µs with 16,000 rows. When the file cannot be read, the last known versions are
    believed for as long as they may be used, so that calls of known signers go on.

    Args:
        path: the file.
        tell: told now and then which URLs calls asked for; must not block. None: nobody is told.
    """

    def __init__(self, path: Path, tell: Callable[[Iterable[str]], None] | None = None) -> None:
        self._reader = Reader(path)
        self._tell = tell
        self._asked: dict[str, None] = {}
        self._tell_at = 0.0
        self._last: Bounded[str, tuple[Hashable, float]] = Bounded(MAX_REMEMBERED)
        self._lent: Bounded[str, tuple[bytes, float]] = Bounded(MAX_LENT)
        self._damaged: Bounded[str, float] = Bounded(MAX_LENT)

    def version(self, url: str, now: float) -> Hashable | None:
        """See `ports.CertificateSource.version`."""
        self._note(url, now)
        try:
            row = self._reader.row(_VERSION, (url,))
        except StoreUnavailable:
            return self._without_file(url, now)
        version, until = _judge(row, now)
        if version is None or self._damaged.get(url) == row[4]:
            return self._lent_version(url, now)
        self._last.put(url, (version, until))
        return version

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`."""
        try:
            row = self._reader.row(_READ, (url,))
        except StoreUnavailable as exc:
            self._last.put(url, (None, 0.0))  # a version is no use without its document: the agent is asked
            return self._lent_or(url, f"the certificate cache cannot be read: {exc}")
        if row is None:
            return self._lent_or(url, "not in the certificate cache")
        digest, body, failure, fetched_at = row
        if body is None:
            return self._lent_or(url, f"its download failed: {failure}")
        if not isinstance(body, bytes) or hashlib.sha256(body).digest() != digest:
            # From now on it is not known: the agent is asked, finds the same, and fetches it anew.
            self._damaged.put(url, fetched_at)
            return self._lent_or(url, "its row in the certificate cache is damaged")
        return body

    def blind(self) -> bool:
        """Whether the file could not be read the last time: what the agent stores is not seen here."""
        return self._reader.blind

    def lend(self, url: str, document: bytes, until: float) -> None:
        """Keep a document in this process: the agent has it, but could not record it.

        Args:
            url: its URL.
            document: as downloaded.
            until: POSIX seconds until which it may be used.
        """
        self._lent.put(url, (document, until))

    def _lent_or(self, url: str, otherwise: str) -> bytes:
        lent = self._lent.get(url)
        if lent is None:
            raise VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE, otherwise)
        return lent[0]

    def _lent_version(self, url: str, now: float) -> Hashable | None:
        lent = self._lent.get(url)
        return None if lent is None or now >= lent[1] else hashlib.sha256(lent[0]).digest()

    def _without_file(self, url: str, now: float) -> Hashable | None:
        last = self._last.peek(url)
        return last[0] if last is not None and now < last[1] else self._lent_version(url, now)

    def _note(self, url: str, now: float) -> None:
        if self._tell is None:
            return
        self._asked[url] = None
        if len(self._asked) < MAX_TOLD and 0 <= now - self._tell_at < TELL_AFTER:
            return
        asked, self._asked, self._tell_at = self._asked, {}, now
        self._tell(asked)


def _judge(row: tuple[object, ...] | None, now: float) -> tuple[Hashable | None, float]:
    """Version of a row, and until when it may be used; None for what is unknown, old or damaged."""
    if row is None:
        return None, 0.0
    digest, usable_until, failure, retry_at, _ = row
    if isinstance(digest, bytes) and isinstance(usable_until, float) and now < usable_until:
        return digest, usable_until
    if digest is None and isinstance(failure, str) and isinstance(retry_at, float) and now < retry_at:
        return ("failed", failure), retry_at
    return None, 0.0
