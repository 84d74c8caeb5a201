"""What every revocation source must answer alike. A new source adds a `Shelf` to ``SHELVES``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from shaken_plugin.certs.cache import CacheWriter, RevocationCache, StoredRevocationList
from shaken_plugin.certs.memory import RevocationMemory
from shaken_plugin.core.crl import RevocationList
from shaken_plugin.errors import RevocationListError
from shaken_plugin.ports import RevocationSource
from tests.conftest import NOW

ISSUER, OTHER = b"2.5.4.3=2:ca", b"2.5.4.3=2:cb"
LARGE = 2**159 + 1
"""Serial numbers have up to 20 octets (RFC 5280 §4.1.2.2)."""


def listed(*revoked: tuple[bytes, int], issuer: bytes = b"pa", age: float = 0.0, number: int = 1) -> RevocationList:
    """A list that came out ``age`` seconds ago and holds for a day."""
    return RevocationList(issuer, number, NOW - age, NOW - age + 86_400, frozenset(revoked))


class Shelf(Protocol):
    """One source, and how a test puts lists there."""

    @property
    def source(self) -> RevocationSource: ...

    def put(self, new: RevocationList) -> None:
        """Put a list there, in place of the one from the same issuer."""


class CacheShelf:
    """`RevocationCache` on a file that an agent's list keeper fills."""

    def __init__(self, folder: Path) -> None:
        self._writer = CacheWriter(folder / "certificates.sqlite")
        self._writer.check()
        self._held: dict[bytes, RevocationList] = {}
        self.source: RevocationSource = RevocationCache(folder / "certificates.sqlite", "us", [], look_after=0.0)

    def put(self, new: RevocationList) -> None:
        if (old := self._held.get(new.issuer)) is not None:
            new.check_replaces(old)
        self._held[new.issuer] = new
        self._writer.put_revocation_list(StoredRevocationList("us", new.issuer.decode(), new))


class MemoryShelf:
    """`RevocationMemory`."""

    def __init__(self, _folder: Path) -> None:
        self._memory = RevocationMemory()
        self.source: RevocationSource = self._memory
        self.put = self._memory.put


SHELVES: dict[str, Callable[[Path], Shelf]] = {"memory": MemoryShelf, "cache": CacheShelf}


@pytest.fixture(params=SHELVES)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return SHELVES[request.param](tmp_path)


def test_without_a_list_nothing_is_revoked_and_that_is_trouble(shelf: Shelf) -> None:
    assert not shelf.source.revoked(ISSUER, 1)
    assert "no revocation list" in (shelf.source.trouble(NOW) or "")


def test_what_a_list_names_is_revoked_by_issuer_and_serial_number_together(shelf: Shelf) -> None:
    shelf.put(listed((ISSUER, 1), (OTHER, LARGE)))
    asked = [(issuer, serial) for issuer in (ISSUER, OTHER, b"") for serial in (1, LARGE, LARGE - 1, 0)]
    assert [pair for pair in asked if shelf.source.revoked(*pair)] == [(ISSUER, 1), (OTHER, LARGE)]
    assert shelf.source.trouble(NOW) is None


def test_a_new_list_holds_at_once_in_place_of_the_old(shelf: Shelf) -> None:
    shelf.put(listed((ISSUER, 1), age=60))
    shelf.put(listed((ISSUER, 2), number=2))
    assert [shelf.source.revoked(ISSUER, serial) for serial in (1, 2)] == [False, True]


def test_lists_of_several_issuers_hold_beside_one_another(shelf: Shelf) -> None:
    shelf.put(listed((ISSUER, 1)))
    shelf.put(listed((OTHER, 2), issuer=b"cst-ga", age=90_000))
    assert shelf.source.revoked(ISSUER, 1)
    assert shelf.source.revoked(OTHER, 2)
    assert "out of date" in (shelf.source.trouble(NOW) or "")


def test_an_old_list_sent_again_pardons_nobody(shelf: Shelf) -> None:
    shelf.put(listed((ISSUER, 1), number=2))
    with pytest.raises(RevocationListError):
        shelf.put(listed(age=60))
    assert shelf.source.revoked(ISSUER, 1)


def test_a_list_out_of_date_is_trouble_and_still_names_the_revoked(shelf: Shelf) -> None:
    shelf.put(listed((ISSUER, 1)))
    assert shelf.source.trouble(NOW + 86_400) is None
    assert "out of date" in (shelf.source.trouble(NOW + 86_401) or "")
    assert "of the future" in (shelf.source.trouble(NOW - 1) or "")
    assert shelf.source.revoked(ISSUER, 1)
