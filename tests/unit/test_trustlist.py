"""Signed lists of trust anchors (ATIS-1000084)."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.core import trustlist
from shaken_plugin.core.certificates import TrustAnchors, parse_chain
from shaken_plugin.core.issuers import MAX_CHAIN
from shaken_plugin.core.jws import b64url, sign_es256
from shaken_plugin.core.trustlist import parse_trust_list
from shaken_plugin.errors import TrustListError
from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lab.pki import Authority, KeyKind, certificate_builder, key_usage
from tests.conftest import NOW
from tests.unit.test_pki_samples import ROOTS

PA = PolicyAdministrator.new(NOW)
AUTHORITY = Authority.new(NOW)
URL = "https://sti-pa.example/signer.pem"
ROOT = AUTHORITY.root_pem.decode()
LEAF = AUTHORITY.issue(now=NOW, spc="709J").certificate
CHAIN = [base64.b64encode(PA.list_signer.public_bytes(Encoding.DER)).decode()]
ABSENT = object()


def signed(header: dict[str, Any] | None = None, key: ec.EllipticCurvePrivateKey = PA.list_key, **claims: Any) -> bytes:
    """A list with members of the header and the claims changed, or `ABSENT`."""
    plain = {"version": "1.0", "sequence": 7, "exp": int(NOW) + 60, "trustList": [ROOT]}
    parts = []
    for members in ({"alg": "ES256", "typ": "JWT", "x5c": CHAIN} | (header or {}), plain | claims):
        present = {name: value for name, value in members.items() if value is not ABSENT}
        parts.append(b64url(json.dumps(present).encode()))
    text = ".".join(parts)
    return f"{text}.{b64url(sign_es256(key, text.encode()))}".encode()


def refusal(document: bytes, *signers: x509.Certificate, now: float = NOW, **more: Any) -> str:
    """Why a list is not taken."""
    with pytest.raises(TrustListError) as caught:
        parse_trust_list(document, signers or [PA.root], now, **more)
    return str(caught.value)


def test_the_lab_s_list_gives_anchors_that_validate_its_calls() -> None:
    found = parse_trust_list(PA.trust_list([AUTHORITY.root], now=NOW, sequence=3), [PA.root], NOW)
    assert (found.sequence, found.expires) == (3, NOW + 86_400)
    chain = parse_chain(AUTHORITY.issue(now=NOW, spc="709J").chain)
    assert TrustAnchors(found.certificates).validate(chain, NOW).signer.spc == "709J"


def test_a_list_of_real_roots_is_read_in_its_order() -> None:
    found = parse_trust_list(PA.trust_list(ROOTS, now=NOW), [PA.root], NOW)
    assert list(found.certificates) == ROOTS


def test_the_answer_of_the_interface_is_read_like_the_list_in_it() -> None:
    document = json.dumps({"status": "success", "caList": signed().decode()}).encode()
    assert parse_trust_list(document, [PA.root], NOW).sequence == 7
    assert parse_trust_list(b" \n" + signed() + b"\r\n", [PA.root], NOW).sequence == 7
    assert "not a JWS" in refusal(b'{"status":"error"}')


# --- Who may sign -------------------------------------------------------------------------------


def test_the_signer_may_be_configured_itself_and_x5u_is_not_followed() -> None:
    document = PA.trust_list([AUTHORITY.root], now=NOW, x5u=URL)
    assert parse_trust_list(document, [PA.list_signer], NOW).sequence == 1
    assert "signed by none" in refusal(document)


def test_a_signer_of_a_stranger_is_not_believed() -> None:
    stranger = PolicyAdministrator.new(NOW)
    forged = stranger.trust_list([AUTHORITY.root], now=NOW)
    assert "not believed: certificate_untrusted" in refusal(forged)
    assert "signed by none" in refusal(signed(key=stranger.list_key))
    assert "not believed" in refusal(signed(), stranger.list_signer)


def test_a_signer_must_be_valid_now() -> None:
    now = NOW + timedelta(days=4000).total_seconds()
    assert "certificate_expired" in refusal(signed(exp=int(now) + 60), now=now)
    assert "certificate_expired" in refusal(signed(exp=int(now) + 60), PA.list_signer, now=now)


def test_a_changed_list_is_refused() -> None:
    head, body, tail = signed().decode().split(".")
    changed = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed["sequence"] = 8
    body = b64url(json.dumps(changed).encode())
    assert "signed by none" in refusal(f"{head}.{body}.{tail}".encode())


@pytest.mark.parametrize("kind", KeyKind)
def test_only_p_256_keys_that_may_sign_sign_lists(kind: KeyKind) -> None:
    """ES256 (RFC 7518 §3.4); digitalSignature, where there is a key usage (RFC 5280 §4.2.1.3)."""
    authority = Authority.new(NOW, kind=kind)
    assert "signed by none" in refusal(signed({"x5c": ABSENT}), authority.root)
    for usage, taken in ((None, True), (key_usage(signs=True), True), (key_usage(certifies=True), False)):
        start = PA.root.not_valid_before_utc
        name = PA.root.subject
        builder = certificate_builder(name, PA.list_key, name, PA.list_key, start, timedelta(days=999))
        if usage:
            builder = builder.add_extension(usage, critical=True)
        own = builder.sign(PA.list_key, PA.root.signature_hash_algorithm)  # type: ignore[arg-type]  # a test says what fits
        if taken:
            assert parse_trust_list(signed({"x5c": ABSENT}), [own], NOW).sequence == 7
        else:
            assert "signed by none" in refusal(signed({"x5c": ABSENT}), own)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (PA.list_key.public_key().public_numbers().y.to_bytes(32, "big"), bytes(32)),
        (bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0212")),
        (bytes.fromhex("551d0f0101ff040403"), bytes.fromhex("551d0f0101ff040405")),
    ],
    ids=["point", "kind of key", "key usage"],
)
def test_a_certificate_whose_key_cannot_be_read_signs_nothing(old: bytes, new: bytes) -> None:
    """The library reads keys and extensions only when they are asked for."""
    data = PA.list_signer.public_bytes(Encoding.DER)
    assert data.count(old) == 1
    broken = base64.b64encode(data.replace(old, new)).decode()
    assert "signed by none" in refusal(signed({"x5c": [broken]}))


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"alg": "none"}, '"alg":"ES256"'),
        ({"alg": "HS256"}, '"alg":"ES256"'),
        ({"alg": ABSENT}, '"alg":"ES256"'),
        ({"crit": ["exp"]}, '"crit"'),
        ({"typ": "passport"}, "typ"),
        ({"typ": None}, "typ"),
        ({"x5c": "text"}, "x5c"),
        ({"x5c": ["?"]}, "x5c"),
        ({"x5c": [5]}, "x5c"),
        ({"x5c": ["AAAA"]}, "x5c"),
        ({"x5c": CHAIN * (MAX_CHAIN + 1)}, "x5c"),
        ({"x5c": []}, "signed by none"),
    ],
)
def test_header_that_is_not_right_is_named(header: dict[str, Any], said: str) -> None:
    assert said in refusal(signed(header))


@pytest.mark.parametrize("header", [{"typ": ABSENT}, {"typ": "jwt"}])
def test_typ_may_be_absent_or_in_any_case(header: dict[str, Any]) -> None:
    """RFC 7519 §5.1: a media type, whose use is OPTIONAL."""
    assert parse_trust_list(signed(header), [PA.root], NOW).sequence == 7


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": int(NOW)}, "expired"),
        ({"exp": ABSENT}, "exp is not"),
        ({"exp": True}, "exp is not"),
        ({"exp": str(int(NOW) + 60)}, "exp is not"),
        ({"exp": 2**60}, "exp is not"),
        ({"sequence": ABSENT}, "sequence is not"),
        ({"sequence": -1}, "sequence is not"),
        ({"sequence": 6}, "lies before 7"),
        ({"trustList": ABSENT}, "not a list"),
        ({"trustList": []}, "not a list"),
        ({"trustList": ROOT}, "not a list"),
        ({"trustList": [ROOT, "nonsense"]}, "trustList[1]"),
        ({"trustList": [ROOT, 5]}, "trustList[1]"),
        ({"trustList": [LEAF.public_bytes(Encoding.PEM).decode()]}, "trustList[0]"),
        ({"trustList": [ROOT, ROOT + LEAF.public_bytes(Encoding.PEM).decode()]}, "not a CA certificate"),
    ],
)
def test_claims_that_are_not_right_are_named(claims: dict[str, Any], said: str) -> None:
    assert said in refusal(signed(**claims), last_sequence=7)


def test_the_list_in_use_may_come_again_and_a_newer_one_too() -> None:
    for sequence in (7, 8):
        assert parse_trust_list(signed(sequence=sequence), [PA.root], NOW, last_sequence=7).sequence == sequence


@pytest.mark.parametrize(
    "document", [b"", b"a", b"a.b.c.d", b"\xff.e30.AA", b"e30.e30.A", b"W10.e30.AA", b"{", b'{"caList":5}', b"<html>"]
)
def test_anything_else_is_no_list(document: bytes) -> None:
    assert "not a JWS" in refusal(document)


def test_a_list_is_limited_in_length() -> None:
    assert "at most" in refusal(b"a" * (trustlist.MAX_LENGTH + 1))


def test_an_anchor_that_is_no_longer_valid_stays_in_the_list() -> None:
    """What becomes of a call below it is the path's business, and named there."""
    expired = Authority.new(NOW - 20 * 365 * 86_400)
    assert len(parse_trust_list(PA.trust_list([expired.root], now=NOW), [PA.root], NOW).certificates) == 1
