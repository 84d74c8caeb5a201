"""The verifying half of a `Switch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from shaken_plugin.core.call import CallerHeader, CallMessage, is_callback
from shaken_plugin.core.reason import reasons
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.core.verification import Result, Verdict
from shaken_plugin.core.verification.usual import Usual
from shaken_plugin.core.verstat import asserted_from, asserted_from_number, mark_asserted, mark_from, mark_single
from shaken_plugin.errors import FailureCode
from shaken_plugin.records.usual import Verified
from shaken_plugin.switch.actions import (
    Action,
    AddHeader,
    Outcome,
    Reject,
    RemoveHeader,
    StripVerstat,
    strip_foreign,
    verdict_variables,
)
from shaken_plugin.switch.faults import Guard
from shaken_plugin.switch.passing import Passing
from shaken_plugin.switch.waiting import Held, WaitingRoom
from shaken_plugin.verification import VerificationService, Waiting

_BY_NETWORK, _BY_CALLER = CallerHeader.ASSERTED, CallerHeader.FROM  # each look into an Enum costs a search
_ASSERTED: Final = CallerHeader.ASSERTED.value
_REMOVE_ASSERTED: Final = RemoveHeader(_ASSERTED)


class VerifyingGuard(Guard):
    """Calls that come: verified, held meanwhile, marked or rejected."""

    room: WaitingRoom | None = None
    """Places for calls that wait; without it none waits."""
    _passing: Passing | None = None

    @property
    def verifies_actively(self) -> bool:
        """Whether verifying may change what goes over the wire."""
        return self.services.verification is not None and self.services.settings.verification.mode == "active"

    def verify(
        self,
        read: Callable[[], CallMessage],
        *,
        may_wait: bool = False,
        waited: str = "",
        in_place: bool = False,
        call_id: Callable[[], str] | None = None,
    ) -> Outcome:
        """Verify one incoming call.

        Args:
            read: reads the call; what it raises is a fault like any other.
            may_wait: the adapter is able to hold the call.
            waited: of a call that was held, the variable ``waiting``; then this may take up to
                ``verification.wait`` seconds.
            in_place: the call has a thread of its own, which this may block up to ``verification.wait``
                seconds; for switches whose calls are threads. ``Outcome.wait`` is never set then.
            call_id: reads its Call-ID alone, for the record of a call that could not be read.

        Returns:
            Variables ``verstat``, ``result``, ``code``, ``attest``, ``origid``, ``spc``, ``orig``,
            ``status``, ``reason``; the actions that mark the call; an answer where the policy
            rejects it. For a request inside a dialog only foreign verstat is taken out.
        """
        service = self.services.verification
        if service is None:
            return Outcome({"code": "verification_off"})
        message: CallMessage | None = None
        try:
            now = self._clock()
            message = read()
            found = None if waited else self._usually_verified(service, message, now)
            if isinstance(found, Outcome):
                return found
            return self._verified(service, message, found, waited, may_wait=may_wait, in_place=in_place, now=now)
        except BaseException as exc:  # nothing of ours may drop a call
            if message is None:
                self._record_unread("verify", call_id)
            return self._fault("verify", exc, message)

    def _verified(
        self,
        service: VerificationService,
        message: CallMessage,
        found: Verdict | Waiting | None,
        waited: str,
        *,
        may_wait: bool,
        in_place: bool,
        now: float,
    ) -> Outcome:
        """The same of any call, of which ``found`` is known already."""
        settings = self.services.settings.verification
        active = settings.mode == "active"
        if not message.is_initial_invite:
            return Outcome({}, strip_foreign(message) if active else ())
        emergency = is_callback(message.priority) or message.target(self.services.plan).emergency
        patient = active and not emergency
        verdict = self._verdict(
            service, message, now, waited, found, may_wait=may_wait and patient, in_place=in_place and patient
        )
        if isinstance(verdict, Held):
            return Outcome({"waiting": str(verdict)}, wait=True)
        self._warn_of_anchors(service, now)
        verstat = verdict.verstat(settings.verstat, level=settings.verstat_level)
        reject = None if emergency or not active else self._rejection(verdict)
        self._reports.verification(
            message,
            verdict,
            verstat,
            self.services.settings,
            emergency=emergency,
            rejected=reject is not None,
            now=now,
        )
        variables = verdict_variables(verdict, verstat)
        if active and settings.reason and (values := reasons(verdict)):
            variables["reason"] = ", ".join(values)
        actions = self._mark(message, verdict, verstat) if active and reject is None else ()
        self._record(
            lambda: Verified(
                message,
                verdict,
                verstat,
                self.services.plan,
                now,
                observe=not active,
                emergency=emergency,
                rejected=reject is not None,
            ),
            now,
        )
        return Outcome(variables, actions, reject)

    def _usually_verified(
        self, service: VerificationService, message: CallMessage, now: float
    ) -> Outcome | Verdict | Waiting | None:
        """What becomes of a usual call that passes, all of it said; of any other its verdict, if that was asked for."""
        passing = self._passing
        if passing is None or passing.services is not self.services:
            passing = self._passing = Passing(self.services)
        if not passing.takes(message):
            return None
        found = service.usually(message, now)
        if not isinstance(found, Usual):
            return found or service.at_length(message, now)
        if (told := passing.told(found, message, now)) is None:
            return found.judged(True)
        line, record, outcome = told
        self._warn_of_anchors(service, now)
        self._reports.usual_verification(line)
        self._keep(record, now)
        return outcome

    def _warn_of_anchors(self, service: VerificationService, now: float) -> None:
        if trouble := service.anchors.trouble:
            self._reports.warn("anchors_unusable", f"shaken: {'; '.join(trouble)}", now)

    def release(self, waiting: str) -> None:
        """Free the place of a call that could not be held after all (its variable ``waiting``)."""
        held = Held.parse(waiting)
        if held is not None and self.room is not None:
            self.room.leave(held.place)

    def _verdict(
        self,
        service: VerificationService,
        message: CallMessage,
        now: float,
        waited: str,
        found: Verdict | Waiting | None,
        *,
        may_wait: bool,
        in_place: bool,
    ) -> Verdict | Held:
        held = Held.parse(waited)
        if held is not None:
            return self._verdict_of_held(service, message, now, held)
        outcome = found or service.begin(message, now)
        if not isinstance(outcome, Waiting):
            return outcome
        if (may_wait or in_place) and (place := self._place(now)) is not None:
            held = Held(place, now)
            return self._verdict_of_held(service, message, now, held) if in_place else held
        self._fetch(outcome.missing, 0.0)  # for the next call of this signer
        return outcome.verdict

    def _verdict_of_held(self, service: VerificationService, message: CallMessage, now: float, held: Held) -> Verdict:
        """Wait for what is fetched, as long as is left; the call is judged by the time it came."""
        try:
            outcome = service.begin(message, held.arrived)
            if not isinstance(outcome, Waiting):
                return outcome
            left = held.arrived + self.services.settings.verification.wait - now
            if left <= 0:
                self.warn(
                    "waited_for_a_worker",
                    "shaken: a held call waited for a worker of its task group until its time was up; give the "
                    "group as many workers as verification.max_waiting",
                )
                return outcome.verdict
            self._fetch(outcome.missing, left)
            return service.verify(message, held.arrived)
        finally:
            self.release(str(held))

    def _place(self, now: float) -> int | None:
        settings = self.services.settings.verification
        if self.room is None or self.services.fetcher is None or settings.wait <= 0:
            return None
        # A second more than the wait: who is late is still among the waiting.
        place = self.room.enter(settings.max_waiting, now + settings.wait + 1.0, now)
        if place is None:
            self._reports.count("waiting_full")
        return place

    def _fetch(self, urls: Sequence[str], timeout: float) -> None:
        if self.services.fetcher is not None:
            self.services.fetcher.fetch(urls, timeout)

    def _rejection(self, verdict: Verdict) -> Reject | None:
        failure = verdict.failure
        # Neither who withholds the number nor who meets trouble of ours has done wrong.
        if failure is None or failure is FailureCode.CALLER_ANONYMOUS or failure.is_ours:
            return None
        if failure.value.status not in self.services.settings.verification.reject:
            return None
        values = reasons(verdict) if self.services.settings.verification.reason else []
        return Reject(failure.value.status, failure.value.phrase, tuple(values))

    def _mark(self, message: CallMessage, verdict: Verdict, verstat: str) -> tuple[Action, ...]:
        """Foreign verstat out, ours in."""
        settings = self.services.settings.verification
        plan = self.services.plan
        actions = list(strip_foreign(message, without=_BY_NETWORK))
        from_line = message.callers.get(_BY_CALLER, ("",))[0]
        if lines := message.callers.get(_BY_NETWORK, ()):
            actions.append(_REMOVE_ASSERTED)
            actions += [AddHeader(_ASSERTED, value) for value in self._asserted(message, lines, verdict, verstat)]
        elif settings.add_asserted:
            value = asserted_from_number(from_line, verstat) if _names_signed_number(message, verdict) else None
            if value := value or asserted_from(from_line, verstat, plan):
                actions.append(AddHeader(_ASSERTED, value))
        if settings.mark_from and (marked := mark_from(from_line, verstat, plan)):
            # Instead of stripping in place: the same header cannot be edited twice.
            actions = [action for action in actions if action != StripVerstat(CallerHeader.FROM.value)]
            actions += [RemoveHeader(CallerHeader.FROM.value), AddHeader(CallerHeader.FROM.value, marked)]
        return tuple(actions)

    def _asserted(self, message: CallMessage, lines: tuple[str, ...], verdict: Verdict, verstat: str) -> list[str]:
        """The values of P-Asserted-Identity, which came with these lines, with our verstat."""
        plan = self.services.plan
        parties = [caller.party for caller in message.callers_in(CallerHeader.ASSERTED, plan)]
        if not parties and self.services.settings.verification.add_asserted:
            from_line = message.callers.get(CallerHeader.FROM, ("",))[0]
            if value := asserted_from(from_line, verstat, plan):
                return [value]
        values = None
        if len(lines) == 1 and len(parties) == 1 and isinstance(parties[0], TelephoneNumber):
            values = mark_single(lines[0], verstat)
        verified = verdict.decisive.orig if verdict.decisive else None
        return values or mark_asserted(lines, verified, verstat, plan)


def _names_signed_number(message: CallMessage, verdict: Verdict) -> bool:
    """Whether From names a telephone number, as is known of a call without P-Asserted-Identity that passed by one."""
    if verdict.result is not Result.PASSED or len(message.callers.get(_BY_CALLER, ())) != 1:
        return False
    return verdict.decisive is not None and isinstance(verdict.decisive.orig, TelephoneNumber)
