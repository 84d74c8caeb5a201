"""The record of one signing or verification, and the line of JSON that it is written as.

A field that does not apply is left out of the line. Numbers are canonical (RFC 8224 §8.3) and in
full: whoever must answer a traceback request within 24 hours needs them.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, Final, Literal

from shaken_plugin.authentication import Signing
from shaken_plugin.core.attestation import Decision, Step
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.records import Trunk
from shaken_plugin.core.sha2 import sha256
from shaken_plugin.core.telephone import DialPlan, Party
from shaken_plugin.core.verification import Verdict
from shaken_plugin.jsontext import compact, flat

VERSION: Final = 1
"""Version of the schema; a field may be added without a new one."""

MAX_LINE: Final = 16_384
"""Longest line, octets with its line break. What strangers wrote is cut so that it fits."""

Kind = Literal["sign", "verify"]
BOTH: Final = ("sign", "verify")


def _field(text: str, *kinds: str, **default: Any) -> Any:
    return dataclasses.field(metadata={"text": text, "kinds": kinds or BOTH}, **default)


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """One signing or verification. `schema.schema` and the documentation are made from these fields."""

    v: int = _field("Version of this schema.", default=VERSION)
    kind: Kind = _field("What was done.")  # noqa: RUF009  # it is a field
    at: float = _field("When, POSIX seconds.")
    node: str = _field("Name of the host.")
    call_id: str = _field("The call's Call-ID.", default="")
    orig: str | None = _field("Calling party: the number's digits without +, or a URI.", default=None)
    dest: str | None = _field("Called party, likewise.", default=None)
    emergency: bool = _field("It goes to an emergency service, or comes back from one.", default=False)
    observe: bool = _field("Mode observe: nothing was changed on the wire, and nothing refused.", default=False)
    detail: str = _field("More about skip or code.", default="")
    attest: str | None = _field("The attest claim that was signed: A, B or C.", default=None)
    origid: str | None = _field("The origid claim.", default=None)
    iat: int | None = _field("The iat claim, POSIX seconds.", default=None)
    ppt: str | None = _field("Type of the PASSporT: shaken, div.", default=None)
    signature_sha256: str | None = _field(
        "SHA-256, in hex, of the PASSporT's signature as it stands in the Identity header (base64url): the same "
        "at the signer and at every verifier.",
        default=None,
    )
    cut: bool = _field("Texts were shortened, because the line would have been too long.", default=False)

    source: str | None = _field("IP address that the call came from.", "sign", default=None)
    user: str | None = _field("Account that the switch authenticated.", "sign", default=None)
    route: str | None = _field("The route that the switch named.", "sign", default=None)
    routed_by: str | None = _field(
        "The called number by which a route was looked for, where it is not dest.", "sign", default=None
    )
    customer: str | None = _field("Whose call it is.", "sign", default=None)
    trunk: str | None = _field("The customer's trunk that it came over.", "sign", default=None)
    gateway: str | None = _field("The gateway that it came over.", "sign", default=None)
    level: str | None = _field("What was decided: A, B, C, div, unsigned or refuse.", "sign", default=None)
    skip: str | None = _field("Why nothing was signed.", "sign", default=None)
    refused: bool = _field("The call was answered instead of sent on (unless observe).", "sign", default=False)
    refusal: str | None = _field("Why: the name of the answer in the settings.", "sign", default=None)
    unauthorised: bool = _field("The customer has no right of any kind to the number.", "sign", default=False)
    offence: bool = _field("That counts against the customer.", "sign", default=False)
    over_limit: str | None = _field(
        "The customer's limit that it is over: rate, concurrent, repeated (the same call too often), or unfollowed "
        "(nobody would tell its end); with the level, where it is one of a level.",
        "sign",
        default=None,
    )
    substituted_for: str | None = _field("The caller that came, where orig was put in its place.", "sign", default=None)
    diverting: str | None = _field("The number that sends the call on.", "sign", default=None)
    holder: str | None = _field("The customer whose number that is.", "sign", default=None)
    policy_version: int | None = _field("Version of the policy that it was decided by.", "sign", default=None)
    credential: str | None = _field("Name of the credential that signed.", "sign", default=None)
    rules: tuple[str, ...] = _field("The rules that were asked, in order.", "sign", default=())
    trace: tuple[Step, ...] = _field("What each of them found, on which record.", "sign", default=())
    missing: tuple[str, ...] = _field("What a better level would need.", "sign", default=())

    result: str | None = _field("passed, failed or none.", "verify", default=None)
    code: str | None = _field("Why it did not pass.", "verify", default=None)
    verstat: str | None = _field("The verstat that the call was given.", "verify", default=None)
    rejected: bool = _field("The call was answered instead of passed on.", "verify", default=False)
    replayed: bool = _field("The PASSporT came with another call before.", "verify", default=False)
    x5u: str | None = _field("URL of the signer's certificate.", "verify", default=None)
    spc: str | None = _field("The signer's Service Provider Code.", "verify", default=None)
    diversions: tuple[str, ...] = _field("Whom a valid div chain says it was redirected from.", "verify", default=())
    identities: int | None = _field("How many PASSporTs it carried.", "verify", default=None)

    def line(self) -> bytes:
        """One line of JSON, printable ASCII, at most `MAX_LINE` octets with its line break."""
        values = {name: value for name, value in zip(_NAMES, _values(self), strict=True) if tells(value)}
        line = flat(values)
        if self.trace:
            line = f'{line[:-1]},"trace":[{",".join(map(step_text, self.trace))}]}}'
        for longest in _CUTS:
            if len(line) < MAX_LINE:
                break
            trace = {"trace": [_present(step) for step in self.trace]} if self.trace else {}
            line = compact({name: _cut(value, longest) for name, value in {**values, **trace, "cut": True}.items()})
        return line.encode("ascii") + b"\n"


def tells(value: Any) -> bool:
    """Whether a field is written: it says something, if only 0."""
    return bool(value) or (value == 0 and value is not False)


def _present(step: Step) -> dict[str, Any]:
    return {name: part for name, part in step._asdict().items() if part is not None}


@lru_cache(1_024)
def step_text(step: Step) -> str:
    """A step in JSON: half the cost of a line, and the same in most calls of a customer."""
    return flat(_present(step))


_NAMES: Final = tuple(field.name for field in dataclasses.fields(CallRecord) if field.name != "trace")
_values: Final = attrgetter(*_NAMES)

_CUTS: Final = (1_000, 200, 40)
"""Longest texts of a record whose line would be too long; with the last it fits."""


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        # By what it is in JSON: six octets for a character that is not ASCII.
        return value if len(value) <= longest and value.isascii() else value[: longest // 6]
    if isinstance(value, dict):
        return {name: _cut(part, longest) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(part, longest) for part in value[:16]]
    return value


# --- Records of what the services did -----------------------------------------------------------


def signed(message: CallMessage, signing: Signing, now: float, *, observe: bool) -> CallRecord:
    """The record of a signing, or of a decision not to sign."""
    decision = signing.decision
    return CallRecord(
        kind="sign",
        at=now,
        node=node_name(),
        call_id=message.call_id,
        orig=party_text(signing.orig),
        dest=party_text(signing.dest),
        emergency=signing.emergency,
        observe=observe,
        detail=signing.detail,
        attest=decision.level.value if decision and signing.identity and decision.level.attest else None,
        origid=signing.origid,
        iat=signing.iat,
        ppt=signing.ppt if signing.identity else None,
        signature_sha256=digest(signing.identity.partition(";")[0]) if signing.identity else None,
        source=message.source,
        user=message.user,
        route=message.route or None,
        routed_by=signing.routed_by if signing.routed_by != party_text(signing.dest) else None,
        skip=signing.skip.code if signing.skip else None,
        refused=signing.refuse,
        over_limit=signing.over_limit or None,
        substituted_for=party_text(signing.substituted_for),
        diverting=party_text(signing.diverting),
        holder=signing.holder.id if signing.holder else None,
        credential=signing.credential.name if signing.credential else None,
        **(decided(decision) if decision else {}),
    )


def decided(decision: Decision) -> dict[str, Any]:
    """What a record takes from a decision, in the order of its fields. The one place where they are read."""
    source = decision.source
    return {
        "customer": source.customer.id if isinstance(source, Trunk) else None,
        "trunk": source.id if isinstance(source, Trunk) else None,
        "gateway": source.id if source is not None and not isinstance(source, Trunk) else None,
        "level": decision.level.value,
        "refusal": decision.refusal.value if decision.refusal else None,
        "unauthorised": decision.unauthorised,
        "offence": decision.offence,
        "policy_version": decision.policy_version,
        "rules": decision.rules,
        "trace": decision.trace,
        "missing": decision.missing,
    }


def verified(
    message: CallMessage,
    verdict: Verdict,
    verstat: str,
    plan: DialPlan,
    now: float,
    *,
    observe: bool,
    emergency: bool,
    rejected: bool,
) -> CallRecord:
    """The record of a verification."""
    decisive = verdict.decisive
    told = decisive or next((result for result in verdict.results if result.failure is verdict.failure), None)
    return CallRecord(
        kind="verify",
        at=now,
        node=node_name(),
        call_id=message.call_id,
        orig=party_text(decisive.orig) if decisive and decisive.orig else _caller(message, plan),
        dest=party_text(message.called(plan)),
        emergency=emergency,
        observe=observe,
        detail=told.detail if told else "",
        attest=decisive.attest.value if decisive and decisive.attest else None,
        origid=decisive.origid if decisive else None,
        iat=decisive.iat if decisive else None,
        ppt=told.ppt if told else None,
        signature_sha256=digest(decisive.ppi) if decisive and decisive.ppi else None,
        result=verdict.result.value,
        code=verdict.failure.code if verdict.failure else None,
        verstat=verstat,
        rejected=rejected,
        replayed=verdict.replayed,
        x5u=told.x5u if told else None,
        spc=decisive.spc if decisive else None,
        diversions=tuple(map(str, verdict.diversions)),
        identities=len(verdict.results) or None,
    )


def failed(kind: Kind, message: CallMessage, code: str, plan: DialPlan, now: float, *, observe: bool) -> CallRecord:
    """The record of a call that a fault of our own kept from being signed or verified."""
    return CallRecord(
        kind=kind,
        at=now,
        node=node_name(),
        call_id=message.call_id,
        orig=_caller(message, plan),
        dest=party_text(message.called(plan)),
        observe=observe,
        source=message.source if kind == "sign" else None,
        user=message.user if kind == "sign" else None,
        skip=code if kind == "sign" else None,
        code=code if kind == "verify" else None,
    )


def party_text(party: Party | None) -> str | None:
    """A party as records name it."""
    return None if party is None else str(party)


def _caller(message: CallMessage, plan: DialPlan) -> str | None:
    """Who the message says is calling, where nothing vouches for it."""
    for header in (CallerHeader.ASSERTED, CallerHeader.FROM):
        for caller in message.callers_in(header, plan):
            return str(caller.party)
    return None


def digest(token: str) -> str:
    """See ``signature_sha256``; of a PASSporT in full or in compact form."""
    found: str = sha256(token.rpartition(".")[2].encode("utf-8", "surrogateescape")).hexdigest()
    return found


@cache
def node_name() -> str:
    """The name of this host."""
    return os.uname().nodename
