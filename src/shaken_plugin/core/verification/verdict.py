"""What the operator may choose about verification, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.sha2 import sha256
from shaken_plugin.core.telephone import DialPlan, Party
from shaken_plugin.errors import FailureCode, Verstat


class VerstatProfile(Enum):
    """How a failure becomes a verstat."""

    ATIS1000082 = "atis1000082"
    """By the table of ATIS-1000082: most failures say No-TN-Validation."""
    STRICT = "strict"
    """Every failure says TN-Validation-Failed (3GPP TS 24.229 read literally)."""


class Profile(Enum):
    """Which PASSporTs vouch for the caller's number."""

    SHAKEN = "shaken"
    """Those of type ``shaken`` alone (ATIS-1000074)."""
    RFC8224 = "rfc8224"
    """Baseline ones without a type, too, in full and in compact form (RFC 8224, RFC 8225)."""


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """What the operator may choose about verification.

    ``freshness`` in seconds, applied in both directions (RFC 8224 §12.1: 60 RECOMMENDED).
    ``lab_hosts`` lifts the port and address rules of certificate URLs for named hosts.
    ``inner_freshness`` in seconds is for PASSporTs of a call that was diverted since, None for the
    same as ``freshness`` (RFC 8946 §4.2 lets it be relaxed, to hours). ``media_keys`` compares the
    fingerprints of the SDP with ``mky``.
    """

    plan: DialPlan
    freshness: int = 60
    lab_hosts: frozenset[str] = frozenset()
    profile: Profile = Profile.SHAKEN
    inner_freshness: int | None = None
    media_keys: bool = True


class Result(Enum):
    """What is known of a call in the end."""

    PASSED = "passed"
    FAILED = "failed"
    NONE = "none"
    """There was nothing to verify."""

    __hash__ = object.__hash__  # by identity, as they are compared: Enum's own is a call of Python


@dataclass(slots=True)  # not frozen: each call makes one, and setting it up would cost three times as much
class IdentityResult:
    """The outcome of one PASSporT. ``ignored`` ones neither pass nor fail the call.

    ``index`` is the Identity header's, counted from 0; ``depth`` says how deep in the ``opt`` of
    a div-o the PASSporT was nested, 0 for the header's own. ``held`` counts the checks that held.
    """

    index: int
    failure: FailureCode | None = None
    detail: str = ""
    ignored: bool = False
    ppt: str | None = None
    x5u: str | None = None
    spc: str | None = None
    attest: Attest | None = None
    origid: str | None = None
    orig: Party | None = None
    iat: int | None = None
    ppi: str | None = None
    """The PASSporT in compact form, to name it in a Reason header (RFC 9410 §5)."""
    digest: bytes | None = None
    """SHA-256 of what was signed. Not of the signature, which whoever has it can write differently."""
    div: Party | None = None
    depth: int = 0
    held: int = 0

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return self.failure is None and not self.ignored


class Shown(Enum):
    """How much of the rich call data may be shown."""

    VERIFIED = "verified"
    PARTIAL = "partial"
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class RichCallData:
    """Rich call data (RFC 9795). What is not None was signed and checked, and may be shown.

    ``nam`` is the caller's name, ``apn`` another number to show, ``crn`` the reason for the call,
    ``jcd`` a jCard as JSON text without what it only points to. ``iss`` names a third party that
    signed them. ``withheld`` has the name of each part that must not be shown, and why.
    """

    nam: str | None = None
    apn: str | None = None
    crn: str | None = None
    jcd: str | None = None
    iss: str | None = None
    withheld: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> Shown:
        """How much is left."""
        if all(value is None for value in (self.nam, self.apn, self.crn, self.jcd)):
            return Shown.WITHHELD
        return Shown.PARTIAL if self.withheld else Shown.VERIFIED


@dataclass(frozen=True, slots=True)
class ResourcePriority:
    """What an ``rph`` PASSporT says of the priority that the call asks for (RFC 8443, RFC 9027).

    Where ``failure`` is set the Resource-Priority header must not be honoured (RFC 8443 §4.2).
    ``auth`` holds the values that were signed, ``sph`` is ``psap-callback`` or None.
    """

    failure: FailureCode | None = None
    auth: tuple[str, ...] = ()
    sph: str | None = None


class Alarm(NamedTuple):
    """What the operator should see to, though the call was judged all the same."""

    name: str
    text: str


class ReplayMode(Enum):
    """What becomes of a PASSporT that came with another call a short while ago."""

    OFF = "off"
    REPORT = "report"
    """The call is counted, logged and has a variable; the verdict stays."""
    ENFORCE = "enforce"
    """The call fails."""


@dataclass(slots=True)  # not frozen, as above
class Verdict:
    """The overall outcome: ``decisive`` is the PASSporT it rests on, where there is one.

    ``diversions`` are the numbers that a valid div chain says the call was redirected from, first
    to last. ``rich`` and ``priority`` are None where the call carries no such PASSporT.
    """

    result: Result
    failure: FailureCode | None = None
    decisive: IdentityResult | None = None
    results: tuple[IdentityResult, ...] = ()
    diversions: tuple[Party, ...] = ()
    rich: RichCallData | None = None
    priority: ResourcePriority | None = None
    alarms: tuple[Alarm, ...] = ()
    replayed: bool = False
    """The same PASSporT came to the same called party with another call a short while ago."""
    led_to: Party | None = None
    """Whom the div chain led the call to, where the decisive PASSporT itself names another."""

    @property
    def token(self) -> bytes:
        """By which a replay is known, 32 octets: the decisive PASSporT, and whom divs made it hold for.

        A call that was diverted may come by once more, to somebody else: that is no replay. Which
        divs say so does not matter, else one more or less of them would make it another call. Nor
        do any matter where the call still goes by its first target: who only routes it elsewhere
        keeps To and Call-ID alike (RFC 3261 §16.6), who makes a new call of it changes both.
        """
        digest = (self.decisive.digest if self.decisive else None) or b""
        return sha256(digest + f"{self.led_to}".encode()).digest() if self.led_to else digest

    def verstat(self, profile: VerstatProfile = VerstatProfile.ATIS1000082, *, level: bool = False) -> str:
        """The verstat value, with the level as suffix (``TN-Validation-Passed-A``) if asked."""
        if self.result is Result.PASSED:
            attest = self.decisive.attest if level and self.decisive else None
            return f"{_PASSED}-{attest.value}" if attest else _PASSED
        if self.result is Result.NONE or self.failure is None:
            return Verstat.NONE.value
        return (Verstat.FAILED if profile is VerstatProfile.STRICT else self.failure.value.verstat).value


def overall(results: Sequence[IdentityResult], vouching: frozenset[str | None]) -> Verdict:
    """The verdict on the caller's number from the results of all PASSporTs.

    RFC 8224 §6.2.1: one valid Identity is enough; a bad one beside it does not fail the call.
    Where all fail, the one that came furthest speaks for the call: it says most. One that does
    not speak of the number at all (``rph``, ``rcd``) neither passes nor fails it.

    Args:
        results: in the order of the headers.
        vouching: the types whose PASSporTs vouch for the number.
    """
    results = tuple(results)
    for result in results:
        if result.passed and result.ppt in vouching:
            return Verdict(Result.PASSED, None, result, results)
    # Nor may a bad one fail the call before all is known of the others.
    for result in results:
        if result.failure is not None and result.failure.is_ours and result.ppt in vouching:
            return Verdict(Result.NONE, result.failure, None, results)
    failed = [result for result in results if result.failure is not None and not result.ignored]
    speaking = [result for result in failed if result.ppt in vouching or result.ppt is None]
    if candidates := speaking or [result for result in failed if result.ppt in DIVERTING]:
        decisive = max(candidates, key=lambda result: (result.held, -result.index, -result.depth))
        return Verdict(Result.FAILED, decisive.failure, decisive, results)
    if any(not result.ignored for result in results):
        return Verdict(Result.NONE, FailureCode.NUMBER_NOT_SIGNED, None, results)
    why = next((result.failure for result in results if result.failure), FailureCode.NO_SUPPORTED_PPT)
    return Verdict(Result.NONE, why, None, results)


_PASSED: Final = Verstat.PASSED.value
"""Said so often: Enum's own ``value`` is a call of Python."""

DIVERTING = frozenset({"div", "div-o"})
"""Types that speak of a diversion: without a PASSporT to divert they are nothing."""
