"""What a call leaves behind in the switch's log and counters; telephone numbers masked."""

from __future__ import annotations

import re
import traceback
from json.encoder import encode_basestring_ascii
from typing import Final

from shaken_plugin.authentication import Credential, Signing
from shaken_plugin.certs.credentials import expiry_warning
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.attestation import Decision, Level
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.records import Trunk
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.core.verification import Result, Verdict
from shaken_plugin.errors import SkipReason
from shaken_plugin.jsontext import flat
from shaken_plugin.ports import Observer, Severity
from shaken_plugin.records.usual import signer_text
from shaken_plugin.telemetry import MAX_LINE, Throttle, clean, event


class Reporter:
    """Logs and counts outcomes.

    Args:
        observer: the switch's log and counters.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._throttle = Throttle(observer)
        self._expiry: tuple[Credential | None, int, str | None] = (None, 0, None)

    def count(self, name: str) -> None:
        """Count something that needs no words."""
        self._observer.count(name)

    def say(self, text: str) -> None:
        """A warning, this time and every time."""
        self._observer.log(Severity.WARNING, clean(text))

    def warn(self, name: str, text: str, now: float) -> None:
        """Count something that an operator should mend, and say it once a minute."""
        self._observer.count(name)
        self._throttle.warn(name, text, now)

    def fault(self, where: str, exc: BaseException, now: float) -> None:
        """Count a fault of our own; log its type and place, and not a word of the message."""
        self._observer.count(f"fault_{where}")
        frames = traceback.extract_tb(exc.__traceback__)[-3:]
        place = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
        self._throttle.warn(
            f"fault {where} {type(exc).__name__} {place}",
            event("fault", {"where": where, "type": type(exc).__name__, "at": place}),
            now,
            Severity.ERROR,
        )

    def told(self, reasons: list[str], settings: Settings, now: float) -> None:
        """Count and say once a minute what a verifier reported about our PASSporT."""
        masked = [_masked(reason, settings) for reason in reasons]
        self.warn("reported_by_verifier", event("reported_by_verifier", {"reasons": masked}), now)

    def signing(self, message: CallMessage, signing: Signing, settings: Settings, now: float) -> None:
        """One line, counters, and a warning where a credential comes to its end."""
        decision = signing.decision
        if signing.skip is SkipReason.NOT_INITIAL_INVITE:
            return
        if signing.skip is None:
            assert decision is not None
            self._observer.count(decision.once(_counted))
        else:
            self._observer.count(f"unsigned_{signing.skip.code}")
        if signing.refuse:
            self._observer.count("refused")
        if decision is not None and decision.refusal is not None:
            self._observer.count(f"refused_{decision.refusal.value}")
        if decision is not None and decision.unauthorised:
            self._observer.count("unauthorised")
        if signing.substitute is not None:
            self._observer.count("substituted")
        if signing.over_limit:
            self._observer.count("over_limit")
        if signing.uncounted:
            text = f"shaken: calls of customers with limits are not counted: {signing.uncounted}"
            self.warn("limits_unavailable", text, now)
        if signing.emergency:
            self._observer.count("emergency")
        if signing.credential is not None:
            self._warn_of_expiry(signing.credential, now)
        severity = Severity.WARNING if signing.skip in _TROUBLE else Severity.INFO
        self._observer.log(severity, usual_line(message, signing, settings) or signing_line(message, signing, settings))

    def usual_signing(self, counted: str, credential: Credential, line: str, now: float) -> None:
        """What `signing` does of a usual call, whose counter and line are known."""
        self._observer.count(counted)
        self._warn_of_expiry(credential, now)
        self._observer.log(Severity.INFO, line)

    def _warn_of_expiry(self, credential: Credential, now: float) -> None:
        known, at, text = self._expiry
        if known is not credential or at != int(now):  # asked once a second: it is a matter of hours
            text = expiry_warning(credential, now)
            self._expiry = credential, int(now), text
        if text:
            self._observer.count("credential_expiring")
            self._throttle.warn(f"expiry {credential.name}", text, now)

    def verification(
        self,
        message: CallMessage,
        verdict: Verdict,
        verstat: str,
        settings: Settings,
        *,
        emergency: bool,
        rejected: bool,
        now: float,
    ) -> None:
        """One line, counters, and a warning where something hinders the verification."""
        self._observer.count(_VERIFIED[verdict.result])
        for result in verdict.results:
            if result.failure is not None:
                self._observer.count(f"failure_{result.failure.code}")
        for alarm in verdict.alarms:
            self.warn(alarm.name, f"shaken: {alarm.text}", now)
        if verdict.replayed:
            self._observer.count("replayed")
        if rejected:
            self._observer.count("rejected")
        if emergency:
            self._observer.count("emergency")
        line = usual_verification(message, verdict, verstat, settings, emergency=emergency, rejected=rejected)
        if line is None:
            line = verification_line(message, verdict, verstat, settings, emergency=emergency, rejected=rejected)
        self._observer.log(Severity.INFO, line)

    def usual_verification(self, line: str) -> None:
        """What `verification` does of a usual call that passed, whose line is known."""
        self._observer.count(_PASSED)
        self._observer.log(Severity.INFO, line)


_VERIFIED: Final = {result: f"verified_{result.value}" for result in Result}

_PASSED: Final = _VERIFIED[Result.PASSED]

_TROUBLE: Final = (SkipReason.STORE_UNAVAILABLE, SkipReason.CREDENTIAL_NOT_VALID, SkipReason.SIGNER_FAILED)


def signing_line(message: CallMessage, signing: Signing, settings: Settings) -> str:
    """The log line of a signing, or of a decision not to sign."""
    decision = signing.decision
    wants_trace = settings.log.trace or (decision is not None and decision.level is not Level.A)
    return event(
        "sign",
        {
            "call_id": message.call_id,
            "level": decision.level.value if decision else None,
            "skip": signing.skip.code if signing.skip else None,
            "refused": signing.refuse or None,
            "refusal": decision.refusal.value if decision and decision.refusal else None,
            "unauthorised": (decision is not None and decision.unauthorised) or None,
            "over_limit": signing.over_limit,
            "substituted_for": _number(signing.substituted_for, settings),
            "observe": settings.signing.mode == "observe" or None,
            "emergency": signing.emergency or None,
            "orig": _number(signing.orig, settings),
            "dest": _number(signing.dest, settings),
            "div": _number(signing.diverting, settings),
            "holder": signing.holder.id if signing.holder else None,
            "credential": signing.credential.name if signing.credential else None,
            "iat": signing.iat,
            "origid": signing.origid,
            "policy": decision.policy_version if decision else None,
            "detail": signing.detail,
            "source": source_name(decision),
            "trace": _trace(decision, settings) if decision and wants_trace else None,
            "missing": [_masked(text, settings) for text in decision.missing] if decision else None,
        },
    )


def usual_line(message: CallMessage, signing: Signing, settings: Settings) -> str | None:
    """`signing_line` of a call at level A of which nothing else is to be told, as most are; None for any other."""
    decision, credential, origid = signing.decision, signing.credential, signing.origid
    if decision is None or credential is None or not origid or not message.call_id:
        return None
    rare = signing.skip or signing.over_limit or signing.emergency or signing.detail or signing.holder
    if rare or signing.substituted_for or signing.diverting or decision.level is not Level.A or decision.unauthorised:
        return None
    if settings.log.trace or settings.signing.mode != "active":
        return None
    orig, dest = _number(signing.orig, settings), _number(signing.dest, settings)
    if not orig or not dest:
        return None
    quoted = encode_basestring_ascii
    line = (
        f'shaken {{"event":"sign","call_id":{quoted(message.call_id)},"level":"A","orig":{quoted(orig)},'
        f'"dest":{quoted(dest)},"credential":{quoted(credential.name)},"iat":{signing.iat},"origid":{quoted(origid)},'
        f"{decision.once(_last_of_line, settings.log.full_numbers)}"
    )
    return line if len(line) <= MAX_LINE else None


def verification_line(
    message: CallMessage, verdict: Verdict, verstat: str, settings: Settings, *, emergency: bool, rejected: bool
) -> str:
    """The log line of a verification."""
    decisive = verdict.decisive
    # Also where no PASSporT decides, it is said whose certificate is missing, and why.
    told = decisive or next((result for result in verdict.results if result.failure is verdict.failure), None)
    return event(
        "verify",
        {
            "call_id": message.call_id,
            "result": verdict.result.value,
            "code": verdict.failure.code if verdict.failure else None,
            "detail": _masked(told.detail, settings) if told else None,
            "verstat": verstat,
            "rejected": rejected or None,
            "replayed": verdict.replayed or None,
            "observe": settings.verification.mode == "observe" or None,
            "emergency": emergency or None,
            "attest": decisive.attest.value if decisive and decisive.attest else None,
            "orig": _number(decisive.orig, settings) if decisive else None,
            "origid": decisive.origid if decisive else None,
            "iat": decisive.iat if decisive else None,
            "x5u": told.x5u if told else None,
            "spc": decisive.spc if decisive else None,
            "div": [_number(party, settings) for party in verdict.diversions],
            "rcd": verdict.rich.shown.value if verdict.rich else None,
            "rph": _priority(verdict),
            "identities": len(verdict.results) or None,
            "unreadable": list(message.unreadable),
        },
    )


def usual_verification(
    message: CallMessage, verdict: Verdict, verstat: str, settings: Settings, *, emergency: bool, rejected: bool
) -> str | None:
    """`verification_line` of a call that passed by a PASSporT with all its claims; None where it tells more."""
    by = verdict.decisive
    if by is None or verdict.result is not Result.PASSED or by.attest is None or by.iat is None or by.detail:
        return None
    if emergency or rejected or verdict.replayed or verdict.diversions or verdict.rich or verdict.priority:
        return None
    call_id, party = message.call_id, by.orig
    if not (call_id and verstat and isinstance(party, TelephoneNumber) and by.origid and by.x5u and by.spc):
        return None
    if message.unreadable:
        return None
    orig = party.digits if settings.log.full_numbers else party.masked
    if settings.verification.mode == "observe":
        return None
    quoted = encode_basestring_ascii
    line = (
        f'shaken {{"event":"verify","call_id":{quoted(call_id)},"result":"passed","verstat":{quoted(verstat)},'
        f'"attest":"{by.attest._value_}","orig":"{orig}","origid":{quoted(by.origid)},"iat":{by.iat},'
        f'{signer_text(by.x5u, by.spc)},"identities":{len(verdict.results)}}}'
    )
    return line if len(line) <= MAX_LINE else None


def _last_of_line(decision: Decision, full_numbers: bool) -> str:
    """What stands at the end of the line of every call that is decided so."""
    missing = [text if full_numbers else _without_numbers(text) for text in decision.missing]
    fields = {"policy": decision.policy_version, "source": source_name(decision), "missing": missing}
    present = {name: value for name, value in fields.items() if value or name == "policy"}
    return flat(present)[1:]


def _counted(decision: Decision) -> str:
    return f"signed_{decision.level.value.lower()}"


def _priority(verdict: Verdict) -> str | None:
    if verdict.priority is None:
        return None
    return verdict.priority.failure.code if verdict.priority.failure else "passed"


def _trace(decision: Decision, settings: Settings) -> list[str]:
    return [
        _masked(f"{'+' if step.held else '-'} {step.rule}: {step.finding}", settings)
        + (f" [{_masked(step.record, settings)}]" if step.record else "")
        for step in decision.trace
    ]


def _number(party: Party | None, settings: Settings) -> str | None:
    if party is None:
        return None
    return str(party) if settings.log.full_numbers else party.masked


_LONG_NUMBER = re.compile(r"[0-9]{7,}")


def _masked(text: str, settings: Settings) -> str:
    """A text of ours with the numbers in it masked."""
    return text if settings.log.full_numbers else _without_numbers(text)


def _without_numbers(text: str) -> str:
    return _LONG_NUMBER.sub(lambda match: TelephoneNumber(match.group()[:32]).masked, text)


def source_name(decision: Decision | None) -> str | None:
    """Where a call came from: customer/trunk, the gateway, or None where that is not known."""
    source = decision.source if decision else None
    if source is None:
        return None
    return f"{source.customer.id}/{source.id}" if isinstance(source, Trunk) else source.id
