"""Lints of URLs and their answers: each made to fire, and silent on a sound repository."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shaken_plugin.core.certificates import MAX_DOCUMENT_LENGTH
from shaken_plugin.lint import Expectations, Source, examine
from shaken_plugin.lint.repository import REPOSITORY_LINTS, Exchange, Trouble, host_trouble
from tests.conftest import NOW
from tests.lint.builders import issuer, leaf, pem

URL = "https://certs.example.com/709J.pem"
HEADERS = {
    "content-type": "application/pem-certificate-chain",
    "cache-control": "public, max-age=86400",
    "date": "Wed, 18 Nov 2026 11:00:00 GMT",
    "expires": "Thu, 19 Nov 2026 11:00:00 GMT",
}
SOUND = Exchange(URL, status=200, headers=HEADERS, body=pem(leaf().der(), issuer().der()))


def with_(**headers: str | None) -> Exchange:
    changed = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return replace(SOUND, headers={name: value for name, value in changed.items() if value is not None})


def names(exchange: Exchange) -> set[str]:
    (report,) = examine([Source(exchange.url, exchange.body, exchange)], Expectations(NOW))
    return {finding.lint for finding in report.findings}


@pytest.mark.parametrize(
    "exchange",
    [
        SOUND,
        replace(SOUND, url="https://certs.example.com:8443/"),
        replace(SOUND, url="https://certs.example.com:443"),
        replace(SOUND, url="https://certs.example.com:9443/a", lab_hosts=frozenset({"certs.example.com:9443"})),
        with_(content_type="Application/PEM-certificate-chain; charset=us-ascii"),
        with_(cache_control='max-age="172800"', expires=None),
        with_(date=None),
    ],
)
def test_a_sound_repository_gives_no_finding(exchange: Exchange) -> None:
    assert names(exchange) == set()


def failed(trouble: Trouble) -> Exchange:
    return Exchange(URL, trouble=trouble, detail="because")


FIRING: list[tuple[str, Exchange]] = [
    ("e_bad_url", failed(Trouble.URL)),
    ("e_url_host", failed(Trouble.HOST)),
    ("e_tls_transport", failed(Trouble.TLS)),
    ("e_request_timeout", failed(Trouble.TIMEOUT)),
    ("e_connection", failed(Trouble.CONNECTION)),
    ("e_http_status_200", replace(SOUND, status=404)),
    ("e_http_status_200", replace(SOUND, status=206)),
    ("e_atis_redirect", replace(SOUND, status=302, headers={"location": "https://elsewhere.example/"})),
    ("e_atis_redirect", replace(SOUND, status=304)),
    ("e_atis_url_component", replace(SOUND, url="https://me@certs.example.com/a")),
    ("e_atis_url_component", replace(SOUND, url="https://certs.example.com/a?b=c")),
    ("e_atis_url_component", replace(SOUND, url="https://certs.example.com/a?")),
    ("e_atis_url_component", replace(SOUND, url="https://certs.example.com/a#b")),
    ("e_atis_url_component", replace(SOUND, url="https://certs.example.com/a#")),
    ("w_atis_protocol", replace(SOUND, url="http://certs.example.com/a")),
    ("w_atis_protocol", replace(SOUND, url="https://certs.example.com:9443/a")),
    ("e_atis_cache_header", with_(pragma="No-Cache")),
    ("e_atis_cache_header", with_(expires="Thu, 19 Nov 2026 10:59:59 GMT")),
    ("e_atis_cache_header", with_(expires="0")),
    ("e_atis_cache_header", with_(expires="Thu, 19 Nov 2026 11:00:00 -0000")),
    ("e_atis_cache_header", with_(cache_control=None)),
    ("e_atis_cache_header", with_(cache_control="private, max-age=86400")),
    ("e_atis_cache_header", with_(cache_control="no-store, max-age=86400")),
    ("e_atis_cache_header", with_(cache_control="public")),
    ("e_atis_cache_header", with_(cache_control="s-maxage=86400")),
    ("e_atis_cache_header", with_(cache_control="max-age=86399")),
    ("e_atis_cache_header", with_(cache_control="max-age=-1")),
    ("w_atis_content_type", with_(content_type="application/x-pem-file")),
    ("w_atis_content_type", with_(content_type=None)),
    ("w_atis_pem_certificate_chain", replace(SOUND, body=leaf().der())),
    ("w_atis_pem_certificate_chain", replace(SOUND, body=b"<html></html>")),
    ("w_atis_pem_certificate_chain", replace(SOUND, body=pem(b"\x30\0"))),
    ("w_atis_pem_certificate_chain", replace(SOUND, body=SOUND.body.replace(b"MII", b"M!I"))),
    ("e_body_too_large", replace(SOUND, body=SOUND.body + b"\n" * MAX_DOCUMENT_LENGTH)),
    ("e_body_too_large", replace(SOUND, is_cut=True)),
]


@pytest.mark.parametrize(("lint", "exchange"), FIRING, ids=[f"{row[0]}-{i}" for i, row in enumerate(FIRING)])
def test_it_fires(lint: str, exchange: Exchange) -> None:
    assert lint in names(exchange)


def test_every_lint_of_repositories_is_made_to_fire_and_applies_to_a_sound_one() -> None:
    assert {row[0] for row in FIRING} == {lint.name for lint in REPOSITORY_LINTS}
    assert all(lint.scope.holds(SOUND) for lint in REPOSITORY_LINTS)


def test_without_an_answer_nothing_is_said_about_one() -> None:
    assert names(failed(Trouble.TIMEOUT)) == {"e_request_timeout"}
    assert names(replace(failed(Trouble.URL), url="gopher://x")) == {"e_bad_url"}


def test_the_body_of_an_error_page_is_not_examined_as_a_document() -> None:
    assert names(replace(SOUND, status=404, body=b"not found")) == {"e_http_status_200"}


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("http://127.0.0.1/a", set()),
        ("https://[::1]:8443/", set()),
        ("https://user@localhost/", set()),
        ("https://2130706433/", set()),
        ("https://127.0.0.1:8443/", {"127.0.0.2"}),
        ("https://127.0.0.1:22/", {"127.0.0.1:8443"}),
        ("gopher://certs.example.com/", set()),
    ],
)
def test_hosts_that_no_verifier_may_ask(url: str, hosts: set[str]) -> None:
    assert host_trouble(url, frozenset(hosts))


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("http://certs.example.com:81/a", set()),
        ("https://127.0.0.1:8443/", {"127.0.0.1:8443"}),
        ("https://127.0.0.1:9443/", {"127.0.0.1"}),
        ("https://[::1]:9443/", {"[::1]"}),
        ("https://[::1]:9443/", {"[::1]:9443"}),
    ],
)
def test_hosts_that_may_be_asked(url: str, hosts: set[str]) -> None:
    assert host_trouble(url, frozenset(hosts)) is None
