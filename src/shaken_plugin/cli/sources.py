"""``shaken trunk``, ``gateway``, ``route``, ``substitution`` and ``right``: records without verbs of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shaken_plugin.cli.records.kinds import Kind, group
from shaken_plugin.cli.records.verbs import (
    add_command,
    force_command,
    list_command,
    remove_command,
    set_command,
    show_command,
)
from shaken_plugin.core.records import Gateway, Right, Route, Substitution, Trunk

TRUNK = Kind(
    "trunk",
    Trunk,
    "Ways by which customers' calls reach us: addresses, or accounts that the switch authenticates.\n\n"
    "A trunk is not suspended: suspend its customer, or leave its calls unsigned with 'set --sign no'.",
    ("customer", "address", "user", "credential"),
)
GATEWAY = Kind(
    "gateway",
    Gateway,
    "Declared points at which calls of unknown origin enter; they get C.\n\n"
    "A gateway is not suspended: remove it, and its calls are those of an unknown source.",
    ("name", "address", "credential"),
)
ROUTE = Kind(
    "route",
    Route,
    "Where calls leave to, and what is different there: by prefix of the called number, or as the switch names it.\n\n"
    "A route is not suspended: 'set --clear' takes back what it says.",
    ("destination", "ceiling", "unauthorised", "sign"),
)
SUBSTITUTION = Kind(
    "substitution",
    Substitution,
    "Explicit rules by which a customer's calls go on with another caller ID. The first that fits, by id, counts.\n\n"
    "A rule is not suspended: 'set --valid-until' ends it.",
    ("customer", "number", "route", "caller", "valid_until"),
)


def prepared(right: Right, extra: Mapping[str, Any]) -> Right:
    """With the time of its approval, which is now where somebody approves it, or approves it again."""
    given = {attribute.name for attribute in extra.get("given", ())}
    if "approved_by" in given and "approved_at" not in given:
        right = replace(right, approved_at=None)
    return approved(right, extra["intent"].author.at)


def approved(right: Right, at: float) -> Right:
    """With the time of its approval, where somebody approved it and did not say when."""
    return replace(right, approved_at=at) if right.approved_by is not None and right.approved_at is None else right


RIGHT = Kind(
    "right",
    Right,
    "Rights to use numbers, on any basis; letters of authorisation have 'shaken letter' for them.\n\n"
    "'suspend' puts a right out of force from now on: its numbers lack it for A. 'reinstate' needs a person.",
    ("customer", "basis", "owner", "document", "valid_until"),
    prepare=prepared,
)


def _generic(kind: Kind) -> list:  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    return [make(kind) for make in (add_command, show_command, list_command, set_command, remove_command)]


trunk = group(TRUNK, *_generic(TRUNK))
gateway = group(GATEWAY, *_generic(GATEWAY))
route = group(ROUTE, *_generic(ROUTE))
substitution = group(SUBSTITUTION, *_generic(SUBSTITUTION))
right = group(
    RIGHT,
    *_generic(RIGHT),
    force_command(RIGHT, "suspend", suspended=True, about="Put a right out of force from now on."),
    force_command(RIGHT, "reinstate", suspended=False, about="Put it in force again."),
)
