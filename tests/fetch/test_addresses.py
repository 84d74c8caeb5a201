"""Where a download may lead: URLs, names and the addresses that are connected to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiodns
import pytest

from shaken_plugin.fetch import FetchCode, Fetcher, FetchFailure, FetchRules, Kind, fetch_once
from shaken_plugin.lab.wire import PUBLIC_ADDRESS, Played, Wire
from tests.fetch.conftest import URL, Failing

RULES = FetchRules()


def _wire(chain: bytes, url: str = URL, **names: Sequence[str]) -> Wire:
    return Wire({url: Played(body=chain)}, {"cr.example.com": names.get("addresses", [PUBLIC_ADDRESS])})


@pytest.mark.parametrize(
    ("url", "connected"),
    [
        (URL, (PUBLIC_ADDRESS, 443)),
        ("https://CR.Example.Com./a.pem", (PUBLIC_ADDRESS, 443)),
        ("https://cr.example.com:8443/a.pem", (PUBLIC_ADDRESS, 8443)),
        ("https://8.8.4.4/a.pem", ("8.8.4.4", 443)),
        ("https://[2606:4700::1111]:8443/a.pem", ("2606:4700::1111", 8443)),
        ("https://cr.example.com", (PUBLIC_ADDRESS, 443)),
    ],
)
def test_public_host_is_connected_to_by_its_address(chain: bytes, url: str, connected: tuple[str, int]) -> None:
    wire = _wire(chain, url)
    assert fetch_once(url, Kind.CERTIFICATE, RULES, resolve=wire.resolve, sockets=wire).body == chain
    assert wire.connected == [connected]


@pytest.mark.parametrize("kind", [Kind.CERTIFICATE, Kind.TRUST_LIST])
@pytest.mark.parametrize(
    "url",
    [
        "http://cr.example.com/a.pem",
        "https://cr.example.com:444/a.pem",
        "https://user@cr.example.com/a.pem",
        "https://cr.example.com/a.pem?",
        "https://cr.example.com/a.pem#",
        "https://cr.example.com\\@10.0.0.1/a.pem",
        "https://127.0.0.1/a.pem",
        "https://127.1/a.pem",
        "https://2130706433/a.pem",
        "https://0x7f000001/a.pem",
        "https://0177.0.0.1/a.pem",
        "https://169.254.169.254/latest/meta-data/iam",
        "https://[::ffff:127.0.0.1]/a.pem",
        "https://[64:ff9b::7f00:1]/a.pem",
        "https://[fe80::1%25eth0]/a.pem",
        "https://localhost/a.pem",
        "https://metadata.google.internal/a.pem",
        "file:///etc/passwd",
        "data:application/pem-certificate-chain;base64,AAAA",
        "",
    ],
)
def test_url_that_breaks_a_rule_is_neither_resolved_nor_connected_to(failing: Failing, url: str, kind: Kind) -> None:
    wire = Wire({})
    assert failing(url, RULES, kind, resolve=wire.resolve, sockets=wire).code is FetchCode.URL_NOT_ALLOWED
    assert wire.connected == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "192.0.0.9",
        "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::1",
        "fe80::1", "fd00::1", "ff02::1", "2001::1", "3fff::1",
    ],
)  # fmt: skip
def test_name_that_leads_inside_is_not_connected_to(failing: Failing, chain: bytes, address: str) -> None:
    wire = _wire(chain, addresses=[address])
    failure = failing(URL, RULES, resolve=wire.resolve, sockets=wire)
    assert failure.code is FetchCode.ADDRESS_NOT_ALLOWED
    assert "cr.example.com leads to" in failure.detail
    assert wire.connected == []


def test_of_several_addresses_only_public_ones_are_tried(chain: bytes) -> None:
    wire = _wire(chain, addresses=["10.0.0.1", "::1", "8.8.4.4"])
    fetch_once(URL, Kind.CERTIFICATE, RULES, resolve=wire.resolve, sockets=wire)
    assert wire.connected == [("8.8.4.4", 443)]


def test_name_that_changes_its_mind_leads_nowhere_inside(chain: bytes) -> None:
    """DNS rebinding: public for whoever checks, private for whoever connects."""
    wire = _wire(chain)
    answers = iter([["8.8.4.4"], ["127.0.0.1"], ["10.0.0.1"]])
    asked = 0

    async def rebinding(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return next(answers)

    fetch_once(URL, Kind.CERTIFICATE, RULES, resolve=rebinding, sockets=wire)
    # What was judged is what was connected to: the name was not asked again for the connection.
    assert (asked, wire.connected) == (1, [("8.8.4.4", 443)])
    for _ in range(2):
        with pytest.raises(FetchFailure) as caught:
            fetch_once(URL, Kind.CERTIFICATE, RULES, resolve=rebinding, sockets=wire)
        assert caught.value.code is FetchCode.ADDRESS_NOT_ALLOWED
    assert wire.connected == [("8.8.4.4", 443)]


def test_lab_host_may_be_anywhere_and_no_other_host_gains(failing: Failing, chain: bytes) -> None:
    lab = FetchRules(lab_hosts=frozenset({"cr.example.com"}))
    wire = _wire(chain, addresses=["10.0.0.1"])
    fetch_once(URL, Kind.CERTIFICATE, lab, resolve=wire.resolve, sockets=wire)
    assert wire.connected == [("10.0.0.1", 443)]
    other = Wire({}, {"x.example.com": "10.0.0.1"})
    failure = failing("https://x.example.com/a.pem", lab, resolve=other.resolve, sockets=other)
    assert failure.code is FetchCode.ADDRESS_NOT_ALLOWED


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://crl.example.com/a.crl", None),
        ("https://crl.example.com/a.crl", None),
        ("http://crl.example.com:8080/a.crl", FetchCode.URL_NOT_ALLOWED),
        ("http://10.0.0.1/a.crl", FetchCode.URL_NOT_ALLOWED),
        ("ldap://crl.example.com/a.crl", FetchCode.URL_NOT_ALLOWED),
        ("http://inside.example.com/a.crl", FetchCode.ADDRESS_NOT_ALLOWED),
    ],
)
def test_crl_may_come_by_http_under_the_same_address_rules(url: str, code: FetchCode | None) -> None:
    body = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    wire = Wire({url: Played(body=body)}, {"inside.example.com": "192.168.0.1"})
    if code is None:
        assert fetch_once(url, Kind.CRL, RULES, resolve=wire.resolve, sockets=wire).body == body
        return
    with pytest.raises(FetchFailure) as caught:
        fetch_once(url, Kind.CRL, RULES, resolve=wire.resolve, sockets=wire)
    assert (caught.value.code, wire.connected) == (code, [])


@pytest.mark.parametrize(("answer", "code"), [([], FetchCode.DNS_FAILED), (["not an address"], FetchCode.INTERNAL)])
def test_resolver_that_gives_nothing_of_use(failing: Failing, answer: list[str], code: FetchCode) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return answer

    assert failing(URL, RULES, resolve=resolve, sockets=Wire({})).code is code


def test_resolver_that_fails(failing: Failing) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("Domain name not found")

    failure = failing(URL, RULES, resolve=resolve, sockets=Wire({}))
    assert failure.code is FetchCode.DNS_FAILED
    assert failure.detail == "cr.example.com: Domain name not found"


def test_resolver_that_takes_for_ever_is_given_up(failing: Failing) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    quick = FetchRules(certificate=RULES.certificate.__class__(0.2, 65_536, 0, 1, 1))
    failure = failing(URL, quick, resolve=resolve, sockets=Wire({}))
    assert failure.code is FetchCode.TIMEOUT
    assert "resolving cr.example.com" in failure.detail


def test_the_systems_resolver_knows_the_hosts_file() -> None:
    async def look_up() -> set[str]:
        async with Fetcher(RULES) as fetcher:
            return set(await fetcher._system("localhost", 443))

    assert "127.0.0.1" in asyncio.run(look_up())


def test_the_systems_resolver_fails_like_any_other(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoServer:
        def __init__(self, **_: object) -> None:
            pass

        async def getaddrinfo(self, *_: object, **__: object) -> None:
            raise aiodns.error.DNSError(4, "Domain name not found")

        async def close(self) -> None:
            pass

    monkeypatch.setattr(aiodns, "DNSResolver", NoServer)
    failure = failing(URL, RULES, sockets=Wire({}))
    assert (failure.code, failure.detail) == (FetchCode.DNS_FAILED, "cr.example.com: Domain name not found")


def test_environment_has_no_say(chain: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy variables of the service's environment would move the connection to where nobody judges it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://10.0.0.1:3128")
    wire = _wire(chain)
    fetch_once(URL, Kind.CERTIFICATE, RULES, resolve=wire.resolve, sockets=wire)
    assert wire.connected == [(PUBLIC_ADDRESS, 443)]
    assert b"Authorization" not in wire.requests[0]
    assert wire.requests[0].startswith(b"GET /a.pem HTTP/1.1\r\nHost: cr.example.com\r\n")
