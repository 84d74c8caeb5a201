"""One PASSporT under examination, and the form of the rows that examine it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import TrustedPath
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.core.sha2 import sha256
from shaken_plugin.core.telephone import Party
from shaken_plugin.core.verification.verdict import IdentityResult, Profile, VerificationRules
from shaken_plugin.errors import FailureCode, VerificationFailure


class Ignored(Exception):
    """The PASSporT neither passes nor fails the call."""

    def __init__(self, code: FailureCode | None = None) -> None:
        self.code = code


@dataclass(slots=True, eq=False)
class Examination:
    """What is known of one PASSporT so far; every check may rely on those before it.

    ``read`` holds the claims that a reader has read, by name. ``diverted`` says that a div
    PASSporT of the same call goes on from this one's ``dest``, ``linked`` that this is such a div,
    ``orig_changed`` that it is one for another caller (`diversion.link`): all of it mere claims.
    ``relaxed`` says that it is as old as only one may be that was diverted.
    """

    index: int
    value: str
    message: CallMessage
    rules: VerificationRules
    now: float
    depth: int = 0
    header: IdentityHeader = field(init=False)
    passport: Passport = field(init=False)
    type: PassportType = field(init=False)
    read: dict[str, Any] = field(default_factory=dict)
    diverted: bool = False
    linked: bool = False
    orig_changed: bool = False
    relaxed: bool = False
    path: TrustedPath | None = None

    @property
    def orig(self) -> Party:
        """The caller that the PASSporT names."""
        party: Party = self.read["orig"]
        return party

    @property
    def dest(self) -> frozenset[Party]:
        """Whom the call was for."""
        parties: frozenset[Party] = self.read["dest"]
        return parties

    @property
    def div(self) -> Party | None:
        """From whom the call was diverted, where this is a div PASSporT."""
        return self.read.get("div")

    @property
    def target(self) -> frozenset[Party | None]:
        """Whom the message goes to.

        RFC 8224 §6.2 step 2: dest against To. A network that rewrote To on the way still routes
        by the Request-URI, as does one that diverts (RFC 8946 §4.2), so either may match; a third
        number may not (cut and paste).
        """
        plan = self.rules.plan
        return frozenset({self.message.called(plan), self.message.request_party(plan)})

    def outcome(
        self, failure: FailureCode | None = None, detail: str = "", *, ignored: bool = False, held: int = 0
    ) -> IdentityResult:
        """The result of this PASSporT with all that was learned, however far it came."""
        header, passport = getattr(self, "header", None), getattr(self, "passport", None)
        return IdentityResult(
            index=self.index,
            failure=failure,
            detail=detail,
            ignored=ignored,
            ppt=(header.ppt if header else None) or (passport.ppt if passport else None),
            x5u=header.info if header else None,
            spc=self.path.signer.spc if self.path else None,
            attest=self.read.get("attest"),
            origid=self.read.get("origid"),
            orig=self.read.get("orig"),
            iat=self.read.get("iat"),
            ppi=f"..{header.digest.rpartition('.')[2]}" if header and passport else None,
            digest=sha256(passport.signing_input).digest() if passport and passport.signing_input else None,
            div=self.div,
            depth=self.depth,
            held=held,
        )


class Check(NamedTuple):
    """One row of the table: a stable name, the check, and where it is demanded.

    The check returns where it holds, else it raises VerificationFailure, or `Ignored`.
    """

    name: str
    run: Callable[[Examination], None]
    section: str


@dataclass(frozen=True, slots=True)
class PassportType:
    """What one ``ppt`` demands beyond RFC 8225.

    ``required`` claims must be there; ``readers`` read claims that are there. ``checks`` are rows
    of its own, run after those of every type. ``vouches`` names the profiles under which such a
    PASSporT vouches for the caller's number.
    """

    ppt: str | None
    section: str
    required: tuple[str, ...] = ()
    readers: Mapping[str, Callable[[Mapping[str, Any]], object]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    vouches: frozenset[Profile] = frozenset()


def run(case: Examination, checks: Iterable[Check], held: int = 0) -> IdentityResult | None:
    """The result where a check ended the examination, None where all held.

    Args:
        case: the PASSporT.
        checks: rows, in order.
        held: how many held before.
    """
    for check in checks:
        try:
            check.run(case)
        except VerificationFailure as failure:
            return case.outcome(failure.code, failure.detail, held=held)
        except Ignored as ignored:
            return case.outcome(ignored.code, ignored=True, held=held)
        held += 1
    return None
