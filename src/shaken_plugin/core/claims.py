"""Reading the claims of a PASSporT: each reader gives what the claim says, or refuses it.

All take the claims as parsed JSON and raise VerificationFailure, CLAIM_INVALID unless they say
otherwise. That a claim is there at all is checked before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from shaken_plugin.core.passport import Attest
from shaken_plugin.core.telephone import Party, TelephoneNumber, UriIdentity
from shaken_plugin.errors import FailureCode, NumberError, VerificationFailure

BASE_CLAIMS: Final = ("dest", "iat", "orig")
"""Claims of every PASSporT (RFC 8225 §5)."""

MAX_IAT: Final = 2**53
"""Largest NumericDate that every JSON parser reads alike (RFC 8259 §6)."""


def _invalid(detail: str) -> VerificationFailure:
    return VerificationFailure(FailureCode.CLAIM_INVALID, detail)


def _identity(kind: str, value: Any) -> Party:
    if not isinstance(value, str) or not value:
        raise _invalid(f"{kind} is not a text")
    if kind == "uri":
        return UriIdentity(value)
    try:
        # RFC 8224 §8.3 has no "+" in the claim; some signers leave it, and it says the same.
        return TelephoneNumber(value.removeprefix("+"))
    except NumberError as exc:
        raise _invalid(f"{kind}: {exc}") from exc


def _one_identity(name: str, members: Any) -> Party:
    if not isinstance(members, dict) or len(members) != 1 or not members.keys() <= {"tn", "uri"}:
        raise _invalid(f"{name} is not an object with exactly one of tn and uri")
    ((kind, value),) = members.items()
    return _identity(kind, value)


def read_orig(claims: Mapping[str, Any]) -> Party:
    """The one identity of ``orig``.

    Raises:
        VerificationFailure: RFC 8225 §5.2.1, "the 'orig' claim … MUST have one, and only one".
    """
    return _one_identity("orig", claims["orig"])


def read_div(claims: Mapping[str, Any]) -> Party:
    """The one identity of ``div`` (RFC 8946 §3); ``hi``, a History-Info index (§8), may stand beside it.

    Raises:
        VerificationFailure: CLAIM_INVALID.
    """
    div = claims["div"]
    if isinstance(div, dict) and "hi" in div:
        if not isinstance(div["hi"], str):
            raise _invalid("div.hi is not a text")
        div = {name: value for name, value in div.items() if name != "hi"}
    return _one_identity("div", div)


def read_opt(claims: Mapping[str, Any]) -> str:
    """``opt``, the PASSporT nested in a ``div-o`` (RFC 8946 §6).

    Raises:
        VerificationFailure: CLAIM_INVALID; its content is read by `Passport.parse`.
    """
    if not isinstance(claims["opt"], str):
        raise _invalid("opt is not a text")
    return claims["opt"]


def read_rph(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of ``rph.auth``, in lower case (RFC 8443 §4.1; RFC 4412 §3.1: case-insensitive).

    Raises:
        VerificationFailure: CLAIM_INVALID, unless ``auth`` is an array of texts with an element.
    """
    rph = claims["rph"]
    auth = rph.get("auth") if isinstance(rph, dict) else None
    if not isinstance(auth, list) or not auth or not all(isinstance(value, str) for value in auth):
        raise _invalid("rph.auth is not an array of texts with an element")
    return tuple(value.lower() for value in auth)


def read_dest(claims: Mapping[str, Any]) -> frozenset[Party]:
    """The identities of ``dest``, at least one.

    Raises:
        VerificationFailure: RFC 8225 §5.2.1, ``tn`` and ``uri`` are arrays with one or more.
    """
    dest = claims["dest"]
    if not isinstance(dest, dict) or not dest or not dest.keys() <= {"tn", "uri"}:
        raise _invalid("dest is not an object with tn or uri")
    parties: set[Party] = set()
    for kind, values in dest.items():
        if not isinstance(values, list) or not values:
            raise _invalid(f"dest.{kind} is not an array with an element")
        parties.update(_identity(kind, value) for value in values)
    return frozenset(parties)


def read_iat(claims: Mapping[str, Any]) -> int:
    """``iat`` in POSIX seconds (RFC 8225 §5.1.1: a NumericDate; §9: an integer).

    Raises:
        VerificationFailure: text, boolean, negative, or beyond `MAX_IAT`.
    """
    iat = claims["iat"]
    if isinstance(iat, bool) or not isinstance(iat, int) or not 0 <= iat <= MAX_IAT:
        raise _invalid("iat is not a time in whole seconds")
    return iat


_LEVELS: Final = {level.value: level for level in Attest}


def read_attest(claims: Mapping[str, Any]) -> Attest:
    """``attest`` (RFC 8588 §4: "either 'A', 'B', or 'C'").

    Raises:
        VerificationFailure: ATTEST_INVALID.
    """
    attest = claims["attest"]
    level = _LEVELS.get(attest) if isinstance(attest, str) else None
    if level is None:
        raise VerificationFailure(FailureCode.ATTEST_INVALID)
    return level


_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def read_origid(claims: Mapping[str, Any]) -> str:
    """``origid`` (RFC 8588 §5: "a globally unique string corresponding to a UUID").

    Only the 8-4-4-4-12 form is asked for: live tokens carry UUIDs that RFC 4122 does not know.

    Raises:
        VerificationFailure: CLAIM_INVALID.
    """
    origid = claims["origid"]
    if not isinstance(origid, str) or _UUID.fullmatch(origid) is None:
        raise _invalid("origid is not a UUID")
    return origid
