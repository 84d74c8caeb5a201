"""Compact JSON in printable ASCII, for lines that are written once a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Final

compact: Final[Callable[[Any], str]] = json.JSONEncoder(separators=(",", ":")).encode
"""Any value."""


def flat(fields: Mapping[str, Any]) -> str:
    """An object, exactly as `compact` has it, at a third of its cost: most values are texts or whole numbers.

    Args:
        fields: by names that need no escaping.
    """
    return "{" + ",".join([f'"{name}":{_value(value)}' for name, value in fields.items()]) + "}"


def _value(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if (kind is tuple or kind is list) and all(type(part) is str for part in value):
        return f"[{','.join(map(encode_basestring_ascii, value))}]"
    return compact(value)
