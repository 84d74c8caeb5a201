"""Documents and chains: each lint made to fire, and silent on a sound chain."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shaken_plugin.core.issuers import MAX_CHAIN
from shaken_plugin.lint import LINTS, Expectations, Report, Source, examine
from shaken_plugin.lint.certificate import CRL_DISTRIBUTION_POINTS, SUBJECT_KEY_IDENTIFIER, Certificate
from shaken_plugin.lint.chain import CHAIN_LINTS, Place
from shaken_plugin.lint.document import DOCUMENT_LINTS, MAX_CERTIFICATES, MAX_LENGTH, Document
from tests.conftest import NOW
from tests.lint.builders import (
    DAY,
    ISSUER_NAME,
    Recipe,
    crl,
    crl_point,
    issuer,
    key,
    leaf,
    name,
    pem,
    root,
    signer,
    spki,
    tlv,
)

CHAIN = pem(leaf().der(), issuer().der())
EXPECTED = Expectations(
    NOW,
    anchors=(root().certificate,),
    public_key=spki(key("leaf")),
    spc="709J",
    signer=signer(),
    crl=crl(),
)
SECRET = key("leaf").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def examined(data: bytes, expected: Expectations = EXPECTED) -> Report:
    return examine([Source("it", data)], expected)[0]


def names(data: bytes, expected: Expectations = EXPECTED) -> list[str]:
    return [finding.lint for finding in examined(data, expected).findings]


def but(**changes: object) -> Expectations:
    return Expectations(**{"now": NOW, **changes})  # type: ignore[arg-type]  # a test says what fits


@pytest.mark.parametrize(
    "data",
    [
        CHAIN,
        b"subject=somebody\n" + CHAIN.replace(b"\n", b"\r\n") + b"end\n",
        pem(leaf().der(), issuer().der(), root().der()),
        CHAIN.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
    ],
    ids=["plain", "comments", "with its root", "old label"],
)
def test_a_sound_chain_gives_no_finding(data: bytes) -> None:
    assert names(data) == []


def test_a_list_of_roots_is_no_chain() -> None:
    assert names(pem(root().der(), issuer().der(), root().der()), but()) == []


def test_a_certificate_in_der_is_alone() -> None:
    report = examined(leaf().der(), but())
    assert [finding.lint for finding in report.findings] == ["w_chain_incomplete"]
    assert "Lab SHAKEN Intermediate" in report.findings[0].text
    assert report.findings[0].certificate is None


OTHER_ISSUER = issuer().but(subject=name(("C", "US"), ("O", "Other"), ("CN", "Other SHAKEN CA")))
SAME_NAME = Recipe(**{**issuer().__dict__, "own_key": key("other")})
ELSEWHERE = leaf().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point(issuer=name(("CN", "Another list")))))
NOWHERE = leaf().having(CRL_DISTRIBUTION_POINTS, tlv(0x30, crl_point(issuer=None)))

FIRING: list[tuple[str, bytes, Expectations]] = [
    ("e_document_no_certificate", b"", EXPECTED),
    ("e_document_no_certificate", b"no certificate here", EXPECTED),
    ("e_document_no_certificate", SECRET, EXPECTED),
    ("e_document_too_large", CHAIN + b"x" * MAX_LENGTH, EXPECTED),
    ("e_document_pem", CHAIN.replace(b"MII", b"M*I", 1), EXPECTED),
    ("e_document_pem", CHAIN[:-10], EXPECTED),
    ("e_document_private_key", CHAIN + SECRET, EXPECTED),
    ("e_document_private_key", CHAIN + SECRET.replace(b" PRIVATE", b" EC PRIVATE"), EXPECTED),
    ("w_document_foreign_block", CHAIN + CHAIN.replace(b"CERTIFICATE", b"X509 CRL"), EXPECTED),
    ("e_chain_leaf_first", pem(issuer().der(), leaf().der()), EXPECTED),
    ("w_chain_incomplete", pem(leaf().der()), EXPECTED),
    ("w_chain_long", pem(leaf().der(), *[issuer().der()] * MAX_CHAIN), EXPECTED),
    ("e_chain_order", pem(leaf().der(), root().der(), issuer().der()), EXPECTED),
    ("e_chain_order", pem(leaf().der(), OTHER_ISSUER.der()), EXPECTED),
    ("e_chain_signature", pem(leaf().der(), SAME_NAME.der()), EXPECTED),
    ("e_chain_key_identifier",
     pem(leaf().der(), issuer().having(SUBJECT_KEY_IDENTIFIER, tlv(0x04, b"x" * 20)).der()), EXPECTED),
    ("w_chain_outlives_issuer", pem(leaf().but(not_after=NOW + 3001 * DAY).der(), issuer().der()), EXPECTED),
    ("e_chain_root", CHAIN, but(anchors=())),
    ("e_chain_root", CHAIN, but(anchors=(Recipe(**{**root().__dict__, "own_key": key("other"),
                                                   "issuer_key": key("other")}).certificate,))),
    ("e_chain_root", pem(leaf().der()), EXPECTED),
    ("e_chain_root", pem(leaf().der(), SAME_NAME.der()), EXPECTED),
    ("e_validity_expired", CHAIN, but(now=NOW + 81 * DAY)),
    ("e_validity_not_yet", CHAIN, but(now=NOW - 11 * DAY)),
    ("w_validity_renewal", CHAIN, but(now=NOW + 51 * DAY)),
    ("w_validity_renewal", CHAIN, but(now=NOW, margin=80 * DAY)),
    ("e_key_mismatch", CHAIN, but(public_key=spki(key("other")))),
    ("e_spc_mismatch", CHAIN, but(spc="811K")),
    ("e_spc_mismatch", pem(issuer().der(), leaf().der()), but(spc="811K")),
    ("e_crl_revoked", CHAIN, but(crl=crl(leaf()))),
    ("e_crl_revoked", CHAIN, but(crl=crl(issuer()))),
    ("e_crl_revoked", CHAIN, but(crl=crl(leaf(), now=NOW - 2 * DAY))),
    ("e_crl_issuer", pem(ELSEWHERE.der(), issuer().der()), EXPECTED),
    ("e_crl_issuer", pem(NOWHERE.der(), issuer().der()), EXPECTED),
]  # fmt: skip


@pytest.mark.parametrize(("lint", "data", "expected"), FIRING, ids=[f"{row[0]}-{i}" for i, row in enumerate(FIRING)])
def test_it_fires(lint: str, data: bytes, expected: Expectations) -> None:
    assert lint in names(data, expected)


def test_every_lint_of_documents_and_chains_is_made_to_fire() -> None:
    alone = {"w_key_reused"}
    assert {row[0] for row in FIRING} | alone == {lint.name for lint in DOCUMENT_LINTS + CHAIN_LINTS}


def test_every_lint_of_documents_and_chains_applies_to_a_sound_chain() -> None:
    document = Document.parse(CHAIN)
    places = [Place(one, index, document.certificates, EXPECTED) for index, one in enumerate(document.readable)]
    assert all(any(lint.scope.holds(place) for place in places) for lint in CHAIN_LINTS)
    single = Document.parse(pem(leaf().der()))
    assert all(lint.scope.holds(document) or lint.scope.holds(single) for lint in DOCUMENT_LINTS)


def test_a_signer_that_a_root_issued_reaches_it_alone() -> None:
    direct = leaf().but(issuer=root().subject, issuer_key=key("root"))
    assert "e_chain_root" not in names(pem(direct.der()))


def test_an_anchor_may_itself_stand_in_the_chain() -> None:
    assert "e_chain_root" not in names(CHAIN, but(anchors=(issuer().certificate,)))


def test_a_self_signed_signer_lacks_no_issuer() -> None:
    alone = leaf().but(issuer=leaf().subject, issuer_key=key("leaf"))
    assert "w_chain_incomplete" not in names(pem(alone.der()))


def test_the_margin_is_a_third_of_life_or_what_is_asked_for() -> None:
    assert "w_validity_renewal" not in names(CHAIN, but(now=NOW + 49 * DAY))
    assert "w_validity_renewal" not in names(CHAIN, but(now=NOW + 79 * DAY, margin=0.0))
    week = leaf().but(not_before=NOW - 4 * DAY, not_after=NOW + 3 * DAY)
    assert "w_validity_renewal" not in names(pem(week.der(), issuer().der()))


def test_a_key_in_several_certificates_is_reported_wherever_it_is() -> None:
    first, second = CHAIN, pem(leaf().but(serial=2**70).der(), issuer().der())
    reports = examine([Source("a", first), Source("b", second), Source("c", second)], but())
    reused = [[f.text for f in report.findings if f.lint == "w_key_reused"] for report in reports]
    assert [len(found) for found in reused] == [1, 1, 1]
    assert reused[0][0].endswith(" b")
    assert reused[1][0].endswith(" a")
    same = examine([Source("a", first), Source("b", first)], but())
    assert not [finding for report in same for finding in report.findings]


def test_what_is_no_certificate_is_one_finding_and_the_rest_is_examined() -> None:
    report = examined(pem(leaf().der(), b"\x30\x03\x02\x01\x07"), but())
    assert [(finding.lint, finding.certificate) for finding in report.findings] == [("e_der_unreadable", 1)]
    assert report.certificates[1] is None
    assert isinstance(report.certificates[0], Certificate)
    assert names(b"\x30garbage", but()) == ["e_der_unreadable"]


def test_a_private_key_never_shows() -> None:
    report = examined(CHAIN + SECRET)
    shown = repr(report.findings)
    assert not any(line.decode() in shown for line in SECRET.splitlines() if b"-" not in line)
    assert isinstance(key("leaf"), ec.EllipticCurvePrivateKey)


def test_many_certificates_are_looked_at_up_to_a_limit() -> None:
    small = pem(b"\x30\0")
    report = examined(small * (MAX_CERTIFICATES + 5), but())
    assert len(report.certificates) == MAX_CERTIFICATES


def test_tables_hold_lints_under_every_heading() -> None:
    assert all(LINTS.values())
    assert leaf().subject != ISSUER_NAME
