"""Which certificate URLs may be looked at (ATIS-1000074, ATIS-1000080)."""

from __future__ import annotations

import pytest

from shaken_plugin.core import x5u
from shaken_plugin.errors import FailureCode, VerificationFailure


@pytest.mark.parametrize(
    "url",
    [
        "https://cr.example.com/709j.pem",
        "HTTPS://CR.example.com/709j.pem",
        "https://cr.example.com",
        "https://cr.example.com:443/a",
        "https://cr.example.com:8443/a",
        "https://cr.example.com:/a",
        "https://cr.example.com./a",
        "https://8.8.8.8/a",
        "https://[2606:4700::1111]/a",
        "https://[2606:4700::1111]:8443/a",
        "https://xn--bcher-kva.example/a",
        "https://1-2.3a.example/a%20b;c=d",
        "https://cr.example.com/" + "a" * (x5u.MAX_LENGTH - 23),
    ],
)
def test_public_https_url_is_allowed(url: str) -> None:
    assert x5u.check(url) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not printable"),
        ("https://cr.example.com/" + "a" * (x5u.MAX_LENGTH - 22), "too long"),
        ("https://cr.example.com/a b", "not printable"),
        ("https://cr.example.com/ä", "not printable"),
        ("https://cr.example.com/a\n", "not printable"),
        ("http://cr.example.com/a", "not an https"),
        ("ftp://cr.example.com/a", "not an https"),
        ("cr.example.com/a", "not an https"),
        ("https:cr.example.com/a", "not an https"),
        ("https:///a", "no valid host"),
        ("https://user@cr.example.com/a", "user part"),
        ("https://user:pw@cr.example.com/a", "user part"),
        ("https://@cr.example.com/a", "user part"),
        ("https://cr.example.com/a?", "query or a fragment"),
        ("https://cr.example.com/a?x=1", "query or a fragment"),
        ("https://cr.example.com?x", "query or a fragment"),
        ("https://cr.example.com/a#", "query or a fragment"),
        ("https://cr.example.com#x", "query or a fragment"),
        ("https://cr_x.example.com/a", "no valid host"),
        ("https://cr.example.com:port/a", "no valid host"),
        ("https://cr.example.com%2f.evil.example/a", "no valid host"),
        ("https://cr.example.com\\@evil.example/a", "user part"),
        ("https://[::1/a", "no valid host"),
        ("https://cr.example.com:80/a", "port"),
        ("https://cr.example.com:4443/a", "port"),
        ("https://cr.example.com:0443/a", "port"),
        ("https://-x.example/a", "host name"),
        ("https://x-.example/a", "host name"),
        ("https://a..example/a", "host name"),
        ("https://.example/a", "host name"),
        ("https://[fe80:::1]/a", "host name"),
    ],
)
def test_url_that_breaks_a_rule_is_refused(url: str, why: str) -> None:
    """ATIS-1000074: https, port 443 or 8443, no userinfo, no query, no fragment."""
    with pytest.raises(VerificationFailure, match=why) as caught:
        x5u.check(url)
    assert caught.value.code is FailureCode.INFO_NOT_ALLOWED


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0x",
        "0177.0.0.1",
        "1.2.3.4.5",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001:db8::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[fd00::1]",
        "[ff0e::1]",
        "localhost",
        "LOCALHOST.",
        "x.localhost",
        "printer.local",
        "db.internal",
        "x.localdomain",
        "intranet",
    ],
)
def test_host_inside_a_network_is_refused_in_any_spelling(host: str) -> None:
    """The URL comes from a stranger: it must not lead a fetcher to our own machines."""
    with pytest.raises(VerificationFailure) as caught:
        x5u.check(f"https://{host}/a")
    assert caught.value.code is FailureCode.INFO_NOT_ALLOWED


@pytest.mark.parametrize(
    ("url", "lab_hosts"),
    [
        ("https://127.0.0.1:9443/a", {"127.0.0.1:9443"}),
        ("https://127.0.0.1/a", {"127.0.0.1:443"}),
        ("https://localhost:9443/a", {"localhost"}),
        ("https://[::1]:9443/a", {"[::1]"}),
    ],
)
def test_lab_host_may_be_anywhere(url: str, lab_hosts: set[str]) -> None:
    with pytest.raises(VerificationFailure):
        x5u.check(url)
    assert x5u.check(url, frozenset(lab_hosts)) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9443/a", "https://u@127.0.0.1:9443/a", "https://127.0.0.1:9443/a?x", "https://127.0.0.1:9444/a"],
)
def test_lab_host_keeps_the_other_rules(url: str) -> None:
    with pytest.raises(VerificationFailure):
        x5u.check(url, frozenset({"127.0.0.1:9443"}))
