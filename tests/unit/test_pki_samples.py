"""Certificates seen in the wild: each validates, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from shaken_plugin.core.certificates import (
    SigningCertificate,
    TrustAnchors,
    TrustedPath,
    parse_anchor_file,
    parse_chain,
)
from shaken_plugin.errors import FailureCode, VerificationFailure

FOLDER = Path(__file__).parent.parent / "pki"
CA_CERTIFICATES = parse_anchor_file((FOLDER / "sti_ca_certs.pem").read_bytes())
ROOTS = [certificate for certificate in CA_CERTIFICATES if certificate.issuer == certificate.subject]
SAMPLES = {path.name: path for path in sorted((FOLDER / "samples").iterdir())}
ANOMALIES = {path.name: path for path in sorted((FOLDER / "anomalies").iterdir())}

MALFORMED = FailureCode.CERTIFICATE_MALFORMED
UNTRUSTED = FailureCode.CERTIFICATE_UNTRUSTED
KEY_USAGE = FailureCode.CERTIFICATE_KEY_USAGE
NO_LIST = FailureCode.CERTIFICATE_NO_TNAUTHLIST

REFUSED_SAMPLES = {
    "BigFatTelecom_Corp__e40512354eea.pem": (KEY_USAGE, "no key usage"),
    "Neustar_Inc_a_TransUnion_company_5abe30e58372.pem": (UNTRUSTED, "of a test root that is not among the CAs"),
    "Neustar_Inc_a_TransUnion_company_d321a86a74e4.pem": (UNTRUSTED, "of a test root that is not among the CAs"),
    "Neustar_Information_Services_Inc__3b3c2e30fab9.pem": (UNTRUSTED, "of a test root that is not among the CAs"),
    "T-Mobile_a78accd6535f.pem": (UNTRUSTED, "published without its intermediate"),
    "T-Mobile_d35d8ecb8be5.pem": (UNTRUSTED, "published without its intermediate"),
    "T-Mobile_ecd9d4ee9cf6.pem": (UNTRUSTED, "published without its intermediate"),
    "VOSLogic_com_3dd37becdcfe.pem": (KEY_USAGE, "X.509 v1: no extension at all"),
    "VoiceCarrier_1415b6414cfb.pem": (MALFORMED, "comments without a certificate"),
}

EXPECTED_ANOMALIES: dict[str, FailureCode | None] = {
    "has_eku_328011b837.pem": None,
    "has_san_7f653e1545.pem": UNTRUSTED,  # its intermediate is not among the CAs
    "no_crldp+no_key_usage_e40512354e.pem": KEY_USAGE,
    "no_crldp_0778cb5231.pem": None,
    "no_crldp_19d9f5fa64.pem": None,
    "no_tnauthlist+x509_v1+no_crldp+no_key_usage+self_signed_leaf_1415b6414c.pem": KEY_USAGE,
    "no_tnauthlist+x509_v1+no_crldp+no_key_usage_3dd37becdc.pem": KEY_USAGE,
    "rsa_issuer_signature_414671d6f2.pem": None,
    "rsa_issuer_signature_497fc9dff6.pem": None,
    "sig_sha384_e150327e79.pem": None,
    "sig_sha384_f412ed04b3.pem": None,
    "spc_not_4_upper_alnum_31b8e7e611.pem": None,
    "spc_not_4_upper_alnum_602413e551.pem": None,
    "tnauthlist_bad_length+no_crldp_224a236b36.pem": NO_LIST,
    "tnauthlist_bad_length+no_crldp_d092ee80d1.pem": NO_LIST,
    "tnauthlist_unexpected_tag_13_08f4adc952.pem": NO_LIST,
    "tnauthlist_unexpected_tag_13_5b034b208d.pem": NO_LIST,
    "unparseable_4378a3f13651.der": MALFORMED,
    "unparseable_a22dda815630.der": MALFORMED,
    "unparseable_aa242e08e8ae.der": MALFORMED,
    "unparseable_c12a1d22654c.der": MALFORMED,
    "unparseable_d54b8c44268d.der": MALFORMED,
    "unparseable_edc37467b2db.der": MALFORMED,
    "unparseable_ff4a083ed752.der": MALFORMED,
}
"""What becomes of each when its issuer is at hand; None where it is trusted."""


def judged(document: bytes, *above: x509.Certificate) -> TrustedPath | FailureCode:
    """What a document is worth in the middle of its leaf's life."""
    try:
        chain = parse_chain(document)
        middle = (chain[0].not_valid_before_utc.timestamp() + chain[0].not_valid_after_utc.timestamp()) / 2
        return TrustAnchors(ROOTS).validate((*chain, *above), middle)
    except VerificationFailure as failure:
        return failure.code


def issuers_of(document: bytes) -> list[x509.Certificate]:
    """CA certificates by the name of a leaf's issuer, for documents that hold the leaf alone."""
    try:
        leaf = parse_chain(document)[0]
    except VerificationFailure:
        return []
    return [certificate for certificate in CA_CERTIFICATES if certificate.subject == leaf.issuer]


def test_tables_name_files_that_exist() -> None:
    assert EXPECTED_ANOMALIES.keys() == ANOMALIES.keys()
    assert REFUSED_SAMPLES.keys() <= SAMPLES.keys()
    assert (len(SAMPLES), len(CA_CERTIFICATES), len(ROOTS)) == (44, 50, 18)


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_validates_or_is_refused_by_name(name: str) -> None:
    outcome = judged(SAMPLES[name].read_bytes())
    if name in REFUSED_SAMPLES:
        code, why = REFUSED_SAMPLES[name]
        assert outcome is code, why
    else:
        assert isinstance(outcome, TrustedPath)
        assert outcome.signer.spc is not None
        assert outcome.signer.constraints is None
        assert len(set(outcome.serials)) == len(outcome.serials) >= 2


@pytest.mark.parametrize("name", ANOMALIES)
def test_anomaly_is_accepted_or_refused_by_name(name: str) -> None:
    document = ANOMALIES[name].read_bytes()
    outcome = judged(document, *issuers_of(document))
    code = None if isinstance(outcome, TrustedPath) else outcome
    assert code is EXPECTED_ANOMALIES[name]


@pytest.mark.parametrize("position", range(50))
def test_every_ca_certificate_can_be_an_anchor_and_none_can_sign(position: int) -> None:
    certificate = CA_CERTIFICATES[position]
    assert TrustAnchors([certificate]).count == 1
    with pytest.raises(VerificationFailure) as caught:
        SigningCertificate.load(certificate)
    assert caught.value.code is KEY_USAGE


def test_odd_codes_are_read_as_they_stand() -> None:
    """Lower case is against ATIS-1000080; a verifier reports what the certificate says."""
    document = ANOMALIES["spc_not_4_upper_alnum_31b8e7e611.pem"].read_bytes()
    assert SigningCertificate.load(parse_chain(document)[0]).spc == "719k"
