"""The self-test: a call signed with our key and verified as others will, before one is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.certificates import PathValidator, SigningCertificate, TrustAnchors, TrustedPath, parse_chain
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.tnauthlist import TnAuthList
from shaken_plugin.core.verification import Result, VerificationRules
from shaken_plugin.errors import SigningError, VerificationFailure
from shaken_plugin.lint.chain import Expectations
from shaken_plugin.lint.document import Document
from shaken_plugin.lint.model import Edition, Lint, Scope, Severity
from shaken_plugin.verification import VerificationService

_X5U: Final = "https://self-test.example.com/chain.pem"
_CALLER: Final = "12025550100"
_CALLED: Final = TelephoneNumber("12025550199")
_ORIGID: Final = "00000000-0000-4000-8000-000000000000"
_NOTHING: Final = re.compile("(?!)")
_PLAN: Final = DialPlan("1", None, None, frozenset(), _NOTHING, _NOTHING)
"""The numbers of the call are in E.164 form; no country's way to dial matters."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A document as it would be published, and what the operator knows besides."""

    data: bytes
    document: Document
    expected: Expectations


class _AnyRoot:
    """A `PathValidator` for where no roots are known: the signer alone is looked at."""

    count = 0
    trouble: tuple[str, ...] = ()

    def validate(self, chain: Sequence[x509.Certificate], now: float) -> TrustedPath:  # noqa: ARG002  # any chain will do
        """See `TrustAnchors.validate`."""
        signer = SigningCertificate.load(chain[0])
        return TrustedPath(signer, signer.not_before, signer.not_after, ())


def _anchors(expected: Expectations) -> PathValidator:
    if expected.anchors is None:
        return _AnyRoot()
    return TrustAnchors([x509.load_der_x509_certificate(anchor.whole) for anchor in expected.anchors])


def _caller(listed: TnAuthList) -> TelephoneNumber:
    """A number that the certificate covers; any, where it has an SPC."""
    numbers = [] if listed.spcs else [*listed.ones, *(one.start for one in listed.ranges)]
    return TelephoneNumber(next((number for number in numbers if number.isdecimal()), _CALLER))


def _refused(trial: Trial) -> str | None:
    expected = trial.expected
    try:
        message = _signed_call(trial)
    except VerificationFailure as exc:
        return f"the certificate cannot sign a call: {exc}"
    except SigningError as exc:
        return str(exc)
    try:
        anchors = _anchors(expected)
    except (VerificationFailure, ValueError, TypeError, x509.InvalidVersion) as exc:
        return f"the roots cannot be used: {exc}"
    source = CertificateMemory({_X5U: trial.data})
    verdict = VerificationService(VerificationRules(_PLAN), anchors, source).verify(message, expected.now)
    if verdict.result is Result.PASSED:
        return None
    (result,) = verdict.results
    assert result.failure is not None
    detail = f": {result.detail}" if result.detail else ""
    return f"a verifier refuses a call signed with this key: {result.failure.code}{detail}"


def _signed_call(trial: Trial) -> CallMessage:
    """An INVITE of now, with the Identity that our key and this certificate give it.

    Raises:
        VerificationFailure: the certificate is not fit to sign.
        SigningError: the key cannot be used.
    """
    expected = trial.expected
    assert expected.signer is not None
    certificate = SigningCertificate.load(parse_chain(trial.data)[0])
    caller = _caller(certificate.tnauthlist)
    claims = shaken_claims(attest=Attest.A, orig=caller, dest=_CALLED, iat=int(expected.now), origid=_ORIGID)
    pair = SigningPair(expected.signer, certificate, _X5U, 0.0)
    return CallMessage(
        method="INVITE",
        request_uri=f"tel:+{_CALLED}",
        to=f"<tel:+{_CALLED}>",
        callers={CallerHeader.FROM: (f"<tel:+{caller}>;tag=1",)},
        date=format_date(expected.now),
        identity=(identity_header(pair, claims).format(),),
    )


_KEYED: Final = Scope[Trial](
    "with --key, documents with a signer",
    lambda trial: trial.expected.signer is not None and trial.document.is_chain,
)

SELF_TEST_LINTS: Final = (
    Lint("e_self_test", Severity.ERROR, Edition("RFC 8224"), "§6.2", _KEYED, _refused,
         "do not sign with this key and chain: every call would be refused; the other findings may say more"),
)  # fmt: skip
