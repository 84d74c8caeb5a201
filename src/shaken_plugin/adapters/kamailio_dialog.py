"""Another caller ID in Kamailio: on the branch that leaves, and in its dialog until the end.

The caller goes on to see its own From, the called party that of the number in its place. Replies
get the caller's own back in the reply route. For later requests the proxy keeps nothing itself: it
writes the number, and sealed what was there before, into its Record-Route, as a parameter that
comes back in the Route of each request of the dialog, from either side, to any worker. Tags stay,
by which dialogs are known (RFC 3261 §12); so whoever leaves the parameter out loses nothing else.

Headers are written anew, from what came. The module uac could replace From, too, but not its display name
in later requests nor any other header, and what it keeps in the Record-Route is covered, not sealed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.sip import NameAddr
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.switch import Action, AddHeader, RemoveHeader, Switch

PARAMETER: Final = "shaken"
"""Name of the Record-Route parameter."""

_NOTE: Final = re.compile(rf";{PARAMETER}=([0-9]{{1,15}})\.([A-Za-z0-9_-]*)(?=[;?>]|$)")
_CALLER: Final = re.compile(r";ftag=([^;?>]*)")
"""Written by the module rr, beside ours: the tag of who began the dialog (its ``append_fromtag``)."""
_LONGEST: Final = 200
"""Most characters of a From that are kept; of a longer one the address alone, or nothing."""


class Dialogs:
    """Substitutes the caller ID of what leaves, in both directions of a dialog.

    Args:
        ksr: the switch's ``KSR`` module.
        switch: knows what is to be written.
        execute: does an action on the message at hand.
    """

    def __init__(self, ksr: Any, switch: Switch, execute: Callable[[Action], None]) -> None:
        self._ksr = ksr
        self._switch = switch
        self._execute = execute

    def check_start(self) -> None:
        """Say so where the settings substitute and the module is not loaded that it takes; rules may come later."""
        signing = self._switch.services.settings.signing
        if self._switch.signs_actively and signing.substitute is not None and getattr(self._ksr, "rr", None) is None:
            self._warn_of_rr("caller IDs are to be substituted (signing.substitute)")

    def _warn_of_rr(self, what: str) -> None:
        self._switch.warn(
            "substitution_without_rr",
            f'shaken: {what}, and without loadmodule "rr.so" and record_route() later requests of the call go past '
            "this proxy with the number of before",
        )

    def begin(self, message: CallMessage, number: str) -> str:
        """For the branch route: the INVITE leaves as a call of ``number``.

        Returns:
            What its replies have to say again (`answer`), empty where From stays as it is.
        """
        if not self._rewrite(self._switch.substitution(message, number)):
            return ""
        own = _sendable(message.callers[CallerHeader.FROM][0])
        rr = getattr(self._ksr, "rr", None)
        if rr is None:
            self._warn_of_rr("a caller ID was substituted")
        else:
            sealed = self._switch.seal.seal(own, message.call_id) if own else ""
            rr.add_rr_param(f";{PARAMETER}={number}.{sealed}")
        return own and f"{CallerHeader.FROM.value}: {own}"

    def go_on(self, message: CallMessage, route: str) -> str:
        """For a later request of a dialog, from either side.

        Args:
            message: the request as it came.
            route: the URI of its topmost Route.

        Returns:
            What its replies have to say again (`answer`), empty where nothing was changed.
        """
        note, caller = _NOTE.search(route), _CALLER.search(route)
        if note is None or caller is None:
            return ""
        number, sealed = note.groups()
        if message.from_tag == caller.group(1):
            changed = self._rewrite(self._switch.substitution(message, number, within_dialog=True))
            own = _sendable(message.callers[CallerHeader.FROM][0]) if changed else ""
            return own and f"{CallerHeader.FROM.value}: {own}"
        before = self._switch.seal.open(sealed, message.call_id)
        came = _sendable(message.to)
        if not before or not came:
            return ""
        # The caller's address as the caller wrote it, with the tag that this request has.
        self._rewrite((RemoveHeader("To"), AddHeader("To", before)))
        return f"To: {came}"

    def check_answer(self, routes: Iterable[str]) -> None:
        """For a 2xx to an INVITE that was substituted, which has its Record-Route (RFC 3261 §12.1.1: MUST copy)."""
        if not any(f";{PARAMETER}=" in route for route in routes):
            self._switch.warn(
                "substitution_without_record_route",
                "shaken: a call was answered whose caller ID was substituted, and its later requests will not come by "
                "here as they should: call record_route() in the request route, before the call is relayed",
            )

    def check_request(self, message: CallMessage) -> None:
        """For a request inside a dialog that leaves with our note in its Route and was not given to `go_on`."""
        if message.to_tag:
            self._switch.warn(
                "substitution_without_dialog",
                "shaken: a request of a call whose caller ID was substituted leaves with the number of before; after "
                'loose_route() the script needs: if ($(route_uri{param.in,shaken}) == 1) python_exec("shaken_dialog");',
            )

    def answer(self, line: str) -> None:
        """For a reply: the address that its request came with, as RFC 3261 §8.2.6.2 wants."""
        name, _, value = line.partition(": ")
        self._rewrite((RemoveHeader(name), AddHeader(name, value)))

    def _rewrite(self, actions: Iterable[Action]) -> bool:
        """Do it; whether From was among it."""
        done = list(actions)
        for action in done:
            self._execute(action)
        return RemoveHeader(CallerHeader.FROM.value) in done


def _sendable(value: str) -> str:
    """A From or To that can be written again: without a display name that is no text or very long; else empty."""
    if len(value) <= _LONGEST and value.isprintable():
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    try:
        address = NameAddr.parse(value)
    except SipSyntaxError:
        return ""
    suffix = address.suffix if address.suffix.startswith(">") else f">{address.suffix}"
    plain = f"<{address.uri}{suffix}"
    return plain if len(plain) <= _LONGEST and plain.isascii() else ""
