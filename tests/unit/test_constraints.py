"""JWT claim constraints (RFC 8226 §8, RFC 9118 §3)."""

from __future__ import annotations

from typing import Any

import pytest

from shaken_plugin.core.certificates import parse_chain
from shaken_plugin.core.constraints import MAX_LENGTH, ClaimConstraints, ConstraintsError
from shaken_plugin.core.der import IA5STRING, SEQUENCE, UTF8STRING, encode
from shaken_plugin.core.extensions import constraints_of
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority
from tests.conftest import NOW
from tests.unit.test_vectors import VECTORS

FIGURE = VECTORS["rfc9118-fig1-cert"]
SHAKEN = ClaimConstraints(("attest",), (("attest", frozenset("AB")), ("origid", frozenset({"x"}))), ("rcd",))


def permits(claim: str, *values: str) -> ClaimConstraints:
    return ClaimConstraints(permitted=((claim, frozenset(values)),))


def test_published_certificate_is_read_and_written_alike() -> None:
    """RFC 9118 §5, figure 1."""
    (certificate,) = parse_chain(FIGURE["cert_pem"].encode())
    found = constraints_of(certificate)
    expected = FIGURE["expected"]["enhancedJWTClaimConstraints"]
    assert found == ClaimConstraints(
        tuple(expected["mustInclude"]),
        tuple((claim, frozenset(values)) for claim, values in expected["permittedValues"].items()),
        tuple(expected["mustExclude"]),
    )
    assert found.to_der().hex() == FIGURE["extensions"]["1.3.6.1.5.5.7.1.33"]


@pytest.mark.parametrize("constraints", [SHAKEN, permits("crn", "é", ""), ClaimConstraints(("a",))])
def test_constraints_are_read_as_they_are_written(constraints: ClaimConstraints) -> None:
    assert ClaimConstraints.from_der(constraints.to_der(), enhanced=True) == constraints


@pytest.mark.parametrize("name", ["iat", "orig", "dest"])
def test_extension_that_excludes_what_every_passport_has_counts_as_absent(name: str) -> None:
    """RFC 9118 §3 item 3: "the certificate MUST be treated as if the extension was not present"."""
    excluding = ClaimConstraints(("rcd",), must_exclude=("rcdi", name))
    assert ClaimConstraints.from_der(excluding.to_der(), enhanced=True) is None


def test_certificate_without_constraints_has_none(authority: Authority) -> None:
    assert constraints_of(authority.issue(now=NOW, spc="709J").certificate) is None


def test_both_kinds_in_one_certificate_are_refused(authority: Authority) -> None:
    """RFC 9118 §6, even where one of them would count as absent."""
    absent = ClaimConstraints(must_exclude=("iat",))
    issued = authority.issue(now=NOW, spc="709J", constraints=ClaimConstraints(("attest",)), enhanced=absent)
    with pytest.raises(VerificationFailure, match="both kinds") as caught:
        constraints_of(issued.certificate)
    assert caught.value.code is FailureCode.CERTIFICATE_CONSTRAINTS


def test_excluding_is_not_known_to_the_plain_kind(authority: Authority) -> None:
    issued = authority.issue(now=NOW, spc="709J", constraints=ClaimConstraints(must_exclude=("rcd",)))
    with pytest.raises(VerificationFailure, match="does not belong there") as caught:
        constraints_of(issued.certificate)
    assert caught.value.code is FailureCode.CERTIFICATE_CONSTRAINTS


def test_a_delegate_s_own_constraints_are_read(authority: Authority) -> None:
    issued = authority.issue(now=NOW, numbers=("12155551212",), enhanced=SHAKEN)
    assert constraints_of(issued.certificate) == SHAKEN


@pytest.mark.parametrize(
    ("constraints", "claims", "said"),
    [
        (ClaimConstraints(("rcd",)), {"rcd": {}}, None),
        (ClaimConstraints(("rcd", "crn")), {"rcd": {}}, "crn is missing"),
        (ClaimConstraints(must_exclude=("rcd",)), {"attest": "A"}, None),
        (ClaimConstraints(must_exclude=("attest", "rcd")), {"rcd": None}, "rcd stands there"),
        (permits("attest", "A", "B"), {"attest": "B"}, None),
        (permits("attest", "A", "B"), {}, None),
        (permits("attest", "A", "B"), {"attest": "C"}, "attest has a value"),
        (permits("attest", "A"), {"attest": "AA"}, "attest has a value"),
        (permits("attest", "A"), {"attest": "a"}, "attest has a value"),
        (permits("attest", "A"), {"attest": ["A"]}, "attest has a value"),
        (permits("n", "1"), {"n": 1}, None),
        (permits("n", "1"), {"n": "1"}, None),
        (permits("n", "true", "null"), {"n": True}, None),
        (permits("rcd", '{"icn":"https://a","nam":"é"}'), {"rcd": {"nam": "é", "icn": "https://a"}}, None),
        (permits("rcd", '{"nam":"A"}'), {"rcd": {"nam": "A", "icn": "https://a"}}, "rcd has a value"),
        (ClaimConstraints(permitted=(*permits("a", "1").permitted, *permits("a", "2").permitted)), {"a": 1}, "a has"),
    ],
)
def test_claims_hold_to_the_constraints_or_it_is_said_what_breaks_them(
    constraints: ClaimConstraints, claims: dict[str, Any], said: str | None
) -> None:
    broken = constraints.broken_by(claims)
    assert broken is None if said is None else broken is not None and broken.startswith(said)


NAMES = encode(SEQUENCE, encode(IA5STRING, b"a"))
VALUES = encode(SEQUENCE, encode(SEQUENCE, encode(IA5STRING, b"a"), encode(SEQUENCE, encode(UTF8STRING, b"b"))))


def listed(*entries: bytes) -> bytes:
    return encode(SEQUENCE, encode(0xA1, encode(SEQUENCE, *entries)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        encode(SEQUENCE),
        encode(SEQUENCE) + b"\x00",
        encode(SEQUENCE, NAMES),
        encode(SEQUENCE, encode(0xA0, NAMES), encode(0xA0, NAMES)),
        encode(SEQUENCE, encode(0xA1, VALUES), encode(0xA0, NAMES)),
        encode(SEQUENCE, encode(0xA3, NAMES)),
        encode(SEQUENCE, encode(0xA0)),
        encode(SEQUENCE, encode(0xA0, encode(SEQUENCE))),
        encode(SEQUENCE, encode(0xA0, NAMES, NAMES)),
        encode(SEQUENCE, encode(0xA0, encode(SEQUENCE, encode(UTF8STRING, b"a")))),
        encode(SEQUENCE, encode(0xA0, encode(SEQUENCE, encode(IA5STRING, b"\xe9")))),
        encode(SEQUENCE, encode(0xA1, NAMES)),
        listed(),
        listed(encode(SEQUENCE)),
        listed(encode(SEQUENCE, encode(IA5STRING, b"a"))),
        listed(encode(SEQUENCE, encode(IA5STRING, b"a"), encode(SEQUENCE))),
        listed(encode(SEQUENCE, encode(IA5STRING, b"a"), encode(SEQUENCE, encode(UTF8STRING, b"\xff")))),
        listed(encode(SEQUENCE, encode(IA5STRING, b"a"), encode(SEQUENCE, encode(IA5STRING, b"b")))),
        listed(encode(SEQUENCE, encode(UTF8STRING, b"a"), encode(SEQUENCE, encode(UTF8STRING, b"b")))),
        encode(SEQUENCE, encode(0xA0, encode(SEQUENCE, encode(IA5STRING, b"a" * MAX_LENGTH)))),
    ],
)
def test_anything_else_is_no_constraint(data: bytes) -> None:
    for enhanced in (False, True):
        with pytest.raises(ConstraintsError):
            ClaimConstraints.from_der(data, enhanced=enhanced)
