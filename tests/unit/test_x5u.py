"""Which certificate URLs may be looked at (ATIS-1000074, ATIS-1000080)."""

from __future__ import annotations

from ipaddress import ip_address

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
    assert x5u.check(url) is None  # type: ignore[func-returns-value]  # that it gives none


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
    assert x5u.check(url, frozenset(lab_hosts)) is None  # type: ignore[func-returns-value]  # that it gives none


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9443/a", "https://u@127.0.0.1:9443/a", "https://127.0.0.1:9443/a?x", "https://127.0.0.1:9444/a"],
)
def test_lab_host_keeps_the_other_rules(url: str) -> None:
    with pytest.raises(VerificationFailure):
        x5u.check(url, frozenset({"127.0.0.1:9443"}))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://CR.Example.com./a", ("https", "cr.example.com", 443, "/a", False)),
        ("HTTPS://cr.example.com:8443", ("https", "cr.example.com", 8443, "/", False)),
        ("https://[2606:4700::1111]:8443/", ("https", "2606:4700::1111", 8443, "/", False)),
        ("http://crl.example.com/a.crl", ("http", "crl.example.com", 80, "/a.crl", False)),
        ("https://127.0.0.1:9443/%2e/..", ("https", "127.0.0.1", 9443, "/%2e/..", True)),
    ],
)
def test_parts_are_read_once_and_for_all(url: str, target: tuple[object, ...]) -> None:
    """Whoever connects uses these parts, so that no second parser can see another host in the URL."""
    assert x5u.parse(url, frozenset({"127.0.0.1:9443"}), http_too=True) == x5u.Target(*target)  # type: ignore[arg-type]  # a test says what fits


@pytest.mark.parametrize(
    "url",
    [
        "http://crl.example.com:8080/a",
        "http://crl.example.com:443/a",
        "https://crl.example.com:80/a",
        "http://10.0.0.1/a",
        "http://u@crl.example.com/a",
        "http://crl.example.com/a?x",
        "ldap://crl.example.com/a",
        "ftp://crl.example.com/a",
    ],
)
def test_signed_document_by_http_keeps_the_other_rules(url: str) -> None:
    with pytest.raises(VerificationFailure):
        x5u.parse(url, http_too=True)


def test_port_of_a_lab_host_is_a_port() -> None:
    with pytest.raises(VerificationFailure, match="port"):
        x5u.parse("https://localhost:65536/a", frozenset({"localhost"}))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2001:500::1", "192.0.1.1"])
def test_public_address(address: str) -> None:
    assert x5u.is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.31.0.1",
        "192.0.0.1", "192.0.0.9", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1",
        "192.175.48.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "233.252.0.1", "239.255.255.250",
        "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:224.0.0.1",
        "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:1::1",
        "2001:3::1", "2001:4:112::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "2002:7f00:1::1",
        "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
        "2606:4700::1111%eth0",
    ],
)  # fmt: skip
def test_address_that_is_not_of_the_public_internet(address: str) -> None:
    """RFC 6890 and its registries, and the forms with another address inside."""
    assert not x5u.is_public(ip_address(address))
