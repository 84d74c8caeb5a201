"""Revocation lists: each lint made to fire, and silent on a sound list."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lint import Expectations, Report, Source, examine
from shaken_plugin.lint.certificate import CRL_DISTRIBUTION_POINTS
from shaken_plugin.lint.revocation import CRL_LINTS, Crl
from tests.conftest import NOW
from tests.lint.builders import DAY, PA, PRINTABLE, crl, issuer, leaf, name, pem, root, tlv

OTHER = PolicyAdministrator.new(NOW)


def examined(found: Crl, data: bytes) -> tuple[Report, Report]:
    of_chain, of_list = examine([Source("it", data)], Expectations(NOW, crl=found))
    return of_chain, of_list


def names(report: Report) -> list[str]:
    return [finding.lint for finding in report.findings if finding.lint.startswith("e_crl")]


CHAIN = pem(leaf().der(), issuer().der(), root().der())


def test_a_list_that_names_others_gives_no_finding() -> None:
    other = leaf().but(serial=7)
    of_chain, of_list = examined(crl(other), CHAIN)
    assert (names(of_chain), of_list.findings, of_list.source) == ([], (), "list.crl")


FIRING = {
    "e_crl_unreadable": Crl.parse("x", b"<html>", [PA.crl_signer], NOW),
    "e_crl_signature": Crl.parse("x", OTHER.crl([], now=NOW), [PA.crl_signer], NOW),
    "e_crl_out_of_date": crl(now=NOW - 2 * DAY),
}


@pytest.mark.parametrize("lint", FIRING)
def test_it_fires(lint: str) -> None:
    of_chain, of_list = examined(FIRING[lint], CHAIN)
    assert (names(of_chain), names(of_list)) == ([], [lint])


def test_a_list_of_the_future_is_named() -> None:
    _, of_list = examined(crl(now=NOW + DAY), CHAIN)
    assert "is the clock right?" in of_list.findings[0].text


def test_every_lint_of_lists_is_made_to_fire() -> None:
    assert set(FIRING) == {lint.name for lint in CRL_LINTS}


def test_a_list_that_nobody_may_believe_revokes_nothing() -> None:
    forged = Crl.parse("x", OTHER.crl([x509.load_der_x509_certificate(leaf().der())], now=NOW), [PA.crl_signer], NOW)
    of_chain, of_list = examined(forged, CHAIN)
    assert (names(of_chain), names(of_list)) == ([], ["e_crl_signature"])


def test_an_entry_is_compared_by_issuer_and_serial_number() -> None:
    of_chain, _ = examined(crl(leaf()), CHAIN)
    (finding,) = [finding for finding in of_chain.findings if finding.lint == "e_crl_revoked"]
    assert (finding.certificate, finding.text) == (
        0,
        f"list.crl names serial number 7edcba9876543210fedc of {leaf().certificate.issuer}: it is revoked",
    )
    assert names(examined(crl(leaf().but(issuer=name(("CN", "Another")))), CHAIN)[0]) == []
    spelled = name(("C", "US"), ("O", "lab  sti-ca", PRINTABLE), ("CN", "Lab SHAKEN Intermediate"))
    assert names(examined(crl(leaf().but(issuer=spelled)), CHAIN)[0]) == ["e_crl_revoked"]


def test_without_distribution_points_any_list_may_speak_of_it() -> None:
    bare = pem(leaf().without(CRL_DISTRIBUTION_POINTS).der(), issuer().der())
    assert names(examined(crl(), bare)[0]) == []


def test_what_no_verifier_loads_is_not_looked_up() -> None:
    broken = leaf().having(CRL_DISTRIBUTION_POINTS, b"\x30\x05oops!")
    assert names(examined(crl(leaf()), pem(broken.der(), issuer().der()))[0]) == []
    unread = leaf().but(issuer=name(("CN", "abc", 0x1E)))
    assert names(examined(crl(leaf()), pem(unread.der()))[0]) == []


def test_another_kind_of_name_for_the_issuer_of_the_list_says_nothing() -> None:
    url = tlv(0x30, tlv(0x30, tlv(0xA2, tlv(0x86, b"https://sti-pa.example"))))
    assert names(examined(crl(), pem(leaf().having(CRL_DISTRIBUTION_POINTS, url).der()))[0]) == []


def test_pem_is_read_like_der() -> None:
    document = x509.load_der_x509_crl(PA.crl([], now=NOW)).public_bytes(Encoding.PEM)
    assert names(examined(Crl.parse("x", document, [PA.crl_signer], NOW), CHAIN)[1]) == []
