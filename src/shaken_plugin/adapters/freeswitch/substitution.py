"""Another caller ID on a leg that leaves: in what FreeSWITCH makes From and its own caller headers of.

Tried on FreeSWITCH 1.11: ``sip_force_full_from`` is the From of the whole dialog, its name included, and
wins over all but ``sip_invite_full_from``, which is written into each INVITE; ``sip_cid_type=none`` leaves
out the Remote-Party-ID or P-Asserted-Identity that FreeSWITCH would make of the leg's caller profile. That
is changed, too: when the call is answered FreeSWITCH tells it to peers that take display updates (INFO
to other FreeSWITCHes, UPDATE to some telephones). As the leg has a dialog of its own, the caller sees nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from shaken_plugin.adapters.freeswitch.headers import ASSERTED, set_fields
from shaken_plugin.adapters.freeswitch.leg import Caller, Command, Leg, Set, harmless
from shaken_plugin.adapters.freeswitch.reading import FROM_VARIABLES
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.sip import NameAddr
from shaken_plugin.switch import Action, AddHeader, RemoveHeader

FORCED: Final = "sip_force_full_from"

CONTACT: Final = "sip_contact_user"
"""Variable with the user part of Contact, where a dialplan wants another than ``mod_sofia``."""


def substituted(leg: Leg, number: str, actions: Iterable[Action]) -> Iterator[Command]:
    """What has a leg leave as a call of another number.

    Args:
        leg: the leg, before its INVITE.
        number: canonical.
        actions: from `Switch.substitution`.
    """
    written: dict[str, list[str]] = {}
    for action in actions:
        if isinstance(action, RemoveHeader):
            written[action.name] = []
        elif isinstance(action, AddHeader):
            written.setdefault(action.name, []).append(harmless(action.value))
    for value in written.pop(CallerHeader.FROM.value, []):
        yield Caller(f"+{number}")
        yield from _from(leg, value)
    yield from set_fields(leg, ASSERTED, written.pop(CallerHeader.ASSERTED.value, []))
    yield Set("sip_cid_type", "none")
    if _same(leg.get(CONTACT), leg.get("caller_id_number")):
        yield Set(CONTACT, f"+{number}")  # FreeSWITCH knows its dialogs by Call-ID and tags, not by that
    if leg.get("privacy_hide_number") == "true":
        yield Set("sip_h_Privacy", "id")  # FreeSWITCH says it only in the headers that are left out now
    for name, values in written.items():
        if leg.get(f"sip_h_{name}"):
            yield Set(f"sip_h_{name}", ", ".join(values))


def _same(one: str | None, other: str | None) -> bool:
    """Whether both are the same number, with or without the country code that stands before it."""
    shorter, longer = sorted(("".join(filter(str.isdecimal, text or "")) for text in (one, other)), key=len)
    return len(shorter) >= 7 and longer.endswith(shorter)


def _from(leg: Leg, value: str) -> Iterator[Set]:
    for name in FROM_VARIABLES:
        if name == FORCED or leg.get(name):
            yield Set(name, value if "full" in name else NameAddr.parse(value).uri)
