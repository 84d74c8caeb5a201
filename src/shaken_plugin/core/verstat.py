"""verstat on the way to the called party, and keeping out what strangers wrote.

verstat is a parameter of the tel: URI (3GPP TS 24.229 §7.2A.20). In a sip: URI the telephone
number and its parameters are the user part, so it stands before the ``@``:
``sip:+12155551212;verstat=TN-Validation-Passed@example.com;user=phone``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from shaken_plugin.core.call import MAX_ASSERTED
from shaken_plugin.core.sip import NameAddr, Uri, split_list
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, canonical_party
from shaken_plugin.errors import NumberError, SipSyntaxError

# White space as it stands in a folded header. The characters themselves and no escapes: inside a
# POSIX bracket expression a backslash is a backslash.
_GAP = "[ \t\r\n]*"
_SEPARATOR = f"(;|%3[Bb]){_GAP}"
# Every letter in both cases, and escaped: "v" is %76, "V" is %56.
_NAME = "".join(f"([{char}{char.upper()}]|%[{ord(char) >> 4:x}{ord(char.upper()) >> 4:x}]{ord(char) & 15:x})"
                for char in "verstat") + "[-A-Za-z0-9.!*_+`'~]*"  # fmt: skip
_VALUE = f"{_GAP}(=|%3[Dd]){_GAP}[-A-Za-z0-9.!%*_+`'~]*"
_PARAM = f"{_NAME}({_VALUE})?"

VERSTAT_PATTERN: Final = f"({_SEPARATOR})+{_PARAM}"
"""verstat with its value, escaped or not, in any case; an extended regular expression that both
Python and the switches' own substitution understand.

It takes every separator before the name and every name that begins so: what is left on both sides
of a match can then never make another verstat, and one pass is enough."""

# Matches every run of separators, so that a run without a verstat is looked at only once.
_RUN = re.compile(f"(?:{_SEPARATOR})+(?P<verstat>{_PARAM})?")


def strip_verstat(value: str) -> str:
    """A header value without any verstat parameter. A trust domain believes only its own."""
    if "%" not in value and "verstat" not in value.lower():
        return value  # as nearly all are: unless a letter of the name is escaped, the name itself stands there
    return _RUN.sub(lambda match: "" if match["verstat"] else match.group(), value)


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


def _readable(value: str) -> str:
    """A value that can be sent again: one whose display name is not UTF-8 goes without it.

    Empty where nothing is left, because the URI itself is not text.
    """
    if value.isascii():
        return value
    try:
        value.encode()
        return value
    except UnicodeEncodeError:
        pass
    try:
        address = NameAddr.parse(value)
    except SipSyntaxError:
        return ""
    rest = f"<{address.uri}{address.suffix}"  # with the parameters: From needs its tag
    return rest if rest.isascii() else ""


def mark_asserted(lines: Iterable[str], verified: Party | None, verstat: str, plan: DialPlan) -> list[str]:
    """P-Asserted-Identity values with verstat, one a line.

    Args:
        lines: header lines as received, each with one or more values.
        verified: the ``orig`` the verdict is about; None where there is none.
        verstat: the value.
        plan: to recognise ``verified`` among the values.

    Returns:
        The first `MAX_ASSERTED` values, stripped of foreign verstat; the ones that name ``verified`` are marked,
        or, where none does, the first telephone number.
    """
    received = [value for line in lines for value in split_list(line)][:MAX_ASSERTED]
    values = [readable for value in received if (readable := _readable(strip_verstat(value)))]
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


_PLAIN: Final = re.compile(
    r"""((?:"[A-Za-z0-9 ._-]*" ?)?<sips?:[+]?[0-9]{1,32})(@[A-Za-z0-9.:-]{1,255}(?:;[A-Za-z0-9.=-]{1,255})?>)"""
)
"""A line as most are, apart where verstat goes: a number without parameters, and nothing escaped."""

_PLAIN_FROM: Final = re.compile(
    r"""(?:"[A-Za-z0-9 ._-]*" ?)?(<sips?:[+]?[0-9]{1,32})(@[A-Za-z0-9.:-]{1,255}(?:;[A-Za-z0-9.=-]{1,255})?>)"""
    r"""(?:;tag=[A-Za-z0-9.!%*_+`'~-]+)?"""
)
"""A From as most are: the same, and apart behind the name."""


def mark_single(line: str, verstat: str) -> list[str] | None:
    """What `mark_asserted` makes of one line, the only one, that is known to name a number or the verified party.

    None where it has to be looked at by that: it may hold more than one value, or a foreign verstat.
    """
    if (plain := _PLAIN.fullmatch(line)) is not None and "verstat" not in line.lower():
        return [f"{plain[1]};verstat={verstat}{plain[2]}"]
    if "," in line or not line.isascii() or strip_verstat(line) is not line:
        return None
    try:
        address = NameAddr.parse(line)
    except SipSyntaxError:
        return None
    return [_marked(address, line.strip(), verstat)]


def _marked(address: NameAddr | None, value: str, verstat: str) -> str:
    uri = None if address is None else with_verstat(address.uri, verstat)
    return value if address is None or uri is None else address.with_uri(uri)


def mark_from(from_value: str, verstat: str, plan: DialPlan) -> str | None:
    """The From value with verstat instead of a foreign one, None where it names no number."""
    try:
        address = NameAddr.parse(_readable(strip_verstat(from_value)))
    except SipSyntaxError:
        return None
    if not isinstance(_party(address, plan), TelephoneNumber):
        return None
    uri = with_verstat(address.uri, verstat)
    return None if uri is None else address.with_uri(uri)


def asserted_from_number(from_value: str, verstat: str) -> str | None:
    """What `asserted_from` makes of a From that is known to name a telephone number; None where it has to say."""
    plain = _PLAIN_FROM.fullmatch(from_value)
    if plain is None or "verstat" in from_value.lower():
        return None
    return f"{plain[1]};verstat={verstat}{plain[2]}"


def asserted_from(from_value: str, verstat: str, plan: DialPlan) -> str | None:
    """A P-Asserted-Identity made from From, for a call that has none.

    None where From names no telephone number: there is nothing to say about it.
    """
    marked = mark_from(from_value, verstat, plan)
    return None if marked is None else f"<{NameAddr.parse(marked).uri}>"
