"""The self-test: a call signed and verified, with what may be wrong about key, certificate and roots."""

from __future__ import annotations

import pytest

from shaken_plugin.core.tnauthlist import TnAuthList, TnRange
from shaken_plugin.errors import SigningError
from shaken_plugin.lint import Expectations, Source, examine
from shaken_plugin.lint.certificate import KEY_USAGE, TNAUTHLIST
from shaken_plugin.lint.selftest import SELF_TEST_LINTS
from shaken_plugin.ports import Signer
from tests.conftest import NOW
from tests.lint.builders import DAY, Recipe, issuer, key_usage, leaf, pem, root, signer

CHAIN = pem(leaf().der(), issuer().der())
ROOTS = (root().certificate,)


def told(data: bytes = CHAIN, *, own: Signer | None = None, **known: object) -> str | None:
    """What the self-test finds, None where the call passes."""
    expected = Expectations(**{"now": NOW, "anchors": ROOTS, "signer": own or signer(), **known})  # type: ignore[arg-type]  # a test says what fits
    (report,) = examine([Source("it", data)], expected)
    texts = [finding.text for finding in report.findings if finding.lint == "e_self_test"]
    assert len(texts) <= 1
    return texts[0] if texts else None


def numbers(**entries: object) -> Recipe:
    return leaf().having(TNAUTHLIST, TnAuthList(**entries).to_der())  # type: ignore[arg-type]  # a test says what fits


@pytest.mark.parametrize(
    "certificate",
    [
        leaf(),
        numbers(ones=("13125550142",)),
        numbers(ranges=(TnRange("13125550100", 100),)),
        numbers(ones=("*17", "442079460123")),
        numbers(spcs=("709J",), ones=("1",)),
    ],
    ids=["SPC", "number", "range", "foreign number", "both"],
)
def test_a_sound_pair_passes(certificate: Recipe) -> None:
    data = pem(certificate.der(), issuer().der())
    assert told(data) is None
    assert told(data, anchors=None) is None


def test_a_certificate_in_der_passes_where_no_roots_are_known() -> None:
    assert told(leaf().der(), anchors=None) is None


@pytest.mark.parametrize(
    ("data", "known", "text"),
    [
        (CHAIN, {"own": signer("other")}, "refuses a call signed with this key: signature_invalid"),
        (CHAIN, {"now": NOW + 81 * DAY}, "certificate_expired: "),
        (CHAIN, {"now": NOW + 81 * DAY, "anchors": None}, "certificate_expired"),
        (CHAIN, {"now": NOW - 11 * DAY}, "certificate_not_yet_valid: "),
        (pem(leaf().der()), {}, "certificate_untrusted: "),
        (pem(issuer().der(), leaf().der()), {}, "cannot sign a call: certificate_"),
        (pem(leaf().having(KEY_USAGE, key_usage(5)).der()), {}, "cannot sign a call: certificate_key_usage"),
        (CHAIN, {"anchors": (leaf().certificate,)}, "the roots cannot be used: certificate_malformed"),
        (CHAIN, {"anchors": ()}, "the roots cannot be used: no trust anchor"),
    ],
    ids=["key", "expired", "expired, no roots", "not yet", "incomplete", "order", "usage", "no root", "none"],
)
def test_what_verifiers_would_refuse_is_told(data: bytes, known: dict[str, object], text: str) -> None:
    found = told(data, **known)  # type: ignore[arg-type]  # a test says what fits
    assert found is not None
    assert text in found


class Broken:
    def sign(self, data: bytes) -> bytes:
        raise SigningError("the token was pulled out")


def test_a_key_that_does_not_sign_is_told() -> None:
    assert told(own=Broken()) == "the token was pulled out"


def test_it_is_made_with_a_key_and_a_signer_alone() -> None:
    (lint,) = SELF_TEST_LINTS
    assert lint.name == "e_self_test"
    (report,) = examine([Source("it", pem(leaf().der()))], Expectations(NOW, anchors=ROOTS))
    assert "e_self_test" not in {finding.lint for finding in report.findings}
    assert told(pem(issuer().der(), root().der())) is None
