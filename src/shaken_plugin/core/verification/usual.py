"""The usual call, judged in one go: one Identity header, a full ``shaken`` PASSporT, and nothing rare about it.

Nearly every call is such. What `begin` and `finish` say of it is said here without their table; of any other call
nothing is said, and it goes through the table. The property tests hold both against each other.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from shaken_plugin.core.call import CallerLine, CallMessage
from shaken_plugin.core.certificates import TrustedPath
from shaken_plugin.core.jws import unb64url, unb64url_octets, verify_es256_digest
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.sha2 import sha256
from shaken_plugin.core.sip import parse_date
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber
from shaken_plugin.core.verification.checks import AFTER_FETCH, BEFORE_FETCH, READING
from shaken_plugin.core.verification.examination import Examination, run
from shaken_plugin.core.verification.types import SHAKEN
from shaken_plugin.core.verification.verdict import IdentityResult, Result, Verdict, VerificationRules
from shaken_plugin.errors import FailureCode, SipSyntaxError

MAX_KNOWN: Final = 1_024
"""Longest header and parameters that are looked at here, characters; those of a signer are remembered."""

_SIGNATURE: Final = 86
"""Characters of an ES256 signature in base64url."""

# As RFC 8225 §9 has signers write them: in order, without white space, and here without an escape. What the readers
# of `core.claims` would refuse does not match; of what matches they would refuse nothing.
_CLAIMS: Final = re.compile(
    r'{"attest":"([ABC])","dest":{"tn":\["([0-9*#]{1,32})"\]},"iat":(0|[1-9][0-9]{0,14}),"orig":{"tn":"([0-9*#]{1,32})"},'
    # Not {3} times a group: what has to be counted so is looked for at several times the cost.
    r'"origid":"([0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})"}'
)
_LEVELS: Final = {level.value: level for level in Attest}
_ALL: Final = len(BEFORE_FETCH) + len(AFTER_FETCH)
_OF_SIGNER: Final = len(READING) - 1
"""How many checks look at the header and the parameters only: all that read, but the one that reads the claims."""


class Usual:
    """A usual call: every check holds but those that need the certificate at ``info``.

    Args:
        info: the URL.
        attest, orig, iat, origid: what is claimed, ``orig`` in digits.
        date: the time in Date, ``iat`` where there is none.
        begun, body: what the signature is over: the hash of the header and its dot, and the claims in base64url.
        signature, octets: the signature in base64url, and the 64 octets that it stands for.
        line: the caller's line taken apart, where it is simple.
    """

    __slots__ = (
        "_begun", "_body", "_date", "_octets",
        "attest", "digest", "iat", "info", "line", "orig", "origid", "path", "signature",
    )  # fmt: skip

    path: TrustedPath
    """Where the certificate is trusted: what `holds` was last asked about."""
    digest: bytes
    """SHA-256 of what was signed; set by `holds` where it says anything."""

    def __init__(
        self, info: str, attest: Attest, orig: str, iat: int, date: int, origid: str, begun: Any, body: bytes,
        signature: str, octets: bytes, line: CallerLine | None,
    ) -> None:  # fmt: skip
        self.info, self.attest, self.orig, self.iat, self.origid, self.line = info, attest, orig, iat, origid, line
        self._date, self._begun, self._body, self.signature, self._octets = date, begun, body, signature, octets

    def holds(self, path: TrustedPath, now: float) -> bool | None:
        """Whether the signature holds; None where anything else stands against the call, or might.

        Args:
            path: what the certificate at ``info`` leads to.
            now: POSIX seconds.
        """
        signer = path.signer
        if not path.not_before <= now <= path.not_after or signer.constraints is not None:
            return None
        if not (
            signer.not_before <= self.iat <= signer.not_after and signer.not_before <= self._date <= signer.not_after
        ):
            return None
        if not signer.tnauthlist.spcs and not signer.authorises(self.party):
            return None
        hashed = self._begun.copy()
        hashed.update(self._body)
        self.path, self.digest = path, hashed.digest()
        return verify_es256_digest(signer.public_key, self.digest, self._octets)

    @property
    def party(self) -> TelephoneNumber:
        """Who calls."""
        return TelephoneNumber(self.orig)

    def judged(self, holds: bool) -> Verdict:
        """The verdict, by what `holds` said."""
        failure = None if holds else FailureCode.SIGNATURE_INVALID
        result = IdentityResult(
            0, failure, "", False, SHAKEN.ppt, self.info, self.path.signer.spc, self.attest, self.origid, self.party,
            self.iat, f"..{self.signature}", self.digest, None, 0, _ALL if holds else _ALL - 1,
        )  # fmt: skip
        return Verdict(Result.PASSED if holds else Result.FAILED, failure, result, (result,))

    def verdict(self, path: TrustedPath, now: float) -> Verdict | None:
        """The verdict; None where `holds` says nothing."""
        holds = self.holds(path, now)
        return None if holds is None else self.judged(holds)


def usual(message: CallMessage, rules: VerificationRules, now: float) -> Usual | None:
    """What is left to verify of a usual call; None for every other, whatever is about it."""
    if len(message.identity) != 1:
        return None
    header, _, rest = message.identity[0].partition(".")
    body, _, rest = rest.partition(".")
    date = message.date or ""
    if len(header) > MAX_KNOWN or len(body) > MAX_KNOWN or len(rest) > MAX_KNOWN or len(date) > MAX_KNOWN:
        return None
    signature, signer = rest[:_SIGNATURE], _signer(header, rest[_SIGNATURE:], rules.plan, rules.lab_hosts)
    try:
        written = body.encode("ascii")
        claims, octets = _CLAIMS.fullmatch(unb64url_octets(written).decode("ascii")), unb64url(signature)
        at = None if message.date is None else _seconds(date)
    except (ValueError, SipSyntaxError):
        return None
    if signer is None or claims is None:
        return None
    attest, dest, second, orig, origid = claims.groups()
    iat, target, line = int(second), message.target(rules.plan), message.only_line(rules.plan)
    if (
        abs(now - iat) > rules.freshness
        or (at is not None and abs(now - at) > rules.freshness)
        or (_digits(message.only_caller(rules.plan)) if line is None else line[2]) != orig
        or (dest != _digits(target.to) and dest != _digits(target.uri))
    ):
        return None
    info, begun = signer
    date_at = iat if at is None else at
    return Usual(info, _LEVELS[attest], orig, iat, date_at, origid, begun, written, signature, octets, line)


def _digits(party: Party | None) -> str | None:
    return party.digits if isinstance(party, TelephoneNumber) else None


_seconds = lru_cache(64)(parse_date)


@lru_cache(1_024)
def _signer(header: str, params: str, plan: DialPlan, lab_hosts: frozenset[str]) -> tuple[str, Any] | None:
    """The certificate's URL in a ``shaken`` PASSporT with this header and these parameters; None where a check fails.

    They are the same in all calls of a signer, and so is what the checks say that look at nothing else. With it goes
    the SHA-256 of what such a call's signature is over, begun with the header: to be copied, and gone on with.
    """
    token = f"{header}.e30.{'A' * _SIGNATURE}"
    case = Examination(
        0, token + params, CallMessage("INVITE", "", "", {}), VerificationRules(plan, lab_hosts=lab_hosts), 0.0
    )
    if run(case, READING[:_OF_SIGNER]) is not None or case.header.digest != token or case.type is not SHAKEN:
        return None
    info = case.header.info
    return None if info is None else (info, sha256(f"{header}.".encode("ascii")))
