"""The part of JSON Schema that our schemas use, checked without a library for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KEYWORDS = {
    "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description", "enum", "items",
    "maximum", "minItems", "minimum", "pattern", "patternProperties", "properties", "required", "title", "type",
}  # fmt: skip
"""Keywords that are understood here; one more in a schema is an error of this checker."""


def mistakes(schema: Schema, data: Any, root: Schema | None = None, path: str = "$") -> Iterator[str]:
    """What a validator would say against ``data``."""
    root = schema if root is None else root
    unknown = schema.keys() - KEYWORDS
    assert not unknown, f"keywords this checker does not know: {unknown}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from mistakes(root["$defs"][name], data, root, path)
    if "anyOf" in schema and all(list(mistakes(one, data, root, path)) for one in schema["anyOf"]):
        yield f"{path}: none of anyOf"
    if "type" in schema and not _has_type(schema["type"], data):
        yield f"{path}: not {schema['type']}"
        return
    yield from _value(schema, data, path)
    if isinstance(data, list):
        if len(data) < schema.get("minItems", 0):
            yield f"{path}: too short"
        for index, item in enumerate(data):
            yield from mistakes(schema.get("items", {}), item, root, f"{path}[{index}]")
    if isinstance(data, dict):
        yield from _object(schema, data, root, path)


def _value(schema: Schema, data: Any, path: str) -> Iterator[str]:
    if "enum" in schema and data not in schema["enum"]:
        yield f"{path}: not one of {schema['enum']}"
    if "const" in schema and data != schema["const"]:
        yield f"{path}: not {schema['const']}"
    if isinstance(data, str) and "pattern" in schema and re.search(schema["pattern"], data) is None:
        yield f"{path}: does not match"
    is_number = isinstance(data, int | float) and not isinstance(data, bool)
    if is_number and not schema.get("minimum", data) <= data <= schema.get("maximum", data):
        yield f"{path}: out of range"


def _has_type(names: str | list[str], data: Any) -> bool:
    for name in [names] if isinstance(names, str) else names:
        if isinstance(data, _TYPES[name]) and not (isinstance(data, bool) and name in {"integer", "number"}):
            return True
    return False


def _object(schema: Schema, data: dict[str, Any], root: Schema, path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in data:
            yield f"{path}: {name} is missing"
    for name, value in data.items():
        if name in properties:
            yield from mistakes(properties[name], value, root, f"{path}.{name}")
            continue
        patterns = schema.get("patternProperties", {})
        fitting = [inner for pattern, inner in patterns.items() if re.search(pattern, name)]
        for inner in fitting:
            yield from mistakes(inner, value, root, f"{path}.{name}")
        if patterns and not fitting:
            yield f"{path}: {name} does not match"
        elif schema.get("additionalProperties") is False:
            yield f"{path}: {name} is unknown"


def every_schema(schema: Schema) -> Iterator[Schema]:
    """A schema and all that stand in it."""
    yield schema
    for name, value in schema.items():
        if name in {"properties", "patternProperties", "$defs"}:
            for inner in value.values():
                yield from every_schema(inner)
        elif name == "anyOf":
            for inner in value:
                yield from every_schema(inner)
        elif name == "items":
            yield from every_schema(value)
