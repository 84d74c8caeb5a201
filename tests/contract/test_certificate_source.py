"""What every certificate source must answer alike. A new source adds a `Shelf` to ``SHELVES``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from shaken_plugin.certs.cache import CacheWriter, CertificateCache, StoredDocument
from shaken_plugin.certs.chained import ChainedSources
from shaken_plugin.certs.directory import CertificateDirectory, file_name
from shaken_plugin.certs.fetched import FetchedCertificates
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.ports import CertificateSource
from tests.conftest import NOW

URL = "https://certificates.example.com/709J.pem"
OTHER = "https://certificates.example.com/709j.pem"


class Shelf(Protocol):
    """One source, and how a test puts documents there or takes them away."""

    @property
    def source(self) -> CertificateSource: ...

    def put(self, url: str, document: bytes) -> None:
        """Put a document there, in place of another."""

    def take(self, url: str) -> None:
        """Take it away."""


class MemoryShelf:
    """`CertificateMemory`."""

    def __init__(self, _folder: Path) -> None:
        self._memory = CertificateMemory({})
        self.source: CertificateSource = self._memory

    def put(self, url: str, document: bytes) -> None:
        self._memory.documents[url] = document

    def take(self, url: str) -> None:
        del self._memory.documents[url]


class FetchedShelf:
    """`FetchedCertificates`."""

    def __init__(self, _folder: Path) -> None:
        self._fetched = FetchedCertificates()
        self.source: CertificateSource = self._fetched

    def put(self, url: str, document: bytes) -> None:
        self._fetched.keep(url, document, NOW + 20)

    def take(self, url: str) -> None:
        self._fetched.fail(url, "404", NOW - 1)


class FolderShelf:
    """`CertificateDirectory`, filled as whoever fetches must: a new file renamed over the old."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.source: CertificateSource = CertificateDirectory(folder)

    def put(self, url: str, document: bytes) -> None:
        new = self._folder / "new"
        new.write_bytes(document)
        os.utime(new, ns=(1, 1))  # the same time for all: a clock that stands still must not hide a change
        new.replace(self._folder / file_name(url))

    def take(self, url: str) -> None:
        (self._folder / file_name(url)).unlink()


class CacheShelf:
    """`CertificateCache`, filled as the agent does."""

    def __init__(self, folder: Path) -> None:
        self._writer = CacheWriter(folder / "certificates.sqlite")
        self._writer.check()
        self.source: CertificateSource = CertificateCache(folder / "certificates.sqlite")

    def put(self, url: str, document: bytes) -> None:
        self._writer.put([StoredDocument(url, document, NOW, NOW + 10, NOW + 20)])

    def take(self, url: str) -> None:
        self._writer.delete([url])


class ChainShelf:
    """`ChainedSources` over an empty folder and a cache."""

    def __init__(self, folder: Path) -> None:
        shelf = CacheShelf(folder)
        self.source: CertificateSource = ChainedSources(CertificateDirectory(folder), shelf.source)
        self.put, self.take = shelf.put, shelf.take


SHELVES: dict[str, Callable[[Path], Shelf]] = {
    "memory": MemoryShelf,
    "fetched": FetchedShelf,
    "folder": FolderShelf,
    "cache": CacheShelf,
    "chain": ChainShelf,
}


@pytest.fixture(params=SHELVES)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return SHELVES[request.param](tmp_path)


def _unavailable(source: CertificateSource, url: str) -> bool:
    with pytest.raises(VerificationFailure) as failure:
        source.read(url)
    return failure.value.code is FailureCode.CERTIFICATE_UNAVAILABLE


def test_a_document_comes_back_as_it_was_put(shelf: Shelf) -> None:
    document = bytes(range(256)) * 10
    shelf.put(URL, document)
    assert shelf.source.read(URL) == document


@pytest.mark.parametrize("url", [OTHER, URL + "?", "", "https://other.example/709J.pem"])
def test_a_url_without_document_has_no_version_and_is_unavailable(shelf: Shelf, url: str) -> None:
    shelf.put(URL, b"document")
    assert shelf.source.version(url, NOW) is None
    assert _unavailable(shelf.source, url)


def test_the_version_stays_while_the_document_does(shelf: Shelf) -> None:
    shelf.put(URL, b"document")
    shelf.put(OTHER, b"other")
    version = shelf.source.version(URL, NOW)
    shelf.source.read(URL)
    shelf.take(OTHER)
    assert version is not None
    assert shelf.source.version(URL, NOW) == version
    assert hash(version) == hash(shelf.source.version(URL, NOW))


@pytest.mark.parametrize("document", [b"tnemucod", b"", b"a longer document"], ids=["same size", "empty", "longer"])
def test_the_version_changes_with_the_document(shelf: Shelf, document: bytes) -> None:
    shelf.put(URL, b"document")
    before = shelf.source.version(URL, NOW)
    shelf.put(URL, document)
    assert shelf.source.version(URL, NOW) not in {None, before}
    assert shelf.source.read(URL) == document


def test_a_document_taken_away_is_unavailable_at_once_and_may_come_back(shelf: Shelf) -> None:
    shelf.put(URL, b"document")
    shelf.take(URL)
    assert shelf.source.version(URL, NOW) is None
    assert _unavailable(shelf.source, URL)
    shelf.put(URL, b"document")
    assert shelf.source.read(URL) == b"document"
