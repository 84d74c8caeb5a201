"""verify, sign and pass_through: a leg in, commands out.

Nothing here raises what it can help: the guard does the thinking, and whoever runs these survives
the rest (`mod_python`, the agent's event socket).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from shaken_plugin.adapters.freeswitch import reading, size
from shaken_plugin.adapters.freeswitch.headers import (
    ASSERTED,
    BY_SWITCH,
    COMPACT,
    FULL,
    IdentityName,
    fields_of,
    identity_of,
    is_continued,
    passes_unharmed,
    received_identity,
    set_fields,
    set_identity,
)
from shaken_plugin.adapters.freeswitch.leg import (
    Answer,
    Command,
    Export,
    Follow,
    HangUp,
    Leg,
    Set,
    SetPartner,
    harmless,
    variable,
)
from shaken_plugin.adapters.freeswitch.reading import (
    ACCOUNT,
    DATE,
    FROM_VARIABLES,
    PASSED,
    RESULT,
    SLOT,
    SOURCE,
    call_id_of,
    date_of,
    date_to_send,
    incoming,
    leaving,
)
from shaken_plugin.adapters.freeswitch.size import fit
from shaken_plugin.adapters.freeswitch.substitution import substituted
from shaken_plugin.core.call import NAMING, CallerHeader, CallMessage
from shaken_plugin.core.sip import NameAddr
from shaken_plugin.core.verstat import strip_verstat
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.switch import AddHeader, LeftAs, Outcome, Reject, RemoveHeader, StripVerstat, Switch, attach

SIGNING: Final = "shaken_as_"
VERIFYING: Final = "shaken_vs_"
"""What the names of the variables with the results of the two services begin with."""

HOOK: Final = "execute_on_originate_shaken"
"""The variable that has a function run on each leg that leaves, before its INVITE."""

IN_THE_SWITCH: Final = "python shaken::sign"
"""What has to be run there, where the functions are in the switch."""

LEFT_AS: Final = "shaken_left_as"
"""Variable on the leg that came: with which number, in the place of whose, a leg made for it has left."""

EXCLUDED: Final = "exclude_outgoing_extra_header"
"""FreeSWITCH writes the header variables of a leg into each later INVITE of its dialog, too; there the
token would be stale, and the mark of our verifier be told to the outside. What matches is left out."""

ASKED_OF_PARTNER: Final = (LEFT_AS, *reading.ASKED_OF_PARTNER)
"""What `sign` asks the leg that came about, of each usual call: to be had in one go."""

DECIDED: Final = tuple(f"{SIGNING}{name}" for name in ("level", "skip", "ppt"))
"""Variables of which a leg that was signed, or is not to be, has at least one."""

ASKED: Final = ("chan_name", *DECIDED, *reading.ASKED, *size.ASKED)
"""What `sign` asks a usual leg that leaves about, likewise."""

HANGUP_HOOKS: Final = ("api_reporting_hook", "api_hangup_hook")
"""Variables with an API command that FreeSWITCH runs when a leg has ended; the first that nobody else uses."""

ENDED: Final = "python shaken ended"
"""The command that tells the end of a call; the slot follows."""

ANSWERED: Final = "execute_on_answer_shaken"
API_ANSWERED: Final = "api_on_answer_shaken"
"""Variables with an application, or an API command, that FreeSWITCH runs when a leg is answered. A command costs it
a small part of an application, for which it makes two events with all variables of the leg."""

_OWN: Final = ("counted", "slot")
"""What a usual call has of its own in a result that is not secret; see `Outcome.same`."""
_SECRET: Final = frozenset({"identity", "ppi", "date", "replace_date", "drop", "waiting", "substitute", "signed_at"})
"""What only the adapter needs of a result. Every variable of a leg costs its call some 20 µs (measured): it is in a
dozen events, and FreeSWITCH looks in each for another of the same name."""
_SECRET_BESIDE_LEVEL: Final = _SECRET | {"ppt"}
"""Likewise where there is a level: what was signed is then a call, and nothing else."""

_USUALLY_ATTACHED: Final = frozenset({"identity", "date"})
_ATTACHED: Final = _USUALLY_ATTACHED | {"drop", "replace_date", "header_name"}
"""What an outcome may have for `attach`, and what that of a usual call has."""
_CARRIED: Final = (FULL, COMPACT, BY_SWITCH, DATE)
"""What a leg that carries something already has."""

_PLAIN_UUID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")

_CAUSES: Final = {
    403: "OUTGOING_CALL_BARRED",
    404: "UNALLOCATED_NUMBER",
    408: "NO_USER_RESPONSE",
    410: "NUMBER_CHANGED",
    480: "NO_ANSWER",
    484: "INVALID_NUMBER_FORMAT",
    486: "USER_BUSY",
    488: "INCOMPATIBLE_DESTINATION",
    500: "NORMAL_TEMPORARY_FAILURE",
    501: "FACILITY_REJECTED",
    502: "DESTINATION_OUT_OF_ORDER",
    503: "NORMAL_TEMPORARY_FAILURE",
}
"""Causes from which FreeSWITCH makes these answers (mod_sofia, hangup_cause_to_sip)."""


def verify(switch: Switch, leg: Leg) -> list[Command]:
    """Verify the call of a leg that came; mark it for the legs that will be made, or answer it.

    To be run before the dialplan bridges. A leg that comes here again (it was transferred) was
    judged already.
    """
    if leg.get(f"{VERIFYING}code") or leg.get(f"{VERIFYING}result"):
        return []
    outcome = switch.verify(lambda: incoming(leg), in_place=True, call_id=lambda: leg.get("sip_call_id") or "")
    commands: list[Command] = _publish(VERIFYING, outcome.variables)
    if verstat := outcome.variables.get("verstat"):
        # The names that FreeSWITCH's own verifier gives its results.
        detail = outcome.variables.get("code") or outcome.variables.get("result", "")
        commands += [variable("sip_verstat", verstat), variable("sip_verstat_detailed", detail)]
    if outcome.reject is not None:
        return [*commands, _answer(outcome.reject)]
    if switch.verifies_actively:
        commands += _marks(leg, outcome)
        commands += _pass(switch, leg, received_identity(leg.get), date_of(leg.get))
        commands.append(Set(EXCLUDED, _excluded(leg, "|p-asserted-identity")))
    return commands


def pass_through(switch: Switch, leg: Leg) -> list[Command]:
    """Have the Identity fields that came with a call leave with it: each once, in order, unharmed.

    On a leg that came, for all legs that will be made for it; on one that leaves, for itself.
    """
    if leg.get("direction") == "outbound":
        return [*_pass(switch, leg, identity_of(leg), leg.get(DATE) or date_of(leg.partner))]
    return [*_pass(switch, leg, received_identity(leg.get), date_of(leg.get))]


def sign(switch: Switch, leg: Leg, application: str = IN_THE_SWITCH, *, follows: bool = False) -> list[Command]:
    """Decide and sign the call of a leg that leaves, or give it up; on any other, arrange for that.

    A leg is signed once, however often this runs for it.

    Args:
        switch: the services.
        leg: the leg.
        application: what FreeSWITCH has to run on a leg that leaves to have this done.
        follows: whoever carries the commands out can `Follow` a call to its end; else FreeSWITCH tells it by a hook.
    """
    if not leaves(leg):
        return _arrange(switch, leg, application, follows=follows)
    if any(map(leg.get, DECIDED)):
        return []
    if (leg.get("chan_name") or leg.get("channel_name") or "").startswith("loopback/"):
        return []  # it becomes no INVITE
    seen: list[CallMessage] = []

    def read() -> CallMessage:
        seen.append(leaving(leg, switch.services.plan))
        return seen[0]

    outcome = switch.sign(read, left_as=_left_as(leg), call_id=lambda: call_id_of(leg))
    commands = _publish_signing(outcome)
    for message in seen:
        commands += [variable(SOURCE, message.source)] if message.source else []
        commands += [variable(ACCOUNT, message.user)] if message.user else []
    if outcome.reject is not None:
        return [*commands, _give_up(outcome.reject)]
    commands += _followed(switch, leg, outcome, follows=follows)
    number = outcome.variables.get("substitute")
    if not switch.signs_actively and not number:
        return commands
    commands += _unmarked(leg, outcome)
    if number and seen:
        commands += substituted(leg, number, switch.substitution(seen[0], number))
        if replaced := outcome.variables.get("substituted_for"):
            commands.append(SetPartner(LEFT_AS, str(LeftAs.of(number, replaced))))
    return [*commands, *_attached(switch, leg, outcome, seen[0] if seen else None)]


def answered(switch: Switch, leg: Leg) -> list[Command]:
    """The call of a leg was answered: it has its slot until its end is told."""
    if slot := leg.get(SLOT):
        switch.followed(slot)
    return []


def survive(switch: Switch, leg: Leg, name: str, exc: BaseException) -> list[Command]:
    """What the declared mode wants done where a function itself failed; the log says that it did.

    Args:
        switch: the services.
        leg: the leg it was run for.
        name: of the function.
        exc: what happened.
    """
    message, left_as = None, None
    with suppress(BaseException):  # it may be what failed
        message = leaving(leg, switch.services.plan) if name == "sign" else incoming(leg)
        left_as = _left_as(leg) if name == "sign" and leaves(leg) else None
    outcome = switch.fault(name, exc, message, left_as)
    if outcome.reject is not None:
        return [_give_up(outcome.reject) if leaves(leg) else _answer(outcome.reject)]
    if message is not None and (number := outcome.variables.get("substitute")):
        return list(substituted(leg, number, switch.substitution(message, number)))
    return list(_marks(leg, outcome)) if name == "verify" and switch.verifies_actively else []


def leaves(leg: Leg) -> bool:
    """Whether a leg's INVITE is about to be sent."""
    # mod_sofia sets it when it makes the INVITE: a leg that was sent may run the dialplan, too, transferred.
    return leg.get("direction") == "outbound" and not leg.get("sip_outgoing_contact_uri")


def _left_as(leg: Leg) -> LeftAs | None:
    note = leg.partner(LEFT_AS)
    return LeftAs.parse(note) if note else None


def _attached(switch: Switch, leg: Leg, outcome: Outcome, message: CallMessage | None) -> list[Command]:
    """The leg's Identity fields with ours, and its Date; for its first INVITE and no later one.

    ``message`` is the call of the leg, if it could be read: what is needed of it here has not to be read again.
    """
    fields = list(identity_of(leg) if message is None else message.identity)
    date = date_to_send(leg) if message is None else message.date
    variables, remember = fit(switch, leg, outcome.variables, fields)
    if (usual := _usually_attached(switch, leg, variables, fields)) is not None:
        return [*remember, *usual]
    for action in attach(variables):
        if isinstance(action, AddHeader):
            if action.name == "Date":
                date = action.value
            else:
                fields.append(action.value)
        elif isinstance(action, RemoveHeader) and action.index is not None:
            del fields[action.index]
    passed = _pass(switch, leg, fields, date, compact="header_name" in variables)
    carried = [one.name for one in passed if one.value and one.name.startswith((FULL, COMPACT))]
    return [*remember, *passed, *(_only_once(leg, carried) if fields else ())]


def _usually_attached(
    switch: Switch, leg: Leg, variables: Mapping[str, str], fields: list[str]
) -> list[Command] | None:
    """`_attached` where nothing is there beside a new Identity, which is sent as it is, and its Date; else None."""
    if fields or len(_ATTACHED & variables.keys()) != len(_USUALLY_ATTACHED) or any(map(leg.get, _CARRIED)):
        return None
    identity, date = variables["identity"], variables["date"]
    compact = switch.services.settings.freeswitch.identity_name == IdentityName.COMPACT.value
    if compact or not identity.isprintable() or not passes_unharmed(identity):
        return None
    return [Set(FULL, identity), variable(DATE, date), *_only_once(leg, (FULL,))]


def _only_once(leg: Leg, names: Iterable[str]) -> list[Set]:
    """Have the first INVITE of a leg carry its Identity fields, in these variables, and its Date; and no later one.

    They go when the leg is answered, and so does what took them away: each would be copied in a dozen events more.
    """
    uuid = leg.get("uuid") or ""
    if not _PLAIN_UUID.fullmatch(uuid):
        # What an operator wrote may hold anything, and a command is taken apart at semicolons, quotes and backslashes.
        return [Set(f"{ANSWERED}_1", f"set {EXCLUDED}={_excluded(leg)}"), Set(f"{ANSWERED}_2", f"unset {DATE}")]
    return [Set(API_ANSWERED, f"uuid_setvar_multi {uuid} {'=;'.join((*names, DATE, API_ANSWERED))}=")]


def _arrange(switch: Switch, leg: Leg, application: str, *, follows: bool) -> list[Command]:
    """On the leg that came: refuse whom the policy refuses, in its words; have the others' legs signed."""
    # A call from outside that passed is not judged by its source: it may be sent on by a number of ours.
    hooked: list[Command] = []
    if leg.get(RESULT) != PASSED:
        outcome = switch.admit(lambda: leaving(leg, switch.services.plan))
        if outcome.reject is not None:
            after = outcome.reject.retry_after
            later = [Set("sip_rh_Retry-After", str(after))] if after else []
            return [*_publish(SIGNING, outcome.variables), *later, _answer(outcome.reject)]
        slot = outcome.variables.get("slot")
        if slot and follows:
            hooked.append(Follow(slot))
        elif slot:
            hook = _hook(switch, leg.get, slot)
            if hook is not None:
                hooked.append(Set(hook, f"{ENDED} {slot}"))
                switch.followed(slot)  # this leg cannot end without it any more
    names = _cleared(leg, "effective_caller_id_name", "effective_caller_id_number") if switch.signs_actively else ()
    return [*hooked, *names, Export(HOOK, application)]


def _followed(switch: Switch, leg: Leg, outcome: Outcome, *, follows: bool) -> Iterator[Command]:
    """Have the end of a call with a slot told: that of the leg that came, which outlives each that is tried for it."""
    slot = outcome.variables.get("slot")
    if not slot:
        return
    if follows:
        yield Follow(slot)
        return
    has_partner = bool(leg.get("originating_leg_uuid"))
    get = leg.partner if has_partner else leg.get
    if f"{ENDED} {slot}" not in {get(name) for name in HANGUP_HOOKS}:
        hook = _hook(switch, get, slot)
        if hook is not None:
            yield SetPartner(hook, f"{ENDED} {slot}") if has_partner else Set(hook, f"{ENDED} {slot}")
    # Until then it has it for some minutes only: the leg that came may have ended just before it got the hook.
    yield Set(f"{ANSWERED}_3", IN_THE_SWITCH.replace("sign", "answered"))


def _hook(switch: Switch, get: Callable[[str], str | None], slot: str) -> str | None:
    """The variable to tell the end of a call by; without one it has no slot."""
    for name in HANGUP_HOOKS:
        if not (theirs := get(name)) or theirs.startswith(ENDED):
            return name
    switch.ended(slot)
    switch.warn_slotless()
    return None


def _unmarked(leg: Leg, outcome: Outcome) -> Iterator[Command]:
    """Take verstat out of what leaves: a customer's, and that of our own verifier, which is for the inside."""
    for action in outcome.actions:
        if not isinstance(action, StripVerstat):
            continue
        if action.name == CallerHeader.ASSERTED.value:
            yield from set_fields(leg, ASSERTED, [harmless(strip_verstat(value)) for value in fields_of(leg, ASSERTED)])
        names = FROM_VARIABLES if action.name == CallerHeader.FROM.value else (f"sip_h_{action.name}",)
        for name in names:
            if action.name != CallerHeader.ASSERTED.value and (value := leg.get(name)):
                yield variable(name, strip_verstat(value))
    if cleared := list(_cleared(leg, "sip_from_display")):
        # The name is in a Remote-Party-ID, too, where it cannot be changed any more.
        yield from [*cleared, Set("sip_cid_type", "none")]


def _pass(switch: Switch, leg: Leg, identity: Iterable[str], date: str | None, *, compact: bool = False) -> list[Set]:
    values = list(identity)
    name = IdentityName.COMPACT if compact else IdentityName(switch.services.settings.freeswitch.identity_name)
    commands, unsendable = set_identity(leg, values, name)
    if unsendable:
        switch.warn(
            "identity_not_passed",
            "shaken: an Identity header was not passed on, because it holds bytes that are no text",
        )
    # FreeSWITCH sends no Date of its own. RFC 8224 §6.2: a compact PASSporT is checked against it.
    wanted = date or "" if values or is_continued(leg) else leg.get(DATE) or ""
    if wanted != (leg.get(DATE) or ""):
        return [*commands, variable(DATE, wanted)]
    return commands


def _excluded(leg: Leg, more: str = "") -> str:
    """The expression for `EXCLUDED`, beside what the operator has there."""
    theirs = leg.get(EXCLUDED)
    ours = f"(?i)^sip_h_(identity|y{more})"
    return ours if not theirs or theirs == ours else f"({theirs})|{ours}"


def _publish(prefix: str, variables: Mapping[str, str]) -> list[Command]:
    kept = _SECRET_BESIDE_LEVEL if "level" in variables else _SECRET
    return [variable(prefix + name, value) for name, value in variables.items() if name not in kept]


def _publish_signing(outcome: Outcome) -> list[Command]:
    """`_publish` of a leg's signature, but what usual calls have in common is made `harmless` once for all of them."""
    same, variables = outcome.same, outcome.variables
    if same is None:
        return _publish(SIGNING, variables)
    if same.made is None:
        same.made = _publish(SIGNING, same.variables)
    return [*same.made, *(variable(SIGNING + name, variables[name]) for name in _OWN if name in variables)]


def _give_up(reject: Reject) -> HangUp:
    other = _CAUSES[503] if reject.status >= 500 else _CAUSES[403]  # a fault of ours, or the caller's
    return HangUp(_CAUSES.get(reject.status, other))


def _answer(reject: Reject) -> Answer:
    return Answer(reject.status, harmless(reject.phrase), tuple(map(harmless, reject.reasons)))


def _marks(leg: Leg, outcome: Outcome) -> Iterator[Command]:
    """The caller's identity, marked, for the legs that will be made; foreign verstat out."""
    asserted = [
        action.value
        for action in outcome.actions
        if action == AddHeader(CallerHeader.ASSERTED.value, getattr(action, "value", ""))
    ]
    if asserted or leg.get("sip_i_p_asserted_identity") or leg.get("sip_P-Asserted-Identity"):
        yield from set_fields(leg, ASSERTED, [text for value in asserted if (text := harmless(value))])
        # FreeSWITCH would put one of its own beside it, or a Remote-Party-ID, which has no verstat. Exported,
        # because it is not copied to legs that leave by a gateway.
        yield Export("sip_cid_type", "none")
    for action in outcome.actions:
        if isinstance(action, AddHeader) and action.name == CallerHeader.FROM.value:
            yield from _mark_from(action.value)
        elif isinstance(action, StripVerstat) and action.name in NAMING:
            variable_name = f"sip_h_{action.name}"
            if value := leg.get(variable_name):
                yield variable(variable_name, strip_verstat(value))
    yield from _cleared(leg, "effective_caller_id_name", "effective_caller_id_number")


def _cleared(leg: Leg, name: str, number: str | None = None) -> Iterator[Command]:
    """Take out what a stranger wrote into the user part, of which FreeSWITCH makes number and name.

    It undoes percent-escapes there, and writes the name as it is: ``%0d%0a`` is a header field of the
    stranger's choice in the INVITE that leaves, verstat among them (tried).
    """
    for variable_name, source in ((name, "caller_id_name"), (number, "caller_id_number")):
        text = leg.get(source) or ""
        if variable_name and (cleared := strip_verstat(harmless(text))) != text:
            yield variable(variable_name, cleared)


def _mark_from(value: str) -> Iterator[Command]:
    try:
        yield Export("sip_from_uri", harmless(NameAddr.parse(value).uri))
    except SipSyntaxError:
        return
