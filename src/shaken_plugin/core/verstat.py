"""verstat on the way to the called party, and keeping out what strangers wrote.

verstat is a parameter of the tel: URI (3GPP TS 24.229 §7.2A.20). In a sip: URI the telephone
number and its parameters are the user part, so it stands before the ``@``:
``sip:+12155551212;verstat=TN-Validation-Passed@example.com;user=phone``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from shaken_plugin.core.sip import NameAddr, Uri, split_list
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, canonical_party
from shaken_plugin.errors import NumberError, SipSyntaxError

VERSTAT_PATTERN = r"(;|%3[Bb])[ \t]*[Vv][Ee][Rr][Ss][Tt][Aa][Tt]([ \t]*(=|%3[Dd])[-A-Za-z0-9.!%*_+`'~]*)?"
"""verstat with its value, escaped or not, in any case; an extended regular expression that both
Python and the switches' own substitution understand."""

_VERSTAT = re.compile(VERSTAT_PATTERN + r"(?![A-Za-z0-9_-])")


def strip_verstat(value: str) -> str:
    """A header value without any verstat parameter. A trust domain believes only its own."""
    return _VERSTAT.sub("", value)


def with_verstat(uri: str, verstat: str) -> str | None:
    """The URI with the parameter, None where it has no user part to put it in."""
    scheme, colon, rest = uri.partition(":")
    if scheme.lower() == "tel":
        return f"{uri};verstat={verstat}"
    userinfo, at, host = rest.rpartition("@")
    if not colon or not at:
        return None
    user, password_colon, password = userinfo.partition(":")
    return f"{scheme}:{user};verstat={verstat}{password_colon}{password}@{host}"


def _party(value: NameAddr, plan: DialPlan) -> Party | None:
    try:
        return canonical_party(Uri.parse(value.uri), plan)
    except (SipSyntaxError, NumberError):
        return None


def mark_asserted(lines: Iterable[str], verified: Party | None, verstat: str, plan: DialPlan) -> list[str]:
    """P-Asserted-Identity values with verstat, one a line.

    Args:
        lines: header lines as received, each with one or more values.
        verified: the ``orig`` the verdict is about; None where there is none.
        verstat: the value.
        plan: to recognise ``verified`` among the values.

    Returns:
        Every value, stripped of foreign verstat; the ones that name ``verified`` are marked,
        or, where none does, the first telephone number.
    """
    values = [strip_verstat(value) for line in lines for value in split_list(line)]
    parsed: list[NameAddr | None] = []
    for value in values:
        try:
            parsed.append(NameAddr.parse(value))
        except SipSyntaxError:
            parsed.append(None)
    parties = [None if address is None else _party(address, plan) for address in parsed]
    marked = {index for index, party in enumerate(parties) if party is not None and party == verified}
    if not marked:
        numbers = [index for index, party in enumerate(parties) if isinstance(party, TelephoneNumber)]
        marked = set(numbers[:1])
    return [
        _marked(address, value, verstat) if index in marked else value
        for index, (address, value) in enumerate(zip(parsed, values, strict=True))
    ]


def _marked(address: NameAddr | None, value: str, verstat: str) -> str:
    uri = None if address is None else with_verstat(address.uri, verstat)
    return value if address is None or uri is None else address.with_uri(uri)


def mark_from(from_value: str, verstat: str, plan: DialPlan) -> str | None:
    """The From value with verstat instead of a foreign one, None where it names no number."""
    try:
        address = NameAddr.parse(strip_verstat(from_value))
    except SipSyntaxError:
        return None
    if not isinstance(_party(address, plan), TelephoneNumber):
        return None
    uri = with_verstat(address.uri, verstat)
    return None if uri is None else address.with_uri(uri)


def asserted_from(from_value: str, verstat: str, plan: DialPlan) -> str | None:
    """A P-Asserted-Identity made from From, for a call that has none.

    None where From names no telephone number: there is nothing to say about it.
    """
    marked = mark_from(from_value, verstat, plan)
    return None if marked is None else f"<{NameAddr.parse(marked).uri}>"
