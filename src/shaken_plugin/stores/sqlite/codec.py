"""Records as the text that a file keeps.

JSON with the names of the fields; what has its default value is left out, so that a record stays
readable when later releases add fields. A trunk names its customer by id.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from shaken_plugin.core.records import Customer, Record, Trunk
from shaken_plugin.errors import StoreError
from shaken_plugin.stores.policy import KIND_NAMES, KINDS

_BROKEN: Final = (ValueError, TypeError, LookupError)


def encode(record: Record) -> str:
    """A record as text; equal records give equal text."""
    data = _adapter(KIND_NAMES[type(record)]).dump_python(record, mode="json", exclude_defaults=True)
    if isinstance(record, Trunk):
        data["customer"] = record.customer.id
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def decode(kind: type[Record], body: str, customer: Callable[[str], Customer | None]) -> Any:
    """A record from its text.

    Args:
        kind: what it is.
        body: what `encode` gave.
        customer: gives a trunk's customer.

    Raises:
        StoreError: no release wrote this.
    """
    try:
        if kind is not Trunk:
            return _adapter(KIND_NAMES[kind]).validate_json(body)
        data = json.loads(body)
        name, data["customer"] = data["customer"], customer(data["customer"])
        if data["customer"] is None:
            raise StoreError(f"trunk {data['id']}: its customer {name} is not there; the content is damaged")
        return _adapter(KIND_NAMES[kind]).validate_python(data)
    except _BROKEN as exc:
        raise StoreError(f"the content is damaged: a {KIND_NAMES[kind]} cannot be read: {exc}") from exc


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[name])
