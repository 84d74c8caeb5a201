"""The JSON Schema of a record, and whether a line that somebody wrote keeps to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from shaken_plugin.records.call import BOTH, CallRecord

_REQUIRED: Final = ("v", "kind", "at", "node")
_STEP: Final = {
    "rule": ("string", "The rule's name."),
    "held": ("boolean", "Whether it held."),
    "record": ("string", "The record that it was decided on."),
    "finding": ("string", "What it found."),
    "missing": ("string", "What a better level would need."),
}
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "tuple[str, ...]": {"type": "array", "items": {"type": "string"}},
    "tuple[Step, ...]": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: {"type": kind, "description": text} for name, (kind, text) in _STEP.items()},
            "required": ["rule", "held", "finding"],
        },
    },
    "Kind": {"type": "string", "enum": list(BOTH)},
}


def schema() -> dict[str, Any]:
    """The JSON Schema of a record. Fields that are not known to a reader are to be passed over."""
    properties = {}
    for field in dataclasses.fields(CallRecord):
        shape = _TYPES[str(field.type).removesuffix(" | None")]
        kinds = field.metadata["kinds"]
        which = "" if kinds == BOTH else f" ({' and '.join(kinds)} alone)"
        properties[field.name] = {**shape, "description": field.metadata["text"] + which}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The record of one signing or verification",
        "type": "object",
        "properties": properties,
        "required": list(_REQUIRED),
    }


def mistake(record: dict[str, Any]) -> str | None:
    """The name of a field that is missing or of another type than readers of the ledger expect, None if there is none.

    Fields that this release does not know are passed over.
    """
    for name, (check, required) in _CHECKS.items():
        if name in record:
            if not check(record[name]):
                return name
        elif required:
            return name
    return None


def _is_step(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return (
        isinstance(value.get("held"), bool)
        and all(isinstance(value.get(name), str) for name in ("rule", "finding"))
        and all(isinstance(value.get(name), str | None) for name in ("record", "missing"))
    )


_IS: Final[dict[str, Callable[[object], bool]]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "tuple[Step, ...]": lambda value: isinstance(value, list) and all(map(_is_step, value)),
    "Kind": lambda value: isinstance(value, str) and value in BOTH,
}
_CHECKS: Final = {
    field.name: (_IS[str(field.type).removesuffix(" | None")], field.name in _REQUIRED)
    for field in dataclasses.fields(CallRecord)
}
