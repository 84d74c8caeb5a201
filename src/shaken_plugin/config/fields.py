"""Types of single values in the files of the operator: their form, and what is said where it is wrong."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.config.models import Matching
from shaken_plugin.errors import FailureCode

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LATEST: Final = 253_402_300_800.0
"""POSIX seconds at which the year 10000 begins; the last day of the year before ends there."""
_SECONDS_OF_DAY: Final = 86_400
_EXACTLY: Final = Context(prec=400)
"""Digits enough for any float."""
_FRACTION = re.compile(r"([.,])([0-9]+)")


def moment(value: object) -> object:
    """POSIX seconds from ISO 8601 text, UTC unless it says otherwise; other types as they are.

    Fractions of a second are exact, however many digits they have: `moment_text` gives as many as it takes.
    """
    if not isinstance(value, str):
        return value
    fraction = _FRACTION.search(value)
    whole = value if fraction is None else value.replace(fraction[0], "", 1)
    try:
        parsed = datetime.fromisoformat(whole)
        if fraction is not None:
            datetime.fromisoformat(value)  # whether it may stand where it does
    except ValueError:
        raise ValueError("not a time such as 2026-12-31 or 2026-12-31T08:00:00-05:00") from None
    seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if not _EARLIEST <= seconds < _LATEST:
        raise ValueError("not a time between the years 1 and 9999 UTC")
    return seconds if fraction is None else float(_EXACTLY.add(Decimal(seconds), Decimal(f"0.{fraction[2]}")))


def last_moment(value: object) -> object:
    """Likewise; of a day its end."""
    parsed = moment(value)
    is_day = isinstance(value, str) and _is_day(value)
    return parsed + _SECONDS_OF_DAY if is_day and isinstance(parsed, float) else parsed


def _is_day(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def moment_text(seconds: float, *, last: bool = False) -> str:
    """What `moment` reads as exactly these POSIX seconds, `last_moment` with ``last``: a day where it is one."""
    if seconds % _SECONDS_OF_DAY == 0:
        return _datetime(seconds - _SECONDS_OF_DAY * last).date().isoformat()
    exact = Decimal(repr(seconds))
    whole = exact.to_integral_value(ROUND_FLOOR)
    fraction = f"{_EXACTLY.subtract(exact, whole):f}".partition(".")[2].rstrip("0")
    local = _datetime(int(whole)).isoformat(timespec="seconds").removesuffix("+00:00")
    return f"{local}{fraction and '.'}{fraction}+00:00"


def _datetime(seconds: float) -> datetime:
    """Without the bounds of the C library's calendar."""
    return _EPOCH + timedelta(seconds=seconds)


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
Host = Annotated[str, Matching(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?", "not a host, or host:port")]
Url = Annotated[str, Matching(r"[\x21-\x7e]{1,1024}", "not a URL")]
Spc = Annotated[str, Matching(r"[0-9A-Z]{1,16}", "not a Service Provider Code: digits and capital letters")]
Phrase = Annotated[
    str, Matching(r"[A-Za-z0-9 .,'-]{1,60}", "not a reason phrase: letters, digits, space, . , ' - and at most 60")
]
UuidText = Annotated[str, AfterValidator(_uuid)]
Seconds = Annotated[int, Field(ge=1, le=3600)]
DaySeconds = Annotated[int, Field(ge=1, le=86_400)]
Moment = Annotated[float, BeforeValidator(moment), WithJsonSchema({"type": ["string", "number"]})]
LastMoment = Annotated[float, BeforeValidator(last_moment), WithJsonSchema({"type": ["string", "number"]})]
Mode = Literal["active", "observe", "off"]

STIR_STATUSES: Final = tuple(sorted({code.value.status for code in FailureCode}))
"""Statuses by which a verification service may answer a call (RFC 8224 §6.2.2)."""


def _stir_status(value: int) -> int:
    if value not in STIR_STATUSES:
        raise ValueError(f"not one of {', '.join(map(str, STIR_STATUSES))}")
    return value


StirStatus = Annotated[int, AfterValidator(_stir_status), Field(json_schema_extra={"enum": list(STIR_STATUSES)})]


def _refusal_status(value: object) -> object:
    if str(value) == "603":
        # 47 CFR 64.1200(k): since 25 March 2026 the code by which analytics block calls, and for nothing else.
        raise ValueError("603 tells the caller that analytics blocked the call (603+, ATIS-1000099); use 403")
    return value


RefusalStatus = Annotated[int, Field(ge=400, le=599), BeforeValidator(_refusal_status)]
"""Status by which a call is refused on account of the records."""
