"""Everything a repository can do wrong, over real sockets and TLS."""

from __future__ import annotations

import gzip
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shaken_plugin.fetch import FetchCode, FetchRules, Kind, fetch_once
from shaken_plugin.lab.repository import Behaviour, Face, Repository
from shaken_plugin.lab.servers import free_port
from tests.fetch.conftest import Failing

WITHIN = 2.0
"""Seconds within which a deadline of 0.6 s must have been kept, on a loaded machine."""


def test_a_right_answer(repository: Repository, rules: FetchRules, chain: bytes) -> None:
    repository.set("/a.pem", Behaviour(body=chain, headers=[("Content-Type", "application/pem-certificate-chain")]))
    fetched = fetch_once(repository.url("/a.pem"), Kind.CERTIFICATE, rules)
    assert (fetched.body, fetched.not_modified) == (chain, False)
    assert ("content-type", "application/pem-certificate-chain") in fetched.headers
    assert repository.count("/a.pem") == 1


def test_a_chunked_answer(repository: Repository, rules: FetchRules, chain: bytes) -> None:
    chunks = f"{len(chain):x};ext=1\r\n{chain.decode()}\r\n0\r\nTrailer: x\r\n\r\n"
    repository.set("/c.pem", Behaviour(raw=f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))
    assert fetch_once(repository.url("/c.pem"), Kind.CERTIFICATE, rules).body == chain


@pytest.mark.parametrize(
    ("face", "why"),
    [
        (Face.WRONG_NAME, "mismatch"),
        (Face.UNTRUSTED, "unable to get local issuer|self.signed"),
        (Face.EXPIRED, "expired"),
    ],
)
def test_tls_that_does_not_hold(
    repository: Repository, rules: FetchRules, failing: Failing, chain: bytes, face: Face, why: str
) -> None:
    path = f"/{face.value}.pem"
    repository.set(path, Behaviour(body=chain))
    failure = failing(repository.url(path, face), rules)
    assert failure.code is FetchCode.TLS_FAILED
    assert re.search(why, failure.detail)
    assert repository.count(path) == 0


def test_the_systems_authorities_do_not_know_the_lab(
    repository: Repository, rules: FetchRules, failing: Failing
) -> None:
    assert failing(repository.url("/a.pem"), replace(rules, ca_bundle=None)).code is FetchCode.TLS_FAILED


def test_nobody_listens(rules: FetchRules, failing: Failing) -> None:
    host = f"127.0.0.1:{free_port()}"
    failure = failing(f"https://{host}/a.pem", replace(rules, lab_hosts=frozenset({host})))
    assert failure.code is FetchCode.CONNECT_FAILED


@pytest.mark.parametrize("status", [100, 201, 204, 206, 304, 400, 403, 404, 410, 500, 503, 599])
def test_status_other_than_200(repository: Repository, rules: FetchRules, failing: Failing, status: int) -> None:
    repository.set("/status", Behaviour(status, body=b"" if status in {100, 204, 304} else b"no"))
    failure = failing(repository.url("/status"), rules)
    expected = (FetchCode.BODY_BROKEN, None) if status == 100 else (FetchCode.STATUS, status)
    assert (failure.code, failure.status) == expected


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirect_is_not_followed(
    repository: Repository, rules: FetchRules, failing: Failing, chain: bytes, status: int
) -> None:
    """ATIS-1000074: "shall not follow redirects"."""
    repository.set("/there.pem", Behaviour(body=chain))
    repository.set("/here", Behaviour(status, [("Location", repository.url("/there.pem"))]))
    failure = failing(repository.url("/here"), rules)
    assert (failure.code, failure.status) == (FetchCode.REDIRECT, status)
    assert "/there.pem" in failure.detail
    assert repository.count("/there.pem") == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120), ("0", 0), ("99999999999999999999", 86_400), ("soon", None), ("-1", None), ("1.5", None)],
)
def test_retry_after(
    repository: Repository, rules: FetchRules, failing: Failing, text: str, seconds: float | None
) -> None:
    repository.set("/later", Behaviour(503, [("Retry-After", text)]))
    assert failing(repository.url("/later"), rules).retry_after == seconds


OK = "HTTP/1.1 200 OK\r\n"
CHUNKED = f"{OK}Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour(body=b"A" * 1000, repeat=200), FetchCode.TOO_LARGE),
        (Behaviour(body=b"A", headers=[("Content-Length", "9" * 18)]), FetchCode.TOO_LARGE),
        (Behaviour(raw=f"{OK}\r\n" + "A" * 200_000), FetchCode.TOO_LARGE),
        (Behaviour(raw=CHUNKED + ("1000\r\n" + "A" * 4096 + "\r\n") * 40), FetchCode.TOO_LARGE),
        (Behaviour(raw=CHUNKED + ("1;" + "x" * 2000 + "\r\nA\r\n") * 100), FetchCode.TOO_LARGE),
        (Behaviour(raw=OK + "X-Header: 1\r\n" * 200 + "\r\n"), FetchCode.TOO_LARGE),
        (Behaviour(raw=f"{OK}X-Header: " + "x" * 20_000 + "\r\n\r\n"), FetchCode.TOO_LARGE),
        (Behaviour(raw="HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 10_000), FetchCode.TOO_LARGE),
        # These the HTTP library refuses before we count.
        (Behaviour(raw=f"{OK}X-Header: " + "x" * 200_000), FetchCode.BODY_BROKEN),
        (Behaviour(body=b"A", headers=[("Content-Length", "9" * 5_000)]), FetchCode.BODY_BROKEN),
        (Behaviour(raw=CHUNKED + "f" * 30 + "\r\nAAAA"), FetchCode.BODY_BROKEN),
    ],
    ids=[
        "body", "announced", "no-length", "chunks", "chunk-extensions", "many-fields", "long-field", "endless-1xx",
        "endless-field", "absurd-length", "absurd-chunk",
    ],
)  # fmt: skip
def test_too_much_of_anything(
    repository: Repository, rules: FetchRules, failing: Failing, behaviour: Behaviour, code: FetchCode
) -> None:
    repository.set("/much", behaviour)
    assert failing(repository.url("/much"), rules).code is code


def test_size_caps_are_those_of_the_kind(repository: Repository, rules: FetchRules, failing: Failing) -> None:
    crl = b"-----BEGIN X509 CRL-----\n" + b"A" * 300_000 + b"\n-----END X509 CRL-----\n"
    repository.set("/large.crl", Behaviour(body=crl))
    assert fetch_once(repository.url("/large.crl", Face.PLAIN), Kind.CRL, rules).body == crl
    assert failing(repository.url("/large.crl"), rules).code is FetchCode.TOO_LARGE


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x" * 100])
def test_nothing_is_decompressed(repository: Repository, rules: FetchRules, failing: Failing, encoding: str) -> None:
    bomb = gzip.compress(b"A" * 5_000_000)
    repository.set("/bomb", Behaviour(body=bomb, headers=[("Content-Encoding", encoding)]))
    assert failing(repository.url("/bomb"), rules).code is FetchCode.ENCODED


def test_identity_is_no_encoding(repository: Repository, rules: FetchRules, chain: bytes) -> None:
    repository.set("/plain.pem", Behaviour(body=chain, headers=[("Content-Encoding", "Identity")]))
    assert fetch_once(repository.url("/plain.pem"), Kind.CERTIFICATE, rules).body == chain


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(body=b"A" * 1000, reset_after=500),
        Behaviour(body=b"A" * 1000, reset_after=0),
        Behaviour(body=b"A" * 100, headers=[("Content-Length", "1000")]),
        Behaviour(raw="HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nAAAA"),
        Behaviour(raw="HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nAAAA\r\n0\r\n\r\n"),
        Behaviour(raw="HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        Behaviour(raw="HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        Behaviour(raw="HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nAA"),
        Behaviour(raw="HTTP/1.1 200 OK\r\nBad Header\r\n\r\n"),
        Behaviour(raw="HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n"),
        Behaviour(raw="SSH-2.0-OpenSSH\r\n"),
        Behaviour(raw="\x00\xff\x00\xff"),
        Behaviour(raw=""),
    ],
)
def test_broken_answer(repository: Repository, rules: FetchRules, failing: Failing, behaviour: Behaviour) -> None:
    repository.set("/broken", behaviour)
    assert failing(repository.url("/broken"), rules).code is FetchCode.BODY_BROKEN


def test_length_that_is_too_short_gives_a_cut_off_chain(
    repository: Repository, rules: FetchRules, failing: Failing, chain: bytes
) -> None:
    repository.set("/short.pem", Behaviour(body=chain, headers=[("Content-Length", str(len(chain) - 100))]))
    failure = failing(repository.url("/short.pem"), rules)
    assert (failure.code, failure.detail) == (FetchCode.WRONG_CONTENT, "cut off: 2 PEM blocks begin, 1 end")


@pytest.mark.parametrize(
    ("behaviour", "face", "doing"),
    [
        (Behaviour(silent=True), Face.GOOD, "waiting for the answer"),
        (Behaviour(delay=30), Face.GOOD, "waiting for the answer"),
        (Behaviour(body=b"A" * 1000, drip=0.05), Face.GOOD, "reading the body"),
        (Behaviour(), Face.MUTE, "TLS handshake"),
    ],
    ids=["silent", "slow", "drip", "mute"],
)
def test_slow_server_is_given_up_in_time(
    repository: Repository, quick: FetchRules, failing: Failing, behaviour: Behaviour, face: Face, doing: str
) -> None:
    repository.set("/slow", behaviour)
    start = time.monotonic()
    failure = failing(repository.url("/slow", face), quick)
    assert time.monotonic() - start < WITHIN
    assert failure.code is FetchCode.TIMEOUT
    assert failure.detail == f"not done in 0.6 s; last: {doing}"


def test_server_that_is_only_a_little_slow(repository: Repository, rules: FetchRules, chain: bytes) -> None:
    repository.set("/late.pem", Behaviour(body=chain, delay=0.2))
    assert fetch_once(repository.url("/late.pem"), Kind.CERTIFICATE, rules).body == chain


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html>not here</html>",
        b"\xef\xbb\xbf  \r\n<html>",
        b"",
        b" \r\n",
        b'{"error": "not found"}',
        b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB",
        b"\x30\x82\xff\xff\x00",
        b"\x30\x80\x00\x00",
        b"\x30",
        b"\x00" * 100,
    ],
)
def test_body_that_is_no_certificate(repository: Repository, rules: FetchRules, failing: Failing, body: bytes) -> None:
    repository.set("/body", Behaviour(body=body))
    assert failing(repository.url("/body"), rules).code is FetchCode.WRONG_CONTENT


def test_flapping_server(repository: Repository, rules: FetchRules, failing: Failing, chain: bytes) -> None:
    repository.set("/flaps.pem", Behaviour(500), Behaviour(body=chain), Behaviour(body=chain, reset_after=10))
    url = repository.url("/flaps.pem")
    for _ in range(2):
        assert failing(url, rules).code is FetchCode.STATUS
        assert fetch_once(url, Kind.CERTIFICATE, rules).body == chain
        assert failing(url, rules).code is FetchCode.BODY_BROKEN
    assert repository.count("/flaps.pem") == 6


def test_ca_bundle_that_cannot_be_read(rules: FetchRules, failing: Failing) -> None:
    failure = failing("https://cr.example.com/a", replace(rules, ca_bundle=Path("/nowhere.pem")))
    assert failure.code is FetchCode.TLS_FAILED
    assert "/nowhere.pem" in failure.detail
