"""The table of checks that every PASSporT goes through, whatever its type.

READING      what the PASSporT says: the message alone is needed
JUDGING      whether that fits the call: after the PASSporTs of the call were linked
AFTER_FETCH  whether the signer may say so: the certificate is needed

Cheap checks come first, so that a hostile INVITE cannot make anybody fetch.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from shaken_plugin.core import x5u
from shaken_plugin.core.call import Caller, CallerHeader, is_anonymous
from shaken_plugin.core.claims import BASE_CLAIMS, read_dest, read_iat, read_orig
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.jws import verify_es256
from shaken_plugin.core.passport import Passport, base_claims, media_keys, passport_header, signing_input
from shaken_plugin.core.sip import parse_date
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.core.verification.examination import Check, Examination, Ignored
from shaken_plugin.core.verification.types import PASSPORT_TYPES
from shaken_plugin.errors import FailureCode, SipSyntaxError, VerificationFailure

# --- What the PASSporT says -------------------------------------------------------------------

_NOT_TEXT = re.compile("[\udc80-\udcff]")
"""What surrogate escapes make of bytes that are not UTF-8."""


def _grammar(case: Examination) -> None:
    if not case.value.isascii() and _NOT_TEXT.search(case.value):
        raise VerificationFailure(FailureCode.IDENTITY_UNREADABLE)
    case.header = IdentityHeader.parse(case.value)


def _type(case: Examination) -> None:
    # RFC 8224 §6.2 step 1: a verifier "MUST ignore any Identity header fields containing an
    # unsupported 'ppt'".
    if case.header.ppt not in PASSPORT_TYPES:
        raise Ignored
    case.passport = Passport.parse(case.header.digest)
    if case.header.ppt is None and case.passport.ppt not in PASSPORT_TYPES:
        raise Ignored


def _info(case: Examination) -> None:
    # RFC 8224 §4: the ident-info parameter is mandatory.
    if case.header.info is None:
        raise VerificationFailure(FailureCode.INFO_MISSING)
    x5u.check(case.header.info, case.rules.lab_hosts)


def _compact(case: Examination) -> None:
    """Rebuild what the compact form leaves out, octet for octet as RFC 8225 §9 makes it."""
    if not case.passport.is_compact:
        return
    if case.header.ppt is not None or not _takes_baseline(case):
        raise VerificationFailure(FailureCode.COMPACT_FORM)
    assert case.header.info is not None
    if case.message.date is None:
        raise VerificationFailure(FailureCode.DATE_MISSING)
    callers, called = _callers(case), case.message.called(case.rules.plan)
    if not callers:
        raise VerificationFailure(FailureCode.ORIG_MISMATCH, "the message names no caller")
    if called is None:
        raise VerificationFailure(FailureCode.DEST_MISMATCH, "To names nobody")
    header = passport_header(case.header.info, None)
    claims = base_claims(callers[0].party, called, _parsed_date(case.message.date), media_keys(case.message.sdp))
    case.passport = replace(case.passport, header=header, claims=claims, signing_input=signing_input(header, claims))


def _takes_baseline(case: Examination) -> bool:
    return case.rules.profile in PASSPORT_TYPES[None].vouches


def _jose_header(case: Examination) -> None:
    jose = case.passport.header
    # RFC 7515 §4.1.11: "If any of the listed extension Header Parameters are not understood …
    # then the JWS is invalid." None is understood here.
    if "crit" in jose:
        raise VerificationFailure(FailureCode.CRITICAL_UNKNOWN)
    # RFC 8225 §4: typ, alg and x5u; RFC 8588 §4 adds ppt, without which it is a baseline PASSporT.
    missing = [name for name in ("alg", "ppt", "typ", "x5u") if name not in jose]
    if "ppt" in missing and case.header.ppt is None and _takes_baseline(case):
        missing.remove("ppt")
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
    if "ppt" in jose and (case.passport.ppt not in PASSPORT_TYPES or case.passport.ppt is None):
        raise VerificationFailure(FailureCode.PPT_MISMATCH)
    if case.header.ppt not in {None, case.passport.ppt}:
        raise VerificationFailure(FailureCode.PPT_MISMATCH)
    case.type = PASSPORT_TYPES[case.passport.ppt]


_OF_TYPE: Final = {
    ppt: (
        (*BASE_CLAIMS, *kind.required),
        tuple({"iat": read_iat, "orig": read_orig, **kind.readers, "dest": read_dest}.items()),
    )
    for ppt, kind in PASSPORT_TYPES.items()
}
"""For each type the claims that must be there, and what reads those that are."""


def _claims(case: Examination) -> None:
    claims = case.passport.claims
    needed, readers = _OF_TYPE[case.type.ppt]
    missing = [name for name in needed if name not in claims]
    if missing:
        raise VerificationFailure(FailureCode.CLAIM_MISSING, f"no {', '.join(missing)}")
    for name, reader in readers:
        if name in claims:
            case.read[name] = reader(claims)


READING: Final = (
    Check("grammar", _grammar, "RFC 8224 §4"),
    Check("type", _type, "RFC 8224 §6.2 step 1"),
    Check("info", _info, "RFC 8224 §4, ATIS-1000074"),
    Check("compact", _compact, "RFC 8224 §6.2, RFC 8225 §7"),
    Check("jose_header", _jose_header, "RFC 8225 §4"),
    Check("claims", _claims, "RFC 8225 §5, RFC 8588 §4"),
)

# --- Whether it fits the call -----------------------------------------------------------------


def _parsed_date(value: str) -> int:
    try:
        return parse_date(value)
    except SipSyntaxError as exc:
        raise VerificationFailure(FailureCode.DATE_INVALID, str(exc)) from exc


def _date(case: Examination) -> None:
    # RFC 8224 §12.1: a verifier "MUST NOT deem valid a request with an outdated Date header".
    # Many senders have no Date at all; then iat alone decides.
    if case.message.date is None:
        return
    date = _parsed_date(case.message.date)
    if abs(case.now - date) > case.rules.freshness:
        raise VerificationFailure(FailureCode.DATE_STALE, f"{case.now - date:+.0f} s old")
    case.read["date"] = date


def _freshness(case: Examination) -> None:
    # RFC 8946 §4.2: the outermost PASSporT must be fresh; for those it diverts the window may be
    # wider, since the call may have rung for a while elsewhere.
    limit = case.rules.freshness
    if case.diverted and case.rules.inner_freshness is not None:
        limit = max(limit, case.rules.inner_freshness)
    age = case.now - case.read["iat"]
    if age > limit:
        raise VerificationFailure(FailureCode.IAT_STALE, f"{age:.0f} s old")
    case.relaxed = age > case.rules.freshness  # whether it was diverted indeed is seen in `diversion.resolve`
    if -age > case.rules.freshness:
        raise VerificationFailure(FailureCode.IAT_IN_FUTURE, f"{-age:.0f} s ahead")


def _callers(case: Examination) -> list[Caller]:
    # RFC 8224 §6.2 step 2 and §6.2.4: the identity is taken from the message, never from the
    # token. ATIS-1000074: from P-Asserted-Identity where there is one, else from From.
    # One that names nobody is none, as for the signer.
    message, plan = case.message, case.rules.plan
    return list(message.callers_in(CallerHeader.ASSERTED, plan)) or list(message.callers_in(CallerHeader.FROM, plan))


def _orig(case: Examination) -> None:
    if case.orig_changed:
        return  # it never passes; if its signature holds it fails its chain, too (`diversion.resolve`)
    orig = case.orig
    parties: list[Party] = [caller.party for caller in _callers(case)]
    # Several values may name a number and a URI of the same caller (RFC 3325 §9.1). Two numbers
    # are none: which one a telephone shows is luck, so every number must be the signed one.
    if orig in parties and all(party == orig for party in parties if isinstance(party, TelephoneNumber)):
        return
    if parties and all(map(is_anonymous, parties)):
        # Withheld, not forged: there is nothing in the message to compare with.
        raise Ignored(FailureCode.CALLER_ANONYMOUS)
    raise VerificationFailure(FailureCode.ORIG_MISMATCH, "not the caller in the message")


def _dest(case: Examination) -> None:
    # A PASSporT that was diverted may name another; whether the chain leads here is seen when it
    # is known which of its PASSporTs are valid.
    if not (case.diverted or case.orig_changed or case.target & case.dest):
        raise VerificationFailure(FailureCode.DEST_MISMATCH, "neither in To nor in the Request-URI")


def _chain(case: Examination) -> None:
    # RFC 8946 §4.2: every div must be the dest of an earlier one.
    if case.div is not None and not case.linked and not case.orig_changed:
        raise VerificationFailure(FailureCode.DIV_NOT_LINKED)


def _media_keys(case: Examination) -> None:
    # RFC 8225 §5.2.2, RFC 8224 §4.1: mky names every fingerprint of the SDP, so that whoever
    # changes the SDP cannot put itself between. An SDP without fingerprints has none to protect.
    signed = case.passport.claims.get("mky")
    if signed is None or not case.rules.media_keys:
        return
    present = {_media_key(key) for key in media_keys(case.message.sdp)}
    if not present <= {_media_key(key) for key in (signed if isinstance(signed, list) else ())}:
        raise VerificationFailure(FailureCode.MKY_MISMATCH)


def _media_key(key: Any) -> tuple[str, str]:
    if not isinstance(key, dict):
        return "", ""
    # RFC 8122 §5: names of hash functions are case-insensitive, hexadecimal digits upper case.
    return str(key.get("alg")).lower(), str(key.get("dig")).upper()


JUDGING: Final = (
    Check("date", _date, "RFC 8224 §6.2 step 4"),
    Check("freshness", _freshness, "RFC 8224 §6.2 step 4, RFC 8946 §4.2"),
    Check("orig", _orig, "RFC 8224 §6.2 step 2"),
    Check("dest", _dest, "RFC 8224 §6.2 step 2"),
    Check("chain", _chain, "RFC 8946 §4.2"),
    Check("media_keys", _media_keys, "RFC 8225 §5.2.2"),
)

BEFORE_FETCH: Final = (*READING, *JUDGING)

# --- Whether the signer may say so ------------------------------------------------------------


def _signed_in_validity(case: Examination) -> None:
    # RFC 8224 §6.2 step 4: the Date "falls within the validity period of the credential".
    assert case.path is not None
    if case.now > case.path.not_after:
        raise VerificationFailure(FailureCode.CERTIFICATE_EXPIRED)
    if case.now < case.path.not_before:
        raise VerificationFailure(FailureCode.CERTIFICATE_NOT_YET_VALID)
    iat = case.read["iat"]
    for moment in (iat, case.read.get("date", iat)):
        if not case.path.signer.valid_at(moment):
            raise VerificationFailure(FailureCode.CERTIFICATE_NOT_VALID_AT_SIGNING)


def _scope(case: Examination) -> None:
    assert case.path is not None
    # RFC 8946 §4.2: who diverts speaks for the number in div. RFC 9795 §10: a third party (iss)
    # speaks for no number, its data count only beside a PASSporT that does.
    if "iss" in case.read:
        return
    if not case.path.signer.authorises(case.div or case.orig):
        raise VerificationFailure(FailureCode.CERTIFICATE_SCOPE)


def _constraints(case: Examination) -> None:
    assert case.path is not None
    constraints = case.path.signer.constraints
    broken = constraints.broken_by(case.passport.claims) if constraints else None
    if broken:
        raise VerificationFailure(FailureCode.CLAIM_NOT_PERMITTED, broken)


def _signature(case: Examination) -> None:
    assert case.path is not None
    assert case.passport.signing_input is not None
    if not verify_es256(case.path.signer.public_key, case.passport.signing_input, case.passport.signature):
        raise VerificationFailure(FailureCode.SIGNATURE_INVALID)


AFTER_FETCH: Final = (
    Check("validity", _signed_in_validity, "RFC 8224 §6.2 step 4"),
    Check("scope", _scope, "RFC 8226 §9, RFC 8946 §4.2"),
    Check("constraints", _constraints, "RFC 8226 §8, RFC 9118 §3"),
    Check("signature", _signature, "RFC 8224 §6.2 step 5"),
)
