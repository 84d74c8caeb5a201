"""What an adapter may be asked to do: a closed set of actions, variables, or an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shaken_plugin.authentication import Signing
from shaken_plugin.core.attestation import Decision
from shaken_plugin.core.call import MAX_ASSERTED, NAMING, CallerHeader, CallMessage
from shaken_plugin.core.records import Trunk
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.core.verification import Result, Verdict
from shaken_plugin.core.verstat import strip_verstat
from shaken_plugin.switch.reports import source_name
from shaken_plugin.telemetry import clean


@dataclass(slots=True)  # not frozen: nearly each call makes one, and setting it up would cost three times as much
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
    retry_after: int = 0
    """Seconds for a Retry-After header; 0 for none."""


Action = AddHeader | RemoveHeader | StripVerstat


class Same:
    """The variables that outcomes have in common, by reference; and for an adapter what it has made of them."""

    __slots__ = ("made", "variables")

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.made: Any = None
        """What the adapter of this switch makes of them, once made."""


@dataclass(slots=True)  # not frozen, as above
class Outcome:
    """What is to be done about one call.

    ``variables`` are for the operator's script, texts without line breaks.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    reject: Reject | None = None
    wait: bool = False
    """Nothing is decided yet: hold the call, and verify again with the variable ``waiting``."""
    same: Same | None = None
    """Of a usual signed call: all variables but ``identity``, ``ppi``, ``date``, ``signed_at``, and at its customer's
    limits ``counted`` and ``slot``."""


def attach(variables: Mapping[str, str]) -> tuple[Action, ...]:
    """The actions that put a signature on an outgoing request, from `Switch.sign`'s variables.

    From variables and not from memory, because a failover branch may be sent by another process
    than the one that signed.
    """
    identity = variables.get("identity")
    if not identity and not variables.get("substitute"):
        return ()
    actions: list[Action] = []
    if drop := variables.get("drop"):
        # From the back, so that the indices stay right while headers go.
        indices = sorted((int(index) for index in drop.split(",") if index), reverse=True)
        actions += [RemoveHeader("Identity", index) for index in indices]
    if not identity:
        return tuple(actions)
    if date := variables.get("date"):
        if variables.get("replace_date"):
            actions.append(RemoveHeader("Date"))
        actions.append(AddHeader("Date", date))
    actions.append(AddHeader(variables.get("header_name") or "Identity", identity))
    return tuple(actions)


def signing_variables(message: CallMessage, signing: Signing, now: float, *, active: bool) -> dict[str, str]:
    """What the operator's script learns of a signing, and what `attach` needs unless it only observes."""
    variables = _decided(signing)
    if signing.counted:
        variables["counted"] = signing.counted
    if signing.slot:
        variables["slot"] = signing.slot
    if signing.over_limit:
        variables["over_limit"] = signing.over_limit
    if active and signing.substitute is not None:
        variables |= {"substitute": str(signing.substitute), "substituted_for": str(signing.substituted_for or "")}
        if signing.identity is None:
            variables["drop"] = unbelievable(message)
    if signing.skip is not None:
        variables["skip"] = signing.skip.code
    if signing.origid is not None:
        variables["origid"] = signing.origid
    if signing.identity is not None:
        variables["ppt"] = signing.ppt
        if active:
            variables |= _attached(signing, signing.identity, now)
    return variables


def unbelievable(message: CallMessage) -> str:
    """``drop`` for a substituted call: its Identity headers name the number of before, nobody can believe them."""
    return ",".join(map(str, range(len(message.identity))))


def _decided(signing: Signing) -> dict[str, str]:
    """The level and what it rests on, whose call it is, and over what it came."""
    if signing.decision is None:
        return {}
    variables = signing.decision.once(_said_of).copy()
    if signing.diverting is not None:
        del variables["level"]
    if signing.holder is not None:
        variables["customer"] = signing.holder.id
    return variables


def _said_of(decision: Decision) -> dict[str, str]:
    variables = {
        "level": decision.level.value,
        "rules": ",".join(decision.rules),
        "policy": str(decision.policy_version),
    }
    if decision.refusal is not None:
        variables["refusal"] = decision.refusal.value
    if decision.unauthorised:
        variables["unauthorised"] = "1"
    if isinstance(decision.source, Trunk):
        variables["customer"] = decision.source.customer.id
    if source := source_name(decision):
        variables["source"] = source
    return variables


def _attached(signing: Signing, identity: str, now: float) -> dict[str, str]:
    """What `attach` needs."""
    variables = {
        "identity": identity,
        "ppi": ".." + identity.partition(";")[0].rpartition(".")[2],
        "signed_at": str(int(now)),
    }
    if signing.date is not None:
        variables["date"] = signing.date
    if signing.replace_date:
        variables["replace_date"] = "1"
    if signing.drop:
        variables["drop"] = ",".join(map(str, signing.drop))
    return variables


def verdict_variables(verdict: Verdict, verstat: str) -> dict[str, str]:
    """What the operator's script learns of a verification."""
    variables = {"verstat": verstat, "result": verdict.result._value_}
    if verdict.failure is not None:
        variables["code"] = verdict.failure.code
        if verdict.result is Result.FAILED or verdict.failure.value.status == 428:
            variables["status"] = str(verdict.failure.value.status)
    if verdict.replayed:
        variables["replayed"] = "1"
    if (decisive := verdict.decisive) is not None:
        if decisive.attest is not None:
            variables["attest"] = decisive.attest._value_
        if decisive.origid is not None:
            variables["origid"] = decisive.origid
        if decisive.spc is not None:
            variables["spc"] = decisive.spc
        if (orig := decisive.orig) is not None:
            # A uri claim is any text.
            variables["orig"] = orig.digits if isinstance(orig, TelephoneNumber) else clean(str(orig))
    if verdict.diversions or verdict.rich is not None or verdict.priority is not None:
        variables.update(_beside_the_number(verdict))
    return variables


def _beside_the_number(verdict: Verdict) -> dict[str, str]:
    """Where the call was diverted, what may be shown of the caller, and its priority."""
    found: dict[str, str | None] = {"div": ",".join(map(str, verdict.diversions)) or None}
    if (rich := verdict.rich) is not None:
        found |= {
            "rcd": rich.shown.value,
            "rcd_nam": rich.nam,
            "rcd_apn": rich.apn,
            "rcd_crn": rich.crn,
            "rcd_jcd": rich.jcd,
            "rcd_iss": rich.iss,
            "rcd_why": "; ".join(f"{name}: {why}" for name, why in rich.withheld) or None,
        }
    if (priority := verdict.priority) is not None:
        found |= {
            "rph": priority.failure.code if priority.failure else "passed",
            "rph_auth": ",".join(priority.auth) or None,
            "sph": priority.sph,
        }
    return {name: _printable(value) for name, value in found.items() if value is not None}


def _printable(text: str) -> str:
    """Text for people, in their letters: without line breaks and without marks that turn it round."""
    return "".join(char for char in text if char.isprintable())


STRIP_EVERYWHERE: Final = tuple(StripVerstat(name) for name in (*(header.value for header in CallerHeader), *NAMING))


def strip_foreign(message: CallMessage, without: CallerHeader | None = None) -> tuple[Action, ...]:
    """Actions that take foreign verstat out of every header that may have any."""
    if message.unmarked:
        return ()
    found = []
    for header, lines in message.callers.items():
        if header is not without and _is_marked(lines):
            found.append(StripVerstat(header.value))
    for name, lines in message.naming.items():
        if _is_marked(lines):
            found.append(StripVerstat(name))
    return tuple(found)


def _is_marked(lines: tuple[str, ...]) -> bool:
    for line in lines:
        if strip_verstat(line) != line:
            return True
    return len(lines) > MAX_ASSERTED  # of very many not all were read
