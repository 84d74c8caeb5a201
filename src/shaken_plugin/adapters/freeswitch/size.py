"""The size guard in FreeSWITCH: about how large an INVITE will be, and whether its peer takes TCP.

Tried on FreeSWITCH 1.11: it sends by UDP whatever the size; ``sip_transport=tcp`` on a leg that
does not go by a gateway makes it TCP, and where nobody takes the connection the leg fails at once.
So the peer is asked first, by a connection that is closed again. A gateway has the transport of its
``register-transport``, and no leg can change it.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from shaken_plugin.adapters.freeswitch.headers import ASSERTED
from shaken_plugin.adapters.freeswitch.leg import Leg, Set
from shaken_plugin.bounded import Bounded
from shaken_plugin.core.sip import Uri
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.switch import SizeOutcome, Switch

TRANSPORT: Final = "shaken_transport"
"""Variable with the transport of a gateway, where it is not UDP: no leg can see it."""

ASKED: Final = (TRANSPORT, "sip_gateway_name")
"""What `fit` asks of a usual leg, besides the numbers."""

_WITHOUT_SDP: Final = 760
"""Bytes of an INVITE of FreeSWITCH 1.11 without body, numbers, addresses and what is added to it (measured)."""
_SDP: Final = 240
"""Bytes of the SDP that it makes for one codec (measured); with more codecs it is longer."""

CONNECT: Final = 0.5
"""Seconds a peer has to take a TCP connection."""
BELIEVED: Final = 60.0
"""Seconds for which it is believed to take one, or not."""

_ADDRESS: Final = re.compile(r"@(\[[0-9A-Fa-f:.]+\]|[0-9.]+)(?::([0-9]{1,5}))?(?=;|$)")

_asked: Bounded[tuple[str, int], tuple[float, bool]] = Bounded(512)


def fit(
    switch: Switch,
    leg: Leg,
    variables: Mapping[str, str],
    identity: Sequence[str],
    takes_tcp: Callable[[str], bool] | None = None,
) -> tuple[Mapping[str, str], list[Set]]:
    """The variables to attach to a leg that leaves, and what is to be set besides.

    Args:
        switch: judges and counts.
        leg: leaves.
        variables: from `Switch.sign`.
        identity: the Identity fields that it carries besides ours.
        takes_tcp: whether a URI's peer takes a TCP connection; by default it is asked.
    """
    target = leg.get("sip_destination_url") or ""
    asked = _transport(leg, target)
    by_gateway = leg.get("sip_gateway_name") is not None
    ask = takes_tcp or answers_by_tcp
    may_switch = asked is None and not by_gateway and _wants_tcp(switch) and ask(target)
    advice = switch.check_size(variables, size_of(leg, target, identity), asked or "udp", may_switch=may_switch)
    if advice.outcome is SizeOutcome.FITS:
        return variables, []
    # Only what differs from other calls: by UDP all are too large, and every variable costs its call (`functions`).
    if advice.outcome not in {SizeOutcome.USE_TCP, SizeOutcome.SHORTEN}:
        return advice.variables, []
    remember = [Set("shaken_as_size", f"{advice.outcome.value} {advice.size}")]
    if advice.outcome is SizeOutcome.USE_TCP:
        remember.append(Set("sip_transport", "tcp"))
    return advice.variables, remember


def size_of(leg: Leg, target: str, identity: Sequence[str]) -> int:
    """About how many bytes the INVITE of a leg will have, without our headers.

    What else the dialplan adds (``sip_h_X-…``) is not seen: a leg cannot list its variables.
    """
    number = leg.get("caller_id_number") or ""
    name = leg.get("caller_id_name") or ""
    fields = sum(len("Identity: \r\n") + len(value) for value in identity)
    asserted = leg.get(ASSERTED) or ""
    return _WITHOUT_SDP + _SDP + 2 * len(target) + 2 * len(number) + 2 * len(name) + len(asserted) + fields


def answers_by_tcp(target: str) -> bool:
    """Whether the peer of a SIP URI takes a TCP connection; only an IP address is asked, and remembered."""
    peer = _peer(target)
    if peer is None:
        return False
    now = time.monotonic()
    known = _asked.get(peer)
    if known is not None and now - known[0] < BELIEVED:
        return known[1]
    try:
        socket.create_connection(peer, CONNECT).close()
        answer = True
    except OSError:
        answer = False
    _asked.put(peer, (now, answer))
    return answer


def _peer(target: str) -> tuple[str, int] | None:
    found = _ADDRESS.search(target)
    try:
        return None if found is None else (str(ip_address(found[1].strip("[]"))), int(found[2] or 5060))
    except ValueError:
        return None


def _wants_tcp(switch: Switch) -> bool:
    return switch.services.settings.signing.size.action == "tcp"


def _transport(leg: Leg, target: str) -> str | None:
    """The transport that a leg will leave by; None where nothing asks for one (then UDP)."""
    if target[:5].lower() == "sips:":
        return "tls"
    if asked := leg.get(TRANSPORT):
        return asked.lower()
    by_uri = None
    if ";" in target:
        with suppress(SipSyntaxError):
            by_uri = Uri.parse(target).params.get("transport")
    return (by_uri or (leg.get("sip_transport") if leg.get("sip_gateway_name") is None else None) or "").lower() or None
