"""Revocation in the verification service: at every call, for every certificate of the path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from shaken_plugin.certs.cache import CacheWriter, RevocationCache, StoredRevocationList
from shaken_plugin.certs.memory import CertificateMemory, RevocationMemory
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.crl import RevocationList, RevocationMode, parse_crl
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import Result, Verdict, VerificationRules
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.verification import VerificationService
from tests.conftest import NOW
from tests.services.builders import SPC, X5U, call, identity_of
from tests.services.test_verification_service import OTHER, load

PA = PolicyAdministrator.new(NOW)
AUTHORITY = Authority.new(NOW)
ISSUED = AUTHORITY.issue(now=NOW, spc=SPC)
MESSAGE = call(identity=(identity_of(load(ISSUED)),))

OFF, SOFT, HARD = RevocationMode.OFF, RevocationMode.SOFT, RevocationMode.HARD


class Bench:
    """A service with a certificate at hand, and lists that a test puts there."""

    def __init__(self, plan: DialPlan, mode: RevocationMode) -> None:
        self.plan = plan
        self.lists = RevocationMemory()
        self.documents = CertificateMemory({X5U: ISSUED.chain})
        anchors = TrustAnchors([AUTHORITY.root])
        self.service = VerificationService(VerificationRules(plan), anchors, self.documents, self.lists, mode)
        self._number = 0

    def publish(self, *revoked: x509.Certificate, age_days: int = 0) -> None:
        self._number += 1
        document = PA.crl(revoked, now=NOW - age_days * 86_400, number=self._number)
        self.lists.put(parse_crl(document, [PA.crl_signer], NOW))

    def verify(self, now: float = NOW) -> Verdict:
        return self.service.verify(MESSAGE, now)


@pytest.fixture(params=[SOFT, HARD])
def bench(request: pytest.FixtureRequest, us: DialPlan) -> Bench:
    return Bench(us, request.param)


def test_a_certificate_that_no_list_names_passes(bench: Bench) -> None:
    other = AUTHORITY.issue(now=NOW, spc=SPC)
    bench.publish(other.certificate)
    verdict = bench.verify()
    assert (verdict.result, verdict.alarms) == (Result.PASSED, ())


@pytest.mark.parametrize("which", [ISSUED.certificate, AUTHORITY.issuer, AUTHORITY.root], ids=["leaf", "CA", "anchor"])
def test_a_revoked_certificate_anywhere_in_the_path_fails_the_call(bench: Bench, which: x509.Certificate) -> None:
    bench.publish(which)
    verdict = bench.verify()
    assert (verdict.result, verdict.failure) == (Result.FAILED, FailureCode.CERTIFICATE_REVOKED)
    assert verdict.decisive is not None
    assert verdict.decisive.detail == f"serial number {which.serial_number:x}"


def test_a_serial_number_under_another_issuer_is_not_this_certificate(bench: Bench) -> None:
    namesake = Authority.new(NOW, name="Namesake")
    leaf = namesake.issue(now=NOW, spc=SPC).certificate
    listed = _with_serial(namesake, leaf, ISSUED.certificate.serial_number)
    bench.publish(listed)
    assert bench.verify().result is Result.PASSED


def _with_serial(authority: Authority, like: x509.Certificate, serial: int) -> x509.Certificate:
    key = authority.issuer_key
    return (
        x509.CertificateBuilder(like.issuer, like.subject, key.public_key(), serial)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .sign(key, like.signature_hash_algorithm)  # type: ignore[arg-type]  # a test says what fits
    )


def test_a_new_list_holds_within_a_second_though_the_path_is_kept(bench: Bench) -> None:
    outcomes = []
    revoked: Sequence[tuple[x509.Certificate, ...]] = [(), (ISSUED.certificate,), ()]
    for second, names in enumerate(revoked):
        bench.publish(*names)
        outcomes.append(bench.verify(NOW + second).failure)
    assert outcomes == [None, FailureCode.CERTIFICATE_REVOKED, None]


class Flickering:
    """A source whose file cannot be read now and then; it tells so when it is asked after."""

    def __init__(self, readable: list[bool]) -> None:
        self.readable = readable
        self.missed = False

    def revoked(self, issuer: bytes, serial: int) -> bool:
        self.missed = not self.readable.pop(0)
        return not self.missed

    def trouble(self, now: float) -> str | None:
        return "cannot be read" if self.missed else None


@pytest.mark.parametrize(
    ("mode", "first"),
    [(RevocationMode.SOFT, None), (RevocationMode.HARD, FailureCode.CERTIFICATE_REVOCATION_UNKNOWN)],
)
def test_what_could_not_be_read_is_told_at_that_very_call_and_asked_again_at_the_next(
    bench: Bench, mode: RevocationMode, first: FailureCode | None
) -> None:
    # Of two certificates of the path the first cannot be asked for: then nothing is known.
    source = Flickering([False, False, False, True])
    anchors, documents = TrustAnchors([AUTHORITY.root]), bench.documents
    service = VerificationService(VerificationRules(bench.plan), anchors, documents, source, mode)
    verdict = service.verify(MESSAGE, NOW)
    assert (verdict.failure, len(verdict.alarms)) == (first, 1)
    assert service.verify(MESSAGE, NOW).failure is FailureCode.CERTIFICATE_REVOKED


def test_one_revoked_signer_does_not_fail_another(bench: Bench) -> None:
    """RFC 8224 §6.2.1: one valid Identity is enough."""
    other = AUTHORITY.issue(now=NOW, spc="811K")
    bench.documents.documents[OTHER] = other.chain
    bench.publish(other.certificate)
    message = call(identity=(identity_of(load(other, OTHER)), identity_of(load(ISSUED))))
    verdict = bench.service.verify(message, NOW)
    assert verdict.result is Result.PASSED
    assert [result.failure for result in verdict.results] == [FailureCode.CERTIFICATE_REVOKED, None]


def test_what_is_wrong_with_a_path_is_said_before_its_revocation(bench: Bench) -> None:
    expired = AUTHORITY.issue(now=NOW, spc=SPC, defect=Defect.EXPIRED)
    bench.documents.documents[X5U] = expired.chain
    bench.publish(expired.certificate)
    assert bench.verify().failure is FailureCode.CERTIFICATE_EXPIRED


@pytest.mark.parametrize("age_days", [None, 7], ids=["no list", "out of date"])
@pytest.mark.parametrize(
    ("mode", "failure", "alarms"),
    [(OFF, None, 0), (SOFT, None, 1), (HARD, FailureCode.CERTIFICATE_REVOCATION_UNKNOWN, 1)],
)
def test_trouble_with_the_lists_is_an_alarm_or_a_failure_as_the_settings_say(
    us: DialPlan, mode: RevocationMode, failure: FailureCode | None, alarms: int, age_days: int | None
) -> None:
    bench = Bench(us, mode)
    if age_days:
        bench.publish(age_days=age_days)
    verdict = bench.verify()
    assert (verdict.failure, len(verdict.alarms)) == (failure, alarms)
    assert all(alarm.name == "revocation_trouble" and "revocation list" in alarm.text for alarm in verdict.alarms)


@pytest.mark.parametrize("mode", [SOFT, HARD])
def test_what_an_outdated_list_names_stays_revoked(us: DialPlan, mode: RevocationMode) -> None:
    bench = Bench(us, mode)
    bench.publish(ISSUED.certificate, age_days=7)
    verdict = bench.verify()
    assert verdict.failure is FailureCode.CERTIFICATE_REVOKED
    assert verdict.alarms


@pytest.mark.parametrize(("mode", "failure"), [(SOFT, None), (HARD, FailureCode.CERTIFICATE_REVOCATION_UNKNOWN)])
def test_a_question_that_could_not_be_answered_is_trouble_of_this_very_call(
    us: DialPlan, tmp_path: Path, mode: RevocationMode, failure: FailureCode | None
) -> None:
    """The lists were well a moment ago, and their file cannot be read now."""
    path = tmp_path / "certificates.sqlite"
    writer = CacheWriter(path)
    writer.put_revocation_list(StoredRevocationList("us", "u", RevocationList(b"pa", 1, NOW, NOW + 100, frozenset())))
    writer.close()
    documents, lists = CertificateMemory({X5U: ISSUED.chain}), RevocationCache(path, "us", ["u"])
    anchors = TrustAnchors([AUTHORITY.root])
    service = VerificationService(VerificationRules(us), anchors, documents, lists, mode)
    assert service.verify(MESSAGE, NOW).alarms == ()
    path.unlink()
    for number in range(3):
        verdict = service.verify(MESSAGE, NOW + 2 + number / 10)  # a warm call looks once a second
        assert verdict.failure is failure
        assert [alarm.name for alarm in verdict.alarms] == ["revocation_trouble"]


def test_switched_off_nobody_asks_the_lists(us: DialPlan) -> None:
    bench = Bench(us, OFF)
    bench.publish(ISSUED.certificate)
    assert bench.verify().result is Result.PASSED


def test_without_lists_the_service_verifies_unless_they_are_demanded(us: DialPlan) -> None:
    anchors, documents = TrustAnchors([AUTHORITY.root]), CertificateMemory({X5U: ISSUED.chain})
    plain = VerificationService(VerificationRules(us), anchors, documents)
    verdict = plain.verify(MESSAGE, NOW)
    assert (verdict.result, verdict.alarms) == (Result.PASSED, ())
    with pytest.raises(ValueError, match="no revocation list is configured"):
        VerificationService(VerificationRules(us), anchors, documents, mode=HARD)


def test_a_call_that_fails_without_a_certificate_asks_no_list(bench: Bench) -> None:
    verdict = bench.service.verify(call(), NOW)
    assert (verdict.failure, verdict.alarms) == (FailureCode.NO_IDENTITY, ())
