"""Records of calls with the telephone numbers in them masked, as they are shown unless somebody asks for more."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

from shaken_plugin.core.telephone import TelephoneNumber, UriIdentity
from shaken_plugin.errors import NumberError

_PARTIES: Final = ("orig", "dest", "routed_by", "diverting", "substituted_for")
_KEPT: Final = ("call_id", "node", "origid", "signature_sha256", "x5u", "source")
"""Texts whose digits are no telephone numbers."""

_LONG_NUMBER: Final = re.compile(
    r"(?P<kept>(?<!\d)(?:[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?"
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3})(?![.\-]?\d))"
    r"|\d{7,}|\d(?:[\s().\-/]{0,3}\d){9,}"
)
"""Seven digits of any script and more; ten, as people write them apart; but no dates, addresses or document ids."""


def masked(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the telephone numbers in it masked."""
    return {name: value if name in _KEPT else _masked(name, value) for name, value in record.items()}


def masked_text(text: str) -> str:
    """A text with the telephone numbers in it masked."""
    return _LONG_NUMBER.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    if found["kept"]:
        return found.group()
    digits = "".join(str(unicodedata.digit(one)) for one in found.group() if one.isdecimal())
    return TelephoneNumber(digits[:32]).masked


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_masked("orig" if name == "diversions" else name, one) for one in value]
    if isinstance(value, dict):
        return {inner: _masked(inner, one) for inner, one in value.items()}
    if not isinstance(value, str):
        return value
    if name in _PARTIES:
        try:
            return UriIdentity(value).masked if ":" in value else TelephoneNumber(value).masked
        except NumberError:
            return "***"
    return masked_text(value)
