"""The part of the settings about calls over their customer's limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shaken_plugin.config.fields import Phrase, RefusalStatus
from shaken_plugin.config.models import Section


class LimitsSettings(Section):
    """Calls per second and concurrent calls of customers, which 'shaken limits' bounds; the agent counts them."""

    mode: Literal["enforce", "report", "off"] = "enforce"
    """What becomes of a call over a limit. enforce: it is refused; report: it is marked and goes on; off: no
    call is counted."""
    when_unavailable: Literal["allow", "refuse"] = "allow"
    """What becomes of calls of customers with limits while the agent does not count, or not within 50 ms."""
    status: RefusalStatus = 480
    """Status of the answer, 400 to 599. By 503 some peers take all of this switch to be overloaded."""
    phrase: Phrase = "Call Limit Reached"
    """Reason phrase of that answer."""
    retry_after: Annotated[int, Field(ge=0, le=3600)] = 0
    """Seconds for a Retry-After header; 0: none is sent. A peer that gets one with a 503 sends nothing at all
    so long (RFC 3261 §21.5.4), emergency calls and other customers' calls included."""
