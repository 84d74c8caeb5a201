"""What the size guard remembers, counts and says: over-size calls by trunk, and peers that take TCP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from shaken_plugin.config.sections import SizeSettings
from shaken_plugin.switch.marks import Marks
from shaken_plugin.switch.reports import Reporter
from shaken_plugin.switch.size import SizeAction, SizeAdvice, SizeOutcome, advise

TCP_HOLDS: Final = 60.0
"""Seconds since its last answer by TCP for which a peer is believed to take it."""

TCP_TRIED: Final = 600.0
"""Seconds after a try by TCP that was not answered before the next call tries again."""

MAX_WARNED: Final = 4_096

_DONE: Final = {
    SizeOutcome.WARN: "sent by UDP all the same",
    SizeOutcome.USE_TCP: "sent by TCP, and by UDP where that fails",
    SizeOutcome.TCP_REFUSED: "sent by UDP, because the peer did not answer by TCP of late or UDP was asked for",
    SizeOutcome.SHORTEN: "sent without",
    SizeOutcome.SHORTEN_NOT_ENOUGH: "sent by UDP as it was, because its shortest form would be too large, too",
}


class SizeGuard:
    """Judges sizes; counts every INVITE that is too large, and warns of it once per trunk and outcome.

    A peer is tried by TCP by one call at a time: it counts as refusing until it has answered.
    Whatever else fails, so at most one call in `TCP_TRIED` seconds meets a peer without TCP.

    Args:
        reports: the switch's log and counters.
        clock: POSIX seconds.
    """

    def __init__(self, reports: Reporter, clock: Callable[[], float]) -> None:
        self._reports = reports
        self._clock = clock
        self._marks = Marks()
        self._warned: set[tuple[SizeOutcome, str]] = set()
        """What this process knows to have been said, without looking at what all of them share."""

    def check(
        self,
        variables: Mapping[str, str],
        size_without: int,
        settings: SizeSettings,
        peer: str | None,
        *,
        may_switch: bool,
    ) -> SizeAdvice:
        """See `Switch.check_size`; for what leaves by UDP."""
        advice = advise(
            variables,
            size_without,
            settings.threshold,
            SizeAction(settings.action),
            takes_tcp=lambda: may_switch and self._takes_tcp(peer),
        )
        if advice.outcome is SizeOutcome.FITS:
            return advice
        self._reports.count(advice.outcome.value)
        source = variables.get("source") or "an unknown source"
        if (advice.outcome, source) in self._warned:
            return advice
        if len(self._warned) < MAX_WARNED:
            self._warned.add((advice.outcome, source))
        key = f"warned {advice.outcome.value} {source}"
        if not self._marks.until(key):
            self._marks.mark(key, math.inf)
            self._reports.say(
                f"shaken: an INVITE of {source} has about {advice.size} bytes with our Identity header, more than the "
                f"{settings.threshold} of signing.size.threshold for UDP: {_DONE[advice.outcome]}"
                f"{f' {advice.done}' if advice.done else ''}. Packets beyond the path MTU are fragmented, and often "
                f"lost: use TCP to this peer or a shorter x5u. Said once for {source}; each one counts as "
                f"{advice.outcome.value}"
            )
        return advice

    def tcp_answered(self, peer: str) -> None:
        """A peer answered what was sent by TCP: believed for `TCP_HOLDS` seconds."""
        self._marks.mark(f"takes {peer}", self._clock() + TCP_HOLDS)

    def tcp_failed(self, peer: str) -> None:
        """A peer did not answer by TCP, and the call goes by UDP: counted, warned of, remembered."""
        now = self._clock()
        self._marks.mark(f"takes {peer}", 0.0)
        self._marks.mark(f"tried {peer}", now + TCP_TRIED)
        self._reports.warn(
            "size_tcp_failed",
            "shaken: a call that is too large for UDP was sent by TCP and not answered, and goes by UDP now; "
            "see that the peer and this switch listen on TCP, or set signing.size.action to warn",
            now,
        )

    def _takes_tcp(self, peer: str | None) -> bool:
        now = self._clock()
        if peer is None or self._marks.until(f"takes {peer}") > now:
            return True
        tried = f"tried {peer}"
        if self._marks.until(tried) > now:
            return False
        self._marks.mark(tried, now + TCP_TRIED)
        return True
