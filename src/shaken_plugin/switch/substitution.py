"""Another caller ID in the place of the caller's, in every header field that shows who calls."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, Literal

from shaken_plugin.core.call import NAMING, CallerHeader, CallMessage, is_anonymous
from shaken_plugin.core.sip import NameAddr, Uri, split_list
from shaken_plugin.core.telephone import DialPlan, Party, canonical_party
from shaken_plugin.core.verstat import strip_verstat
from shaken_plugin.errors import NumberError, SipSyntaxError
from shaken_plugin.switch.actions import Action, AddHeader, RemoveHeader

Place = Literal["asserted", "from"]
"""P-Asserted-Identity and From: where the other caller ID is written."""

_HINTS: Final = (CallerHeader.PREFERRED, CallerHeader.REMOTE_PARTY)
"""What some telephones and carriers show as the caller. Where it came with the call it says the new number."""


def substitution(
    message: CallMessage,
    number: str,
    plan: DialPlan,
    places: Collection[Place] = ("asserted", "from"),
    host: str | None = None,
    *,
    within_dialog: bool = False,
) -> tuple[Action, ...]:
    """What makes a request leave as a call of another number.

    No header that says who calls shows the number of before: what is not one of ``places`` goes. Contact is not
    one of them: it is where requests of the dialog are sent, and stays.
    Display names go, too: they belong to the number that was replaced. A From that withholds the
    caller (RFC 3323 §4.1.1.3) goes on doing so.

    Args:
        message: the request as it came.
        number: canonical.
        plan: to recognise the caller's numbers.
        places: where the number is written.
        host: of the addresses that are written, instead of those that stand there.
        within_dialog: a later request: nothing is written that was not there.
    """
    actions: list[Action] = []
    lines = message.callers.get(CallerHeader.ASSERTED, ())
    if lines:
        actions.append(RemoveHeader(CallerHeader.ASSERTED.value))
    if "asserted" in places and (lines or not within_dialog):
        uri = _first_uri(message, CallerHeader.ASSERTED) or _first_uri(message, CallerHeader.FROM) or ""
        actions.append(AddHeader(CallerHeader.ASSERTED.value, f"<{with_number(uri, number, host)}>"))
    if "from" in places:
        actions += _from(message, number, plan, host)
    for header in _HINTS:
        if header in message.callers:
            actions.append(RemoveHeader(header.value))
            for address in _addresses(message, header):
                actions.append(AddHeader(header.value, _shown_as(address, number, host)))
                break
    return (*actions, *_unnamed(message, plan))


def with_number(uri: str, number: str, host: str | None = None) -> str:
    """A URI that names a number instead of whom it named, at the same host or another."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() == "tel":
        return f"tel:+{number}"
    place = strip_verstat(rest.rpartition("@")[2].partition("?")[0]) if scheme.lower() in {"sip", "sips"} else ""
    if host is not None:
        place = f"{host}{''.join(place.partition(';')[1:])}"
    return f"{scheme.lower() if place and scheme else 'sip'}:+{number}@{place or 'invalid'}"


def _from(message: CallMessage, number: str, plan: DialPlan, host: str | None) -> Iterator[Action]:
    for address in _addresses(message, CallerHeader.FROM):
        party = _party(address.uri, plan)
        if party is not None and is_anonymous(party):
            return
        yield RemoveHeader(CallerHeader.FROM.value)
        yield AddHeader(CallerHeader.FROM.value, _shown_as(address, number, host))
        return


def _shown_as(address: NameAddr, number: str, host: str | None) -> str:
    """An address without its display name, and with its parameters: the tag of From is the dialog's."""
    suffix = address.suffix if address.suffix.startswith(">") else f">{address.suffix}"
    return f"<{with_number(address.uri, number, host)}{strip_verstat(suffix)}"


def _unnamed(message: CallMessage, plan: DialPlan) -> Iterator[Action]:
    """Take the caller's own numbers out of headers that name others."""
    replaced = {caller.party for header in CallerHeader for caller in message.callers_in(header, plan)}
    for name in NAMING:
        values = [value for line in message.naming.get(name, ()) for value in split_list(line)]
        kept = [value for value in values if _named(value, plan) not in replaced]
        if len(kept) < len(values):
            yield RemoveHeader(name)
            yield from (AddHeader(name, text) for value in kept if (text := _sendable(strip_verstat(value))))


def _named(value: str, plan: DialPlan) -> Party | None:
    try:
        return _party(NameAddr.parse(value).uri, plan)
    except SipSyntaxError:
        return None


def _party(uri: str, plan: DialPlan) -> Party | None:
    try:
        return canonical_party(Uri.parse(uri), plan)
    except (SipSyntaxError, NumberError):
        return None


def _addresses(message: CallMessage, header: CallerHeader) -> Iterator[NameAddr]:
    """The addresses in a header that can be read and sent."""
    for line in message.callers.get(header, ()):
        for value in (line,) if header is CallerHeader.FROM else split_list(line):
            try:
                address = NameAddr.parse(value)
            except SipSyntaxError:
                continue
            if _sendable(address.uri + address.suffix):
                yield address


def _first_uri(message: CallMessage, header: CallerHeader) -> str | None:
    return next((address.uri for address in _addresses(message, header)), None)


def _sendable(text: str) -> str:
    """The text, empty where it holds bytes that are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return ""
    return text
