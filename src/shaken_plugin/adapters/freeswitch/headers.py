"""Header fields as channel variables, so that each leaves once, in order, and unharmed.

What FreeSWITCH 1.11 does (tried): a variable ``sip_h_NAME`` becomes a header field of each INVITE
of its leg. Several fields of one name need variables that differ: trailing spaces do it, and do
not show on the wire. ``sip_h_identity`` itself is sent twice, so it is never used. A field that
sofia knows by name is taken apart and put together again; one called ``y``, the compact name of
Identity (RFC 8224 §4), is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import count
from typing import Final

from shaken_plugin.adapters.freeswitch.leg import Leg, Set, sendable

MAX_FIELDS: Final = 32
"""Most fields of one name that are looked at."""

FULL: Final = "sip_h_Identity "
COMPACT: Final = "sip_h_y"
BY_SWITCH: Final = "sip_h_identity"
"""The first Identity field that came, set by FreeSWITCH; copied to the other leg and sent twice there."""

ASSERTED: Final = "sip_h_P-Asserted-Identity"

_ARRAY: Final = "ARRAY::"
_BETWEEN: Final = "|:"


class IdentityName(Enum):
    """Under which name Identity fields are passed on."""

    AUTO = "auto"
    """The full one, and the compact one where FreeSWITCH would damage one of them."""
    FULL = "full"
    COMPACT = "compact"


# The one order of parameters, without white space, that sofia writes as it read it. It looks for
# "alg=" and "ppt=" anywhere, so neither may stand in the URI, nor "alg=" in what follows ppt; and
# for the first ";". Extensions it keeps behind ppt alone.
_TOKEN = r"(?:(?!alg=)[A-Za-z0-9_.-])+"
_UNHARMED = re.compile(
    r"[A-Za-z0-9_.-]+"
    r";info=<(?:(?!alg=|ppt=)[^<>;\"\s])+>"
    r"(?:;alg=(?:\"[A-Za-z0-9]+\"|[A-Za-z0-9]+))?"
    r"(?:;ppt=(?:\"[A-Za-z0-9-]+\"|[A-Za-z0-9-]+)"
    rf"(?:;{_TOKEN}(?:=(?:{_TOKEN}|\"(?:(?!alg=)[^\"\\\r\n])*\"))?)*)?"
)


def passes_unharmed(value: str) -> bool:
    """Whether an Identity field leaves FreeSWITCH under its full name as it came, byte for byte."""
    return _UNHARMED.fullmatch(value) is not None


def values_of(text: str | None) -> tuple[str, ...]:
    """The values of a variable that may hold several (``ARRAY::one|:two``)."""
    if not text:
        return ()
    if not text.startswith(_ARRAY):
        return (text,)
    return tuple(text.removeprefix(_ARRAY).split(_BETWEEN)[:MAX_FIELDS])


def received_identity(get: Callable[[str], str | None]) -> tuple[str, ...]:
    """The Identity fields of the INVITE of a leg that came, those under the compact name last.

    ``sip_identity`` has them as received; ``sip_i_identity`` does not, and must not be verified.
    The compact name is seen only with the profile's ``parse-all-invite-headers``.
    """
    return (*values_of(get("sip_identity")), *values_of(get("sip_i_y")))[:MAX_FIELDS]


def identity_of(leg: Leg) -> tuple[str, ...]:
    """The Identity fields that a leaving leg has to carry: those set for it, else those that came."""
    if is_continued(leg):
        return ()
    own = (*fields_of(leg, FULL), *fields_of(leg, COMPACT))
    return own or received_identity(leg.partner) or values_of(leg.get(BY_SWITCH))


def is_continued(leg: Leg) -> bool:
    """Whether a leg is made for one that was itself sent, and is now transferred or bridged on.

    Nothing came with that one; the fields on it, which FreeSWITCH copies, were for whom it was
    sent to, and speak of another caller.
    """
    return leg.partner("direction") == "outbound"


def _names(first: str) -> Iterator[str]:
    return (first + " " * spaces for spaces in count())


def fields_of(leg: Leg, first: str) -> Iterator[str]:
    """The fields that are set for a leg under the variable ``first`` and those that differ by spaces."""
    for spaces in range(MAX_FIELDS):
        value = leg.get(first + " " * spaces)
        if not value:
            return
        yield value


def set_fields(leg: Leg, first: str, values: Sequence[str]) -> Iterator[Set]:
    """Set exactly these fields, in this order; further ones that are there go."""
    before = sum(1 for _ in fields_of(leg, first))
    names = _names(first)
    for value in values:
        yield Set(next(names), value)
    for _ in range(before - len(values)):
        yield Set(next(names), "")


def set_identity(leg: Leg, values: Sequence[str], name: IdentityName) -> tuple[list[Set], int]:
    """Have a leg, or those made for it, carry these Identity fields, each once and in order.

    Returns:
        What to set, and how many of the values cannot be sent because they are not text.
    """
    clean = [text for value in values if (text := sendable(value)) is not None and not text.startswith(_ARRAY)]
    damaged = any(not passes_unharmed(value) for value in clean)
    # All under one name: FreeSWITCH would change the order of two.
    compact = name is IdentityName.COMPACT or (name is IdentityName.AUTO and damaged)
    commands = [Set(BY_SWITCH, "")] if leg.get(BY_SWITCH) else []
    commands += set_fields(leg, FULL, () if compact else clean)
    commands += set_fields(leg, COMPACT, clean if compact else ())
    return commands, len(values) - len(clean)
