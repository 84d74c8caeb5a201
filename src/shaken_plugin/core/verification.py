"""Verifying the Identity headers of a call (RFC 8224 §6.2), as a table of named checks.

Two pure halves around one fetch:

    begin(message, rules, now)              -> Verdict, or Pending with the URLs it needs
    finish(pending, certificates, now)      -> Verdict

Every Identity header is examined on its own. `BEFORE_FETCH` lists the checks that need the
message alone, cheapest first, so that a hostile INVITE cannot make anybody fetch; `AFTER_FETCH`
those that need the certificate. The first check that fails ends the examination of that header
with a `FailureCode`. One valid Identity is enough for the call (RFC 8224 §6.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from shaken_plugin.core import x5u
from shaken_plugin.core.call import CallerHeader, CallMessage, is_anonymous
from shaken_plugin.core.certificates import TrustedPath
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.jws import b64url, verify_es256
from shaken_plugin.core.passport import (
    BASE_CLAIMS,
    PASSPORT_TYPES,
    Attest,
    Passport,
    PassportType,
    read_dest,
    read_iat,
    read_orig,
)
from shaken_plugin.core.sip import parse_date
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber
from shaken_plugin.errors import FailureCode, SipSyntaxError, VerificationFailure, Verstat

MAX_IDENTITIES: Final = 10
"""Most Identity headers of one call that are examined; a call diverted twice has three or four."""


class VerstatProfile(Enum):
    """How a failure becomes a verstat."""

    ATIS1000082 = "atis1000082"
    """By the table of ATIS-1000082: most failures say No-TN-Validation."""
    STRICT = "strict"
    """Every failure says TN-Validation-Failed (3GPP TS 24.229 read literally)."""


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """What the operator may choose about verification.

    ``freshness`` in seconds, applied in both directions (RFC 8224 §12.1: 60 RECOMMENDED).
    ``lab_hosts`` lifts the port and address rules of certificate URLs for named hosts.
    """

    plan: DialPlan
    freshness: int = 60
    lab_hosts: frozenset[str] = frozenset()


class Result(Enum):
    """What is known of a call in the end."""

    PASSED = "passed"
    FAILED = "failed"
    NONE = "none"
    """There was nothing to verify."""


@dataclass(frozen=True, slots=True)
class IdentityResult:
    """The outcome of one Identity header. ``ignored`` ones neither pass nor fail the call."""

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

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return self.failure is None and not self.ignored


@dataclass(frozen=True, slots=True)
class Verdict:
    """The overall outcome: ``decisive`` is the header it rests on, where there is one."""

    result: Result
    failure: FailureCode | None = None
    decisive: IdentityResult | None = None
    results: tuple[IdentityResult, ...] = ()

    def verstat(self, profile: VerstatProfile = VerstatProfile.ATIS1000082, *, level: bool = False) -> str:
        """The verstat value, with the level as suffix (``TN-Validation-Passed-A``) if asked."""
        if self.result is Result.PASSED:
            attest = self.decisive.attest if self.decisive else None
            return f"{Verstat.PASSED.value}-{attest.value}" if level and attest else Verstat.PASSED.value
        if self.result is Result.NONE or self.failure is None:
            return Verstat.NONE.value
        return (Verstat.FAILED if profile is VerstatProfile.STRICT else self.failure.value.verstat).value


class _Ignored(Exception):
    """The header neither passes nor fails the call."""

    def __init__(self, code: FailureCode | None = None) -> None:
        self.code = code


@dataclass(slots=True)
class _Examination:
    """What is known of one Identity header so far; every check may rely on those before it."""

    index: int
    value: str
    message: CallMessage
    rules: VerificationRules
    now: float
    progress: int = 0
    header: IdentityHeader = field(init=False)
    passport: Passport = field(init=False)
    type: PassportType = field(init=False)
    orig: Party = field(init=False)
    iat: int = field(init=False)
    read: dict[str, Any] = field(default_factory=dict)
    path: TrustedPath | None = None

    def outcome(self, failure: FailureCode | None = None, detail: str = "", *, ignored: bool = False) -> IdentityResult:
        """The result of this header with all that was learned, however far it came."""
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
            orig=getattr(self, "orig", None),
            iat=getattr(self, "iat", None),
            ppi=f"..{b64url(passport.signature)}" if passport else None,
        )


# --- The checks -------------------------------------------------------------------------------


_NOT_TEXT = re.compile("[\udc80-\udcff]")
"""What surrogate escapes make of bytes that are not UTF-8."""


def _grammar(case: _Examination) -> None:
    if _NOT_TEXT.search(case.value):
        raise VerificationFailure(FailureCode.IDENTITY_UNREADABLE)
    case.header = IdentityHeader.parse(case.value)


def _type(case: _Examination) -> None:
    # RFC 8224 §6.2 step 1: a verifier "MUST ignore any Identity header fields containing an
    # unsupported 'ppt'".
    if case.header.ppt is not None and case.header.ppt not in PASSPORT_TYPES:
        raise _Ignored
    case.passport = Passport.parse(case.header.digest)
    if case.passport.is_compact:
        raise VerificationFailure(FailureCode.COMPACT_FORM)
    if case.header.ppt is None and case.passport.ppt is not None and case.passport.ppt not in PASSPORT_TYPES:
        raise _Ignored


def _info(case: _Examination) -> None:
    # RFC 8224 §4: the ident-info parameter is mandatory.
    if case.header.info is None:
        raise VerificationFailure(FailureCode.INFO_MISSING)
    x5u.check(case.header.info, case.rules.lab_hosts)


def _jose_header(case: _Examination) -> None:
    jose = case.passport.header
    # RFC 7515 §4.1.11: "If any of the listed extension Header Parameters are not understood …
    # then the JWS is invalid." None is understood here.
    if "crit" in jose:
        raise VerificationFailure(FailureCode.CRITICAL_UNKNOWN)
    # RFC 8225 §4: typ, alg and x5u; RFC 8588 §4 adds ppt.
    missing = [name for name in ("alg", "ppt", "typ", "x5u") if name not in jose]
    if missing:
        raise VerificationFailure(FailureCode.HEADER_INCOMPLETE, f"no {', '.join(missing)}")
    if jose["x5u"] != case.header.info:
        # RFC 8224 §4.1: "x5u" and "info" compared as simple strings (RFC 3986 §6.2.1).
        raise VerificationFailure(FailureCode.X5U_MISMATCH)
    if jose["typ"] != "passport":
        raise VerificationFailure(FailureCode.TYP_UNSUPPORTED)
    if jose["alg"] != "ES256":
        raise VerificationFailure(FailureCode.ALG_UNSUPPORTED)
    if case.header.alg is not None and case.header.alg != jose["alg"]:
        # RFC 8224 §4: "the 'alg' parameter … MUST match the value of the 'alg'" of the token.
        raise VerificationFailure(FailureCode.ALG_MISMATCH)
    ppt = jose["ppt"]
    if not isinstance(ppt, str) or ppt not in PASSPORT_TYPES or case.header.ppt not in {None, ppt}:
        raise VerificationFailure(FailureCode.PPT_MISMATCH)
    case.type = PASSPORT_TYPES[ppt]


def _claims(case: _Examination) -> None:
    claims = case.passport.claims
    missing = [name for name in (*BASE_CLAIMS, *case.type.required) if name not in claims]
    if missing:
        raise VerificationFailure(FailureCode.CLAIM_MISSING, f"no {', '.join(missing)}")
    case.iat = read_iat(claims)
    case.orig = read_orig(claims)
    case.read["dest"] = read_dest(claims)
    for name, reader in case.type.readers.items():
        case.read[name] = reader(claims)


def _date(case: _Examination) -> None:
    # RFC 8224 §12.1: a verifier "MUST NOT deem valid a request with an outdated Date header".
    # Many senders have no Date at all; then iat alone decides.
    if case.message.date is None:
        return
    try:
        date = parse_date(case.message.date)
    except SipSyntaxError as exc:
        raise VerificationFailure(FailureCode.DATE_INVALID, str(exc)) from exc
    if abs(case.now - date) > case.rules.freshness:
        raise VerificationFailure(FailureCode.DATE_STALE, f"{case.now - date:+.0f} s old")
    case.read["date"] = date


def _freshness(case: _Examination) -> None:
    age = case.now - case.iat
    if age > case.rules.freshness:
        raise VerificationFailure(FailureCode.IAT_STALE, f"{age:.0f} s old")
    if -age > case.rules.freshness:
        raise VerificationFailure(FailureCode.IAT_IN_FUTURE, f"{-age:.0f} s ahead")


def _orig(case: _Examination) -> None:
    # RFC 8224 §6.2 step 2 and §6.2.4: the identity is taken from the message, never from the
    # token. ATIS-1000074: from P-Asserted-Identity where there is one, else from From.
    plan = case.rules.plan
    # One that names nobody is none, as for the signer.
    header = CallerHeader.ASSERTED
    parties = {caller.party for caller in case.message.callers_in(header, plan)}
    if not parties:
        header = CallerHeader.FROM
        parties = {caller.party for caller in case.message.callers_in(header, plan)}
    # Several values may name a number and a URI of the same caller (RFC 3325 §9.1). Two numbers
    # are none: which one a telephone shows is luck, so every number must be the signed one.
    numbers = {party for party in parties if isinstance(party, TelephoneNumber)}
    if case.orig in parties and numbers <= {case.orig}:
        return
    if parties and all(map(is_anonymous, parties)):
        # Withheld, not forged: there is nothing in the message to compare with.
        raise _Ignored(FailureCode.CALLER_ANONYMOUS)
    raise VerificationFailure(FailureCode.ORIG_MISMATCH, f"not in {header.value}")


def _dest(case: _Examination) -> None:
    # RFC 8224 §6.2 step 2: dest against To. A network that rewrote To on the way still routes
    # by the Request-URI, so either may match; a third number may not (cut and paste).
    plan = case.rules.plan
    if not {case.message.called(plan), case.message.request_party(plan)} & case.read["dest"]:
        raise VerificationFailure(FailureCode.DEST_MISMATCH, "neither in To nor in the Request-URI")


def _signed_in_validity(case: _Examination) -> None:
    # RFC 8224 §6.2 step 4: the Date "falls within the validity period of the credential".
    assert case.path is not None
    if case.now > case.path.not_after:
        raise VerificationFailure(FailureCode.CERTIFICATE_EXPIRED)
    if case.now < case.path.not_before:
        raise VerificationFailure(FailureCode.CERTIFICATE_NOT_YET_VALID)
    for moment in (case.iat, case.read.get("date", case.iat)):
        if not case.path.signer.valid_at(moment):
            raise VerificationFailure(FailureCode.CERTIFICATE_NOT_VALID_AT_SIGNING)


def _scope(case: _Examination) -> None:
    assert case.path is not None
    if not case.path.signer.authorises(case.orig):
        raise VerificationFailure(FailureCode.CERTIFICATE_SCOPE)


def _signature(case: _Examination) -> None:
    assert case.path is not None
    assert case.passport.signing_input is not None
    if not verify_es256(case.path.signer.public_key, case.passport.signing_input, case.passport.signature):
        raise VerificationFailure(FailureCode.SIGNATURE_INVALID)


class Check(NamedTuple):
    """One row of the table: a stable name, the check, and where it is demanded."""

    name: str
    run: Callable[[_Examination], None]
    section: str


BEFORE_FETCH: Final = (
    Check("grammar", _grammar, "RFC 8224 §4"),
    Check("type", _type, "RFC 8224 §6.2 step 1"),
    Check("info", _info, "RFC 8224 §4, ATIS-1000074"),
    Check("jose_header", _jose_header, "RFC 8225 §4"),
    Check("claims", _claims, "RFC 8225 §5, RFC 8588 §4"),
    Check("date", _date, "RFC 8224 §6.2 step 4"),
    Check("freshness", _freshness, "RFC 8224 §6.2 step 4"),
    Check("orig", _orig, "RFC 8224 §6.2 step 2"),
    Check("dest", _dest, "RFC 8224 §6.2 step 2"),
)

AFTER_FETCH: Final = (
    Check("validity", _signed_in_validity, "RFC 8224 §6.2 step 4"),
    Check("scope", _scope, "RFC 8226 §9"),
    Check("signature", _signature, "RFC 8224 §6.2 step 5"),
)


def _run(case: _Examination, checks: tuple[Check, ...]) -> IdentityResult | None:
    """The result where a check ended the examination, None where all held."""
    for check in checks:
        try:
            check.run(case)
        except VerificationFailure as failure:
            return case.outcome(failure.code, failure.detail)
        except _Ignored as ignored:
            return case.outcome(ignored.code, ignored=True)
        case.progress += 1
    return None


@dataclass(frozen=True, slots=True)
class Pending:
    """A verification that needs certificates. ``urls`` are the x5u to look up, each once."""

    open: tuple[_Examination, ...]
    ended: tuple[tuple[int, IdentityResult], ...]

    @property
    def urls(self) -> tuple[str, ...]:
        """The certificate URLs, in the order of the headers."""
        return tuple(dict.fromkeys(case.header.info for case in self.open if case.header.info))


def begin(message: CallMessage, rules: VerificationRules, now: float) -> Verdict | Pending:
    """First half: everything that can be known without a certificate.

    Returns:
        The verdict, where no header is left to verify; otherwise what the second half needs.
    """
    if not message.identity:
        return Verdict(Result.NONE, FailureCode.NO_IDENTITY)
    still_open: list[_Examination] = []
    ended: list[tuple[int, IdentityResult]] = []
    for index, value in enumerate(message.identity[:MAX_IDENTITIES]):
        case = _Examination(index, value, message, rules, now)
        result = _run(case, BEFORE_FETCH)
        if result is None:
            still_open.append(case)
        else:
            ended.append((case.progress, result))
    pending = Pending(tuple(still_open), tuple(ended))
    return pending if still_open else finish(pending, {}, now)


def finish(pending: Pending, certificates: Mapping[str, TrustedPath | VerificationFailure], now: float) -> Verdict:
    """Second half: the checks that need the certificates, and the overall verdict.

    Args:
        pending: from `begin`.
        certificates: for each URL of ``pending.urls`` the validated path, or why there is none.
        now: POSIX seconds.
    """
    ended = list(pending.ended)
    for case in pending.open:
        assert case.header.info is not None
        found = certificates.get(case.header.info) or VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE)
        if isinstance(found, VerificationFailure):
            ended.append((case.progress, case.outcome(found.code, found.detail)))
            continue
        case.now = now
        case.path = found
        result = _run(case, AFTER_FETCH) or case.outcome()
        ended.append((case.progress, result))
    return _overall(ended)


def _overall(ended: list[tuple[int, IdentityResult]]) -> Verdict:
    """RFC 8224 §6.2.1: one valid Identity is enough; a bad one beside it does not fail the call.

    Where all fail, the one that came furthest speaks for the call: it says most.
    """
    results = tuple(result for _, result in sorted(ended, key=lambda item: item[1].index))
    for result in results:
        if result.passed:
            return Verdict(Result.PASSED, None, result, results)
    failed = [(progress, result) for progress, result in ended if not result.ignored]
    if not failed:
        why = next((result.failure for result in results if result.failure), FailureCode.NO_SUPPORTED_PPT)
        return Verdict(Result.NONE, why, None, results)
    _, decisive = max(failed, key=lambda item: (item[0], -item[1].index))
    return Verdict(Result.FAILED, decisive.failure, decisive, results)
