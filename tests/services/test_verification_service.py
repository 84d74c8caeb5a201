"""The verification service (RFC 8224 §6.2): certificates looked up, and paths kept while they hold."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.verification import Result, Verdict, VerificationRules
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority, Defect, Issued
from shaken_plugin.verification import MAX_PATHS, VerificationService, Waiting
from tests.conftest import NOW
from tests.services.builders import (
    CALLER,
    RANDOM_ORIGID,
    SPC,
    SUSPENDED_ADDRESS,
    X5U,
    call,
    identity_of,
    sip,
)

OTHER = "https://certificates.example.org/811K.pem"


class CountingSource(CertificateMemory):
    """Counts how often documents are read."""

    reads = 0

    def read(self, url: str) -> bytes:
        self.reads += 1
        return super().read(url)


class BrokenSource:
    """Knows a version of every document and cannot read any."""

    def version(self, url: str, now: float) -> Hashable | None:
        return 1

    def read(self, url: str) -> bytes:
        return CertificateMemory({}).read(url)


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(spc=SPC, now=NOW)


@pytest.fixture(scope="module")
def ours(issued: Issued) -> SigningPair:
    return load(issued)


def load(issued: Issued, x5u: str = X5U) -> SigningPair:
    return load_pair(key=issued.key, chain=issued.chain, x5u=x5u, live_from=0.0, spc=None)


@pytest.fixture
def source(issued: Issued) -> CountingSource:
    return CountingSource({X5U: issued.chain})


@pytest.fixture
def verifier(us: DialPlan, authority: Authority, source: CountingSource) -> VerificationService:
    return VerificationService(VerificationRules(us), TrustAnchors([authority.root]), source)


# --- Verdicts ---------------------------------------------------------------------------------


def test_what_the_authentication_service_signs_passes(verifier: VerificationService, ours: SigningPair) -> None:
    verdict = verifier.verify(call(identity=(identity_of(ours, attest=Attest.B),)), NOW)
    assert (verdict.result, verdict.failure) == (Result.PASSED, None)
    decisive = verdict.decisive
    assert decisive is not None
    assert (decisive.attest, decisive.orig) == (Attest.B, TelephoneNumber(CALLER))
    assert (decisive.spc, decisive.origid, decisive.x5u) == (SPC, RANDOM_ORIGID, X5U)


def test_a_call_without_identity_needs_no_certificate(verifier: VerificationService, source: CountingSource) -> None:
    verdict = verifier.verify(call(), NOW)
    assert (verdict.result, verdict.failure, source.reads) == (Result.NONE, FailureCode.NO_IDENTITY, 0)


@pytest.mark.parametrize("iat", [NOW - 61, NOW + 61])
def test_a_stale_token_makes_nobody_read_a_certificate(
    verifier: VerificationService, source: CountingSource, ours: SigningPair, iat: float
) -> None:
    # Cheap checks first: a hostile INVITE must not make us work.
    verdict = verifier.verify(call(identity=(identity_of(ours, iat=iat),)), NOW)
    assert verdict.result is Result.FAILED
    assert source.reads == 0


def test_the_freshness_window_is_the_operators(
    us: DialPlan, authority: Authority, source: CountingSource, ours: SigningPair
) -> None:
    strict = VerificationService(VerificationRules(us, freshness=5), TrustAnchors([authority.root]), source)
    message = call(identity=(identity_of(ours),))
    assert strict.verify(message, NOW + 5).result is Result.PASSED
    assert strict.verify(message, NOW + 6).failure is FailureCode.IAT_STALE


def test_a_certificate_that_nobody_asked_for_yet_fails_nobody(
    us: DialPlan, authority: Authority, ours: SigningPair
) -> None:
    empty = VerificationService(VerificationRules(us), TrustAnchors([authority.root]), CertificateMemory({}))
    message = call(identity=(identity_of(ours),))
    verdict = empty.verify(message, NOW)
    assert (verdict.result, verdict.failure) == (Result.NONE, FailureCode.CERTIFICATE_NOT_YET)
    assert empty.begin(message, NOW) == Waiting(verdict, (X5U,))


def test_what_fails_beside_it_does_not_decide_and_what_passes_needs_no_waiting(
    verifier: VerificationService, ours: SigningPair
) -> None:
    unknown = identity_of(replace(ours, x5u="https://certificates.example.org/811K.pem"))
    stale = identity_of(ours, iat=NOW - 61)
    outcome = verifier.begin(call(identity=(stale, unknown)), NOW)
    assert isinstance(outcome, Waiting)
    assert (outcome.verdict.result, outcome.verdict.failure) == (Result.NONE, FailureCode.CERTIFICATE_NOT_YET)
    assert [result.failure for result in outcome.verdict.results] == [
        FailureCode.IAT_STALE,
        FailureCode.CERTIFICATE_NOT_YET,
    ]
    assert outcome.missing == ("https://certificates.example.org/811K.pem",)
    passing = verifier.begin(call(identity=(unknown, identity_of(ours))), NOW)
    assert isinstance(passing, Verdict)
    assert passing.result is Result.PASSED


def test_a_document_that_vanishes_between_two_looks_is_unavailable(
    us: DialPlan, authority: Authority, ours: SigningPair
) -> None:
    broken = VerificationService(VerificationRules(us), TrustAnchors([authority.root]), BrokenSource())
    verdict = broken.verify(call(identity=(identity_of(ours),)), NOW)
    assert verdict.failure is FailureCode.CERTIFICATE_UNAVAILABLE


@pytest.mark.parametrize(
    ("defect", "failure"),
    [
        (Defect.EXPIRED, FailureCode.CERTIFICATE_EXPIRED),
        (Defect.NOT_YET_VALID, FailureCode.CERTIFICATE_NOT_YET_VALID),
        (Defect.UNTRUSTED, FailureCode.CERTIFICATE_UNTRUSTED),
        (Defect.ISSUER_EXPIRED, FailureCode.CERTIFICATE_EXPIRED),
        (Defect.ISSUER_NOT_CA, FailureCode.CERTIFICATE_UNTRUSTED),
        (Defect.MISSING_ISSUER, FailureCode.CERTIFICATE_UNTRUSTED),
        (Defect.NO_DIGITAL_SIGNATURE, FailureCode.CERTIFICATE_KEY_USAGE),
        (Defect.CA_LEAF, FailureCode.CERTIFICATE_KEY_USAGE),
        (Defect.WRONG_CURVE, FailureCode.CERTIFICATE_KEY_USAGE),
        (Defect.RSA_LEAF, FailureCode.CERTIFICATE_KEY_USAGE),
        (Defect.NO_TNAUTHLIST, FailureCode.CERTIFICATE_NO_TNAUTHLIST),
        (Defect.MALFORMED_TNAUTHLIST, FailureCode.CERTIFICATE_NO_TNAUTHLIST),
    ],
)
def test_every_defect_of_a_certificate_has_its_name_at_the_first_call_and_the_next(
    verifier: VerificationService,
    source: CountingSource,
    authority: Authority,
    ours: SigningPair,
    defect: Defect,
    failure: FailureCode,
) -> None:
    source.documents[X5U] = authority.issue(spc=SPC, now=NOW, defect=defect).chain
    message = call(identity=(identity_of(ours),))
    assert verifier.verify(message, NOW).failure is failure
    assert verifier.verify(message, NOW).failure is failure


@pytest.mark.parametrize("document", [b"", b"<html>404</html>", b"\x30\x03\x02\x01\x00", b"-" * 70_000])
def test_a_document_that_is_no_certificate_is_named_so(
    verifier: VerificationService, source: CountingSource, ours: SigningPair, document: bytes
) -> None:
    source.documents[X5U] = document
    verdict = verifier.verify(call(identity=(identity_of(ours),)), NOW)
    assert verdict.failure is FailureCode.CERTIFICATE_MALFORMED


def test_one_valid_identity_is_enough_beside_bad_ones(
    verifier: VerificationService, source: CountingSource, authority: Authority, ours: SigningPair
) -> None:
    # RFC 8224 §6.2.1.
    untrusted = authority.issue(spc="811K", now=NOW, defect=Defect.UNTRUSTED)
    source.documents[OTHER] = untrusted.chain
    message = call(identity=("nonsense;", identity_of(load(untrusted, OTHER)), identity_of(ours)))
    verdict = verifier.verify(message, NOW)
    assert verdict.result is Result.PASSED
    assert [result.failure for result in verdict.results] == [
        FailureCode.IDENTITY_MALFORMED,
        FailureCode.CERTIFICATE_UNTRUSTED,
        None,
    ]


def test_a_certificate_of_another_key_does_not_verify(
    verifier: VerificationService, source: CountingSource, authority: Authority, ours: SigningPair
) -> None:
    source.documents[X5U] = authority.issue(spc=SPC, now=NOW).chain
    verdict = verifier.verify(call(identity=(identity_of(ours),)), NOW)
    assert verdict.failure is FailureCode.SIGNATURE_INVALID


def test_a_delegate_certificate_speaks_for_its_numbers_alone(
    verifier: VerificationService, source: CountingSource, authority: Authority
) -> None:
    # RFC 8226 §9.
    delegate = authority.issue(numbers=("12155551213",), now=NOW)
    source.documents[X5U] = delegate.chain
    verdict = verifier.verify(call(identity=(identity_of(load(delegate)),)), NOW)
    assert verdict.failure is FailureCode.CERTIFICATE_SCOPE


# --- Paths that are kept ----------------------------------------------------------------------


def test_a_warm_path_is_not_read_again(
    verifier: VerificationService, source: CountingSource, ours: SigningPair
) -> None:
    for later in range(3):
        assert verifier.verify(call(identity=(identity_of(ours),)), NOW + later).result is Result.PASSED
    assert source.reads == 1


def test_a_certificate_named_by_several_identities_is_read_once(
    verifier: VerificationService, source: CountingSource, ours: SigningPair
) -> None:
    verdict = verifier.verify(call(identity=(identity_of(ours),) * 3), NOW)
    assert len(verdict.results) == 3
    assert source.reads == 1


def test_a_replaced_document_counts_within_a_second(
    verifier: VerificationService, source: CountingSource, authority: Authority, ours: SigningPair, issued: Issued
) -> None:
    message = call(identity=(identity_of(ours),))
    assert verifier.verify(message, NOW).result is Result.PASSED
    source.documents[X5U] = authority.issue(spc=SPC, now=NOW, defect=Defect.EXPIRED).chain
    assert verifier.verify(message, NOW + 0.9).result is Result.PASSED
    assert verifier.verify(message, NOW + 1).failure is FailureCode.CERTIFICATE_EXPIRED
    source.documents[X5U] = issued.chain
    assert verifier.verify(message, NOW + 2).result is Result.PASSED


def test_a_clock_that_goes_back_makes_nothing_last(
    verifier: VerificationService, source: CountingSource, ours: SigningPair
) -> None:
    message = call(identity=(identity_of(ours),))
    assert verifier.verify(message, NOW + 50).result is Result.PASSED
    del source.documents[X5U]
    assert verifier.verify(message, NOW).failure is FailureCode.CERTIFICATE_NOT_YET


def test_a_removed_document_counts_within_a_second(
    verifier: VerificationService, source: CountingSource, ours: SigningPair
) -> None:
    message = call(identity=(identity_of(ours),))
    assert verifier.verify(message, NOW).result is Result.PASSED
    del source.documents[X5U]
    assert verifier.verify(message, NOW + 1).failure is FailureCode.CERTIFICATE_NOT_YET


def test_a_document_that_is_found_damaged_is_missing_and_no_fault_of_the_signer(
    us: DialPlan, authority: Authority, ours: SigningPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = CertificateMemory({X5U: b"damaged"})

    def read(url: str) -> bytes:
        del source.documents[url]  # from now on it is not known
        raise VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE, "its row is damaged")

    monkeypatch.setattr(source, "read", read)
    verifier = VerificationService(VerificationRules(us), TrustAnchors([authority.root]), source)
    outcome = verifier.begin(call(identity=(identity_of(ours),)), NOW)
    assert isinstance(outcome, Waiting)
    assert outcome.missing == (X5U,)
    assert outcome.verdict.failure is FailureCode.CERTIFICATE_NOT_YET


def test_a_kept_path_ends_with_its_certificate(us: DialPlan, authority: Authority, source: CountingSource) -> None:
    short = authority.issue(spc=SPC, now=NOW, age=timedelta(0), lifetime=timedelta(seconds=30))
    source.documents[X5U] = short.chain
    verifier = VerificationService(VerificationRules(us), TrustAnchors([authority.root]), source)
    message = call(identity=(identity_of(load(short)),))
    assert verifier.verify(message, NOW + 30).result is Result.PASSED
    assert verifier.verify(message, NOW + 31).failure is FailureCode.CERTIFICATE_EXPIRED


def test_a_certificate_that_becomes_valid_is_taken_without_a_new_document(
    verifier: VerificationService, source: CountingSource, authority: Authority
) -> None:
    early = authority.issue(spc=SPC, now=NOW, age=timedelta(seconds=-20))
    source.documents[X5U] = early.chain
    message = call(identity=(identity_of(load(early), iat=NOW + 21),))
    assert verifier.verify(message, NOW + 19).failure is FailureCode.CERTIFICATE_NOT_YET_VALID
    assert verifier.verify(message, NOW + 21).result is Result.PASSED


@pytest.mark.parametrize("defect", [Defect.CA_LEAF, Defect.NO_TNAUTHLIST, Defect.EXPIRED, Defect.UNTRUSTED])
def test_a_path_that_failed_is_not_tried_again_at_every_call(
    verifier: VerificationService,
    source: CountingSource,
    authority: Authority,
    ours: SigningPair,
    defect: Defect,
) -> None:
    # Anybody may send us such, again and again, and each would cost a path to be looked for.
    source.documents[X5U] = authority.issue(spc=SPC, now=NOW, defect=defect).chain
    reads = []
    for second in (0, 0.5, 30, 59, 60, 61):
        message = call(identity=(identity_of(ours, iat=NOW + second),))
        assert verifier.verify(message, NOW + second).result is Result.FAILED
        reads.append(source.reads)
    assert reads == [1, 1, 1, 1, 2, 2]


def test_paths_are_bounded_in_number(verifier: VerificationService, source: CountingSource, ours: SigningPair) -> None:
    urls = [f"https://certificates.example.com/{index}.pem" for index in range(MAX_PATHS + 5)]
    source.documents = dict.fromkeys(urls, b"no certificate")
    for url in urls:
        verifier.verify(call(identity=(identity_of(replace(ours, x5u=url)),)), NOW)
    assert source.reads == len(urls)
    assert MAX_PATHS // 2 <= len(verifier._known) <= MAX_PATHS


def test_another_authority_is_trusted_only_if_configured(
    us: DialPlan, authority: Authority, source: CountingSource, ours: SigningPair
) -> None:
    other = Authority.new(NOW, name="Other")
    message = call(identity=(identity_of(ours),))

    def verdict(*roots: x509.Certificate) -> FailureCode | None:
        return VerificationService(VerificationRules(us), TrustAnchors(roots), source).verify(message, NOW).failure

    assert verdict(other.root) is FailureCode.CERTIFICATE_UNTRUSTED
    assert verdict(other.root, authority.root) is None


# --- Hostile calls ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "",
        ";",
        "\x00",
        "\udcff\udcfe",
        "." * 70_000,
        "a" * 100_000,
        "e30.e30.;info=<https://a.example/b>",
        "W10.W10.AA;info=<https://a.example/b>;ppt=shaken",
        "a.b.c;info=<javascript:alert(1)>",
        ";info=<https://127.0.0.1/>" * 40,
    ],
)
def test_no_identity_value_makes_the_service_raise_or_read(
    verifier: VerificationService, source: CountingSource, value: str
) -> None:
    verdict = verifier.verify(call(identity=(value,)), NOW)
    assert verdict.result is Result.FAILED
    assert source.reads == 0


def test_a_hundred_identities_cost_no_more_than_ten(
    verifier: VerificationService, source: CountingSource, ours: SigningPair
) -> None:
    verdict = verifier.verify(call(identity=("nonsense;",) * 100 + (identity_of(ours),)), NOW)
    assert (len(verdict.results), verdict.result, source.reads) == (10, Result.FAILED, 0)


def test_the_called_party_of_the_request_uri_counts_as_that_of_to(
    verifier: VerificationService, ours: SigningPair
) -> None:
    rewritten = call(to=sip("18005550199"), identity=(identity_of(ours),))
    assert verifier.verify(rewritten, NOW).result is Result.PASSED
    elsewhere = call(to=sip("18005550199"), request_uri="tel:+18005550199", identity=(identity_of(ours),))
    assert verifier.verify(elsewhere, NOW).failure is FailureCode.DEST_MISMATCH


def test_where_a_call_comes_from_does_not_matter_to_its_verdict(
    verifier: VerificationService, ours: SigningPair
) -> None:
    message = call(source=SUSPENDED_ADDRESS, user="mallory", identity=(identity_of(ours),))
    assert verifier.verify(message, NOW).result is Result.PASSED
