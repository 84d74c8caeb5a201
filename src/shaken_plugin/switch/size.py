"""The size guard: an INVITE that no longer fits into one UDP packet because of what we add.

RFC 3261 §18.1.1: "If a request is within 200 bytes of the path MTU, or if it is larger than 1300
bytes and the path MTU is unknown, the request MUST be sent using an RFC 2914 congestion controlled
transport protocol, such as TCP." In practice larger ones are fragmented, and fragments get lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from shaken_plugin.core.identity import IdentityHeader


class SizeAction(Enum):
    """What the operator wants done about an INVITE that is too large."""

    WARN = "warn"
    TCP = "tcp"
    SHORTEN = "shorten"


class SizeOutcome(Enum):
    """What is to be done about one INVITE. The values name the counters of all but `FITS`."""

    FITS = "size_fits"
    """Nothing: it is small enough, or does not leave by UDP."""
    WARN = "size_over"
    """Send it as it is."""
    USE_TCP = "size_tcp"
    """Send it by TCP, and by UDP where that fails."""
    TCP_REFUSED = "size_tcp_refused"
    """Send it as it is: this peer did not answer by TCP of late, or UDP was asked for explicitly."""
    SHORTEN = "size_shortened"
    """Attach the shorter variables of the advice."""
    SHORTEN_NOT_ENOUGH = "size_shorten_not_enough"
    """Send it as it is: the shortest form would not fit either."""


@dataclass(frozen=True, slots=True)
class SizeAdvice:
    """What is to be done, and the variables to `attach`; ``size`` in bytes, ours included."""

    outcome: SizeOutcome
    size: int
    variables: Mapping[str, str]
    done: str = ""
    """What was left out, for the log."""


_OVERHEAD: Final = len(": \r\n")
_DATE: Final = len("Date") + _OVERHEAD
_IDENTITY: Final = len("Identity") + _OVERHEAD


def signature_bytes(identity: str, date: str) -> int:
    """Bytes of an Identity header and, unless it is empty, a Date header, with names and line ends."""
    return _IDENTITY + len(identity) + (_DATE + len(date) if date else 0)


def added_bytes(variables: Mapping[str, str]) -> int:
    """Bytes that `attach` adds: Identity and, where it is new, Date, with names and line ends.

    What it removes is not subtracted, so that the size is rather too high than too low.
    """
    identity = variables.get("identity")
    if not identity:
        return 0
    date = "" if variables.get("replace_date") else variables.get("date", "")
    return signature_bytes(identity, date) - len("Identity") + len(variables.get("header_name") or "Identity")


def advise(
    variables: Mapping[str, str],
    size_without: int,
    threshold: int,
    action: SizeAction,
    *,
    takes_tcp: Callable[[], bool],
) -> SizeAdvice:
    """What to do about an INVITE that leaves by UDP.

    Args:
        variables: those that `Switch.sign` returned.
        size_without: bytes of the INVITE as it leaves, without what `attach` adds.
        threshold: the most bytes that are sent by UDP without further ado; 0: any number.
        action: the operator's choice.
        takes_tcp: whether the peer may be tried by TCP; asked only where it matters.
    """
    size = size_without + added_bytes(variables)
    if size <= threshold or not threshold or not variables.get("identity"):
        return SizeAdvice(SizeOutcome.FITS, size, variables)
    if action is SizeAction.TCP:
        return SizeAdvice(SizeOutcome.USE_TCP if takes_tcp() else SizeOutcome.TCP_REFUSED, size, variables)
    if action is SizeAction.SHORTEN:
        for shorter, done in shortened(variables):
            size_now = size_without + added_bytes(shorter)
            if size_now <= threshold:
                return SizeAdvice(SizeOutcome.SHORTEN, size_now, shorter, done)
        return SizeAdvice(SizeOutcome.SHORTEN_NOT_ENOUGH, size, variables)
    return SizeAdvice(SizeOutcome.WARN, size, variables)


def shortened(variables: Mapping[str, str]) -> Iterator[tuple[dict[str, str], str]]:
    """Ever shorter forms of the same signature, each with what was left out.

    The token itself stays whole: ATIS-1000074 and RFC 8588 know no compact form of a shaken
    PASSporT (a verifier answers 438), and a claim such as mky cannot go once it is signed.
    """
    header = IdentityHeader.parse(variables["identity"])
    # RFC 8224 §4: alg is optional, and ES256 where it is missing.
    header = replace(header, alg=None)
    yield {**variables, "identity": header.format()}, "alg"
    # RFC 8224 §4: ident-type = "ppt" EQUAL token; the quotes are a habit.
    bare = {**variables, "identity": header.format(quote_ppt=False)}
    yield bare, "alg and the quotes of ppt"
    # RFC 8224 §13.1: "y" is the compact form of the name. Last, because some peers do not know it.
    yield {**bare, "header_name": "y"}, "alg, the quotes of ppt and the long name of the header (y:)"
