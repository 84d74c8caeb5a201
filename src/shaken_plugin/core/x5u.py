"""Which URLs may be fetched, and which addresses connected to (ATIS-1000074, ATIS-1000080; RFC 8224 §7.3).

`check` judges a certificate URL on its text alone, before anything is fetched or looked up:
"https only, port 443 or 8443, no userinfo, no query, no fragment", and no host that is an
address of a private network in any spelling. Where a name leads can only be seen by whoever
connects: that is `is_public`, asked for the very address of the connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_LENGTH: Final = 1_024
"""Longest URL, characters; the longest real one seen has 106."""

PORTS: Final = {"https": frozenset({"443", "8443"}), "http": frozenset({"80"})}
"""ATIS-1000080: port absent, 443 or 8443. Only a CRL, which is signed, may come by http."""

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that IANA has assigned for global use (RFC 4291 §2.4). Outside lie forms with an IPv4 address
inside, which a translator may lead anywhere: ``::127.0.0.1``, ``64:ff9b::7f00:1`` (RFC 6052)."""

_SPECIAL: Final = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments; anycast to a PCP or TURN server of one's own network
    IPv4Network("192.31.196.0/24"),  # AS112
    IPv4Network("192.52.193.0/24"),  # AMT
    IPv4Network("192.88.99.0/24"),  # 6to4 relay anycast, deprecated (RFC 7526)
    IPv4Network("192.175.48.0/24"),  # AS112
    IPv6Network("2001::/23"),  # protocol assignments: Teredo, ORCHID, AMT, AS112 …
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address inside (RFC 3056)
    IPv6Network("2620:4f:8000::/48"),  # AS112
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)
"""Special-purpose addresses (RFC 6890 and its registries) that ``ipaddress.is_global`` of some supported
Python calls global, or that lead into one's own network all the same."""

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<rest>[?#].*)?", re.DOTALL
)
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]*))?")
_NAME = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?")


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL that keeps the rules leads to."""

    scheme: str
    host: str
    """In lower case; a name without its final dot, an IPv6 address without brackets."""
    port: int
    path: str
    is_lab: bool
    """A named host of the lab: its address may be any."""


def check(url: str, lab_hosts: frozenset[str] = frozenset()) -> None:
    """Refuse a certificate URL that breaks the rules.

    Args:
        url: as in ``info`` and ``x5u``.
        lab_hosts: ``host`` or ``host:port`` for which the port and address rules do not hold.

    Raises:
        VerificationFailure: INFO_NOT_ALLOWED; the detail names the rule.
    """
    parse(url, lab_hosts)


@lru_cache(1_024)
def parse(url: str, lab_hosts: frozenset[str] = frozenset(), *, http_too: bool = False) -> Target:
    """What a URL leads to, so that no second parser can read it differently.

    Args:
        url: of a certificate, trust list or CRL.
        lab_hosts: as for `check`.
        http_too: whether the document is signed and may come by http, port 80.

    Raises:
        VerificationFailure: INFO_NOT_ALLOWED; the detail names the rule.
    """
    if len(url) > MAX_LENGTH or _VISIBLE.fullmatch(url) is None:
        raise _refused("too long, or not printable ASCII")
    match = _URL.fullmatch(url)
    scheme = match["scheme"].lower() if match is not None else ""
    if match is None or (scheme != "https" and not (http_too and scheme == "http")):
        raise _refused("not an http or https URL" if http_too else "not an https URL")
    if "@" in match["authority"]:
        raise _refused("it has a user part")
    if match["rest"]:
        raise _refused("it has a query or a fragment")
    authority = _HOST.fullmatch(match["authority"])
    if authority is None:
        raise _refused("no valid host")
    host = authority["host"].lower()
    port = authority["port"] or ("443" if scheme == "https" else "80")
    is_lab = host in lab_hosts or f"{host}:{port}" in lab_hosts
    if not is_lab or int(port) > 65_535:
        if port not in PORTS[scheme]:
            raise _refused("its port is neither 443 nor 8443" + (", nor 80 for http" if http_too else ""))
        _check_host(host)
    return Target(scheme, host.strip("[]").rstrip("."), int(port), match["path"] or "/", is_lab)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public Internet; an IPv4-mapped one counts as what it maps."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address not in _GLOBAL_UNICAST or address.scope_id is not None:
            return False
    special = any(address in network for network in _SPECIAL if network.version == address.version)
    return address.is_global and not address.is_multicast and not special


def _check_host(host: str) -> None:
    literal = host.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(literal)
    except ValueError:
        if _NAME.fullmatch(host) is None:
            raise _refused("no valid host name") from None
        name = host.rstrip(".")
        last = name.rpartition(".")[2]
        # 127.1, 2130706433 and 0x7f000001 are addresses to a resolver, not names.
        if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
            raise _refused("its host is an address in disguise") from None
        if "." not in name or last in {"localhost", "local", "internal", "localdomain"}:
            raise _refused("its host is a local name") from None
        return
    if not is_public(address):
        raise _refused("its host is not a public address")


def _refused(detail: str) -> VerificationFailure:
    return VerificationFailure(FailureCode.INFO_NOT_ALLOWED, detail)
