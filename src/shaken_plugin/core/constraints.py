"""JWT claim constraints: what a certificate lets its holder put into a PASSporT.

    JWTClaimConstraints ::= SEQUENCE {                        -- id-pe 27, RFC 8226 §8
      mustInclude     [0] SEQUENCE OF IA5String OPTIONAL,
      permittedValues [1] SEQUENCE OF SEQUENCE { claim IA5String, values SEQUENCE OF UTF8String } OPTIONAL }

`EnhancedJWTClaimConstraints` (id-pe 33, RFC 9118 §3) adds ``mustExclude [2]``, of the same type as
``mustInclude``. Every list has SIZE (1..MAX), at least one component is there, and both modules
have EXPLICIT TAGS. A certificate carries one of the two at most (RFC 9118 §6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.x509 import ObjectIdentifier

from shaken_plugin.core.claims import BASE_CLAIMS
from shaken_plugin.core.der import IA5STRING, SEQUENCE, UTF8STRING, DerError, elements, encode, only
from shaken_plugin.core.passport import serialise

OID: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.27")
"""id-pe-JWTClaimConstraints."""

ENHANCED_OID: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.33")
"""id-pe-eJWTClaimConstraints."""

MAX_LENGTH: Final = 16_384
"""Longest value of the extension, octets; every call of the signer is compared with it."""

_INCLUDE, _PERMIT, _EXCLUDE = 0xA0, 0xA1, 0xA2


class ConstraintsError(ValueError):
    """The extension's content is not what RFC 8226 §8 or RFC 9118 §3 says."""


@dataclass(frozen=True, slots=True)
class ClaimConstraints:
    """Constraints of either kind; ``must_exclude`` is of the enhanced kind alone.

    ``permitted`` holds claim names, each with the values it may have. A value that is no JSON string
    is compared by its serialisation of RFC 8225 §9.
    """

    must_include: tuple[str, ...] = ()
    permitted: tuple[tuple[str, frozenset[str]], ...] = ()
    must_exclude: tuple[str, ...] = ()

    @classmethod
    def from_der(cls, data: bytes, *, enhanced: bool) -> ClaimConstraints | None:
        """Parse the value of the extension `OID`, or of `ENHANCED_OID`.

        Returns:
            None where the extension is to be treated as though it were not there.

        Raises:
            ConstraintsError: anything but the ASN.1 above in DER.
        """
        if len(data) > MAX_LENGTH:
            raise ConstraintsError(f"{len(data)} octets, at most {MAX_LENGTH}")
        try:
            found = _read(data, enhanced=enhanced)
        except DerError as exc:
            raise ConstraintsError(str(exc)) from exc
        # RFC 9118 §3 item 3: "If one of these baseline PASSporT claims appears in the mustExclude
        # list, then the certificate MUST be treated as if the extension was not present."
        return None if set(BASE_CLAIMS) & set(found.must_exclude) else found

    def to_der(self) -> bytes:
        """The extension's value for a certificate or a certificate request."""
        entries = [
            encode(SEQUENCE, encode(IA5STRING, claim.encode("ascii")), _strings(UTF8STRING, sorted(values)))
            for claim, values in self.permitted
        ]
        return encode(
            SEQUENCE,
            encode(_INCLUDE, _strings(IA5STRING, self.must_include)) if self.must_include else b"",
            encode(_PERMIT, encode(SEQUENCE, *entries)) if entries else b"",
            encode(_EXCLUDE, _strings(IA5STRING, self.must_exclude)) if self.must_exclude else b"",
        )

    def broken_by(self, claims: Mapping[str, Any]) -> str | None:
        """What in a PASSporT's claims breaks the constraints, None where nothing does."""
        for name in self.must_include:
            if name not in claims:
                return f"{name} is missing, which the certificate demands"
        for name in self.must_exclude:
            if name in claims:
                return f"{name} stands there, which the certificate forbids"
        for name, values in self.permitted:
            # RFC 9118 §3 item 2: "if the claim name is present, the claim MUST exactly match one
            # of the listed values". RFC 8226 §8 says the same in other words.
            if name in claims and _text(claims[name]) not in values:
                return f"{name} has a value that the certificate does not permit"
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else serialise(value).decode("utf-8")


def _strings(tag: int, texts: Iterable[str]) -> bytes:
    return encode(SEQUENCE, *(encode(tag, text.encode("utf-8")) for text in texts))


def _read(data: bytes, *, enhanced: bool) -> ClaimConstraints:
    parts = list(elements(only(data, SEQUENCE)))
    tags = [tag for tag, _ in parts]
    allowed = {_INCLUDE, _PERMIT, _EXCLUDE} if enhanced else {_INCLUDE, _PERMIT}
    if not tags or tags != sorted(allowed.intersection(tags)):
        raise ConstraintsError("no component, one that does not belong there, or one out of order")
    found = {tag: _several(only(content, SEQUENCE)) for tag, content in parts}
    return ClaimConstraints(
        _texts(found.get(_INCLUDE, []), IA5STRING),
        tuple(_permitted(tag, entry) for tag, entry in found.get(_PERMIT, [])),
        _texts(found.get(_EXCLUDE, []), IA5STRING),
    )


def _permitted(tag: int, entry: bytes) -> tuple[str, frozenset[str]]:
    fields = list(elements(entry))
    if tag != SEQUENCE or [kind for kind, _ in fields] != [IA5STRING, SEQUENCE]:
        raise ConstraintsError("a permitted value is not a claim name and values")
    (claim,) = _texts(fields[:1], IA5STRING)
    return claim, frozenset(_texts(_several(fields[1][1]), UTF8STRING))


def _several(data: bytes) -> list[tuple[int, bytes]]:
    found = list(elements(data))
    if not found:
        raise ConstraintsError("an empty list")
    return found


def _texts(found: list[tuple[int, bytes]], tag: int) -> tuple[str, ...]:
    if any(kind != tag for kind, _ in found):
        raise ConstraintsError("a name or value of the wrong type")
    try:
        return tuple(content.decode("ascii" if tag == IA5STRING else "utf-8") for _, content in found)
    except UnicodeDecodeError as exc:
        raise ConstraintsError("a name or value that is not text") from exc
