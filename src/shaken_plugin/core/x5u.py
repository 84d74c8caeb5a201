"""Which certificate URLs may be looked at (ATIS-1000074, ATIS-1000080; RFC 8224 §7.3).

Judged before anything is fetched or looked up, on the text alone: "https only, port 443 or
8443, no userinfo, no query, no fragment", and no host that is an address of a private network
in any spelling. That a name leads to such an address can only be seen by whoever connects.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_LENGTH: Final = 1_024
"""Longest URL, characters; the longest real one seen has 106."""

PORTS: Final = frozenset({"", "443", "8443"})
"""ATIS-1000080: port absent, 443 or 8443."""

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that IANA has assigned for global use (RFC 4291 §2.4). Outside lie forms with an IPv4 address
inside, which a translator may lead anywhere: ``::127.0.0.1``, ``64:ff9b::7f00:1`` (RFC 6052)."""

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?P<rest>[?#].*)?", re.DOTALL
)
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]*))?")
_NAME = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?")


def check(url: str, lab_hosts: frozenset[str] = frozenset()) -> None:
    """Refuse a certificate URL that breaks the rules.

    Args:
        url: as in ``info`` and ``x5u``.
        lab_hosts: ``host`` or ``host:port`` for which the port and address rules do not hold.

    Raises:
        VerificationFailure: INFO_NOT_ALLOWED; the detail names the rule.
    """
    if len(url) > MAX_LENGTH or _VISIBLE.fullmatch(url) is None:
        raise _refused("too long, or not printable ASCII")
    match = _URL.fullmatch(url)
    if match is None or match["scheme"].lower() != "https":
        raise _refused("not an https URL")
    if "@" in match["authority"]:
        raise _refused("it has a user part")
    if match["rest"]:
        raise _refused("it has a query or a fragment")
    authority = _HOST.fullmatch(match["authority"])
    if authority is None:
        raise _refused("no valid host")
    host, port = authority["host"].lower(), authority["port"] or ""
    if host in lab_hosts or f"{host}:{port or '443'}" in lab_hosts:
        return
    if port not in PORTS:
        raise _refused("its port is neither 443 nor 8443")
    _check_host(host)


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
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    outside = isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST
    if outside or not address.is_global or address.is_multicast:
        raise _refused("its host is not a public address")


def _refused(detail: str) -> VerificationFailure:
    return VerificationFailure(FailureCode.INFO_NOT_ALLOWED, detail)
