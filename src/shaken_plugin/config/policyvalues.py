"""Types of single values in a policy file: their form, and what is said where it is wrong."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from shaken_plugin.config.models import Matching

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""As they are written; the first is day 0 of `TimeWindow.days`."""


def network(value: str) -> str:
    """Check that a text is an address or network.

    Raises:
        ValueError: it is none, or should be written otherwise.
    """
    try:
        parsed = ipaddress.ip_network(value)
    except ValueError as exc:
        raise ValueError(f"not an IP address or network: {exc}") from None
    if isinstance(parsed, ipaddress.IPv6Network) and (mapped := parsed.network_address.ipv4_mapped) is not None:
        # Calls from there are known by their IPv4 address, in either spelling.
        raise ValueError(f"write it as {mapped}{f'/{parsed.prefixlen - 96}' if parsed.prefixlen < 128 else ''}")
    return value


_NUMBERS = re.compile(r"\+([1-9][0-9]{3,14})(?:\.\.\+([1-9][0-9]{3,14}))?")


def numbers(value: str) -> str:
    """Check that a text is a number or range, ``+12155551212`` or ``+12155551300..+12155551399``.

    Raises:
        ValueError: it is neither.
    """
    match = _NUMBERS.fullmatch(value)
    if match is None:
        raise ValueError("neither a number such as +12155551212 nor a range such as +12155551300..+12155551399")
    first, last = match.groups()
    if last is not None and (len(first) != len(last) or first > last):
        raise ValueError("the end of the range is not a number of the same length behind its start")
    return value


_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


def _minute(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "24:00":
        return 1440
    if (match := _CLOCK.fullmatch(value)) is None:
        raise ValueError("not a time of day such as 08:00, from 00:00 to 24:00")
    return int(match[1]) * 60 + int(match[2])


def _offset(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value == "Z":
        return 0
    if value[:1] not in {"+", "-"} or (match := _CLOCK.fullmatch(value[1:])) is None:
        raise ValueError("not an offset from UTC such as -05:00")
    minutes = int(match[1]) * 60 + int(match[2])
    return minutes if value[0] == "+" else -minutes


def _day(value: object) -> object:
    if isinstance(value, str):
        if value not in DAYS:
            raise ValueError(f"not one of {', '.join(DAYS)}")
        return DAYS.index(value)
    return value


_TEXT = WithJsonSchema({"type": "string"})

Address = Annotated[str, AfterValidator(network)]
Numbers = Annotated[str, AfterValidator(numbers)]
Number = Annotated[
    str,
    Matching(r"\+[1-9][0-9]{3,14}", "not a number such as +12155551212"),
    AfterValidator(lambda value: value.removeprefix("+")),
]
Prefix = Annotated[
    str,
    Matching(r"\+[1-9][0-9]{0,14}", "not the beginning of a number such as +1416"),
    AfterValidator(lambda value: value.removeprefix("+")),
]
UserName = Annotated[
    str, Matching(r"[^\s\x00-\x1f\x7f]{1,128}", "not an account name (no spaces, at most 128 characters)")
]
Sha256 = Annotated[
    str,
    Matching(r"[0-9A-Fa-f]{64}", "not a SHA-256: 64 hexadecimal digits"),
    AfterValidator(lambda value: value.lower()),
]
FilePath = Annotated[str, Matching(r"[^\x00-\x1f\x7f]{1,1000}", "not a path of 1 to 1000 characters in one line")]
Minute = Annotated[int, BeforeValidator(_minute), _TEXT]
Offset = Annotated[int, BeforeValidator(_offset), _TEXT]
Day = Annotated[int, BeforeValidator(_day), WithJsonSchema({"type": "string", "enum": list(DAYS)})]
