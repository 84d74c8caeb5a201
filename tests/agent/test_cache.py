"""The cache's file as workers see it: ages, failures, damage, locks, forks, other files in its place."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509

from shaken_plugin.certs.cache import (
    CacheDamaged,
    CacheWriter,
    CertificateCache,
    ListedAnchors,
    RevocationCache,
    StoredDocument,
    StoredRevocationList,
    TrustListRow,
)
from shaken_plugin.certs.chained import DependingSource
from shaken_plugin.core.certificates import parse_chain
from shaken_plugin.core.crl import RevocationList
from shaken_plugin.errors import FailureCode, StoreUnavailable, VerificationFailure
from shaken_plugin.lab.pki import Authority, Defect
from tests.conftest import NOW

URL = "https://certificates.example.com/a.pem"


def document(url: str = URL, body: bytes | None = b"document") -> StoredDocument:
    return StoredDocument(url, body, NOW, NOW + 100, NOW + 200, seen_at=NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "certificates.sqlite"


@pytest.fixture
def writer(path: Path) -> CacheWriter:
    made = CacheWriter(path)
    made.check()
    return made


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def unavailable(cache: CertificateCache, url: str = URL) -> str:
    with pytest.raises(VerificationFailure) as failure:
        cache.read(url)
    assert failure.value.code is FailureCode.CERTIFICATE_UNAVAILABLE
    return failure.value.detail


def test_the_file_is_for_the_group_whatever_the_umask(path: Path) -> None:
    old = os.umask(0o077)
    try:
        writer = CacheWriter(path)
        writer.put([document()])
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("SELECT * FROM document").fetchall()
            modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == {0o660}


def test_a_document_serves_beyond_its_freshness_and_not_beyond_its_use(writer: CacheWriter, path: Path) -> None:
    writer.put([document()])
    cache = CertificateCache(path)
    version = cache.version(URL, NOW + 99)
    assert version is not None
    assert cache.version(URL, NOW + 199) == version
    assert cache.version(URL, NOW + 200) is None


def test_a_failure_is_known_until_its_next_try(writer: CacheWriter, path: Path) -> None:
    writer.update([StoredDocument(URL, None, NOW, NOW, 0.0, failure="timeout", failures=1, retry_at=NOW + 30)])
    cache = CertificateCache(path)
    assert cache.version(URL, NOW + 29) is not None
    assert cache.version(URL, NOW + 30) is None
    assert unavailable(cache) == "its download failed: timeout"


def test_a_failed_refresh_leaves_the_document(writer: CacheWriter, path: Path) -> None:
    writer.put([document()])
    version = CertificateCache(path).version(URL, NOW)
    failed = StoredDocument(URL, None, NOW, NOW + 100, NOW + 200, failure="timeout", failures=1, retry_at=NOW + 30)
    writer.update([failed])
    cache = CertificateCache(path)
    assert cache.version(URL, NOW) == version
    assert cache.read(URL) == b"document"
    ((row, size),) = writer.documents()
    assert (row.failure, size) == ("timeout", 8)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE document SET body = 'other'",
        "UPDATE document SET body = x'00'",
        "UPDATE document SET digest = x'00'",
        "UPDATE document SET digest = 7",
        "UPDATE document SET usable_until = 'soon'",
        "UPDATE document SET usable_until = NULL, digest = NULL, retry_at = 'x', failure = 3",
    ],
)
def test_a_damaged_row_is_no_certificate_and_never_another_error(writer: CacheWriter, path: Path, damage: str) -> None:
    writer.put([document(), document(URL + "2", b"other")])
    try:
        change(path, f"{damage} WHERE url = '{URL}'")
    except sqlite3.IntegrityError:
        change(path, f"UPDATE document SET digest = x'01' WHERE url = '{URL}'")
    cache = CertificateCache(path)
    if cache.version(URL, NOW) is not None:
        assert "damaged" in unavailable(cache)
    assert cache.version(URL, NOW) is None
    assert writer.body(URL) is None or "usable" in damage
    assert cache.read(URL + "2") == b"other"
    again = StoredDocument(URL, b"document", NOW + 1, NOW + 100, NOW + 200)
    writer.put([again])
    assert cache.version(URL, NOW) is not None
    assert cache.read(URL) == b"document"


def test_no_file_and_an_empty_one_know_nothing(path: Path) -> None:
    cache = CertificateCache(path)
    assert cache.version(URL, NOW) is None
    assert "cannot be read" in unavailable(cache)
    path.touch()
    assert CertificateCache(path).version(URL, NOW) is None
    assert "the agent fills it" in unavailable(CertificateCache(path))


@pytest.mark.alone
def test_a_locked_file_costs_one_wait_and_the_last_known_goes_on(writer: CacheWriter, path: Path) -> None:
    writer.put([document()])
    cache = CertificateCache(path)
    version = cache.version(URL, NOW)
    writer.close()
    cache._reader._connections.forget()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        begin = time.monotonic()
        assert [cache.version(URL, NOW) for _ in range(100)] == [version] * 100
        assert time.monotonic() - begin < 0.2
        assert cache.version(URL, NOW + 200) is None
        assert cache.version(URL + "2", NOW) is None
    time.sleep(0.5)
    assert cache.read(URL) == b"document"


def test_no_transaction_stays_open_so_that_the_log_can_be_cut(writer: CacheWriter, path: Path) -> None:
    writer.put([document()])
    cache = CertificateCache(path)
    cache.version(URL, NOW)
    cache.read(URL)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def test_another_file_in_its_place_is_read(writer: CacheWriter, path: Path) -> None:
    writer.put([document()])
    cache = CertificateCache(path)
    assert cache.read(URL) == b"document"
    writer.renew()
    writer.put([document(body=b"new")])
    assert cache.read(URL) == b"new"
    assert path.with_name(path.name + ".damaged").exists()


def test_a_forked_process_reads_with_a_connection_of_its_own(writer: CacheWriter, path: Path) -> None:
    writer.put([document()])
    cache = CertificateCache(path)
    cache.read(URL)
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.read(URL) == b"document" else 1)
    assert os.waitpid(child, 0)[1] == 0
    writer.put([document(body=b"changed")])
    assert cache.read(URL) == b"changed"


def test_urls_that_calls_ask_for_are_told_now_and_then(writer: CacheWriter, path: Path) -> None:
    told: list[list[str]] = []

    def tell(urls: Iterable[str]) -> None:
        told.append(list(urls))

    cache = CertificateCache(path, tell)
    cache.version("first", NOW)
    for _ in range(3):
        cache.version("a", NOW + 1)
    cache.version("b", NOW + 9)
    assert told == [["first"]]
    cache.version("c", NOW + 10)
    assert told == [["first"], ["a", "b", "c"]]
    for number in range(300):
        cache.version(str(number), NOW + 11)
    assert len(told) == 3


def test_a_document_that_could_not_be_recorded_is_lent(writer: CacheWriter, path: Path) -> None:
    cache = CertificateCache(path)
    cache.lend(URL, b"lent", NOW + 10)
    assert cache.version(URL, NOW) is not None
    assert cache.read(URL) == b"lent"
    assert cache.version(URL, NOW + 10) is None
    writer.put([document()])
    assert cache.read(URL) == b"document"


def test_a_newer_schema_and_a_file_that_is_none_are_refused(writer: CacheWriter, path: Path) -> None:
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable, match="newer than this release"):
        CacheWriter(path).documents()
    assert CertificateCache(path).version(URL, NOW) is None
    other = path.with_name("other.sqlite")
    other.write_bytes(b"no database at all" * 100)
    with pytest.raises(CacheDamaged):
        CacheWriter(other).check()


def test_rows_that_this_release_did_not_write_are_passed_over(writer: CacheWriter, path: Path) -> None:
    writer.put([document(), document(URL + "2")])
    change(path, f"UPDATE document SET seen_at = 'never' WHERE url = '{URL}'")
    assert [row.url for row, _ in writer.documents()] == [URL + "2"]


# --- Trust lists and revocation lists ------------------------------------------------------------


def listed(name: str, *authorities: Authority, until: float = NOW + 100) -> TrustListRow:
    from cryptography.hazmat.primitives.serialization import Encoding

    ders = tuple(authority.root.public_bytes(Encoding.DER) for authority in authorities)
    return TrustListRow(name, 1, until, until, ders)


def test_the_anchors_follow_the_list_and_end_with_it(writer: CacheWriter, path: Path, authority: Authority) -> None:
    chain = parse_chain(authority.issue(spc="709J", now=NOW).chain)
    anchors = ListedAnchors(path, "us", ())
    with pytest.raises(VerificationFailure, match="is the agent running"):
        anchors.validate(chain, NOW)
    writer.put_trust_list(listed("ca", authority))
    with pytest.raises(VerificationFailure) as failure:
        anchors.validate(chain, NOW + 2)
    assert failure.value.code is FailureCode.TRUST_LIST_UNAVAILABLE
    writer.put_trust_list(listed("us", authority))
    assert anchors.validate(chain, NOW + 4).signer.spc == "709J"
    version = anchors.version(NOW + 4)
    writer.put_trust_list(listed("us", Authority.new(NOW)))
    assert anchors.version(NOW + 6) not in {None, version}
    with pytest.raises(VerificationFailure) as failure:
        anchors.validate(chain, NOW + 6)
    assert failure.value.code is FailureCode.CERTIFICATE_UNTRUSTED
    writer.put_trust_list(listed("us", authority, until=NOW + 10))
    assert anchors.validate(chain, NOW + 8)
    with pytest.raises(VerificationFailure, match="has expired"):
        anchors.validate(chain, NOW + 10)
    fixed = ListedAnchors(path, "us", (authority.root,))
    assert fixed.validate(chain, NOW + 20)
    assert writer.trust_lists().keys() == {"us", "ca"}


def test_without_the_list_nobody_is_untrusted_because_he_is_not_among_the_own_anchors(
    writer: CacheWriter, path: Path, authority: Authority
) -> None:
    chain = parse_chain(authority.issue(spc="709J", now=NOW).chain)
    old = parse_chain(authority.issue(spc="709J", now=NOW, defect=Defect.EXPIRED).chain)
    anchors = ListedAnchors(path, "us", (Authority.new(NOW).root,))

    def code(chain: Sequence[x509.Certificate], now: float) -> FailureCode:
        with pytest.raises(VerificationFailure) as failure:
            anchors.validate(chain, now)
        return failure.value.code

    assert code(chain, NOW) is FailureCode.TRUST_LIST_UNAVAILABLE
    assert code(old, NOW) is FailureCode.CERTIFICATE_EXPIRED
    writer.put_trust_list(listed("us", Authority.new(NOW), until=NOW + 10))
    assert code(chain, NOW + 2) is FailureCode.CERTIFICATE_UNTRUSTED
    assert code(chain, NOW + 10) is FailureCode.TRUST_LIST_UNAVAILABLE


def test_a_known_version_without_its_document_is_not_known(writer: CacheWriter, path: Path) -> None:
    writer.put([document()])
    cache = CertificateCache(path)
    version = cache.version(URL, NOW)
    path.unlink()
    assert cache.version(URL, NOW) == version  # whoever has read it goes on
    assert "cannot be read" in unavailable(cache)
    assert cache.version(URL, NOW) is None  # who has not asks the agent, which lends it
    assert cache.blind()


@pytest.mark.parametrize("anchors", ["x'00'", "x'3082'", "x'30820fff00'", "'text'", "7"])
def test_a_damaged_list_leaves_what_is_known(
    writer: CacheWriter, path: Path, authority: Authority, anchors: str
) -> None:
    chain = parse_chain(authority.issue(spc="709J", now=NOW).chain)
    known, new = ListedAnchors(path, "us", ()), ListedAnchors(path, "us", ())
    writer.put_trust_list(listed("us", authority))
    assert known.validate(chain, NOW)
    change(path, f"UPDATE trust_list SET anchors = {anchors}, digest = x'07'")
    assert known.validate(chain, NOW + 2)
    with pytest.raises(VerificationFailure, match="damaged"):
        new.validate(chain, NOW + 2)
    assert writer.trust_lists() == {}


def test_a_path_is_validated_anew_when_the_anchors_change(
    writer: CacheWriter, path: Path, authority: Authority
) -> None:
    writer.put([document()])
    writer.put_trust_list(listed("us", authority))
    source = DependingSource(CertificateCache(path), ListedAnchors(path, "us", ()))
    version = source.version(URL, NOW)
    assert source.version(URL, NOW + 2) == version
    writer.put_trust_list(listed("us", Authority.new(NOW)))
    assert source.version(URL, NOW + 4) not in {None, version}
    assert source.read(URL) == b"document"
    assert source.version(URL + "2", NOW) is None


def crl(*revoked: tuple[bytes, int], url: str = "u", until: float = NOW + 100) -> StoredRevocationList:
    return StoredRevocationList("us", url, RevocationList(b"pa", 2**90, NOW, until, frozenset(revoked)))


@pytest.mark.parametrize("serial", [0, 1, 127, 128, 255, 2**63, 2**159, -1])
def test_revoked_is_issuer_and_serial_together(writer: CacheWriter, path: Path, serial: int) -> None:
    writer.put_revocation_list(crl((b"issuer", serial)))
    source = RevocationCache(path, "us", ["u"])
    assert source.revoked(b"issuer", serial)
    assert not source.revoked(b"issuer", serial + 256)
    assert not source.revoked(b"other", serial)
    assert not RevocationCache(path, "ca", ["u"]).revoked(b"issuer", serial)
    writer.put_revocation_list(crl())
    assert not source.revoked(b"issuer", serial)


def test_trouble_with_revocation_lists_is_told(writer: CacheWriter, path: Path) -> None:
    source = RevocationCache(path, "us", ["u"])
    assert "not downloaded yet" in (source.trouble(NOW) or "")
    writer.put_revocation_list(crl())
    assert source.trouble(NOW + 2) is None
    assert "out of date" in (source.trouble(NOW + 101) or "")
    assert "of the future" in (source.trouble(NOW - 10) or "")
    path.unlink()
    gone = RevocationCache(path, "us", ["u"])
    assert not gone.revoked(b"issuer", 1)
    assert gone.trouble(NOW) is not None
    assert gone.trouble(NOW + 2) is not None


def test_a_list_that_only_certificates_name_is_trouble_when_it_is_out_of_date(writer: CacheWriter, path: Path) -> None:
    writer.put_revocation_list(crl())
    writer.put_revocation_list(crl(url="found", until=NOW + 10))
    source = RevocationCache(path, "us", ["u"])
    assert source.trouble(NOW) is None
    assert "found" in (source.trouble(NOW + 11) or "")
    assert RevocationCache(path, "ca", []).trouble(NOW) == "there is no revocation list yet"
    writer.drop_revocation_list("us", "found")
    assert source.trouble(NOW + 13) is None
    assert writer.revocation_lists().keys() == {("us", "u")}


def test_a_look_that_failed_is_trouble_for_every_call_of_the_next_second(writer: CacheWriter, path: Path) -> None:
    writer.put_revocation_list(crl((b"issuer", 1)))
    source = RevocationCache(path, "us", ["u"])
    assert source.trouble(NOW) is None
    away = path.with_name("away")
    path.rename(away)
    assert not source.revoked(b"issuer", 1)
    away.rename(path)
    for moment in (NOW + 0.1, NOW + 0.1, NOW + 0.2, NOW + 0.9):
        assert "certificates.sqlite" in (source.trouble(moment) or "")
    time.sleep(0.5)
    assert source.trouble(NOW + 1.2) is None
    assert source.revoked(b"issuer", 1)
