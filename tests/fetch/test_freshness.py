"""How long an answer may be used (RFC 9111), and asking whether it still holds (RFC 9110 §13)."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from unittest.mock import patch
from uuid import uuid4

import hishel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shaken_plugin.fetch import FetchCode, Fetched, Fetcher, FetchFailure, FetchRules, Kind, KindRules
from shaken_plugin.fetch import freshness as f
from shaken_plugin.fetch.model import DAY, HOUR
from shaken_plugin.lab.wire import Played, Wire
from tests.conftest import NOW
from tests.fetch.conftest import URL, before

FREE = KindRules(deadline=1.0, max_body=1, min_fresh=0.0, max_fresh=1e12, default_fresh=77.0)
"""Clamps that never show."""


def date(seconds: float) -> str:
    """An HTTP date so many seconds from now."""
    return formatdate(NOW + seconds, usegmt=True)


def remaining(*headers: tuple[str, str], rules: KindRules = FREE, took: float = 0.0) -> float:
    """Seconds of freshness left when an answer with these headers has arrived."""
    return f.fresh_until(headers, NOW - took, NOW, rules) - NOW


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=60", 60),
        ("MAX-AGE=60", 60),
        ("public, max-age=60", 60),
        ('max-age="60"', 60),
        ("max-age=60, max-age=10", 0),
        ("max-age=10, max-age=60", 0),
        ('private="x, max-age=3", max-age=7', 7),
        ("s-maxage=5, max-age=60", 60),
        ("s-maxage=5", 77),
        ("private, max-age=60", 60),
        ("max-age=0", 0),
        ("max-age=0060", 60),
        ("max-age=99999999999999999999999", 2**31 - 1),
        ("max-age=" + "9" * 5_000, 0),
        ("no-store, max-age=60", 0),
        ("no-cache, max-age=60", 0),
        ('no-cache="set-cookie", max-age=60', 0),
        ("max-age", 0),
        ("max-age=", 0),
        ("max-age=-1", 0),
        ("max-age=1.5", 0),
        ("max-age=sixty", 0),
        ("max-age=\u0663", 0),
        ("max-age=0x10", 0),
        ("", 77),
        (",,,", 77),
        ("=60", 77),
        ("immutable", 77),
    ],
)
def test_cache_control(value: str, seconds: float) -> None:
    """RFC 9111 §5.2; an unreadable max-age is stale (§4.2.1), and so are two."""
    assert remaining(("cache-control", value)) == seconds


def test_several_cache_control_lines_are_one_list() -> None:
    assert remaining(("cache-control", "public"), ("cache-control", "max-age=60")) == 60
    assert remaining(("cache-control", "max-age=60"), ("cache-control", "no-store")) == 0


@pytest.mark.parametrize(
    ("expires", "sent", "seconds"),
    [
        (date(100), date(0), 100),
        (date(100), None, 100),
        (date(100), "gibberish", 100),
        (date(100), date(20), 80),
        (date(-5), date(0), 0),
        ("0", date(0), 0),
        ("-1", date(0), 0),
        ("tomorrow", date(0), 0),
        ("", None, 0),
        ("Wednesday, 18-Nov-26 11:08:20 GMT", None, 100),
        ("Wed Nov 18 11:08:20 2026", None, 100),
        ("Wed, 99 Nov 2026 11:06:00 GMT", None, 0),
        ("Wed, 18 Nov 99999 11:06:00 GMT", None, 0),
        ("x" * 100_000, None, 0),
    ],
)
def test_expires(expires: str, sent: str | None, seconds: float) -> None:
    """RFC 9111 §5.3: what cannot be read lies in the past."""
    headers = [("expires", expires)] + ([("date", sent)] if sent is not None else [])
    assert remaining(*headers) == seconds


def test_max_age_wins_over_expires() -> None:
    assert remaining(("cache-control", "max-age=60"), ("expires", date(5)), ("date", date(0))) == 60


@pytest.mark.parametrize(
    ("headers", "took", "seconds"),
    [
        ([("age", "10")], 0, 90),
        ([("age", "10")], 4, 86),
        ([], 4, 96),
        ([("date", date(-30))], 0, 70),
        ([("date", date(-30)), ("age", "10")], 4, 70),
        ([("date", date(30))], 0, 100),
        ([("age", "10"), ("age", "50")], 0, 90),
        ([("age", "-10")], 0, 100),
        ([("age", "ten")], 0, 100),
        ([("age", "1000")], 0, 0),
    ],
)
def test_age_of_the_answer_is_taken_off(headers: list[tuple[str, str]], took: float, seconds: float) -> None:
    """RFC 9111 §4.2.3, with the clock's difference, the reported age and the time on the way."""
    assert remaining(("cache-control", "max-age=100"), *headers, took=took) == seconds


@pytest.mark.parametrize(
    ("kind", "headers", "seconds"),
    [
        (Kind.CERTIFICATE, [], DAY),
        (Kind.CERTIFICATE, [("cache-control", "max-age=60")], DAY),
        (Kind.CERTIFICATE, [("cache-control", "no-store")], DAY),
        (Kind.CERTIFICATE, [("expires", "0")], DAY),
        (Kind.CERTIFICATE, [("cache-control", "max-age=172800")], 2 * DAY),
        (Kind.CERTIFICATE, [("cache-control", "max-age=31536000")], 7 * DAY),
        (Kind.TRUST_LIST, [], HOUR),
        (Kind.CRL, [], HOUR),
        (Kind.CRL, [("cache-control", "no-store")], 300),
        (Kind.CRL, [("cache-control", "max-age=900")], 900),
        (Kind.CRL, [("cache-control", "max-age=31536000")], DAY),
    ],
)
def test_what_is_kept_by_default(kind: Kind, headers: list[tuple[str, str]], seconds: float) -> None:
    """ATIS-1000074: no directive, or less than 24 hours: cache a certificate for 24 hours."""
    assert remaining(*headers, rules=FetchRules().of(kind)) == seconds


# --- Asking whether it still holds ------------------------------------------------------------


def fetch_again(wire: Wire, previous: Fetched | None) -> Fetched:
    """Fetches a second time."""

    async def again() -> Fetched:
        async with Fetcher(FetchRules(), clock=lambda: NOW, resolve=wire.resolve, sockets=wire) as fetcher:
            return await fetcher.fetch(URL, Kind.CERTIFICATE, previous)

    return asyncio.run(again())


def _wire(*headers: tuple[str, str], status: int = 304, body: bytes = b"") -> Wire:
    return Wire({URL: Played(status, headers, body)})


@pytest.mark.parametrize(
    ("etag", "modified", "lines"),
    [
        ('"v1"', None, [b'If-None-Match: "v1"']),
        ('W/"v1"', date(-9), [b'If-None-Match: W/"v1"', b"If-Modified-Since: " + date(-9).encode()]),
        (None, date(-9), [b"If-Modified-Since: " + date(-9).encode()]),
        (None, None, []),
        ('"a"\r\nX-Injected: 1', "yesterday\r\nX-Injected: 1", []),
        ("v1", "never", []),
        (None, date(-9) + "\r\nX-Injected: 1", []),
        ('"' + "x" * 300 + '"', None, []),
    ],
)
def test_what_is_sent_along(etag: str | None, modified: str | None, lines: list[bytes]) -> None:
    """What comes back from a file is checked once more."""
    wire = _wire()
    if lines:
        assert fetch_again(wire, before(etag, modified)).body == b"before"
    else:
        with pytest.raises(FetchFailure) as caught:  # a 304 that nobody asked for
            fetch_again(wire, before(etag, modified))
        assert caught.value.status == 304
    sent = wire.requests[0].split(b"\r\n")
    assert [line for line in sent if line.startswith((b"If-", b"X-"))] == lines


def test_confirmed_document_is_fresh_again() -> None:
    """RFC 9111 §4.3.4: what the 304 says of freshness and validators replaces what was known."""
    wire = _wire(("ETag", 'W/"v1"'), ("Cache-Control", "max-age=172800"))
    fetched = fetch_again(wire, before('"v1"', date(-9)))
    assert fetched.not_modified
    assert (fetched.body, fetched.fetched_at, fetched.fresh_until) == (b"before", NOW, NOW + 2 * DAY)
    assert (fetched.etag, fetched.last_modified) == ('W/"v1"', date(-9))


@pytest.mark.parametrize(
    ("stored", "header"),
    [
        (('"v1"', None), ("ETag", '"v2"')),
        (('"v1"', None), ("ETag", 'W/"v2"')),
        (('W/"v1"', None), ("ETag", 'W/"v2"')),
        ((None, date(-9)), ("Last-Modified", date(-8))),
    ],
)
def test_304_that_speaks_of_another_document_confirms_nothing(
    stored: tuple[str | None, str | None], header: tuple[str, str]
) -> None:
    with pytest.raises(FetchFailure) as caught:
        fetch_again(_wire(header), before(*stored))
    assert caught.value.code is FetchCode.BODY_BROKEN


@pytest.mark.parametrize("name", ["Cache-Control", "Vary"])
@pytest.mark.parametrize("status", [200, 304])
def test_what_is_too_long_to_be_read_forbids_to_keep(name: str, status: int, chain: bytes) -> None:
    for length, days in ((900, 2), (1_100, 1)):
        headers = [(name, "x" * length), ("Cache-Control", "max-age=172800"), ("ETag", '"v1"')]
        wire = _wire(*headers, status=status, body=chain if status == 200 else b"")
        fetched = fetch_again(wire, before('"v1"'))
        assert fetched.fresh_until == NOW + days * DAY  # a day, by ATIS-1000074
        assert (name.lower(), "x" * length) in fetched.headers


@pytest.mark.parametrize("previous", [None, before('"v1"', url="https://cr.example.com/other.pem")])
def test_304_that_nobody_asked_for(previous: Fetched | None) -> None:
    with pytest.raises(FetchFailure) as caught:
        fetch_again(_wire(), previous)
    assert (caught.value.code, caught.value.status) == (FetchCode.STATUS, 304)


def test_new_document_replaces_the_old(chain: bytes) -> None:
    wire = _wire(("ETag", '"v2"'), ("Last-Modified", "whenever"), status=200, body=chain)
    fetched = fetch_again(wire, before('"v1"', date(-9)))
    assert not fetched.not_modified
    assert (fetched.body, fetched.etag, fetched.last_modified) == (chain, '"v2"', None)


# --- Whatever the wire brings -----------------------------------------------------------------

NAMES = st.sampled_from(["cache-control", "expires", "date", "age", "etag", "last-modified", "retry-after", "x"])
VALUES = st.one_of(
    st.text(max_size=80),
    st.text(alphabet='max-age=0123456789,"\\ ;no-store', max_size=60),
    st.integers(-(10**12), 10**12).map(lambda seconds: f"max-age={seconds}"),
    st.floats(0, 4e9).map(lambda moment: formatdate(moment, usegmt=True)),
    st.tuples(st.sampled_from(["Wed, 18 Nov 2026 11:06:40", "Wed Nov 18", "18 Nov 26"]), st.text(max_size=10)).map(
        "".join
    ),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), st.floats(0, 100))
def test_any_header_gives_a_moment_between_the_limits(headers: list[tuple[str, str]], took: float) -> None:
    rules = FetchRules().certificate
    assert rules.min_fresh <= remaining(*headers, rules=rules, took=took) <= rules.max_fresh
    wait = f.retry_after(headers, NOW, DAY)
    assert wait is None or 0 <= wait <= DAY
    assert all(part.isprintable() and part.isascii() for _, part in f.validators(headers))


@given(st.integers(0, 2**31 - 1), st.booleans())
def test_max_age_is_read_however_it_is_written(seconds: int, quoted: bool) -> None:
    value = f'"{seconds}"' if quoted else str(seconds)
    assert remaining(("cache-control", f"public , Max-Age={value},immutable")) == seconds


LASTING = st.one_of(
    st.integers(3, 10**6).map(lambda seconds: ("cache-control", f"private, max-age={seconds}")),
    st.floats(NOW + 3, NOW + 10**6).map(lambda moment: ("expires", formatdate(moment, usegmt=True))),
)


@given(LASTING, st.lists(st.tuples(NAMES, VALUES), max_size=4), st.booleans())
@settings(max_examples=500)
def test_what_is_fresh_here_is_fresh_for_the_library(
    lasting: tuple[str, str], others: list[tuple[str, str]], last: bool
) -> None:
    """The library as oracle, asked two seconds before the end (see `caching.holds`), its clock set to ours."""
    headers = [*others, lasting] if last else [lasting, *others]
    until = remaining(*headers)
    if f.explicit_lifetime(headers, NOW) is not None and until > 2:
        request = hishel.Request("GET", URL)
        options = hishel.CacheOptions(shared=False, supported_methods=["GET"])
        answer = {name: [value for other, value in headers if other == name] for name, _ in headers}
        for name in {"date", "expires"} & answer.keys():
            answer[name] = answer[name][:1]  # §5.3; the library reads them as one
        if f.http_date(f.first(headers, "date") or "") is None:
            answer["date"] = [formatdate(NOW, usegmt=True)]  # RFC 9110 §6.6.1
        stored = hishel.CacheMiss(options, request).next(hishel.Response(200, hishel.Headers(dict(answer))))
        assert isinstance(stored, hishel.StoreAndUse)
        with patch("time.time", lambda: NOW + until - 2):
            entry = hishel.Entry(uuid4(), request, stored.response)
            assert isinstance(hishel.IdleClient(options).next(request, [entry]), hishel.FromCache)


@pytest.mark.parametrize(
    "header",
    [("vary", "*"), ("cache-control", "no-store"), ("cache-control", "no-cache"), ("cache-control", "max-age")],
)
def test_what_the_library_would_not_serve_is_not_fresh(header: tuple[str, str]) -> None:
    assert remaining(("expires", date(100))) == 100
    assert remaining(("expires", date(100)), header) == 0


@given(st.integers(0, 4_000_000_000))
def test_dates_are_read_as_they_were_written(moment: int) -> None:
    assert f.http_date(formatdate(moment, usegmt=True)) == moment
