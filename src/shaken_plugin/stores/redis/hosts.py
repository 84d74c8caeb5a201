"""What each host of a fleet says of itself, for whoever runs it: `shaken fleet`, alarms.

One hash in Redis, an entry for each host, with the time by Redis' own clock: those of the hosts may differ. An entry
stays when a host goes; somebody has to say that it is gone for good.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LAG: Final = 10.0
"""Seconds after which a host counts as lagging: that it says nothing, or does not know its copy to be whole."""

MAX_REPORT: Final = 16_384
"""Octets that a report may have."""

MAX_HOSTS: Final = 1_000
"""Hosts that are read."""

_REPORT: Final = """
local now = redis.call('TIME')[1]
local before = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
return {now, before, redis.call('HGETALL', KEYS[1])}
"""

_READ: Final = "return {redis.call('TIME')[1], false, redis.call('HGETALL', KEYS[1])}"

Text = Annotated[str, Field(max_length=500)]
Count = Annotated[int, Field(ge=0, le=2**63)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Said(BaseModel):
    """An alarm that was raised."""

    model_config = ConfigDict(frozen=True)

    at: float
    name: Text
    about: Text = ""
    text: Text


class HostStatus(BaseModel):
    """What a host says of itself; a host of a neighbouring release may say more, or less."""

    model_config = ConfigDict(frozen=True)

    host: Text = Field(default_factory=platform.node)
    """Its name in the fleet."""
    agent: Text = ""
    """Version of its agent."""
    instance: Text = ""
    """A different one for each start of an agent."""
    up: Number = 0.0
    """Seconds since that."""
    file_schema: Count | None = None
    """Schema of its local file."""
    redis_schema: Count | None = None
    """Newest schema of Redis that it knows."""
    version: Count | None = None
    """Version of the policy that it decides by; none: it has no policy yet."""
    head: Count | None = None
    """Version of the fleet's policy, as far as it knows; none: a host on its own, or it has not heard of Redis yet."""
    age: Number | None = None
    """Seconds since its copy was known to be the head; none: that is not known."""
    breaker_open: bool = False
    """Whether it does without Redis now."""
    calls_per_second: Number | None = None
    """Records of calls that its agent collected, in the last seconds; none: they are not kept."""
    errors: tuple[Said, ...] = Field(default=(), max_length=16)
    """The last alarms, newest first."""
    time: float = 0.0
    """POSIX seconds by its own clock."""
    parts: dict[str, Any] = {}
    """What other parts of the agent say, for instance of slots."""


class Host(NamedTuple):
    """A host as the others see it."""

    name: str
    silent: float
    """Seconds since it reported, by Redis' clock."""
    status: HostStatus | None
    """None where it is not readable."""

    def lag(self, head: int | None) -> str | None:
        """Why it counts as lagging, None where it does not.

        Args:
            head: version of the fleet's policy.
        """
        if self.status is None:
            return "what it says of itself cannot be read; it may be of another release"
        version = "no version" if self.status.version is None else f"version {self.status.version}"
        if self.silent > LAG:
            return f"says nothing for {self.silent:.0f} s: its agent is down or cut off; it decides by {version}"
        if self.status.age is None:
            if self.status.up <= LAG:
                return None  # it is joining
            return "has no copy of the policy that is known to be whole: it is joining, or its agent says why not"
        if self.status.age > LAG:
            ahead = "" if head is None else f" of {head}"
            return f"is at {version}{ahead}, and for {self.status.age:.0f} s does not know it to be whole"
        return None


class Hosts(NamedTuple):
    """All hosts of a fleet, by name."""

    found: tuple[Host, ...]
    before: Host | None
    """What stood in the place of the report that was made."""


class Place(Protocol):
    """Where a fleet's keys are: a `FleetLog`. Raises StoreUnavailable, StoreError."""

    def command(self, *words: Any) -> Any:
        """The answer to a command."""

    def run(self, script: str, names: Iterable[str], *arguments: Any) -> Any:
        """What a script gives that works on keys of this fleet."""

    def key(self, name: str) -> str:
        """The key of a name."""


class HostTable:
    """The hosts of a fleet."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def report(self, status: HostStatus) -> Hosts:
        """Say how a host is, and read what all say.

        Raises:
            StoreUnavailable: Redis cannot be had.
            StoreError: it does not take the report.
        """
        return self._run(_REPORT, status.host, status.model_dump_json(exclude_defaults=True))

    def read(self) -> Hosts:
        """Read what all say; raises as `report` does."""
        return self._run(_READ)

    def forget(self, name: str) -> bool:
        """Forget a host that is gone for good; whether it was there. Raises as `report` does."""
        return bool(self._place.command("HDEL", self._place.key("hosts"), name))

    def _run(self, script: str, *arguments: str) -> Hosts:
        now, before, pairs = self._place.run(script, ("hosts",), *arguments)
        if isinstance(pairs, Mapping):
            pairs = [part for pair in pairs.items() for part in pair]
        at = _seconds(now)
        names, bodies = pairs[: 2 * MAX_HOSTS : 2], pairs[1 : 2 * MAX_HOSTS : 2]
        found = (_host(_text(name), body, at) for name, body in zip(names, bodies, strict=True))
        return Hosts(tuple(sorted(found)), _host(arguments[0], before, at) if before else None)


def _host(name: str, report: bytes | str, now: float) -> Host:
    text = _text(report)
    at, _, body = text.partition(" ")
    if len(body) > MAX_REPORT:
        return Host(name, max(0.0, now - _seconds(at)), None)
    try:
        status = HostStatus.model_validate_json(body)
    except ValidationError:
        return Host(name, max(0.0, now - _seconds(at)), None)
    # By the name that it stands under: what it says itself may be another's, and is missing where it was a default.
    return Host(name, max(0.0, now - _seconds(at)), status.model_copy(update={"host": name}))


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _seconds(value: bytes | str) -> float:
    text = _text(value)
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0.0
