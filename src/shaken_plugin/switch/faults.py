"""What both halves of a `Switch` stand on: warnings, the records of calls, and faults that no call is lost by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from shaken_plugin.core.call import CallMessage, is_emergency
from shaken_plugin.errors import SkipReason
from shaken_plugin.ports import Observer
from shaken_plugin.records.call import CallRecord, Kind, failed
from shaken_plugin.records.usual import Filled, FilledVerified, Signed, Verified
from shaken_plugin.runtime import Services
from shaken_plugin.switch.actions import STRIP_EVERYWHERE, Outcome, Reject, unbelievable
from shaken_plugin.switch.keeping import LeftAs
from shaken_plugin.switch.reports import Reporter

OUR_FAULT: Final = Reject(500, "Server Internal Error")
"""The answer where we and not the caller are to blame, and the declared mode is to refuse."""

_KINDS: Final[Mapping[str, Kind]] = {"sign": "sign", "verify": "verify"}


class Guard:
    """Services behind which nothing raises.

    Args:
        services: may be exchanged at any time.
        observer: the switch's log and counters.
        clock: POSIX seconds.
    """

    def __init__(self, services: Services, observer: Observer, clock: Callable[[], float]) -> None:
        self.services = services
        self._reports = Reporter(observer)
        self._clock = clock

    def warn(self, name: str, text: str) -> None:
        """Count something that an operator should mend, and say it once a minute."""
        self._reports.warn(name, text, self._clock())

    def fault(
        self,
        where: str,
        exc: BaseException,
        message: CallMessage | None = None,
        left_as: LeftAs | None = None,
    ) -> Outcome:
        """Log and count a fault in an adapter.

        Args:
            where: ``sign``, ``verify``, or another word for the log.
            exc: what happened.
            message: the call, where it could be read; without it the call goes on in any mode.
            left_as: as for `sign`.

        Returns:
            What the declared mode wants done.
        """
        outcome = self._fault(where, exc, message)
        return outcome if left_as is None else self._unjudged(outcome, left_as, message)

    def _fault(self, where: str, exc: BaseException, message: CallMessage | None) -> Outcome:
        """A fault of our own: logged without a word of the message, counted, and survived.

        What strangers wrote as verstat goes even then: who makes us stumble must not profit.
        """
        actions = STRIP_EVERYWHERE if where == "verify" and not self._observes(where) else ()
        try:
            self._reports.fault(where, exc, self._clock())
            self._record_fault(where, message)
            variables = {"skip": SkipReason.INTERNAL_ERROR.code, "code": SkipReason.INTERNAL_ERROR.code}
            if self.services.settings.on_fault != "refuse" or message is None or where not in {"sign", "verify"}:
                # Without a message there is no telling whether it is an emergency call.
                return Outcome(variables, actions)
            if not message.is_initial_invite or self._observes(where):
                return Outcome(variables, actions)
            if is_emergency(message.request_uri, message.to, message.priority, self.services.plan):
                return Outcome(variables, actions)
            return Outcome(variables, (), OUR_FAULT)
        except BaseException:
            return Outcome({}, actions)

    def _observes(self, where: str) -> bool:
        settings = self.services.settings
        return (settings.signing if where == "sign" else settings.verification).mode == "observe"

    def _unjudged(self, outcome: Outcome, left_as: LeftAs, message: CallMessage | None) -> Outcome:
        """What is decided with nobody's word on who calls: a call goes on with the number it has left with."""
        with suppress(BaseException):
            if message is not None and is_emergency(
                message.request_uri, message.to, message.priority, self.services.plan
            ):
                return outcome
        drop = unbelievable(message) if message is not None else ""
        return replace(outcome, variables={**outcome.variables, "substitute": left_as.number, "drop": drop})

    def _record(self, make: Callable[[], CallRecord | Signed | Filled | FilledVerified | Verified], now: float) -> None:
        """Write the record of a call; whatever hinders that, the call goes on as it was decided."""
        if self.services.records is None:
            return
        try:
            record = make()
        except BaseException as exc:
            self._unrecorded(exc, now)
        else:
            self._keep(record, now)

    def _keep(self, record: CallRecord | Signed | Filled | FilledVerified | Verified, now: float) -> None:
        """The same of a record that is made."""
        if (records := self.services.records) is None:
            return
        try:
            if trouble := records.write(record):
                self.warn("record_lost", f"shaken: the record of a call could not be written: {trouble}")
        except BaseException as exc:
            self._unrecorded(exc, now)

    def _unrecorded(self, exc: BaseException, now: float) -> None:
        with suppress(BaseException):
            self._reports.fault("record", exc, now)
            self.warn("record_lost", "shaken: the record of a call could not be written: see the fault")

    def _record_unread(self, where: str, call_id: Callable[[], str] | None) -> None:
        """Of a call that could not be read there is its Call-ID, or at least a count."""
        if self.services.records is None:
            return
        name = ""
        with suppress(BaseException):  # it may be what failed
            name = call_id() if call_id is not None else ""
        with suppress(BaseException):
            if name:
                self._record_fault(where, CallMessage("INVITE", "", "", {}, call_id=name))
            else:
                self.warn("record_lost", "shaken: a call that could not be read left no record")

    def _record_fault(self, where: str, message: CallMessage | None) -> None:
        """Of a call that was to be signed or verified, and that we stumbled over."""
        if message is None or where not in _KINDS or not message.is_initial_invite:
            return
        now, kind, call = self._clock(), _KINDS[where], message
        code, observe = SkipReason.INTERNAL_ERROR.code, self._observes(where)
        self._record(lambda: failed(kind, call, code, self.services.plan, now, observe=observe), now)
