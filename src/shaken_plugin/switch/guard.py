"""The services of one process behind a guard: nothing here raises, whatever stands in a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from shaken_plugin.core.call import CallerHeader, CallMessage, is_emergency
from shaken_plugin.core.reason import about_ours, reasons, split_reasons
from shaken_plugin.core.verification import Verdict
from shaken_plugin.core.verstat import asserted_from, mark_asserted, mark_from
from shaken_plugin.errors import FailureCode, SkipReason, StoreUnavailable
from shaken_plugin.ports import Observer
from shaken_plugin.runtime import Services
from shaken_plugin.switch.actions import (
    STRIP_EVERYWHERE,
    Action,
    AddHeader,
    Outcome,
    Reject,
    RemoveHeader,
    StripVerstat,
    signing_variables,
    strip_foreign,
    verdict_variables,
)
from shaken_plugin.switch.reports import Reporter
from shaken_plugin.switch.size import SizeAdvice, SizeOutcome
from shaken_plugin.switch.sizeguard import SizeGuard
from shaken_plugin.switch.waiting import Held, WaitingRoom
from shaken_plugin.verification import VerificationService, Waiting

_OUR_FAULT: Final = Reject(500, "Server Internal Error")
"""The answer where we and not the caller are to blame, and the declared mode is to refuse."""


class Switch:
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
        self.services = services
        self.room = room
        self._reports = Reporter(observer)
        self.sizes = SizeGuard(self._reports, clock)
        self._clock = clock
        self._new_uuid = new_uuid

    # --- Signing ------------------------------------------------------------------------------

    def sign(self, read: Callable[[], CallMessage], *, again: bool = False) -> Outcome:
        """Decide and sign one outgoing call.

        Args:
            read: reads the call; what it raises is a fault like any other.
            again: it was signed before and leaves once more (`needs_new_signature`).

        Returns:
            Variables ``level`` (not for a ``div``), ``ppt`` where it is signed, ``skip``,
            ``customer``, ``source``, ``origid``, and for `attach`
            ``identity``, ``ppi``, ``date``, ``replace_date``, ``drop``, ``signed_at``; actions
            that take verstat out; an answer where the call is refused.
        """
        settings = self.services.settings
        service = self.services.authentication
        if service is None:
            return Outcome({"skip": SkipReason.SIGNING_OFF.code})
        message: CallMessage | None = None
        try:
            now = self._clock()
            message = read()
            signing = service.sign(message, now, self._new_uuid(), again=again)
            self._reports.signing(message, signing, settings, now)
            active = settings.signing.mode == "active"
            reject = None
            if signing.refuse and active:
                reject = Reject(settings.signing.refuse_status, settings.signing.refuse_phrase)
                if signing.skip is SkipReason.STORE_UNAVAILABLE:
                    reject = _OUR_FAULT
            # A customer's verstat is believed no more than a stranger's.
            actions = strip_foreign(message) if active and reject is None and message.is_initial_invite else ()
            return Outcome(signing_variables(signing, now, active=active), actions, reject)
        except BaseException as exc:  # nothing of ours may drop a call
            return self._fault("sign", exc, message)

    def admit(self, read: Callable[[], CallMessage]) -> Outcome:
        """Whether a call will be refused, asked before it is sent on; nothing is logged of one that will not.

        For a switch that signs each leg as it leaves, and can answer in the policy's own words
        only before that.
        """
        service = self.services.authentication
        settings = self.services.settings.signing
        if service is None or settings.mode != "active":
            return Outcome()
        message: CallMessage | None = None
        try:
            now = self._clock()
            message = read()
            if not service.refuses(message, now):
                return Outcome()
        except BaseException as exc:
            return self._fault("sign", exc, message)
        found = message
        return self.sign(lambda: found)

    @property
    def signs_actively(self) -> bool:
        """Whether signing may change what goes over the wire."""
        return self.services.authentication is not None and self.services.settings.signing.mode == "active"

    @property
    def verifies_actively(self) -> bool:
        """Whether verifying may change what goes over the wire."""
        return self.services.verification is not None and self.services.settings.verification.mode == "active"

    def needs_new_signature(self, variables: Mapping[str, str]) -> bool:
        """Whether a signature made earlier is too old for a branch that leaves now."""
        try:
            age = self._clock() - float(variables.get("signed_at", ""))
        except ValueError:
            return False
        return age > self.services.settings.signing.resign_after

    def check_size(
        self,
        variables: Mapping[str, str],
        size_without: int,
        transport: str,
        peer: str | None = None,
        *,
        may_switch: bool = True,
    ) -> SizeAdvice:
        """Whether an INVITE is too large for UDP with our headers, and what to do about it.

        Counts it, and says so once per trunk.

        Args:
            variables: those that `sign` returned.
            size_without: bytes of the INVITE as it leaves, without what `attach` adds.
            transport: by which it would leave; all but ``udp`` take any size.
            peer: where it would go, any text; by it is remembered who does not answer by TCP
                (``sizes.tcp_answered``, ``sizes.tcp_failed``). None: it may always be tried.
            may_switch: False where the operator has asked for UDP explicitly.
        """
        try:
            if transport == "udp":
                settings = self.services.settings.signing.size
                return self.sizes.check(variables, size_without, settings, peer, may_switch=may_switch)
        except BaseException as exc:
            self._fault("size", exc, None)
        return SizeAdvice(SizeOutcome.FITS, size_without, variables)

    # --- Verifying ----------------------------------------------------------------------------

    def verify(
        self, read: Callable[[], CallMessage], *, may_wait: bool = False, waited: str = "", in_place: bool = False
    ) -> Outcome:
        """Verify one incoming call.

        Args:
            read: reads the call; what it raises is a fault like any other.
            may_wait: the adapter is able to hold the call.
            waited: of a call that was held, the variable ``waiting``; then this may take up to
                ``verification.wait`` seconds.
            in_place: the call has a thread of its own, which this may block up to ``verification.wait``
                seconds; for switches whose calls are threads. ``Outcome.wait`` is never set then.

        Returns:
            Variables ``verstat``, ``result``, ``code``, ``attest``, ``origid``, ``spc``, ``orig``,
            ``status``, ``reason``; the actions that mark the call; an answer where the policy
            rejects it. For a request inside a dialog only foreign verstat is taken out.
        """
        service = self.services.verification
        if service is None:
            return Outcome({"code": "verification_off"})
        settings = self.services.settings.verification
        active = settings.mode == "active"
        message: CallMessage | None = None
        try:
            now = self._clock()
            message = read()
            if not message.is_initial_invite:
                return Outcome({}, strip_foreign(message) if active else ())
            emergency = is_emergency(message.request_uri, message.to, message.priority, self.services.plan)
            patient = active and not emergency
            verdict = self._verdict(
                service, message, now, waited, may_wait=may_wait and patient, in_place=in_place and patient
            )
            if isinstance(verdict, Held):
                return Outcome({"waiting": str(verdict)}, wait=True)
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
            if not active or reject is not None:
                return Outcome(variables, (), reject)
            return Outcome(variables, self._mark(message, verdict, verstat))
        except BaseException as exc:  # nothing of ours may drop a call
            return self._fault("verify", exc, message)

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
        *,
        may_wait: bool,
        in_place: bool,
    ) -> Verdict | Held:
        held = Held.parse(waited)
        if held is not None:
            return self._verdict_of_held(service, message, now, held)
        outcome = service.begin(message, now)
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
        verified = verdict.decisive.orig if verdict.decisive else None
        actions = list(strip_foreign(message, without=CallerHeader.ASSERTED))
        lines = message.callers.get(CallerHeader.ASSERTED, ())
        from_line = message.callers.get(CallerHeader.FROM, ("",))[0]
        values = mark_asserted(lines, verified, verstat, plan)
        names_somebody = any(message.callers_in(CallerHeader.ASSERTED, plan))
        if settings.add_asserted and not names_somebody and (value := asserted_from(from_line, verstat, plan)):
            values = [value]
        if lines:
            actions.append(RemoveHeader(CallerHeader.ASSERTED.value))
        actions += [AddHeader(CallerHeader.ASSERTED.value, value) for value in values]
        if settings.mark_from and (marked := mark_from(from_line, verstat, plan)):
            # Instead of stripping in place: the same header cannot be edited twice.
            actions = [action for action in actions if action != StripVerstat(CallerHeader.FROM.value)]
            actions += [RemoveHeader(CallerHeader.FROM.value), AddHeader(CallerHeader.FROM.value, marked)]
        return tuple(actions)

    # --- Replies ------------------------------------------------------------------------------

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

    def check_store(self) -> None:
        """Say so if this process cannot read the policy: rights differ from user to user."""
        if self.services.authentication is None:
            return
        try:
            self.services.authentication.store.facts(None, None, None)
        except StoreUnavailable as exc:
            self.warn("store_unavailable", f"shaken: the policy cannot be read here: {exc}")
        except BaseException as exc:
            self._fault("check_store", exc, None)

    # --- The guard ----------------------------------------------------------------------------

    def warn(self, name: str, text: str) -> None:
        """Count something that an operator should mend, and say it once a minute."""
        self._reports.warn(name, text, self._clock())

    def fault(self, where: str, exc: BaseException, message: CallMessage | None = None) -> Outcome:
        """Log and count a fault in an adapter.

        Args:
            where: ``sign``, ``verify``, or another word for the log.
            exc: what happened.
            message: the call, where it could be read; without it the call goes on in any mode.

        Returns:
            What the declared mode wants done.
        """
        return self._fault(where, exc, message)

    def _fault(self, where: str, exc: BaseException, message: CallMessage | None) -> Outcome:
        """A fault of our own: logged without a word of the message, counted, and survived.

        What strangers wrote as verstat goes even then: who makes us stumble must not profit.
        """
        actions = STRIP_EVERYWHERE if where == "verify" and not self._observes(where) else ()
        try:
            self._reports.fault(where, exc, self._clock())
            variables = {"skip": SkipReason.INTERNAL_ERROR.code, "code": SkipReason.INTERNAL_ERROR.code}
            if self.services.settings.on_fault != "refuse" or message is None or where not in {"sign", "verify"}:
                # Without a message there is no telling whether it is an emergency call.
                return Outcome(variables, actions)
            if not message.is_initial_invite or self._observes(where):
                return Outcome(variables, actions)
            if is_emergency(message.request_uri, message.to, message.priority, self.services.plan):
                return Outcome(variables, actions)
            return Outcome(variables, (), _OUR_FAULT)
        except BaseException:
            return Outcome({}, actions)

    def _observes(self, where: str) -> bool:
        settings = self.services.settings
        return (settings.signing if where == "sign" else settings.verification).mode == "observe"
