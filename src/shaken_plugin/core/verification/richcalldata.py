"""Rich call data: the claims ``rcd``, ``rcdi`` and ``crn`` in any PASSporT, and the type ``rcd`` (RFC 9795).

Names, logos and reasons are shown to people, so nothing is shown that was not signed or does not
match its digest; and nothing about them changes the verdict on the number (§8.2). What is behind
a URI is never shown: its content is not at hand, since nothing is downloaded in a call.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives import hashes

from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.passport import serialise
from shaken_plugin.core.sip import NameAddr
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.core.verification.examination import Check, Examination, PassportType
from shaken_plugin.core.verification.verdict import IdentityResult, RichCallData, Shown
from shaken_plugin.errors import FailureCode, NumberError, SipSyntaxError, VerificationFailure

MAX_DIGESTS: Final = 32
"""Most members of ``rcdi``; one for each part and each URI of a jCard. Bounds the hashing."""

_ALGORITHMS: Final[Mapping[str, Callable[[], hashes.HashAlgorithm]]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_NUMBER = re.compile(r"[-+0-9(). ]*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,4}")


def _something(case: Examination) -> None:
    # RFC 9795 §8: a PASSporT of type "rcd" has an "rcd" or a "crn" claim.
    if not case.passport.claims.keys() & {"rcd", "crn"}:
        raise VerificationFailure(FailureCode.CLAIM_MISSING, "neither rcd nor crn")


def _read_iss(claims: Mapping[str, Any]) -> str:
    if not isinstance(claims["iss"], str):
        raise VerificationFailure(FailureCode.CLAIM_INVALID, "iss is not a text")
    return claims["iss"]


RCD: Final = PassportType("rcd", "RFC 9795 §8", (), {"iss": _read_iss}, (Check("rcd", _something, "RFC 9795 §8"),))


class _Refused(Exception):
    """The rich data as a whole, or one part, must not be shown; the text says why."""


def rich_call_data(
    cases: Sequence[Examination],
    results: Sequence[IdentityResult],
    message: CallMessage,
    vouching: frozenset[str | None],
    *,
    passed: bool,
) -> RichCallData | None:
    """The rich call data of a call: of the first valid PASSporT that has something to show.

    Who diverts a call or grants it priority does not speak for the caller's name.

    Args:
        cases: all PASSporTs.
        results: theirs.
        message: for the display name.
        vouching: types whose PASSporTs vouch for the caller's number.
        passed: whether the caller's number was verified. A name without a number is worth nothing,
            and a third party's (iss) must accompany a PASSporT of the caller's (RFC 9795 §10).
    """
    found: list[RichCallData] = []
    for case, result in zip(cases, results, strict=True):
        passport = getattr(case, "passport", None)
        claims = passport.claims if passport else {}
        speaks = result.ppt == RCD.ppt or (("rcd" in claims or "crn" in claims) and result.ppt in vouching)
        if result.ignored or not speaks:
            continue
        if result.passed and passed:
            found.append(judge(claims, display_name(message), case.read.get("iss")))
        else:
            why = result.failure.code if result.failure else "the caller's number was not verified"
            found.append(RichCallData(withheld=(("rcd", why),)))
    return max(found, key=lambda rich: rich.shown is not Shown.WITHHELD, default=None)


def display_name(message: CallMessage) -> str:
    """The name that stands in From, ``""`` where there is none."""
    try:
        name = NameAddr.parse(message.callers.get(CallerHeader.FROM, ("",))[0]).display_name
    except SipSyntaxError:
        return ""
    # Many telephones repeat the number there: that is no other name.
    return "" if _NUMBER.fullmatch(name) else name


def judge(claims: Mapping[str, Any], display: str, iss: str | None = None) -> RichCallData:
    """What of the rich data of a valid PASSporT may be shown, and why not the rest.

    Args:
        claims: of the PASSporT.
        display: the display name in the message.
        iss: who signed, where it is a third party.
    """
    withheld: list[tuple[str, str]] = []
    shown: dict[str, str] = {}

    def part(name: str, make: Callable[[], str]) -> None:
        try:
            shown[name] = make()
        except _Refused as refused:
            withheld.append((name, str(refused)))

    if "crn" in claims:
        part("crn", lambda: _text(claims["crn"]))
    if "rcd" in claims:
        try:
            rcd, digests = _whole(claims)
        except _Refused as refused:
            withheld.append(("rcd", str(refused)))
        else:
            part("nam", lambda: _nam(rcd["nam"], display))
            if "apn" in rcd:
                part("apn", lambda: _apn(rcd["apn"]))
            if "jcd" in rcd:
                part("jcd", lambda: _jcard(rcd["jcd"], withheld))
            withheld += [
                (name, _why_not_shown(rcd[name], digests.get(f"/{name}"))) for name in ("icn", "jcl") if name in rcd
            ]
            for name in [name for name in shown if f"/{name}" in digests and not _known(digests[f"/{name}"])]:
                del shown[name]
                withheld.append((name, "its digest is of an unknown kind"))
    return RichCallData(**shown, iss=iss, withheld=tuple(withheld))


def _whole(claims: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """``rcd`` and ``rcdi``, where they hold as a whole."""
    rcd, digests = claims["rcd"], claims.get("rcdi", {})
    # RFC 9795 §5.1: nam MUST be there; jcd and jcl are mutually exclusive.
    if not isinstance(rcd, dict) or not isinstance(rcd.get("nam"), str):
        raise _Refused("rcd is not an object with nam")
    if {"jcd", "jcl"} <= rcd.keys():
        raise _Refused("jcd and jcl together")
    if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
        raise _Refused("rcdi is not an object of texts")
    if len(digests) > MAX_DIGESTS:
        raise _Refused(f"rcdi has {len(digests)} digests, at most {MAX_DIGESTS}")
    for pointer, digest in digests.items():
        value = _resolve(rcd, pointer)
        if _is_link(pointer, value) or not _known(digest):
            continue
        # RFC 9795 §6.1: over the JSON text of the value, quotation marks included. A signer that
        # contradicts itself in one part is not believed in another.
        if not matches(digest, serialise(value)):
            raise _Refused(f"{pointer[:40]} does not match its digest")
    return rcd, digests


def matches(digest: str, data: bytes) -> bool:
    """Whether ``sha256-…`` (sha384, sha512; base64 with or without padding) is the digest of ``data``."""
    algorithm, _, expected = digest.partition("-")
    state = hashes.Hash(_ALGORITHMS[algorithm]())
    state.update(data)
    return base64.b64encode(state.finalize()).rstrip(b"=").decode("ascii") == expected.rstrip("=")


def _known(digest: str) -> bool:
    return digest.partition("-")[0] in _ALGORITHMS


def _is_link(pointer: str, value: Any) -> bool:
    """Whether the digest is over what a URI leads to, which is not at hand."""
    return pointer.startswith("/jcl") or (isinstance(value, str) and "://" in value and pointer != "/nam")


def _resolve(value: Any, pointer: str) -> Any:
    """The value that a JSON pointer leads to (RFC 6901); beyond ``/jcl`` it leads into a document."""
    if _POINTER.fullmatch(pointer) is None:
        raise _Refused("rcdi has a key that is no JSON pointer")
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        elif pointer.startswith("/jcl/") and isinstance(value, str):
            return value
        else:
            raise _Refused(f"rcdi names {pointer[:40]}, which is not there")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Refused("not a text")
    return value


def _nam(value: str, display: str) -> str:
    # RFC 9795 §12.2: nam is compared with the display name in From. Who changed one of the two
    # wanted another name to be seen.
    if display and display != value:
        raise _Refused("not the display name in From")
    return value


def _apn(value: Any) -> str:
    try:
        return TelephoneNumber(_text(value)).digits  # RFC 9795 §5.1.2: a canonical tn
    except NumberError:
        raise _Refused("not a canonical telephone number") from None


def _jcard(value: Any, withheld: list[tuple[str, str]]) -> str:
    """A jCard (RFC 7095 §3.3) without the properties that only point to their content."""
    if not isinstance(value, list) or len(value) != 2 or value[0] != "vcard" or not isinstance(value[1], list):
        raise _Refused("not a jCard")
    kept = []
    for position, item in enumerate(value[1]):
        if not isinstance(item, list) or len(item) < 4:
            raise _Refused("not a jCard")
        if item[2] == "uri" and not _is_contact(item[3:]):
            withheld.append((f"jcd/1/{position}", "its content was not checked against a digest"))
        else:
            kept.append(item)
    return serialise([value[0], kept]).decode("utf-8")


def _is_contact(values: Iterable[Any]) -> bool:
    """Whether a URI is something to call, not something to load."""
    return all(isinstance(value, str) and value.partition(":")[0].lower() in {"tel", "sip", "sips"} for value in values)


def _why_not_shown(value: Any, digest: str | None) -> str:
    if not isinstance(value, str) or not value.startswith("https://"):
        return "not an https URI"
    if digest is None:
        return "a URI without the digest of its content"  # RFC 9795 §6.1: each URI MUST have one
    if not _known(digest):
        return "its digest is of an unknown kind"
    return "its content was not checked against the digest: nothing is downloaded in a call"
