"""The services of one process behind a guard: nothing here raises, whatever stands in a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shaken_plugin.core.reason import about_ours, split_reasons
from shaken_plugin.ports import Observer
from shaken_plugin.runtime import Services
from shaken_plugin.switch.signing import SigningGuard
from shaken_plugin.switch.verifying import VerifyingGuard
from shaken_plugin.switch.waiting import WaitingRoom


class Switch(SigningGuard, VerifyingGuard):
    """The services of one process behind a guard.

    Args:
        services: from `runtime`; may be exchanged at any time (``switch.services = …``).
        observer: the switch's log and counters.
        clock: POSIX seconds, ``time.time`` in a switch.
        new_uuid: a fresh random UUID as text.
        room: places for calls that wait; without it none waits.
    """

    def __init__(
        self,
        services: Services,
        observer: Observer,
        clock: Callable[[], float],
        new_uuid: Callable[[], str],
        room: WaitingRoom | None = None,
    ) -> None:
        super().__init__(services, observer, clock, new_uuid)
        self.room = room

    def reply_reasons(self, lines: Iterable[str], ours: str | None, add: str | None) -> list[str] | None:
        """The Reason values a reply should carry on its way to the caller.

        Args:
            lines: its Reason header lines.
            ours: the PASSporTs we added to the request, in compact form, with commas between
                them; None if we added none.
            add: values to report about the PASSporTs that came to us (variable ``reason``).

        Returns:
            The values, or None to leave the reply as it is.
        """
        try:
            values = list(split_reasons(lines))
            tokens = ours.split(",") if ours else ()
            kept = [value for value in values if not about_ours(value, tokens)]
            if len(kept) < len(values):
                told = [value for value in values if value not in kept]
                self._reports.told(told, self.services.settings, self._clock())
            if add:
                kept.append(add)
            return None if kept == values else kept
        except BaseException as exc:
            self._fault("reply", exc, None)
            return None
