"""Types of single values in the files of the operator: their form, and what is said where it is wrong."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.config.models import Matching
from shaken_plugin.errors import FailureCode


def moment(value: object) -> object:
    """POSIX seconds from ISO 8601 text, UTC unless it says otherwise; other types as they are."""
    if not isinstance(value, str):
        return value
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("not a time such as 2026-12-31 or 2026-12-31T08:00:00-05:00") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _country(value: str) -> str:
    dial_plan(value)
    return value


def _uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("not a UUID such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8") from None


Country = Annotated[str, AfterValidator(_country)]
Reference = Annotated[
    str,
    # Not "-----": who writes the key itself behind "file:" shall not read it in an error.
    Matching(
        r"(file:(?!.*-----).+|env:[A-Za-z_][A-Za-z0-9_]*)",
        "a key or certificate is given by reference: file:PATH or env:NAME",
    ),
]
Digits = Annotated[
    str,
    Matching(r"\+?[0-9]{1,15}", "not digits, with or without +"),
    AfterValidator(lambda value: value.removeprefix("+")),
]
Url = Annotated[str, Matching(r"[\x21-\x7e]{1,1024}", "not a URL")]
Spc = Annotated[str, Matching(r"[0-9A-Z]{1,16}", "not a Service Provider Code: digits and capital letters")]
Phrase = Annotated[
    str, Matching(r"[A-Za-z0-9 .,'-]{1,60}", "not a reason phrase: letters, digits, space, . , ' - and at most 60")
]
UuidText = Annotated[str, AfterValidator(_uuid)]
Seconds = Annotated[int, Field(ge=1, le=3600)]
DaySeconds = Annotated[int, Field(ge=1, le=86_400)]
Moment = Annotated[float, BeforeValidator(moment), WithJsonSchema({"type": ["string", "number"]})]
Mode = Literal["active", "observe", "off"]

STIR_STATUSES: Final = tuple(sorted({code.value.status for code in FailureCode}))
"""Statuses by which a verification service may answer a call (RFC 8224 §6.2.2)."""


def _stir_status(value: int) -> int:
    if value not in STIR_STATUSES:
        raise ValueError(f"not one of {', '.join(map(str, STIR_STATUSES))}")
    return value


StirStatus = Annotated[int, AfterValidator(_stir_status), Field(json_schema_extra={"enum": list(STIR_STATUSES)})]
