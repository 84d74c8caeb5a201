"""The calls that a probe sends: what stands in each, as data.

    CANARIES                       the table
    Signer.new(now)                a throw-away authority
    signer.sign(canary, …)         the header lines of one canary, validly signed

Each call has an own called number (unless the user names one), and each PASSporT an own origid: a
B2BUA makes a new Call-ID, so a copy is recognised by its token, else by its number.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import TrustAnchors, parse_anchor_file
from shaken_plugin.core.jws import b64url
from shaken_plugin.core.passport import (
    Attest,
    base_claims,
    div_claims,
    passport_header,
    shaken_claims,
    signing_input,
)
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.verification import Profile, Result, VerificationRules
from shaken_plugin.lab.pki import Authority
from shaken_plugin.probe.findings import Checker, Verification
from shaken_plugin.probe.message import HeaderLine
from shaken_plugin.verification import VerificationService

HOST: Final = "probe.invalid"
"""Host of the certificate URLs: nobody can resolve it (RFC 6761 §6.4), so nobody mistakes a canary for a call."""

SPC: Final = "0000"
"""Service Provider Code of the throw-away certificate."""

CALLER: Final = "+12155550199"
FIRST_CALLED: Final = "+12025550100"
"""Of the hundred US numbers for fiction (555-0100 to 555-0199): the first canary calls it, the next one more."""

DIVERTED: Final = "+12025550198"
"""Whom a diverted call was for."""


class Scene(Enum):
    """What happens in a call."""

    CALL = "a call"
    REINVITE = "a second INVITE within the call"
    REFER = "a transfer by the called side"


@dataclass(frozen=True, slots=True)
class Header:
    """One Identity line: which PASSporT, and how it is written."""

    ppt: str | None = "shaken"
    name: str = "Identity"
    params: tuple[str, ...] = ("info", "alg", "ppt")
    """In their order; any other text stands as it is."""
    quoted: bool = True
    """``ppt="shaken"``; the ABNF of RFC 8224 §4 has no quotes, most live headers do."""
    path: str = ""
    """Added to the path of the certificate URL."""
    length: int = 0
    """Bytes the line has at least, by numbers added to ``dest``."""
    compact: bool = False
    """``..signature`` (RFC 8225 §7)."""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Canary:
    """One call of the probe."""

    name: str
    what: str
    headers: tuple[Header, ...] = (Header(),)
    sdp: bool = True
    date: bool = False
    scene: Scene = Scene.CALL


def _sized(kilobytes: int) -> Canary:
    what = f"a header of {kilobytes} KiB, as many numbers in dest make it"
    return Canary(f"{kilobytes}k", what, (Header(length=kilobytes * 1024),))


CANARIES: Final[tuple[Canary, ...]] = (
    Canary("control", "no Identity at all: does a call reach the listener?", ()),
    Canary("one", "one header, as most networks write it"),
    Canary("no-sdp", "one header, the offer comes later", sdp=False),
    Canary("date", "one header, and a Date", date=True),
    Canary("two", "a diverted call: shaken and div", (Header(), Header("div"))),
    Canary("three", "rcd, div and shaken, in this order", (Header("rcd"), Header("div"), Header())),
    Canary("compact-name", "under the compact name y", (Header(name="y"),)),
    Canary("compact-two", "two under the compact name y", (Header(name="y"), Header("div", name="y"))),
    Canary("mixed-names", "one under y, one under Identity", (Header(name="y"), Header("div"))),
    Canary(
        "unknown-parameters",
        "parameters that no RFC defines",
        (Header(params=("info", "alg", "ppt", "x-canary=1", "x-flag")),),
    ),
    Canary(
        "unknown-between",
        "the same between the others",
        (Header(params=("x-flag", "info", "x-canary=1", "alg", "ppt")),),
    ),
    Canary("unquoted-ppt", "ppt=shaken, as the ABNF has it", (Header(quoted=False),)),
    Canary("info-last", "alg and ppt before info", (Header(params=("alg", "ppt", "info")),)),
    Canary("info-semicolon", "a semicolon in the URL of info", (Header(path=";v=1"),)),
    Canary("compact-passport", "a PASSporT in compact form, with Date", (Header(None, compact=True),), date=True),
    Canary("full-baseline", "a PASSporT without ppt, in full form", (Header(None),)),
    Canary("folded", "folded over three lines", (Header(folded=True),)),
    *map(_sized, (1, 2, 4, 8)),
    Canary("reinvite", "a re-INVITE with a header in the call", scene=Scene.REINVITE),
    Canary("refer", "the called side transfers the call: the new leg", scene=Scene.REFER),
)
"""In the order of sending: short before long, so that what is lost by its size shows."""

BY_NAME: Final = {canary.name: canary for canary in CANARIES}


def number_after(first: str, index: int) -> str:
    """The ``index``-th number after a ``+…`` number."""
    digits = first.removeprefix("+")
    return f"+{int(digits) + index:0{len(digits)}d}"


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs canaries under an authority that is made for one run and forgotten after it."""

    pair: SigningPair
    anchors: TrustAnchors
    certificates: CertificateMemory
    chain: bytes
    draw_uuid: Callable[[], uuid.UUID] = field(default=uuid.uuid4)

    @classmethod
    def new(cls, now: float) -> Signer:
        """A new key under a new root; ``now`` in POSIX seconds."""
        authority = Authority.new(now, name="Probe")
        issued = authority.issue(spc=SPC, now=now)
        x5u = f"https://{HOST}/{SPC}.pem"
        pair = load_pair(key=issued.key, chain=issued.chain, x5u=x5u, live_from=0, spc=None)
        anchors = TrustAnchors(parse_anchor_file(authority.root_pem))
        return cls(pair, anchors, CertificateMemory({}), issued.chain)

    def sign(
        self, canary: Canary, caller: str, called: str, now: float, also: tuple[str, ...] = ()
    ) -> tuple[HeaderLine, ...]:
        """The Identity lines of a canary.

        Args:
            canary: what to sign.
            caller: ``+`` and digits.
            called: likewise.
            now: POSIX seconds; ``iat``.
            also: further numbers that the call may go on to, for ``dest``.
        """
        diverted = any(header.ppt == "div" for header in canary.headers)
        lines = []
        for header in canary.headers:
            target = DIVERTED if diverted and header.ppt != "div" else called
            claims = self._claims(header.ppt, caller, target, called, int(now))
            if header.ppt != "div":
                claims["dest"]["tn"] += [number.removeprefix("+") for number in also]
            lines.append(self._line(header, claims))
        return tuple(lines)

    def _claims(self, ppt: str | None, caller: str, target: str, called: str, iat: int) -> dict[str, Any]:
        orig, dest = (TelephoneNumber(number.removeprefix("+")) for number in (caller, target))
        base = base_claims(orig, dest, iat)
        if ppt == "div":
            diverted = TelephoneNumber(DIVERTED.removeprefix("+"))
            return div_claims(base, diverted, TelephoneNumber(called.removeprefix("+")))
        if ppt == "rcd":
            return base | {"rcd": {"nam": "Canary"}}
        if ppt == "shaken":
            return shaken_claims(attest=Attest.A, orig=orig, dest=dest, iat=iat, origid=str(self.draw_uuid()))
        return base

    def _line(self, header: Header, claims: dict[str, Any]) -> HeaderLine:
        line = self._written(header, claims)
        index = 0
        while len(str(line)) < header.length:
            # RFC 8225 §5.2.1: dest may hold many; these are of the range for fiction, too.
            missing = header.length - len(str(line))
            for _ in range(max(1, missing // 20)):
                claims["dest"]["tn"].append(f"1{200 + index // 100}55501{index % 100:02}")
                index += 1
            line = self._written(header, claims)
        return line

    def _written(self, header: Header, claims: dict[str, Any]) -> HeaderLine:
        x5u = self.pair.x5u + header.path
        self.certificates.documents[x5u] = self.chain
        signed = signing_input(passport_header(x5u, header.ppt), claims)
        signature = b64url(self.pair.signer.sign(signed))
        token = f"..{signature}" if header.compact else f"{signed.decode('ascii')}.{signature}"
        written = {"info": f"info=<{x5u}>", "alg": "alg=ES256"}
        if header.ppt is not None:
            written["ppt"] = f'ppt="{header.ppt}"' if header.quoted else f"ppt={header.ppt}"
        parts = [token, *(written.get(name, name) for name in header.params if name != "ppt" or header.ppt)]
        return HeaderLine(header.name, ("\r\n ;" if header.folded else ";").join(parts))

    def checker(self, plan: DialPlan) -> Checker:
        """Verifies messages as a verifier would that trusts this authority."""
        # Profile rfc8224, because some canaries are baseline PASSporTs.
        rules = VerificationRules(plan, profile=Profile.RFC8224)
        service = VerificationService(rules, self.anchors, self.certificates)

        def check(message: CallMessage, at: float | None) -> Verification:
            verdict = service.verify(message, at if at is not None else 0.0)
            failure = verdict.failure
            detail = next((result.detail for result in verdict.results if result.failure is failure), "")
            return Verification(verdict.result is Result.PASSED, failure.code if failure else "", detail)

        return check
