"""A whole policy as records, and the two look-ups every store must answer alike.

Numbers are found by prefix. A range is cut into the fewest decimal prefixes that cover it
exactly (12155551200-12155551299 is the one prefix 121555512), and a single number is a prefix of
full length. A number is then covered by the rights filed under any of its prefixes: exact, fast
in any key-value store, and ranges of different customers may overlap as they like. The key is an
integer, (length * 16 + length of the prefix) * 10^15 + prefix: it carries the number's length, so
that 1215555 does not reach into longer numbers, and takes eight bytes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from shaken_plugin.core.records import (
    Customer,
    DoNotOriginate,
    Gateway,
    Network,
    NumberRight,
    Record,
    Right,
    Route,
    Substitution,
    Trunk,
)
from shaken_plugin.errors import NumberError
from shaken_plugin.ports import NumbersOf, Span, Standing

KINDS: Final[Mapping[str, type[Record]]] = {
    "customer": Customer,
    "trunk": Trunk,
    "gateway": Gateway,
    "right": Right,
    "do_not_originate": DoNotOriginate,
    "route": Route,
    "substitution": Substitution,
}
"""Types of records by name, those that others refer to first."""

NUMBER_KINDS: Final[tuple[NumbersOf, ...]] = (Right, DoNotOriginate)
"""Those that have numbers."""

KIND_NAMES: Final[Mapping[type[Any], str]] = {kind: name for name, kind in KINDS.items()}

_PREFIXES: Final = 10**15

_NUMBER: Final = re.compile(r"[1-9][0-9]{3,14}")


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything a policy file says: what fits in memory. Stores hold more (`ports.PolicyWriter`)."""

    customers: tuple[Customer, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    rights: tuple[NumberRight, ...] = ()
    """One for each number or range; a right that has several stands here several times."""
    withheld: tuple[tuple[DoNotOriginate, str, str], ...] = ()
    """Entries of the do-not-originate list, likewise, each with the first and last number."""
    routes: tuple[Route, ...] = ()
    substitutions: tuple[Substitution, ...] = ()
    unnumbered: tuple[Right | DoNotOriginate, ...] = ()
    """Rights and entries that have no numbers, or none yet."""
    standings: tuple[Standing, ...] = ()
    """What customers were put under beside the policy, on the host that it was exported from."""

    @property
    def addresses(self) -> Mapping[Network, Trunk | Gateway]:
        """What each network belongs to."""
        sources: tuple[Trunk | Gateway, ...] = (*self.trunks, *self.gateways)
        return {network: source for source in sources for network in source.addresses}

    @property
    def users(self) -> Mapping[str, Trunk]:
        """What each account belongs to."""
        return {user: trunk for trunk in self.trunks for user in trunk.users}


def prefixes_of_range(first: str, last: str) -> Iterator[str]:
    """The fewest prefixes that cover ``first`` to ``last``, both included, of equal length."""
    low, high, length = int(first), int(last), len(first)
    while low <= high:
        size = 1
        # at least one digit: "" would be a prefix of numbers of every length
        while size * 10 < 10**length and low % (size * 10) == 0 and low + size * 10 - 1 <= high:
            size *= 10
        yield str(low // size).zfill(length - len(str(size)) + 1)
        low += size


def span_keys(span: Span) -> Iterator[int]:
    """The keys a span of numbers is filed under.

    Raises:
        NumberError: its ends are no numbers of equal length, the first before the last.
    """
    first, last = span
    if first == last:
        yield number_key(first)
        return
    if not (is_number(first) and is_number(last) and len(first) == len(last) and first < last):
        raise NumberError(f"no range of numbers of equal length: {first[:32]!r} to {last[:32]!r}")
    for prefix in prefixes_of_range(first, last):
        yield _key(len(first), prefix)


def number_key(number: str) -> int:
    """The key of a single number.

    Raises:
        NumberError: it is none (see `is_number`).
    """
    if _NUMBER.fullmatch(number) is None:
        raise NumberError(f"not a number of 4 to 15 digits without a 0 in front: {number[:32]!r}")
    length = len(number)
    return length * 17 * _PREFIXES + int(number)


def number_keys(number: str, shapes: Container[int]) -> list[int]:
    """The keys under which spans that cover a number may be filed, longest prefix first.

    Args:
        number: the canonical number; what is none has no key.
        shapes: those in use (see `shape`), so that no other is asked for.
    """
    if not is_number(number):
        return []  # 1215555120# is no number of the range that begins with 1215555120
    size = len(number)
    return [_key(size, number[:length]) for length in range(size, 0, -1) if size * 16 + length in shapes]


def is_number(text: str) -> bool:
    """Whether a policy can hold it: 4 to 15 digits, the first not 0 (E.164 has no number that is longer)."""
    return _NUMBER.fullmatch(text) is not None


def _key(length: int, prefix: str) -> int:
    return (length * 16 + len(prefix)) * _PREFIXES + int(prefix)


def shape(key: int) -> int:
    """Length of the numbers and of their prefix, as one number."""
    return key // _PREFIXES


def narrowest_first(span: Span) -> tuple[int, str, str]:
    """Sorts spans that cover one number."""
    return int(span.last) - int(span.first), span.first, span.last


def destination_keys(called: str, lengths: Container[int]) -> list[str]:
    """The prefixes of a called number that a route may have, longest first; ``lengths`` are those in use."""
    return [called[:length] for length in range(min(len(called), 15), 0, -1) if length in lengths]


def network_key(network: Network) -> str:
    """The key a network is filed under: ``version/bits/address``."""
    return f"{network.version}/{network.prefixlen}/{int(network.network_address):x}"


def address_keys(address: str, prefix_bits: Iterable[tuple[int, int]]) -> list[str]:
    """The keys of the networks that an address may lie in, narrowest first.

    Args:
        address: an IP address as text; anything else has no key.
        prefix_bits: (version, bits) pairs in use, narrowest first.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return []
    if ip.version == 6 and (mapped := getattr(ip, "ipv4_mapped", None)) is not None:
        ip = mapped
    value, width = int(ip), ip.max_prefixlen
    return [
        f"{version}/{bits}/{value >> (width - bits) << (width - bits):x}"
        for version, bits in prefix_bits
        if version == ip.version
    ]
