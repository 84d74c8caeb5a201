"""Certificate documents as they lie behind an x5u, and what a signer may speak for."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.core.certificates import (
    MAX_DOCUMENT_LENGTH,
    SigningCertificate,
    TrustAnchors,
    parse_anchor_file,
    parse_chain,
)
from shaken_plugin.core.extensions import tnauthlist_of
from shaken_plugin.core.issuers import MAX_CHAIN
from shaken_plugin.core.telephone import Party, TelephoneNumber, UriIdentity
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority, Issued
from tests.conftest import NOW


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(now=NOW, spc="709J")


@pytest.mark.parametrize("before", [b"", b"# comment\n", b"0 s:CN = SHAKEN 709J\n", b"\r\n\r\n"])
@pytest.mark.parametrize("between", [b"", b"\n 1 s:CN = Issuer\n"])
def test_chain_is_read_with_or_without_comments(issued: Issued, before: bytes, between: bytes) -> None:
    marker = b"-----END CERTIFICATE-----\n"
    document = before + issued.chain.replace(marker, marker + between)
    assert parse_chain(document) == parse_chain(issued.chain)
    assert parse_chain(document)[0] == issued.certificate


def test_single_certificate_may_be_der(issued: Issued) -> None:
    assert parse_chain(issued.certificate.public_bytes(Encoding.DER)) == (issued.certificate,)


def test_private_key_beside_the_chain_is_passed_over(issued: Issued) -> None:
    assert parse_chain(issued.key + issued.chain) == parse_chain(issued.chain)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>404</html>",
        b"\x30",
        b"\x30\x82",
        b"\x30\x82\x01\x00" + bytes(256),
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        bytes(MAX_DOCUMENT_LENGTH + 1),
    ],
)
def test_document_without_a_certificate_is_malformed(document: bytes) -> None:
    with pytest.raises(VerificationFailure) as caught:
        parse_chain(document)
    assert caught.value.code is FailureCode.CERTIFICATE_MALFORMED


def test_trailing_octets_after_der_are_refused(issued: Issued) -> None:
    """Seen in the wild; two readers would see two documents."""
    with pytest.raises(VerificationFailure):
        parse_chain(issued.certificate.public_bytes(Encoding.DER) + b"\x00")


def test_number_of_certificates_is_limited(issued: Issued) -> None:
    one = issued.certificate.public_bytes(Encoding.PEM)
    assert len(parse_chain(one * MAX_CHAIN)) == MAX_CHAIN
    with pytest.raises(VerificationFailure, match="9 certificates, at most 8"):
        parse_chain(one * (MAX_CHAIN + 1))


def test_anchor_file_may_hold_more(authority: Authority) -> None:
    assert len(parse_anchor_file(authority.root_pem * 20)) == 20
    with pytest.raises(VerificationFailure) as caught:
        parse_anchor_file(b"nothing")
    assert caught.value.code is FailureCode.CERTIFICATE_MALFORMED


def test_anchors_are_counted_and_there_must_be_one(authority: Authority) -> None:
    assert TrustAnchors([authority.root, authority.issuer]).count == 2
    with pytest.raises(ValueError, match="no trust anchor"):
        TrustAnchors([])


def test_certificate_that_is_no_ca_is_no_anchor(authority: Authority, issued: Issued) -> None:
    with pytest.raises(VerificationFailure, match="SHAKEN 709J") as caught:
        TrustAnchors([authority.root, issued.certificate])
    assert caught.value.code is FailureCode.CERTIFICATE_MALFORMED


def test_certificate_without_tnauthlist_has_none(authority: Authority) -> None:
    assert tnauthlist_of(authority.root) is None


def test_signer_is_valid_from_its_first_to_its_last_second(issued: Issued) -> None:
    signer = SigningCertificate.load(issued.certificate)
    moments = (signer.not_before - 1, signer.not_before, NOW, signer.not_after, signer.not_after + 1)
    assert [signer.valid_at(moment) for moment in moments] == [False, True, True, True, False]


NUMBER = TelephoneNumber("12155551212")


@pytest.mark.parametrize(
    ("issue", "spc", "orig", "authorised"),
    [
        ({"spc": "709J"}, "709J", NUMBER, True),
        ({"spc": "709J"}, "709J", UriIdentity("sip:a@b"), True),
        ({"numbers": ["12155551212"]}, None, NUMBER, True),
        ({"numbers": ["12155551213"]}, None, NUMBER, False),
        ({"numbers": ["12155551212"]}, None, UriIdentity("sip:12155551212@b"), False),
        ({"ranges": [("12155551200", 100)]}, None, NUMBER, True),
        ({"ranges": [("12155551213", 100)]}, None, NUMBER, False),
        ({"spc": "709J", "numbers": ["12155551213"]}, "709J", NUMBER, True),
    ],
)
def test_signer_may_speak_for_what_its_tnauthlist_covers(
    authority: Authority, issue: dict[str, object], spc: str | None, orig: Party, authorised: bool
) -> None:
    """RFC 8226 §9; an SPC stands for numbers that a verifier cannot list."""
    signer = SigningCertificate.load(authority.issue(now=NOW, **issue).certificate)  # type: ignore[arg-type]  # a test says what fits
    assert (signer.spc, signer.authorises(orig)) == (spc, authorised)
