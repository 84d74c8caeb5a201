"""The size guard in Kamailio: how large a branch will be, by what it leaves, and TCP with UDP to fall back on.

Tried on Kamailio 5.6.3. Its own ``udp_mtu`` with ``udp_mtu_try_proto`` knows the exact size and
stays with UDP where Kamailio has no TCP socket; but it says nothing, and where the peer takes no
TCP the call is lost: a refused connection makes ``t_relay`` fail, a silent one ends in the timer,
and the next attempt is too large again and goes by TCP again. So the branch route writes
``;transport=tcp`` into ``$du``, and a failover may write ``;transport=udp``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from shaken_plugin.switch import SizeOutcome, Switch
from shaken_plugin.switch.size import signature_bytes

GROWTH: Final = 200
"""Bytes that Kamailio itself adds to a request: its Via (about 90), received and rport (up to 40),
one Record-Route (45 to 80). What the routing script adds besides is not seen: it shows in no
variable before the message is sent."""

SUBSTITUTED: Final = 150
"""Bytes that a substituted caller ID adds besides: our parameter of the Record-Route (120 to 180)."""

_TRANSPORT: Final = re.compile(r";transport=([^;]*)", re.IGNORECASE)


def transport_of(uri: str) -> str | None:
    """The transport that a SIP URI asks for, in small letters; None where it leaves it open (then UDP).

    A host name without one may lead to TCP by NAPTR records, where Kamailio is set to ask for them.
    """
    found = _TRANSPORT.search(_parts(uri)[1]) if ";" in uri else None
    if found is not None:
        return found.group(1).lower()
    return "tls" if uri[:5].lower() == "sips:" else None


def with_transport(uri: str, transport: str) -> str:
    """A SIP URI that asks for a transport instead of what it asked for."""
    user, place, headers = _parts(uri)
    return f"{user}{_TRANSPORT.sub('', place)};transport={transport}{headers}"


def peer_of(uri: str) -> str:
    """Host and port of a SIP URI: who is remembered not to take TCP, whatever number is called."""
    return _parts(uri)[1].partition(";")[0]


def _parts(uri: str) -> tuple[str, str, str]:
    """A SIP URI as scheme and user, host with its parameters, and headers; all may hold a semicolon."""
    scheme, colon, rest = uri.partition(":")
    user, at, place = rest.rpartition("@")
    place, question, headers = place.partition("?")
    return scheme + colon + user + at, place, question + headers


class BranchSize:
    """Judges the size of the branch that is about to leave, and directs it.

    Args:
        ksr: the switch's ``KSR`` module.
        switch: judges and counts.
    """

    def __init__(self, ksr: Any, switch: Switch) -> None:
        self._ksr = ksr
        self._switch = switch

    def fits(self, length: int, identity: str, date: str) -> bool:
        """Whether a request that came with so many bytes is small enough, with these two headers, for every branch."""
        threshold = self._switch.services.settings.signing.size.threshold
        return not threshold or length + GROWTH + signature_bytes(identity, date) <= threshold

    def fit(self, state: Mapping[str, str]) -> tuple[Mapping[str, str], dict[str, str]]:
        """For the branch route.

        Args:
            state: the variables for `attach`.

        Returns:
            The variables to attach, and what to remember of the branch: ``size`` for the operator
            (the outcome and the bytes), ``tcp`` where it leaves by TCP (the branch and where to).
        """
        try:
            return self._fit(state)
        except BaseException as exc:  # the signature leaves whatever its size
            self._switch.fault("size", exc)
            return state, {}

    def _fit(self, state: Mapping[str, str]) -> tuple[Mapping[str, str], dict[str, str]]:
        pv = self._ksr.pv
        size = int(pv.get("$ml") or 0) + GROWTH + (SUBSTITUTED if state.get("substitute") else 0)
        if self._switch.fits(state, size):
            return state, {}
        target = str(pv.get("$du") or pv.get("$ru") or "")
        asked = transport_of(target)
        # Who it goes to matters where it may be asked to take TCP.
        peer = peer_of(target) if self._switch.services.settings.signing.size.action == "tcp" else None
        advice = self._switch.check_size(state, size, asked or "udp", peer, may_switch=asked is None)
        if advice.outcome is SizeOutcome.FITS:
            return state, {}
        remember = {"size": f"{advice.outcome.value} {advice.size}"}
        if advice.outcome is SizeOutcome.USE_TCP:
            pv.sets("$du", with_transport(target, "tcp"))
            remember["tcp"] = f"{self._ksr.tm.t_get_branch_index()} {target}"
        return advice.variables, remember

    def replied(self, tcp: str) -> bool:
        """For a reply: whether it is one to the branch that left by TCP, as `fit` remembered it."""
        branch, _, target = tcp.partition(" ")
        if branch != str(self._ksr.tm.t_get_branch_index()):
            return False
        self._switch.sizes.tcp_answered(peer_of(target))
        return True

    def fall_back(self, tcp: str) -> None:
        """Direct the next branch by UDP to where the one went that was not answered by TCP."""
        target = tcp.partition(" ")[2]
        self._switch.sizes.tcp_failed(peer_of(target))
        self._ksr.pv.sets("$du", with_transport(target, "udp"))
