"""A whole policy as records, and the two look-ups every store must answer alike.

Numbers are found by prefix. A range is cut into the fewest decimal prefixes that cover it
exactly (12155551200-12155551299 is the one prefix 121555512), and a single number is a prefix of
full length. A number is then covered by the rights filed under any of its prefixes: exact, fast
in any key-value store, and ranges of different customers may overlap as they like. The key
carries the number's length, so that 1215555 does not reach into longer numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address

from shaken_plugin.core.records import Customer, Gateway, NumberRight, Trunk

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything a policy file says.

    ``addresses`` are unique networks, ``users`` unique account names.
    """

    customers: tuple[Customer, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    addresses: Mapping[Network, Trunk | Gateway] = field(default_factory=dict)
    users: Mapping[str, Trunk] = field(default_factory=dict)
    rights: tuple[NumberRight, ...] = ()


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


def right_keys(right: NumberRight) -> Iterator[str]:
    """The keys a right is filed under: ``length:prefix``."""
    if right.first == right.last:
        yield f"{len(right.first)}:{right.first}"
        return
    for prefix in prefixes_of_range(right.first, right.last):
        yield f"{len(right.first)}:{prefix}"


def number_keys(number: str, prefix_lengths: Iterable[int]) -> list[str]:
    """The keys under which rights that cover a number may be filed, longest prefix first.

    Args:
        number: the canonical number.
        prefix_lengths: the lengths of prefixes in use, so that no other is asked for.
    """
    if not number.isdecimal():
        return []  # 1215555120# is no number of the range that begins with 1215555120
    size = len(number)
    return [f"{size}:{number[:length]}" for length in prefix_lengths if length <= size]


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
