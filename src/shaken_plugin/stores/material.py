"""Keys and trust anchors as a store keeps them: a kind, a name, and a body of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.errors import ConflictError, StoreError

MAX_BODY: Final = 524_288
"""Octets of one; all roots of a country's trust list are some 100 KB."""

MAX_KEPT: Final = 500
"""Most of them in one store; each worker reads all when one changes."""

NAMES: Final[dict[type[Any], str]] = {StoredPair: "key", StoredAnchors: "anchors"}
KINDS: Final[dict[str, type[Any]]] = {name: kind for kind, name in NAMES.items()}

Place = tuple[str, str]
"""Kind and name of one."""


def place_of(material: Material) -> Place:
    """Where a store keeps it."""
    return NAMES[type(material)], material.name


def encode(material: Material) -> str:
    """Its body: the same text for the same content.

    Raises:
        ConflictError: it is too large, or a key would go live at what is no moment.
    """
    if isinstance(material, StoredPair) and not math.isfinite(material.live_from):
        raise ConflictError(f"{named(place_of(material))}: live_from is no moment")
    values = {name: value for name, value in asdict(material).items() if name != "name"}
    body = json.dumps(values, sort_keys=True)
    if len(body) > MAX_BODY:
        raise ConflictError(f"{named(place_of(material))}: has {len(body)} octets, at most {MAX_BODY} are kept")
    return body


def decode(place: Place, body: str) -> Material:
    """What `encode` made.

    Raises:
        StoreError: it did not make this. The text quotes nothing of it.
    """
    kind, name = place
    try:
        values = json.loads(body)
        made: Material = KINDS[kind](name=name, **values)
        sound = all(_sound(field, value) for field, value in asdict(made).items())
    except (ValueError, TypeError, LookupError, RecursionError):
        sound = False
    if not sound:
        raise StoreError(f"{named(place)}: its content is damaged; remove it, and add it again")
    return made


def _sound(field: str, value: object) -> bool:
    # json reads NaN and 1e999, too; a moment that compares with none would never, or for ever, be past.
    return isinstance(value, float) and math.isfinite(value) if field == "live_from" else isinstance(value, str)


def decode_all(rows: Iterable[tuple[str, str, str]]) -> tuple[Material, ...]:
    """Rows of kind, name and body, by kind and name.

    Raises:
        StoreError: one of them is damaged.
    """
    return tuple(decode((kind, name), body) for kind, name, body in sorted(rows))


def named(place: Place) -> str:
    """For people: ``key main-2026``."""
    return f"{place[0]} {place[1]}"
