"""A decision about a customer told to the other hosts of a fleet, by the command where it can, else by the agent."""

from __future__ import annotations

from typing import Any, NamedTuple

from shaken_plugin.config.sections import Settings
from shaken_plugin.errors import StoreError, StoreUnavailable


class Told(NamedTuple):
    """Whether the other hosts know. ``fleet`` is None on a host of its own."""

    fleet: str | None = None
    told: bool = False
    why_not: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return self._asdict()

    @property
    def text(self) -> str | None:
        """For people; None where there is nothing to say."""
        if self.fleet is None:
            return None
        if self.told:
            return f"the other hosts of fleet {self.fleet} were told; it decides calls there within a second"
        return f"the other hosts of fleet {self.fleet} are not told yet: {self.why_not}; the agent of this host will"


def tell(settings: Settings) -> Told:
    """Tell the other hosts of the fleet what was decided here, and take over what they decided."""
    if settings.store.redis is None:
        return Told()
    from shaken_plugin.runtime.fleetstate import tell_fleet  # noqa: PLC0415  # redis loads for 0.1 s

    fleet = settings.store.redis.fleet
    try:
        if tell_fleet(settings) is None:
            return Told(fleet, why_not="the agent has not joined it yet")
    except (StoreUnavailable, StoreError) as exc:
        return Told(fleet, why_not=str(exc))
    return Told(fleet, told=True)
