"""Vectors from RFCs and public repositories, and PyJWT as a second opinion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.certificates import SigningCertificate, TrustedPath, parse_chain
from shaken_plugin.core.claims import read_dest, read_iat, read_orig
from shaken_plugin.core.extensions import tnauthlist_of
from shaken_plugin.core.jws import b64url, sign_es256, verify_es256
from shaken_plugin.core.passport import Passport, media_keys, serialise, signing_input
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.tnauthlist import OID, TnAuthList
from shaken_plugin.core.verification import Pending, Result, Verdict, VerificationRules, begin, finish
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority
from tests.builders import PARAMS, Bench, claims, jose, message, private_key
from tests.conftest import NOW

FOLDER = Path(__file__).parent.parent / "vectors"
VECTORS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}

TOKENS = [name for name, vector in VECTORS.items() if vector["token"]]
UNSIGNED = [name for name, vector in VECTORS.items() if vector["kind"] == "rfc-unsigned"]
CERTIFICATES = [name for name, vector in VECTORS.items() if vector["kind"] == "cert"]

VERDICTS: dict[str, tuple[FailureCode | None, str]] = {
    "libstirshaken-README_md-0": (None, "a right token"),
    "libstirshaken-README_md-1": (None, "a right token"),
    "libstirshaken-README_md-2": (FailureCode.CLAIM_INVALID, "Alice and Bob are no telephone numbers"),
    "libstirshaken-README_md-3": (FailureCode.HEADER_INCOMPLETE, "an SPC token, no PASSporT: no ppt"),
    "libstirshaken-README_md-4": (FailureCode.HEADER_INCOMPLETE, "an SPC token, no PASSporT: no ppt"),
    "libstirshaken-examples_stir_shaken_vs_basic_c-0": (FailureCode.INFO_NOT_ALLOWED, "x5u is http"),
    "libstirshaken-examples_stir_shaken_vs_basic_c-1": (FailureCode.INFO_NOT_ALLOWED, "x5u is http"),
    "libstirshaken-test_ref_sp_spc_token_txt-0": (FailureCode.HEADER_INCOMPLETE, "an SPC token: no ppt"),
    "libstirshaken-test_stir_shaken_test_13_c-0": (FailureCode.INFO_NOT_ALLOWED, "x5u has no scheme"),
    "rfc8224-4.1.1-full": (FailureCode.HEADER_INCOMPLETE, "no ppt; info is not x5u either, and iat is a text"),
    "rfc8224-5.1-compact-int-iat": (FailureCode.COMPACT_FORM, "SHAKEN has the full form only"),
    "rfc8225-appA": (FailureCode.HEADER_INCOMPLETE, "no ppt; the keys of the appendix do not match either"),
    "rfc8443-rph": (FailureCode.NUMBER_NOT_SIGNED, "rph speaks of no number; the payload is not JSON either"),
    "rfc8688-4.1-identity": (FailureCode.INFO_NOT_ALLOWED, "x5u is http"),
    "rfc8688-jwscard": (FailureCode.HEADER_INCOMPLETE, "a jCard, no PASSporT: no ppt"),
    "rfc8946-div": (FailureCode.DIV_NOT_LINKED, "nothing that was diverted"),
    "rfc8946-div-o": (FailureCode.CLAIM_INVALID, "dest.tn is no array; its opt has no ppt"),
    "rfc8946-div-o-claims-opt": (FailureCode.HEADER_INCOMPLETE, "no ppt"),
    "rfc8946-div-o-inner-opt": (FailureCode.HEADER_INCOMPLETE, "no ppt"),
}
"""What a SHAKEN verifier says to each token at its own time, and why."""

BAD_CLAIMS = {
    "libstirshaken-README_md-2": {"orig", "dest"},  # Alice and Bob
    "libstirshaken-examples_stir_shaken_vs_basic_c-0": {"orig", "dest"},  # JSON inside texts
    "libstirshaken-examples_stir_shaken_vs_basic_c-1": {"orig", "dest"},  # likewise
    "rfc8224-4.1.1-full": {"iat"},  # a text
    "rfc8588-s6": {"iat"},  # a text
    "rfc8688-4.1-identity": {"iat", "dest"},  # a text; dest.tn is no array (its "+" would be forgiven)
    "rfc8946-div-o": {"dest"},  # dest.tn is no array
}
"""Claims that a reader refuses; those of every other vector are right."""


def test_every_vector_is_used() -> None:
    used = TOKENS + UNSIGNED + CERTIFICATES
    assert sorted(used) == sorted(VECTORS)
    assert sorted(VERDICTS) == sorted(TOKENS)
    assert BAD_CLAIMS.keys() <= VECTORS.keys()


def public_key(name: str) -> ec.EllipticCurvePublicKey | None:
    vector = VECTORS[name]
    pem = vector.get("public_key_pem") or vector.get("published_public_key_pem")
    key = load_pem_public_key(pem.encode()) if pem else None
    assert key is None or isinstance(key, ec.EllipticCurvePublicKey)
    return key


@pytest.mark.parametrize("name", [name for name in TOKENS if public_key(name) is not None])
def test_signature_is_worth_what_the_vector_says(name: str) -> None:
    key = public_key(name)
    assert key is not None
    passport = Passport.parse(VECTORS[name]["token"])
    assert passport.signing_input is not None
    expected = VECTORS[name]["verifies"]
    assert verify_es256(key, passport.signing_input, passport.signature) is expected
    try:
        jwt.PyJWS().decode(VECTORS[name]["token"], key, algorithms=["ES256"])
    except jwt.InvalidSignatureError:
        assert not expected
    else:
        assert expected


@pytest.mark.parametrize("name", TOKENS)
def test_token_is_read_as_it_was_printed(name: str) -> None:
    vector = VECTORS[name]
    if "_unparseable" in vector["payload"]:  # RFC 8443 §3
        with pytest.raises(VerificationFailure) as caught:
            Passport.parse(vector["token"])
        assert caught.value.code is FailureCode.TOKEN_MALFORMED
        return
    passport = Passport.parse(vector["token"])
    if not passport.is_compact:
        assert (passport.header, passport.claims) == (vector["header"], vector["payload"])


@pytest.mark.parametrize("name", [name for name in VECTORS if "iat" in (VECTORS[name]["payload"] or {})])
def test_claims_are_read_but_for_the_known_defects(name: str) -> None:
    payload = VECTORS[name]["payload"]
    refused = set()
    for claim, reader in (("orig", read_orig), ("dest", read_dest), ("iat", read_iat)):
        try:
            if claim in payload:
                reader(payload)
        except VerificationFailure:
            refused.add(claim)
    assert refused == BAD_CLAIMS.get(name, set())


def uri(identity: Any) -> str:
    """A URI for the message that names what a claim names, whatever its form."""
    value = next(iter(identity.values())) if isinstance(identity, dict) and identity else "sip:nobody@example.com"
    value = value[0] if isinstance(value, list) else value
    return value if ":" in value else f"tel:+{value.removeprefix('+')}"


@pytest.mark.parametrize("name", TOKENS)
def test_verdict_on_a_token_at_its_own_time(name: str, us: DialPlan, authority: Authority) -> None:
    vector = VECTORS[name]
    payload, now = vector["payload"], float(vector["payload"].get("iat", NOW))
    value = vector["identity_header"] or f"{vector['token']};info=<{vector['header']['x5u']}>"
    dest = uri(payload.get("dest"))
    call = message(
        value, to=f"<{dest}>", request_uri=dest, callers={CallerHeader.FROM: (f"<{uri(payload.get('orig'))}>",)}
    )
    verdict = begin(call, VerificationRules(us), now)
    if isinstance(verdict, Pending):
        key = public_key(name)
        assert key is not None
        signer = SigningCertificate(authority.root, key, TnAuthList(("709J",)), 0, now + 1)
        path = TrustedPath(signer, 0, now + 1, ())
        verdict = finish(verdict, dict.fromkeys(verdict.urls, path), now)
    assert isinstance(verdict, Verdict)
    code, why = VERDICTS[name]
    assert verdict.failure is code, why


@pytest.mark.parametrize("name", UNSIGNED)
def test_claims_are_written_in_the_one_form_of_rfc_8225(name: str) -> None:
    """RFC 8225 §9."""
    vector = VECTORS[name]
    assert serialise(vector["payload"]).decode() == vector["canonical_payload"]
    assert b64url(serialise(vector["payload"])) == vector["canonical_payload_b64url"]
    assert vector["header"] is None or serialise(vector["header"]).decode() == vector["canonical_header"]


def test_media_keys_of_rfc_8225_come_out_in_their_order() -> None:
    keys = VECTORS["rfc8225-9.1-mky"]["payload"]["mky"]
    colons = (":".join(key["dig"][place : place + 2] for place in range(0, 64, 2)) for key in reversed(keys))
    assert media_keys("".join(f"a=fingerprint:sha-256 {digest}\r\n" for digest in colons)) == keys


@pytest.mark.parametrize(("name", "spc"), [("rfc9118-fig1-cert", "1234"), ("pyasn1-rfc8226-0", "fake")])
def test_tnauthlist_of_a_published_certificate_is_read_and_written_alike(name: str, spc: str) -> None:
    (certificate,) = parse_chain(VECTORS[name]["cert_pem"].encode())
    found = tnauthlist_of(certificate)
    assert found is not None
    assert found == TnAuthList((spc,))
    assert found.to_der().hex() == VECTORS[name]["extensions"][OID.dotted_string]


def test_published_certificates_are_fit_to_sign_or_say_why_not() -> None:
    (figure,) = parse_chain(VECTORS["rfc9118-fig1-cert"]["cert_pem"].encode())
    assert SigningCertificate.load(figure).spc == "1234"
    (sample,) = parse_chain(VECTORS["pyasn1-rfc8226-0"]["cert_pem"].encode())
    assert isinstance(sample.public_key(), ec.EllipticCurvePublicKey)
    with pytest.raises(VerificationFailure, match="P-256") as caught:
        SigningCertificate.load(sample)
    assert caught.value.code is FailureCode.CERTIFICATE_KEY_USAGE


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_every_published_certificate_is_one_of_those_above(certificate: str) -> None:
    (parsed,) = parse_chain(VECTORS[certificate]["cert_pem"].encode())
    assert parsed.version is x509.Version.v3
    assert certificate in {"rfc9118-fig1-cert", "pyasn1-rfc8226-0"}


# --- PyJWT ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def test_pyjwt_verifies_what_we_sign(bench: Bench) -> None:
    signed = bench.identity(claims=claims(attest="B")).partition(";")[0]
    decoded = jwt.PyJWS().decode_complete(signed, private_key(bench.issued).public_key(), algorithms=["ES256"])
    assert decoded["header"] == jose()
    assert json.loads(decoded["payload"]) == claims(attest="B")


def test_we_verify_what_pyjwt_signs(bench: Bench) -> None:
    signed = jwt.encode(claims(), private_key(bench.issued), algorithm="ES256", headers=jose())
    assert bench.verify(message(signed + PARAMS)).result is Result.PASSED


def test_both_sign_the_same_octets(bench: Bench) -> None:
    in_order = dict(sorted(claims().items()))
    signed = jwt.encode(in_order, private_key(bench.issued), algorithm="ES256", headers=jose())
    assert signed.rpartition(".")[0].encode() == signing_input(jose(), claims())


def test_pyjwt_finds_the_same_forgery(bench: Bench) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    signed = jwt.encode(claims(), stranger, algorithm="ES256", headers=jose())
    assert bench.verify(message(signed + PARAMS)).failure is FailureCode.SIGNATURE_INVALID
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.PyJWS().decode(signed, private_key(bench.issued).public_key(), algorithms=["ES256"])


def test_key_pair_of_rfc_8946_belongs_together() -> None:
    key = load_pem_private_key(VECTORS["rfc8946-div"]["private_key_pem"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    published = public_key("rfc8946-div")
    assert published is not None
    assert verify_es256(published, b"x", sign_es256(key, b"x"))


def test_key_pair_of_rfc_8225_does_not_belong_together() -> None:
    """Appendix A is no vector to sign with."""
    key = load_pem_private_key(VECTORS["rfc8225-appA"]["private_key_pem"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() != public_key("rfc8225-appA")
    assert VECTORS["rfc8225-appA"]["keypair_consistent"] is False
