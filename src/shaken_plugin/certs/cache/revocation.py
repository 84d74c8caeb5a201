"""The revocation lists of the cache, as a SIP worker reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from shaken_plugin.certs.cache.file import Reader, dates, serial_key
from shaken_plugin.errors import StoreUnavailable

LOOK_AFTER: Final = 1.0


class RevocationCache:
    """A `ports.RevocationSource` on the lists that the agent keeps for one trust list.

    Args:
        path: the cache.
        trust_list: whose lists.
        urls: the lists that must be there; others found in certificates are used when they are.
        look_after: seconds after which the lists' dates are looked at again.
    """

    def __init__(self, path: Path, trust_list: str, urls: Sequence[str], look_after: float = LOOK_AFTER) -> None:
        self._reader = Reader(path)
        self._trust_list = trust_list
        self._urls = tuple(urls)
        self._look_after = look_after
        self._known: tuple[float, str | None] = (float("-inf"), None)
        self._missed: str | None = None

    def revoked(self, issuer: bytes, serial: int) -> bool:
        """See `ports.RevocationSource.revoked`. What cannot be read is told by `trouble`."""
        try:
            row = self._reader.row(
                "SELECT 1 FROM revoked WHERE trust_list = ? AND issuer = ? AND serial = ?",
                (self._trust_list, issuer, serial_key(serial)),
            )
        except StoreUnavailable as exc:
            self._missed = str(exc)  # told even if the lists can be read again by then
            return False
        return row is not None

    def trouble(self, now: float) -> str | None:
        """See `ports.RevocationSource.trouble`."""
        looked_at, known = self._known
        if self._missed is not None:
            # Whoever asked for a certificate just now got no answer, whatever the file says since:
            # told to every call until the dates are looked at again.
            known, self._missed = self._missed, None
            self._known = (now, known)
        elif not 0 <= now - looked_at < self._look_after:
            known = self._look(now)
            self._known = (now, known)
        return known

    def _look(self, now: float) -> str | None:
        try:
            for url in self._urls:
                if self._row("url = ?", url) is None:
                    return f"the revocation list {url} was not downloaded yet"
            if self._row("?", 1) is None:
                return "there is no revocation list yet"
            row = self._row("(next_update < ? OR this_update > ?)", now, now)
            if row is None:
                return None
            url, *values = row
            return f"{url}: {dates(*values).trouble(now)}"
        except TypeError as exc:
            return f"a revocation list in the certificate cache: {exc}"
        except StoreUnavailable as exc:
            return str(exc)

    def _row(self, condition: str, *values: object) -> Any:
        return self._reader.row(
            f"SELECT url, issuer, number, this_update, next_update FROM crl WHERE trust_list = ? AND {condition}",  # noqa: S608  # of our own words
            (self._trust_list, *values),
        )
