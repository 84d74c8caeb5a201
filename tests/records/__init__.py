"""Records as tests write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from ipaddress import ip_network
from typing import Any, TypeVar

from shaken_plugin.core.records import Basis, Gateway, NumberRight, Right, Trunk

Source = TypeVar("Source", Trunk, Gateway)


def number_right(
    customer: str,
    first: str,
    last: str,
    basis: Basis,
    document: str | None = None,
    use_case: str | None = None,
    valid_from: float | None = None,
    valid_until: float | None = None,
    **more: Any,
) -> NumberRight:
    """A right with its one span of numbers; its id is made of what tells it from others."""
    identifier = more.pop("id", f"{customer} {basis.value} {document} {first}")
    right = Right(identifier, customer, basis, document, use_case, valid_from, valid_until, **more)
    return NumberRight(right, first, last)


def reached(source: Source, *addresses: str, users: Iterable[str] = ()) -> Source:
    """The trunk or gateway, with these addresses and accounts."""
    source = replace(source, addresses=tuple(map(ip_network, addresses)))
    return replace(source, users=tuple(users)) if isinstance(source, Trunk) else source


_OF_RIGHT = frozenset(field.name for field in fields(Right))


def changed(right: NumberRight, **changes: Any) -> NumberRight:
    """The right with other fields, its own or those of its grant."""
    grant = {name: value for name, value in changes.items() if name in _OF_RIGHT}
    rest = {name: value for name, value in changes.items() if name not in _OF_RIGHT}
    return replace(right, right=replace(right.right, **grant), **rest)
