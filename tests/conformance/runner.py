"""One case through the production verification service, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import phonenumbers
from cryptography import x509

from shaken_plugin.agent.wiring import revocation_parser
from shaken_plugin.certs.cache import CacheWriter, RevocationCache, StoredRevocationList
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import TrustAnchors, parse_anchor_file
from shaken_plugin.core.sip import Request
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import Profile, Result, Shown, Verdict, VerificationRules, VerstatProfile
from shaken_plugin.errors import FailureCode, RevocationListError
from shaken_plugin.verification import VerificationService
from tests.conformance.download import CaseSource

CRL = "http://crl.example.com/list"
RESULTS = {Result.PASSED: "pass", Result.FAILED: "fail", Result.NONE: "none"}
SHOWN = {Shown.VERIFIED: "verified", Shown.PARTIAL: "partial", Shown.WITHHELD: "not-verified"}


@dataclass(frozen=True)
class Outcome:
    """What came of one case: ``wrong`` has a line for each difference, ``crash`` the exception."""

    id: str
    strict: bool
    wrong: tuple[str, ...] = ()
    crash: str | None = None

    @property
    def right(self) -> bool:
        return not self.wrong and self.crash is None


def run(case: Mapping[str, Any]) -> Outcome:
    """Play a case and compare."""
    try:
        wrong = differences(case, verdict_on(case))
    except Exception as exc:
        return Outcome(case["id"], case["strict"], crash=f"{type(exc).__name__}: {exc}")
    return Outcome(case["id"], case["strict"], tuple(wrong))


def verdict_on(case: Mapping[str, Any]) -> Verdict:
    """What the production service says."""
    policy = case["policy"]
    rules = VerificationRules(
        _plan(policy["default_country_code"]), policy["freshness_seconds"], profile=Profile(policy["mode"])
    )
    anchors = TrustAnchors(parse_anchor_file("\n".join(case["trust_roots"]).encode()))
    with TemporaryDirectory() as folder:
        return _verdict(case, VerificationService(rules, anchors, CaseSource(case), _revocation(case, Path(folder))))


def _verdict(case: Mapping[str, Any], service: VerificationService) -> Verdict:
    request = Request.parse(case["request"]["raw"].encode("utf-8", "surrogateescape"))
    message = CallMessage.from_request(request)
    if not message.is_initial_invite:  # as `switch.guard` does
        return Verdict(Result.NONE)
    return service.verify(message, case["now"])


def _revocation(case: Mapping[str, Any], folder: Path) -> RevocationCache | None:
    """What a worker sees of the case's revocation list, which took the agent's way into the cache's file."""
    found = case["crl"]
    if not found:
        return None
    signer = x509.load_pem_x509_certificate(found["issuer_cert_pem"].encode())
    path, writer = folder / "certificates.sqlite", CacheWriter(folder / "certificates.sqlite")
    try:
        parsed = revocation_parser([signer])(found["pem"].encode(), case["now"])
        writer.put_revocation_list(StoredRevocationList("case", CRL, parsed))
    except RevocationListError:
        writer.check()  # a list that is not as it must be is none: the file is there, and empty
    finally:
        writer.close()
    return RevocationCache(path, "case", [CRL])


def _plan(country_code: str) -> DialPlan:
    return dial_plan(phonenumbers.region_code_for_country_code(int(country_code)))


def status_of(case: Mapping[str, Any], verdict: Verdict) -> int | None:
    """The status that a policy which refuses every failure would answer."""
    failure = verdict.failure
    if failure is None or failure is FailureCode.CALLER_ANONYMOUS:
        return None
    status: int = failure.value.status
    if verdict.result is Result.NONE and not (status == 428 and case["policy"]["identity_required"]):
        return None
    return status


def differences(case: Mapping[str, Any], verdict: Verdict) -> list[str]:
    """A line for everything that the score counts and that is not as expected."""
    expect = case["expect"]
    wrong = []

    def compare(what: str, expected: set[Any], actual: Any) -> None:
        if actual not in expected:
            said = verdict.failure.code if verdict.failure else "no failure"
            detail = verdict.decisive.detail if verdict.decisive else ""
            wanted = " or ".join(sorted(map(str, expected)))
            wrong.append(f"{what}: expected {wanted}, actual {actual} ({said}{': ' if detail else ''}{detail})")

    compare("result", {expect["result"]}, RESULTS[verdict.result])
    verstats = {expect["verstat"]}
    if expect["result"] == "fail":
        verstats.add(expect["verstat_atis1000082"])
    for profile in VerstatProfile:
        compare(f"verstat ({profile.value})", verstats, verdict.verstat(profile))
    if expect["result"] == "pass" and expect["attest"] is not None:
        attest = verdict.decisive.attest if verdict.decisive else None
        compare("attest", {expect["attest"]}, attest.value if attest else None)
    if expect["reject_code"] is not None:
        compare("status", {expect["reject_code"], *expect["also_acceptable_codes"]}, status_of(case, verdict))
    return wrong


def details(case: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    """What the score does not count: rich call data, priority and single headers, as ``expect`` says them."""
    found: dict[str, Any] = {"per_identity": []}
    if case["expect"]["per_identity"]:
        found["per_identity"] = [
            {"index": result.index, "cause": result.failure.value.status if result.failure else None}
            for result in verdict.results
        ]
    if "rcd" in case["expect"]:
        rich = verdict.rich
        parts = {"status": SHOWN[rich.shown] if rich else None}
        for name in case["expect"]["rcd"].keys() - {"status"}:
            parts[name] = getattr(rich, name, None) or "not-verified"
        found["rcd"] = parts
    if "rph" in case["expect"]:
        priority = verdict.priority
        found["rph"] = {"status": "passed" if priority and priority.failure is None else "failed"}
    return found
