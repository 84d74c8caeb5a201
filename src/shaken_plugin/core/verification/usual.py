"""The usual call, judged in one go: one Identity header, a full ``shaken`` PASSporT, and nothing rare about it.

Nearly every call is such. What `begin` and `finish` say of it is said here without their table; of any other call
nothing is said, and it goes through the table. The property tests hold both against each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import TrustedPath
from shaken_plugin.core.jws import unb64url, verify_es256_digest
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
    rb'{"attest":"([ABC])","dest":{"tn":\["([0-9*#]{1,32})"\]},"iat":(0|[1-9][0-9]{0,14}),'
    rb'"orig":{"tn":"([0-9*#]{1,32})"},"origid":"([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})"}'
)
_LEVELS: Final = {level.value.encode(): level for level in Attest}
_ALL: Final = len(BEFORE_FETCH) + len(AFTER_FETCH)
_OF_SIGNER: Final = len(READING) - 1
"""How many checks look at the header and the parameters only: all that read, but the one that reads the claims."""


@dataclass(slots=True)  # not frozen, nor a tuple: each call makes one
class Usual:
    """A usual call: every check holds but those that need the certificate at ``info``."""

    info: str
    attest: Attest
    orig: TelephoneNumber
    iat: int
    date: int
    """The time in Date, ``iat`` where there is none."""
    origid: str
    signed: bytes
    """What the signature is over."""
    signature: bytes
    ppi: str

    def verdict(self, path: TrustedPath, now: float) -> Verdict | None:
        """The verdict; None where anything but the signature stands against the call, or might.

        Args:
            path: what the certificate at ``info`` leads to.
            now: POSIX seconds.
        """
        signer = path.signer
        if not path.not_before <= now <= path.not_after or signer.constraints is not None:
            return None
        if not (signer.valid_at(self.iat) and signer.valid_at(self.date) and signer.authorises(self.orig)):
            return None
        digest = sha256(self.signed).digest()
        holds = verify_es256_digest(signer.public_key, digest, self.signature)
        failure = None if holds else FailureCode.SIGNATURE_INVALID
        result = IdentityResult(
            0, failure, "", False, SHAKEN.ppt, self.info, signer.spc, self.attest, self.origid, self.orig, self.iat,
            self.ppi, digest, None, 0, _ALL if holds else _ALL - 1,
        )  # fmt: skip
        return Verdict(Result.PASSED if holds else Result.FAILED, failure, result, (result,))


def usual(message: CallMessage, rules: VerificationRules, now: float) -> Usual | None:
    """What is left to verify of a usual call; None for every other, whatever is about it."""
    if len(message.identity) != 1:
        return None
    header, _, rest = message.identity[0].partition(".")
    body, _, rest = rest.partition(".")
    date = message.date or ""
    if len(header) > MAX_KNOWN or len(body) > MAX_KNOWN or len(rest) > MAX_KNOWN or len(date) > MAX_KNOWN:
        return None
    signature, info = rest[:_SIGNATURE], _certificate(header, rest[_SIGNATURE:], rules.plan, rules.lab_hosts)
    try:
        claims, decoded = _CLAIMS.fullmatch(unb64url(body)), unb64url(signature)
        at = None if message.date is None else _seconds(date)
    except (ValueError, SipSyntaxError):
        return None
    if info is None or claims is None:
        return None
    attest, dest, written, orig, origid = claims.groups()
    iat, caller, target = int(written), message.only_caller(rules.plan), message.target(rules.plan)
    if (
        abs(now - iat) > rules.freshness
        or (at is not None and abs(now - at) > rules.freshness)
        or caller is None
        or caller.digits.encode() != orig
        or dest not in (_digits(target.to), _digits(target.uri))
    ):
        return None
    return Usual(
        info, _LEVELS[attest], caller, iat, iat if at is None else at, origid.decode(),
        f"{header}.{body}".encode(), decoded, f"..{signature}",
    )  # fmt: skip


def _digits(party: Party | None) -> bytes | None:
    return party.digits.encode() if isinstance(party, TelephoneNumber) else None


_seconds = lru_cache(64)(parse_date)


@lru_cache(1_024)
def _certificate(header: str, params: str, plan: DialPlan, lab_hosts: frozenset[str]) -> str | None:
    """The certificate's URL in a ``shaken`` PASSporT with this header and these parameters; None where a check fails.

    They are the same in all calls of a signer, and so is what the checks say that look at nothing else.
    """
    token = f"{header}.e30.{'A' * _SIGNATURE}"
    case = Examination(
        0, token + params, CallMessage("INVITE", "", "", {}), VerificationRules(plan, lab_hosts=lab_hosts), 0.0
    )
    if run(case, READING[:_OF_SIGNER]) is not None or case.header.digest != token or case.type is not SHAKEN:
        return None
    return case.header.info
