"""PASSporT, the signed token of an Identity header (RFC 8225).

A PASSporT travels in full form, ``header.claims.signature``, or in compact form,
``..signature`` (RFC 8225 §7). `Passport.parse` reads both. What a type of token, its ``ppt``,
needs beyond that stands in `core.verification.types`; `core.claims` reads the claims.

Parsing is stricter than JSON: duplicate members, numbers that are not integers, deep nesting
and lone surrogates are refused, because two parsers would read them differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Final

from shaken_plugin.core.jws import b64url, unb64url
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_TOKEN_LENGTH: Final = 65_536
"""Longest token that is looked at, characters; an RCD PASSporT with its jCard inline is 2 to
8 KiB, Kamailio's UDP buffer 64 KiB."""

MAX_DEPTH: Final = 16
"""Deepest JSON nesting; a jCard needs 8. Bounds the parser's recursion on FreeSWITCH's 240 KiB
thread stack."""


class Attest(Enum):
    """The attestation level of a SHAKEN PASSporT (RFC 8588 §4, ATIS-1000074)."""

    A = "A"
    B = "B"
    C = "C"


def serialise(value: Any) -> bytes:
    """The deterministic JSON of RFC 8225 §9.

    No white space, members ordered by code point at every depth, UTF-8, integers as they are.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _no_float(text: str) -> Any:
    raise ValueError(f"the number {text[:20]} is not an integer")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # RFC 8225 §9 orders members by name, which supposes that names are unique;
        # RFC 7519 §4: "The Claim Names within a JWT Claims Set MUST be unique".
        raise ValueError("a member name stands twice")
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)
# A string without its closing quote is one token to the end: were it none, each of its escaped
# quotes would begin another search for the end.
_JSON_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the recursive parser sees it."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for match in _JSON_TOKENS.finditer(text):
        token = match.group()
        if token in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
        elif token in "}]":
            depth -= 1


def _decoded(text: str) -> Any:
    """What `JSONDecoder.decode` does, without its search for white space around the value."""
    value, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError(f"more behind the value: char {end}")
    return value


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8, read as strictly as this module says; the caller bounds its length.

    Raises:
        ValueError: it is something else.
    """
    text = data.decode("utf-8")
    _check_depth(text)
    value = _DECODER.decode(text) if text[:1].isspace() or text[-1:].isspace() else _decoded(text)
    if not text.isascii() or "\\u" in text:
        serialise({"": value})  # a lone surrogate cannot be encoded
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # data, not an argument
    return value


def _parse_object(segment: str, what: str) -> dict[str, Any]:
    """One base64url segment as a JSON object."""
    try:
        return parse_object(unb64url(segment))
    except (ValueError, RecursionError) as exc:
        raise VerificationFailure(FailureCode.TOKEN_MALFORMED, f"{what}: {exc}") from exc


MAX_KNOWN: Final = 2_048
"""Longest header segment that is remembered, characters: a signer sends the same with every call."""


@lru_cache(1_024)
def _known_header(segment: str) -> Mapping[str, Any]:
    return _parse_object(segment, "header")


@dataclass(frozen=True, slots=True)
class Passport:
    """A parsed PASSporT. Nothing about it is trusted yet.

    In compact form ``header`` and ``claims`` are empty and ``signing_input`` is None: they have
    to be rebuilt from the SIP message (RFC 8224 §4.1).
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes | None
    signature: bytes

    @classmethod
    def parse(cls, token: str) -> Passport:
        """Parse ``header.claims.signature`` or ``..signature``.

        Raises:
            VerificationFailure: IDENTITY_TOO_LARGE or TOKEN_MALFORMED.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise VerificationFailure(
                FailureCode.IDENTITY_TOO_LARGE, f"a token of {len(token)} characters, at most {MAX_TOKEN_LENGTH}"
            )
        segments = token.split(".")
        if len(segments) != 3:
            raise VerificationFailure(FailureCode.TOKEN_MALFORMED, f"{len(segments)} segments, not 3")
        head, body, tail = segments
        try:
            signature = unb64url(tail)
        except ValueError as exc:
            raise VerificationFailure(FailureCode.TOKEN_MALFORMED, f"signature: {exc}") from exc
        if not head and not body:
            return cls({}, {}, None, signature)
        return cls(
            _parse_object(head, "header") if len(head) > MAX_KNOWN else _known_header(head),
            _parse_object(body, "claims"),
            f"{head}.{body}".encode("ascii"),
            signature,
        )

    @property
    def is_compact(self) -> bool:
        """Whether only the signature was sent (RFC 8225 §7)."""
        return self.signing_input is None

    @property
    def ppt(self) -> str | None:
        """The PASSporT type, None for a baseline PASSporT (RFC 8225 §8.1)."""
        ppt = self.header.get("ppt")
        return ppt if isinstance(ppt, str) else None


def signing_input(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bytes:
    """What ES256 signs: ``base64url(header).base64url(claims)`` (RFC 7515 §5.1)."""
    return f"{b64url(serialise(header))}.{b64url(serialise(claims))}".encode("ascii")


def passport_header(x5u: str, ppt: str | None) -> dict[str, Any]:
    """The JOSE header of RFC 8225 §4 for ES256."""
    header = {"alg": "ES256", "typ": "passport", "x5u": x5u}
    return header if ppt is None else header | {"ppt": ppt}


def party_claim(party: Party) -> dict[str, str]:
    """One identity as ``{"tn": …}`` or ``{"uri": …}`` (RFC 8225 §5.2.1)."""
    return {"tn": party.digits} if isinstance(party, TelephoneNumber) else {"uri": party.uri}


def base_claims(orig: Party, dest: Party, iat: int, mky: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """The claims of every PASSporT (RFC 8225 §5).

    Args:
        orig: the calling party, exactly one identity.
        dest: the called party.
        iat: POSIX seconds.
        mky: media keys (`media_keys`), where the SDP has fingerprints.
    """
    claims: dict[str, Any] = {
        "dest": {name: [value] for name, value in party_claim(dest).items()},
        "iat": iat,
        "orig": party_claim(orig),
    }
    return claims | {"mky": mky} if mky else claims


def shaken_claims(
    *, attest: Attest, orig: Party, dest: Party, iat: int, origid: str, mky: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """The claims of a SHAKEN PASSporT (RFC 8588 §4, §5).

    Args:
        attest: the level.
        orig: see `base_claims`.
        dest: likewise.
        iat: likewise.
        origid: a UUID.
        mky: see `base_claims`.
    """
    return base_claims(orig, dest, iat, mky) | {"attest": attest.value, "origid": origid}


def shaken_payload(
    *, attest: Attest, orig: Party, dest: Party, iat: int, origid: str, mky: list[dict[str, str]] | None = None
) -> bytes:
    """`shaken_claims` as `serialise` writes them: every call has these members, so they are sorted here and now."""
    keys = f'"mky":{serialise(mky).decode()},' if mky else ""
    return (
        f'{{"attest":"{attest._value_}","dest":{{{dest_member(dest)}}},"iat":{iat},{keys}'
        f'"orig":{{{_member(orig)}}},"origid":{encode_basestring(origid)}}}'
    ).encode()


def dest_member(dest: Party) -> str:
    """The one member of the ``dest`` claim in JSON."""
    return _member(dest, "[", "]")


def _member(party: Party, begin: str = "", end: str = "") -> str:
    """The one member of an identity in JSON; a number has no character that would be escaped."""
    if isinstance(party, TelephoneNumber):
        return f'"tn":{begin}"{party.digits}"{end}'
    return f'"uri":{begin}{encode_basestring(party.uri)}{end}'


def div_claims(diverted: Mapping[str, Any], div: Party, dest: Party) -> dict[str, Any]:
    """The claims of a ``div`` PASSporT for a call that goes on to ``dest`` (RFC 8946 §3, §4.1).

    Args:
        diverted: claims of the PASSporT the call came with; ``orig`` and ``iat`` are taken over, no others.
        div: whom the call was for: an identity of its ``dest`` that the signer has authority over.
        dest: the new target.
    """
    return {
        "dest": {name: [value] for name, value in party_claim(dest).items()},
        "div": party_claim(div),
        "iat": diverted["iat"],
        "orig": diverted["orig"],
    }


_FINGERPRINT = re.compile(
    r"^a=fingerprint:([A-Za-z0-9-]+) +([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*)[ \t]*\r?$", re.MULTILINE
)


def media_keys(sdp: str) -> list[dict[str, str]]:
    """The ``mky`` claim for an SDP body; empty where it has no ``a=fingerprint``.

    RFC 8225 §5.2.2: one ``{"alg", "dig"}`` per fingerprint, the digest as in the SDP without
    its colons, sorted by the UTF-8 of alg and dig put together.
    """
    keys = {(alg, digest.replace(":", "")) for alg, digest in _FINGERPRINT.findall(sdp)}
    return [{"alg": alg, "dig": dig} for alg, dig in sorted(keys, key=lambda key: (key[0] + key[1]).encode())]
