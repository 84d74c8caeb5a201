"""Records as a policy file writes them: plain values, what says nothing left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from shaken_plugin.config.fields import moment_text
from shaken_plugin.config.policyvalues import DAYS
from shaken_plugin.core.records import Limits, Record, TimeWindow, Trunk

Plain = dict[str, Any]
"""Texts, numbers, truth values, lists and mappings of them."""

_NUMBERS = frozenset({"number", "substitute", "destinations", "callers"})
"""Fields that hold canonical numbers, or beginnings of them."""
_MOMENTS = frozenset({"valid_from", "valid_until", "review_at", "reviewed_at", "approved_at", "rmd_checked_at"})


def plain(record: Record) -> Plain:
    """A record as its section of a policy file, without its numbers; a trunk without its customer."""
    return _section(record, without="customer" if isinstance(record, Trunk) else None)


def _section(value: Any, without: str | None = None) -> Plain:
    return {
        field.name: _value(field.name, content)
        for field in dataclasses.fields(value)
        if field.name != without and (content := getattr(value, field.name)) != field.default
    }


def _value(name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(name, item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        write = _SECTIONS.get(type(value), _section)
        return write(value)
    return _scalar(name, value)


def _scalar(name: str, value: Any) -> Any:
    if name in _MOMENTS:
        return moment_text(value, last=name == "valid_until")
    if name in _NUMBERS:
        return f"+{value}"
    return value if isinstance(value, bool | int | float) else str(value)


def _limits(limits: Limits) -> Plain:
    levels = {level.value: _section(rate) for level, rate in limits.by_level}
    suspended = {"suspended": True} if limits.suspended else {}
    return _section(limits.total) | ({"by_level": levels} if levels else {}) | suspended


def _window(window: TimeWindow) -> Plain:
    offset = abs(window.utc_offset)
    return {
        "days": [DAYS[day] for day in window.days],
        "begins": _clock(window.begins),
        "ends": _clock(window.ends),
        "utc_offset": f"{'-' if window.utc_offset < 0 else '+'}{_clock(offset)}",
    }


_SECTIONS: Mapping[type, Callable[[Any], Plain]] = {TimeWindow: _window, Limits: _limits}
"""Those that a file writes otherwise than the record is."""


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values with dotted names: ``rules.ceiling``."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
