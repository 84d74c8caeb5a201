"""A leg of a call as a `CallMessage`.

The variables are those that mod_sofia sets. Most header fields of an INVITE that came are there
only with the profile's ``parse-all-invite-headers``; without it, what stands in its place is less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shaken_plugin.adapters.freeswitch.headers import (
    ASSERTED,
    BY_SWITCH,
    COMPACT,
    FULL,
    fields_of,
    identity_of,
    is_continued,
    received_identity,
    values_of,
)
from shaken_plugin.adapters.freeswitch.leg import Leg
from shaken_plugin.core.call import ANONYMOUS_HOST, NAMING, CallerHeader, CallMessage, is_emergency
from shaken_plugin.core.sip import NameAddr, Uri, format_date
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.errors import SipSyntaxError

ACCOUNT: Final = "shaken_account"
"""Variable with the switch account a call is made for, where no leg came that was authenticated."""

SOURCE: Final = "shaken_source"
"""Variable with the address a call came from, on the legs that were made for it."""

ROUTE: Final = "shaken_route"
"""Variable with the route (of the policy) by which a call leaves; else the called number tells it."""

DATE: Final = "sip_h_Date"

SLOT: Final = "shaken_as_slot"
"""Variable with the slot that the call of a leg has, for legs that are made when it is transferred."""

TARGET: Final = "shaken_to"
"""Variable with the called number, where what is dialled has more in it (a technical prefix)."""

RESULT: Final = "shaken_vs_result"
PASSED: Final = "passed"
"""Variable with the result of a verification, on the leg that came, and what it is where it passed."""

_PARTIES: Final = {  # as received, which profiles may leave out; and what mod_sofia always sets
    CallerHeader.ASSERTED: ("sip_i_p_asserted_identity", "sip_P-Asserted-Identity"),
    CallerHeader.PREFERRED: ("sip_i_p_preferred_identity", "sip_P-Preferred-Identity"),
    CallerHeader.REMOTE_PARTY: ("sip_i_remote_party_id", "sip_Remote-Party-ID"),
}


ASKED_OF_PARTNER: Final = (
    *("direction", "sip_network_ip", "sip_authorized", "sip_call_id", "sip_req_uri", "sip_i_to", "sip_identity"),
    *("sip_i_y", "sip_i_date", "sip_date_epoch_time", "sip_i_priority", "sip_priority"),
    *(SOURCE, ACCOUNT, ROUTE, SLOT, TARGET, RESULT),
)
"""What `leaving` asks the leg that came about, of each usual call."""


def incoming(leg: Leg) -> CallMessage:
    """The call of a leg that came."""
    get = leg.get
    # A URN has no user part, so sip_req_uri says nothing of it; To is the same in an emergency call.
    request_uri = get("sip_req_uri") or ""
    return CallMessage(
        method="INVITE",
        request_uri=f"sip:{request_uri}" if "@" in request_uri else get("sip_to_uri") or "",
        to=get("sip_full_to") or "",
        callers=_callers(get),
        call_id=get("sip_call_id") or "",
        date=date_of(get),
        identity=received_identity(get),
        priority=_priority(get),
        naming={name: lines for name in NAMING if (lines := values_of(get(received_name(name))))},
        resource_priority=values_of(get("sip_i_resource_priority")),
        sdp=get("switch_r_sdp") or "",
        source=get("sip_network_ip"),
        user=_account(get),
    )


def call_id_of(leg: Leg) -> str:
    """The Call-ID that a call came with, also for a leg that leaves."""
    return leg.partner("sip_call_id") or leg.get("sip_call_id") or leg.get("uuid") or ""


def leaving(leg: Leg, plan: DialPlan) -> CallMessage:
    """The call of a leg whose INVITE is about to be sent; or that a leg which came asks for.

    Args:
        leg: the leg.
        plan: knows the emergency numbers.
    """
    return _usual(leg, plan) or _any(leg, plan)


def _any(leg: Leg, plan: DialPlan) -> CallMessage:
    """`leaving`, whatever leg it is."""
    get, partner = leg.get, leg.partner
    dialled = _dialled(leg)
    source, user = _origin(leg)
    return CallMessage(
        method="INVITE",
        request_uri=_emergency(leg, plan) or get("sip_invite_req_uri") or dialled,
        to=_to(leg, dialled),
        callers=_own_callers(leg),
        call_id=call_id_of(leg),
        date=date_to_send(leg),
        identity=identity_of(leg),
        priority=_priority(partner) or _priority(get),
        naming={name: lines for name in NAMING if (lines := values_of(get(f"sip_h_{name}")))},
        source=source,
        user=user,
        leg=get("originating_leg_uuid") or get("uuid") or "",
        slot=partner(SLOT) or "",
        diverting=_diverting(leg),
        route=get(ROUTE) or partner(ROUTE) or "",
    )


def _usual(leg: Leg, plan: DialPlan) -> CallMessage | None:
    """`_any` of a leg that came, or is made for one that did, with nothing set that changes more; None of any other."""
    get, partner = leg.get, leg.partner
    leaves = get("direction") == "outbound"
    if (partner("direction") != "inbound" or partner(RESULT) == PASSED) if leaves else get("originating_leg_uuid"):
        return None
    if get("sip_cid_type") is not None or any(map(get, _CHANGING)) or any(map(partner, _CHANGING_OF_PARTNER)):
        return None
    dialled = get("sip_destination_url") if leaves else _dialled(leg)
    if not dialled or not dialled.startswith("sip:") or "@" not in dialled or "^" in (get("destination_number") or ""):
        return None
    if _emergency(leg, plan):
        return None
    caller = (_address(leg, get("caller_id_number")),)
    source, user = _origin(leg)
    return CallMessage(
        method="INVITE",
        request_uri=dialled,
        to=f"<{dialled}>",
        callers={_FROM: caller, _REMOTE_PARTY: caller},
        call_id=call_id_of(leg),
        date=date_of(partner) if leaves else None,
        source=source,
        user=user,
        leg=get("originating_leg_uuid") or get("uuid") or "",
        slot=partner(SLOT) or "",
        route=get(ROUTE) or partner(ROUTE) or "",
    )


def _own_callers(leg: Leg) -> dict[CallerHeader, tuple[str, ...]]:
    """The caller's headers as FreeSWITCH will write them (mod_sofia, sofia_glue_do_invite)."""
    shown = leg.get("sip_cid_type")
    number = _address(leg, leg.get("caller_id_number"))
    asserted = tuple(fields_of(leg, ASSERTED)) + ((number,) if shown == "pid" else ())
    callers: dict[CallerHeader, tuple[str, ...]] = {CallerHeader.FROM: (_from(leg),)}
    if asserted:
        callers[CallerHeader.ASSERTED] = asserted
    if shown in {None, "rpid"}:
        callers[CallerHeader.REMOTE_PARTY] = (number,)
    return callers


def _origin(leg: Leg) -> tuple[str | None, str | None]:
    """The address and the account that a call is made for.

    A leg that was sent has the address of whom it was sent to; what it was made for is kept on it,
    for legs that are made when it is transferred.
    """
    get, partner = leg.get, leg.partner
    if get("direction") != "outbound":
        return get("sip_network_ip"), get(ACCOUNT) or _account(get)
    source, user = get(SOURCE) or partner(SOURCE), get(ACCOUNT) or partner(ACCOUNT)
    if partner("direction") == "inbound":
        return source or partner("sip_network_ip"), user or _account(partner)
    return source, user


def date_of(get: Callable[[str], str | None]) -> str | None:
    """The Date of an INVITE that came, in the words of RFC 3261 §20.17; None where it had none."""
    if written := get("sip_i_date"):
        return written
    if not (received := get("sip_date_epoch_time")):
        return None
    try:
        return format_date(int(received))
    except (ValueError, OverflowError, OSError):
        return None


def date_to_send(leg: Leg) -> str | None:
    """The Date that a leaving leg has to carry: that set for it, else that which came."""
    return None if is_continued(leg) else leg.get(DATE) or date_of(leg.partner)


def received_name(header: str) -> str:
    """The variable with the fields of a header that sofia does not know by name."""
    return f"sip_i_{header.lower().replace('-', '_')}"


def _account(get: Callable[[str], str | None]) -> str | None:
    """The account FreeSWITCH has authenticated; ``sip_from_user`` is merely claimed."""
    return get("user_name") if get("sip_authorized") == "true" else None


def _callers(get: Callable[[str], str | None]) -> dict[CallerHeader, tuple[str, ...]]:
    callers: dict[CallerHeader, tuple[str, ...]] = {}
    if lines := values_of(get("sip_full_from")):
        callers[CallerHeader.FROM] = lines
    for header, (full, short) in _PARTIES.items():
        if user := get(short):
            written = user if "<" in user or ":" in user else f"<sip:{user}{'' if '@' in user else '@invalid'}>"
            callers[header] = _of_one_user(values_of(get(full))) or (written,)
    return callers


def _of_one_user(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The first of several values, and those of the same user (a sip: and a tel: URI, RFC 3325 §9.1).

    An unknown header ``P_Asserted-Identity`` fills the same variable, behind the real one (tried).
    """
    return lines[:1] + tuple(line for line in lines[1:] if _user(line) == _user(lines[0]) is not None)


def _user(line: str) -> str | None:
    try:
        return Uri.parse(NameAddr.parse(line).uri).user or None
    except SipSyntaxError:
        return None


def _dialled(leg: Leg) -> str:
    """The URI that is dialled."""
    if number := leg.get(TARGET) or leg.partner(TARGET):
        return f"sip:{number}@invalid"
    return _uri(leg.get("sip_destination_url") or (leg.get("destination_number") or "").partition("^")[0])


def _came(leg: Leg) -> Callable[[str], str | None] | None:
    """The variables of the leg that came, from which this one is made or which it is; None where none came."""
    if leg.get("direction") != "outbound":
        return leg.get
    return leg.partner if leg.partner("direction") == "inbound" else None


def _diverting(leg: Leg) -> str:
    """Whom a call was for that is sent on to somebody else; empty where that may not be vouched for.

    That is whom the INVITE that came was addressed to by its Request-URI, not by To, in which its sender
    may name anybody. And the call has passed verification: a div on top of a PASSporT that nobody checked
    would have us swear to a stranger's forgery.
    """
    came = _came(leg)
    if came is None or leg.get("direction") != "outbound" or came(RESULT) != PASSED:
        return ""
    request_uri = came("sip_req_uri") or ""
    return _bracketed(request_uri) if "@" in request_uri else ""


def _emergency(leg: Leg, plan: DialPlan) -> str | None:
    """The URI of an emergency call that came: where it leaves the dialplan may have put a number in its place."""
    came = _came(leg)
    if came is None:
        return None
    request_uri = _uri(came("sip_req_uri") or came("destination_number") or "")
    to = came("sip_i_to") or came("sip_full_to") or _bracketed(came("sip_to_uri") or "")
    if not is_emergency(request_uri, to, "", plan):
        return None
    if is_emergency(request_uri, "", "", plan):
        return request_uri
    return to.strip().rpartition("<")[2].partition(">")[0]


def _priority(get: Callable[[str], str | None]) -> str:
    return get("sip_i_priority") or get("sip_priority") or ""


TO_VARIABLES: Final = ("sip_invite_full_to", "sip_force_full_to", "sip_handle_full_to", "sip_invite_to_uri")
"""Variables that decide To, the first of them that is set."""


def _to(leg: Leg, dialled: str) -> str:
    """The To header: as what is dialled, or what stands behind ``^`` there.

    FreeSWITCH keeps that part for legs to a gateway only; for others `TARGET` can say it.
    """
    if not (leg.get(TARGET) or leg.partner(TARGET)):
        for name in TO_VARIABLES:
            if value := leg.get(name):
                return value if "<" in value else f"<{_uri(value)}>"
        if shown := (leg.get("destination_number") or "").partition("^")[2]:
            return f"<{_uri(shown)}>"
    return f"<{dialled}>"


def _uri(text: str) -> str:
    """What is dialled as a URI; where only the number matters, of no host."""
    scheme = text.partition(":")[0].lower()
    if scheme in {"tel", "urn"}:
        return text
    if scheme not in {"sip", "sips"}:
        text = f"sip:{text}"
    return text if "@" in text else f"{text}@invalid"


FROM_VARIABLES: Final = (
    "sip_invite_full_from",
    "sip_force_full_from",
    "sip_handle_full_from",
    "sip_invite_from_uri",
    "sip_from_uri",
)
"""Variables that decide From, the first of them that is set."""


def _from(leg: Leg) -> str:
    for name in FROM_VARIABLES:
        if value := leg.get(name):
            return value if "<" in value or "full" in name else _bracketed(value)
    return _address(leg, leg.get("caller_id_number"))


_FROM, _REMOTE_PARTY = CallerHeader.FROM, CallerHeader.REMOTE_PARTY  # members of an Enum are looked for at length

_CHANGING: Final = (
    *(TARGET, "sip_invite_req_uri", *TO_VARIABLES, *FROM_VARIABLES, ASSERTED, DATE, FULL, COMPACT, BY_SWITCH),
    *("sip_i_priority", "sip_priority", *(f"sip_h_{name}" for name in NAMING)),
)
_CHANGING_OF_PARTNER: Final = (TARGET, "sip_identity", "sip_i_y", "sip_i_priority", "sip_priority")
"""Variables of either leg that change what the INVITE says, or what is made of it; of usual calls none is set."""

ASKED: Final = (
    *("direction", "sip_outgoing_contact_uri", "originating_leg_uuid", "uuid", "sip_cid_type", "destination_number"),
    *("sip_destination_url", "caller_id_number", "caller_id_name", "sip_invite_domain", "sip_local_network_addr"),
    *(SOURCE, ACCOUNT, ROUTE, *_CHANGING),
)
"""What `leaving` asks a usual leg that leaves about."""


def _bracketed(uri: str) -> str:
    return uri and f"<{uri if uri.lower().startswith(('sip:', 'sips:')) else f'sip:{uri}'}>"


def _address(leg: Leg, number: str | None) -> str:
    """The address FreeSWITCH makes of a caller's number; of one that is withheld, as RFC 3323 §4.1.1.3 has it."""
    if (number or "").lower() == "anonymous":
        return f"<sip:anonymous@{ANONYMOUS_HOST}>"
    host = leg.get("sip_invite_domain") or leg.get("sip_local_network_addr") or "invalid"
    return f"<sip:{number}@{host}>" if number else f"<sip:{host}>"
