"""A provider of the lab with its switch side, and calls for it."""

from __future__ import annotations

import itertools
import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.results import BenchError
from shaken_plugin import runtime
from shaken_plugin.authentication import SigningPair
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.jws import unb64url
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import SPC, Provider
from shaken_plugin.ports import Severity
from shaken_plugin.switch import Switch, attach
from shaken_plugin.switch.waiting import WaitingRoom

CALLED: Final = "12025550143"
TRUNK: Final = "127.0.0.2"
"""Where calls of the customer come from, in the lab's policy too."""

_SDP: Final = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.2\r\ns=-\r\nc=IN IP4 127.0.0.2\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0 8 101\r\n"
    "a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)

_numbers = itertools.count()


def provider(
    folder: Path,
    authority: Authority,
    *,
    policy: Mapping[str, Any] | None = None,
    spc: str = SPC,
    **settings: Any,
) -> Provider:
    """A provider of the lab with the settings that operators have who set nothing: no trace in the log."""
    return Provider.make(folder, authority, time.time(), policy=policy, spc=spc, log={}, **settings)


def sides(folder: Path, authority: Authority) -> tuple[Provider, Provider]:
    """One whose customers call, and one who verifies and has its certificate."""
    origin = provider(folder / "origin", authority)
    target = provider(folder / "target", authority, policy={}, spc="123T")
    target.publish(origin.x5u, origin.credential.chain)
    return origin, target


def pair_of(settings: Path) -> SigningPair:
    """What a provider signs with."""
    return next(iter(_services(settings).credentials.values())).pairs[0]


def levels(invites: Iterable[bytes]) -> set[str]:
    """The attestation levels in the Identity headers of INVITEs; empty for a token that cannot be read."""
    found = set()
    for invite in invites:
        for claims in re.findall(rb"^(?:Identity|y): [\w-]+\.([\w-]+)\.", invite, re.MULTILINE):
            found.add(str(json.loads(unb64url(claims.decode())).get("attest", "")))
    return found


class SwitchSide:
    """The plugin in a switch process, as its adapters use it; its log lines are made and thrown away.

    Args:
        settings: the provider's.
    """

    def __init__(self, settings: Path) -> None:
        self.switch = Switch(_services(settings), Discarding(), time.time, lambda: str(uuid.uuid4()), WaitingRoom())

    def sign(self, message: dict[str, Any]) -> str:
        """Sign a call that is given by its headers; the Identity header, as a branch gets it.

        Raises:
            BenchError: it is not signed at level A.
        """
        outcome = self.switch.sign(lambda: CallMessage(**message))
        headers = {action.name: action.value for action in attach(outcome.variables) if hasattr(action, "value")}
        if outcome.variables.get("level") != "A" or "Identity" not in headers:
            raise BenchError(f"a call was not signed at level A: {dict(outcome.variables)}")
        return headers["Identity"]

    def verify(self, message: dict[str, Any]) -> None:
        """Verify a call.

        Raises:
            BenchError: it does not pass.
        """
        outcome = self.switch.verify(lambda: CallMessage(**message))
        if outcome.variables.get("result") != "passed":
            raise BenchError(f"a call was not verified: {dict(outcome.variables)}")


class Discarding:
    """A switch's log and counters that keep the counts only."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def log(self, severity: Severity, text: str) -> None:
        """See `ports.Observer.log`."""

    def count(self, name: str) -> None:
        """See `ports.Observer.count`."""
        self.counts[name] = self.counts.get(name, 0) + 1


def message(caller: str, called: str = CALLED, identity: str | None = None) -> dict[str, Any]:
    """The parts of an INVITE, a new call each time, for `CallMessage`.

    Args:
        caller: its number, digits.
        called: likewise.
        identity: the value of its Identity header, if it has one.
    """
    call_id = f"{next(_numbers)}-{uuid.uuid4().hex}@{TRUNK}"
    return {
        "method": "INVITE",
        "request_uri": f"sip:+{called}@example.net;user=phone",
        "to": f"<sip:+{called}@example.net;user=phone>",
        "callers": {
            CallerHeader.ASSERTED: (f"<sip:+{caller}@{TRUNK};user=phone>",),
            CallerHeader.FROM: (f'"Caller" <sip:+{caller}@{TRUNK};user=phone>;tag={call_id[:8]}',),
        },
        "call_id": call_id,
        "identity": () if identity is None else (identity,),
        "sdp": _SDP,
        "source": TRUNK,
    }


def _services(settings: Path) -> runtime.Services:
    return runtime.start(settings, time.time())
