"""What the switch adapters share: modes, the guard, and the closed set of actions.

An adapter reads a call into a `CallMessage`, asks `Switch.sign` or `Switch.verify`, and executes
what it gets: variables to publish, actions on the message, or an answer. Nothing here raises.
Whatever goes wrong becomes a logged, counted, named outcome, and the call goes on in the declared
mode. In observe mode there are variables only: nothing changes on the wire.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shaken_plugin.authentication import Credential, Signing
from shaken_plugin.core.attestation import Decision, Level
from shaken_plugin.core.call import CallerHeader, CallMessage, is_emergency
from shaken_plugin.core.reason import about_ours, reasons, split_reasons
from shaken_plugin.core.records import Trunk
from shaken_plugin.core.telephone import Party
from shaken_plugin.core.verification import Result, Verdict
from shaken_plugin.core.verstat import asserted_from, mark_asserted, mark_from, strip_verstat
from shaken_plugin.errors import FailureCode, SkipReason
from shaken_plugin.ports import Observer, Severity
from shaken_plugin.runtime import Services
from shaken_plugin.telemetry import Throttle, event

_DAY = 86_400.0
EXPIRY_SHARE: Final = 1 / 3
"""Share of a certificate's life that is left when warnings begin, as ACME clients renew; 46 % of
real certificates live seven days or less, so a fixed number of days will not do."""
EXPIRY_MOST: Final = 30 * _DAY
"""Seconds before the end at which even a certificate of several years is warned about."""


@dataclass(frozen=True, slots=True)
class AddHeader:
    """Append one header."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class RemoveHeader:
    """Remove a header: its ``index``-th, counted from 0 as received, or all of that name."""

    name: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class StripVerstat:
    """Take verstat parameters out of a header, in place."""

    name: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer the call instead of passing it on."""

    status: int
    phrase: str
    reasons: tuple[str, ...] = ()
    """Values of Reason header fields, one each."""


Action = AddHeader | RemoveHeader | StripVerstat


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be done about one call.

    ``variables`` are for the operator's script, texts without line breaks.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    reject: Reject | None = None


def attach(variables: Mapping[str, str]) -> tuple[Action, ...]:
    """The actions that put a signature on an outgoing request, from `Switch.sign`'s variables.

    From variables and not from memory, because a failover branch may be sent by another process
    than the one that signed.
    """
    identity = variables.get("identity")
    if not identity:
        return ()
    # From the back, so that the indices stay right while headers go.
    drop = sorted((int(index) for index in variables.get("drop", "").split(",") if index), reverse=True)
    actions: list[Action] = [RemoveHeader("Identity", index) for index in drop]
    if date := variables.get("date"):
        if variables.get("replace_date"):
            actions.append(RemoveHeader("Date"))
        actions.append(AddHeader("Date", date))
    actions.append(AddHeader("Identity", identity))
    return tuple(actions)


class Switch:
    """The services of one process behind a guard.

    Args:
        services: from `runtime`; may be exchanged at any time (``switch.services = …``).
        observer: the switch's log and counters.
        clock: POSIX seconds, ``time.time`` in a switch.
        new_uuid: a fresh random UUID as text.
    """

    def __init__(
        self, services: Services, observer: Observer, clock: Callable[[], float], new_uuid: Callable[[], str]
    ) -> None:
        self.services = services
        self._observer = observer
        self._throttle = Throttle(observer)
        self._clock = clock
        self._new_uuid = new_uuid

    # --- Signing ------------------------------------------------------------------------------

    def sign(self, read: Callable[[], CallMessage]) -> Outcome:
        """Decide and sign one outgoing call.

        Args:
            read: reads the call; what it raises is a fault like any other.

        Returns:
            Variables ``level``, ``skip``, ``customer``, ``origid``, and for `attach`
            ``identity``, ``ppi``, ``date``, ``replace_date``, ``drop``, ``signed_at``; an answer
            where the call is refused.
        """
        settings = self.services.settings
        service = self.services.authentication
        if service is None:
            return Outcome({"skip": SkipReason.SIGNING_OFF.code})
        message: CallMessage | None = None
        try:
            now = self._clock()
            message = read()
            signing = service.sign(message, now, self._new_uuid())
            self._report_signing(message, signing, now)
            active = settings.signing.mode == "active"
            reject = None
            if signing.refuse and active:
                reject = Reject(settings.signing.refuse_status, settings.signing.refuse_phrase)
            return Outcome(_signing_variables(signing, now, active=active), (), reject)
        except BaseException as exc:  # nothing of ours may drop a call
            return self._fault("sign", exc, message)

    def needs_new_signature(self, variables: Mapping[str, str]) -> bool:
        """Whether a signature made earlier is too old for a branch that leaves now."""
        try:
            age = self._clock() - float(variables.get("signed_at", ""))
        except ValueError:
            return False
        return age > self.services.settings.signing.resign_after

    def _report_signing(self, message: CallMessage, signing: Signing, now: float) -> None:
        decision = signing.decision
        if signing.skip is SkipReason.NOT_INITIAL_INVITE:
            return
        if signing.skip is None:
            assert decision is not None
            self._observer.count(f"signed_{decision.level.value.lower()}")
        else:
            self._observer.count(f"unsigned_{signing.skip.code}")
        if signing.refuse:
            self._observer.count("refused")
        if signing.emergency:
            self._observer.count("emergency")
        if signing.credential is not None:
            self._warn_of_expiry(signing.credential, now)
        wants_trace = self.services.settings.log.trace or (decision is not None and decision.level is not Level.A)
        severity = Severity.INFO
        if signing.skip in {SkipReason.STORE_UNAVAILABLE, SkipReason.CREDENTIAL_NOT_VALID, SkipReason.SIGNER_FAILED}:
            severity = Severity.WARNING
        self._observer.log(
            severity,
            event(
                "sign",
                {
                    "call_id": message.call_id,
                    "level": decision.level.value if decision else None,
                    "skip": signing.skip.code if signing.skip else None,
                    "refused": signing.refuse or None,
                    "observe": self.services.settings.signing.mode == "observe" or None,
                    "emergency": signing.emergency or None,
                    "orig": self._number(signing.orig),
                    "dest": self._number(signing.dest),
                    "credential": signing.credential.name if signing.credential else None,
                    "iat": signing.iat,
                    "origid": signing.origid,
                    "policy": decision.policy_version if decision else None,
                    "detail": signing.detail,
                    "source": _source_name(decision),
                    "trace": self._trace(decision) if decision and wants_trace else None,
                    "missing": [self._masked(text) for text in decision.missing] if decision else None,
                },
            ),
        )

    def _trace(self, decision: Decision) -> list[str]:
        return [
            self._masked(f"{'+' if step.held else '-'} {step.rule}: {step.finding}")
            + (f" [{self._masked(step.record)}]" if step.record else "")
            for step in decision.trace
        ]

    def _warn_of_expiry(self, credential: Credential, now: float) -> None:
        end = credential.lasts_until(now)
        current = credential.current(now)
        life = current.certificate.not_after - current.certificate.not_before if current else 0.0
        if end - now < min(life * EXPIRY_SHARE, EXPIRY_MOST):
            self._observer.count("credential_expiring")
            left = end - now
            self._throttle.warn(
                f"expiry {credential.name}",
                f"credential {credential.name}: no certificate is valid beyond {left / 3600:.1f} hours from now; "
                "add the next pair to the settings and run 'shaken apply'",
                now,
            )

    # --- Verifying ----------------------------------------------------------------------------

    def verify(self, read: Callable[[], CallMessage]) -> Outcome:
        """Verify one incoming call.

        Args:
            read: reads the call; what it raises is a fault like any other.

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
                return Outcome({}, _strip(message) if active else ())
            verdict = service.verify(message, now)
            emergency = is_emergency(message.request_uri, message.to, message.priority, self.services.plan)
            verstat = verdict.verstat(settings.verstat, level=settings.verstat_level)
            reject = None if emergency or not active else self._rejection(verdict)
            self._report_verification(message, verdict, verstat, emergency=emergency, rejected=reject is not None)
            variables = _verdict_variables(verdict, verstat)
            if active and settings.reason and (values := reasons(verdict)):
                variables["reason"] = ", ".join(values)
            if not active or reject is not None:
                return Outcome(variables, (), reject)
            return Outcome(variables, self._mark(message, verdict, verstat))
        except BaseException as exc:  # nothing of ours may drop a call
            return self._fault("verify", exc, message)

    def _rejection(self, verdict: Verdict) -> Reject | None:
        failure = verdict.failure
        if failure is None or failure is FailureCode.CALLER_ANONYMOUS:
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
        actions = list(_strip(message, without=CallerHeader.ASSERTED))
        lines = message.callers.get(CallerHeader.ASSERTED, ())
        from_line = message.callers.get(CallerHeader.FROM, ("",))[0]
        if lines:
            actions.append(RemoveHeader(CallerHeader.ASSERTED.value))
            values = mark_asserted(lines, verified, verstat, plan)
            actions += [AddHeader(CallerHeader.ASSERTED.value, value) for value in values]
        elif settings.add_asserted and (value := asserted_from(from_line, verstat, plan)):
            actions.append(AddHeader(CallerHeader.ASSERTED.value, value))
        if settings.mark_from and (marked := mark_from(from_line, verstat, plan)):
            # Instead of stripping in place: the same header cannot be edited twice.
            actions = [action for action in actions if action != StripVerstat(CallerHeader.FROM.value)]
            actions += [RemoveHeader(CallerHeader.FROM.value), AddHeader(CallerHeader.FROM.value, marked)]
        return tuple(actions)

    def _report_verification(
        self, message: CallMessage, verdict: Verdict, verstat: str, *, emergency: bool, rejected: bool
    ) -> None:
        decisive = verdict.decisive
        code = verdict.failure.code if verdict.failure else None
        self._observer.count(f"verified_{verdict.result.value}")
        for result in verdict.results:
            if result.failure is not None:
                self._observer.count(f"failure_{result.failure.code}")
        if rejected:
            self._observer.count("rejected")
        if emergency:
            self._observer.count("emergency")
        self._observer.log(
            Severity.INFO,
            event(
                "verify",
                {
                    "call_id": message.call_id,
                    "result": verdict.result.value,
                    "code": code,
                    "detail": self._masked(decisive.detail) if decisive else None,
                    "verstat": verstat,
                    "rejected": rejected or None,
                    "observe": self.services.settings.verification.mode == "observe" or None,
                    "emergency": emergency or None,
                    "attest": decisive.attest.value if decisive and decisive.attest else None,
                    "orig": self._number(decisive.orig) if decisive else None,
                    "origid": decisive.origid if decisive else None,
                    "iat": decisive.iat if decisive else None,
                    "x5u": decisive.x5u if decisive else None,
                    "spc": decisive.spc if decisive else None,
                    "identities": len(verdict.results) or None,
                    "unreadable": list(message.unreadable),
                },
            ),
        )

    # --- Replies ------------------------------------------------------------------------------

    def reply_reasons(self, lines: Iterable[str], ours: str | None, add: str | None) -> list[str] | None:
        """The Reason values a reply should carry on its way to the caller.

        Args:
            lines: its Reason header lines.
            ours: the PASSporT we added to the request, in compact form; None if we added none.
            add: values to report about the PASSporTs that came to us (variable ``reason``).

        Returns:
            The values, or None to leave the reply as it is.
        """
        try:
            values = list(split_reasons(lines))
            kept = [value for value in values if not about_ours(value, ours)]
            if len(kept) < len(values):
                told = [value for value in values if value not in kept]
                self.warn("reported_by_verifier", event("reported_by_verifier", {"reasons": told}))
            if add:
                kept.append(add)
            return None if kept == values else kept
        except BaseException as exc:
            self._fault("reply", exc, None)
            return None

    # --- The guard ----------------------------------------------------------------------------

    def warn(self, name: str, text: str) -> None:
        """Count something that an operator should mend, and say it once a minute."""
        self._observer.count(name)
        self._throttle.warn(name, text, self._clock())

    def fault(self, where: str, exc: BaseException) -> None:
        """Log and count a fault in an adapter; the call goes on."""
        self._fault(where, exc, None)

    def _fault(self, where: str, exc: BaseException, message: CallMessage | None) -> Outcome:
        """A fault of our own: logged without a word of the message, counted, and survived."""
        try:
            self._observer.count(f"fault_{where}")
            frames = traceback.extract_tb(exc.__traceback__)[-3:]
            place = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
            self._throttle.warn(
                f"fault {where} {type(exc).__name__} {place}",
                event("fault", {"where": where, "type": type(exc).__name__, "at": place}),
                self._clock(),
                Severity.ERROR,
            )
            variables = {"skip": SkipReason.INTERNAL_ERROR.code, "code": SkipReason.INTERNAL_ERROR.code}
            if self.services.settings.on_fault != "refuse" or message is None or where not in {"sign", "verify"}:
                # Without a message there is no telling whether it is an emergency call.
                return Outcome(variables)
            if not message.is_initial_invite or self._observes(where):
                return Outcome(variables)
            if is_emergency(message.request_uri, message.to, message.priority, self.services.plan):
                return Outcome(variables)
            return Outcome(variables, (), Reject(500, "Server Internal Error"))
        except BaseException:
            return Outcome()

    def _observes(self, where: str) -> bool:
        settings = self.services.settings
        return (settings.signing if where == "sign" else settings.verification).mode == "observe"

    def _number(self, party: Party | None) -> str | None:
        if party is None:
            return None
        return str(party) if self.services.settings.log.full_numbers else party.masked

    def _masked(self, text: str) -> str:
        """A text of ours with the numbers in it masked."""
        if self.services.settings.log.full_numbers:
            return text
        return _LONG_NUMBER.sub(lambda match: _mask(match.group()), text)


_LONG_NUMBER = re.compile(r"[0-9]{7,}")


def _mask(digits: str) -> str:
    return f"{digits[:4]}{'*' * (len(digits) - 6)}{digits[-2:]}"


def _source_name(decision: Decision | None) -> str | None:
    source = decision.source if decision else None
    if source is None:
        return None
    return f"{source.customer.id}/{source.id}" if isinstance(source, Trunk) else source.id


def _signing_variables(signing: Signing, now: float, *, active: bool) -> dict[str, str]:
    variables: dict[str, str] = {}
    decision = signing.decision
    if decision is not None:
        variables["level"] = decision.level.value
        if isinstance(decision.source, Trunk):
            variables["customer"] = decision.source.customer.id
    if signing.skip is not None:
        variables["skip"] = signing.skip.code
    if signing.origid is not None:
        variables["origid"] = signing.origid
    if signing.identity is None or not active:
        return variables
    variables["identity"] = signing.identity
    variables["ppi"] = ".." + signing.identity.partition(";")[0].rpartition(".")[2]
    variables["signed_at"] = f"{now:.3f}"
    if signing.date is not None:
        variables["date"] = signing.date
    if signing.replace_date:
        variables["replace_date"] = "1"
    if signing.drop:
        variables["drop"] = ",".join(map(str, signing.drop))
    return variables


def _verdict_variables(verdict: Verdict, verstat: str) -> dict[str, str]:
    variables = {"verstat": verstat, "result": verdict.result.value}
    if verdict.failure is not None:
        variables["code"] = verdict.failure.code
        if verdict.result is Result.FAILED or verdict.failure.value.status == 428:
            variables["status"] = str(verdict.failure.value.status)
    if (decisive := verdict.decisive) is not None:
        known = {
            "attest": decisive.attest.value if decisive.attest else None,
            "origid": decisive.origid,
            "spc": decisive.spc,
            "orig": str(decisive.orig) if decisive.orig else None,
        }
        variables |= {name: value for name, value in known.items() if value is not None}
    return variables


def _strip(message: CallMessage, without: CallerHeader | None = None) -> tuple[Action, ...]:
    """Actions that take foreign verstat out of every caller header that has any."""
    return tuple(
        StripVerstat(header.value)
        for header, lines in message.callers.items()
        if header is not without and any(strip_verstat(line) != line for line in lines)
    )
