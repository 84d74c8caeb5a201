"""A PASSporT that comes with another call (RFC 8224 §12.1)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.jws import b64url, unb64url
from shaken_plugin.core.passport import div_claims
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.verification import ReplayMode, Result, Verdict, VerificationRules
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.memory import ReplayInMemory
from shaken_plugin.verification import VerificationService
from tests.conftest import NOW
from tests.services.builders import CALLED, CALLER, SPC, X5U, call, claims_of, identity_of, sip

FORWARDED = "12025550177"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the curve P-256."""


@dataclass
class Bench:
    service: VerificationService
    memory: ReplayInMemory
    pair: SigningPair

    def verify(self, *identity: str, call_id: str = "one", tag: str = "1", now: float = NOW, **changes: Any) -> Verdict:
        return self.service.verify(message(*identity, call_id=call_id, tag=tag, **changes), now)


def message(*identity: str, call_id: str, tag: str, **changes: Any) -> CallMessage:
    callers = {CallerHeader.FROM: (f"{sip(CALLER)};tag={tag}",)}
    return call(callers=callers, identity=identity, call_id=call_id, **changes)


@pytest.fixture(params=[ReplayMode.ENFORCE])
def bench(request: pytest.FixtureRequest, us: DialPlan, authority: Authority) -> Bench:
    issued = authority.issue(spc=SPC, now=NOW)
    pair = load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0, spc=SPC)
    memory = ReplayInMemory()
    service = VerificationService(
        VerificationRules(us),
        TrustAnchors([authority.root]),
        CertificateMemory({X5U: issued.chain}),
        replays=memory,
        replay_mode=request.param,
    )
    return Bench(service, memory, pair)


def test_the_same_passport_with_another_call_fails(bench: Bench) -> None:
    token = identity_of(bench.pair)
    assert bench.verify(token).result is Result.PASSED
    verdict = bench.verify(token, call_id="two")
    assert (verdict.result, verdict.failure, verdict.replayed) == (Result.FAILED, FailureCode.REPLAYED, True)
    assert verdict.verstat() == "TN-Validation-Failed"
    assert verdict.results == (verdict.decisive,)
    assert (verdict.rich, verdict.diversions, verdict.priority) == (None, (), None)
    assert bench.verify(token, tag="2").failure is FailureCode.REPLAYED


def test_retransmissions_forks_and_the_next_call_are_no_replay(bench: Bench) -> None:
    token = identity_of(bench.pair)
    for _ in range(3):
        assert bench.verify(token).result is Result.PASSED
    # A fork further up: another Request-URI, the same call.
    assert bench.verify(token, request_uri="sip:+12025550143@other.example;user=phone").result is Result.PASSED
    assert bench.verify(identity_of(bench.pair, iat=NOW + 1), call_id="two").result is Result.PASSED


def test_a_call_has_one_name_in_all_releases_that_share_a_memory(bench: Bench) -> None:
    """A file outlives a restart, and Redis a host: under another name the same call would be a replay."""
    assert bench.verify(identity_of(bench.pair)).result is Result.PASSED
    ((name, _),) = bench.memory.seen.values()
    assert name == sha256(b"one\0" + b"1").digest()


def test_another_spelling_of_the_signature_is_the_same_passport(bench: Bench) -> None:
    # ECDSA: where (r, s) is a signature, (r, n - s) is one, too, without the key.
    token = identity_of(bench.pair)
    header = IdentityHeader.parse(token)
    body, _, signature = header.digest.rpartition(".")
    octets = unb64url(signature)
    flipped = octets[:32] + (ORDER - int.from_bytes(octets[32:])).to_bytes(32)
    other = token.replace(signature, b64url(flipped))
    assert other != token
    assert body in other
    assert bench.verify(other).result is Result.PASSED
    assert bench.verify(token, call_id="two").failure is FailureCode.REPLAYED


def test_a_call_that_is_diverted_comes_by_again(bench: Bench) -> None:
    base = identity_of(bench.pair)
    claims = div_claims(claims_of(base), TelephoneNumber(CALLED), TelephoneNumber(FORWARDED))
    div = identity_header(bench.pair, claims, "div").format()
    there: dict[str, Any] = {"to": sip(FORWARDED), "request_uri": f"sip:+{FORWARDED}@example.net;user=phone"}
    assert bench.verify(base).result is Result.PASSED
    assert bench.verify(base, div, call_id="two", **there).result is Result.PASSED
    assert bench.verify(base, div, call_id="three", **there).failure is FailureCode.REPLAYED
    assert bench.verify(base, call_id="four").failure is FailureCode.REPLAYED


def diverted(bench: Bench, base: str, before: str, after: str) -> str:
    claims = div_claims(claims_of(base), TelephoneNumber(before), TelephoneNumber(after))
    return identity_header(bench.pair, claims, "div").format()


def test_no_div_more_or_less_makes_a_call_new(bench: Bench) -> None:
    base = identity_of(bench.pair)
    div = diverted(bench, base, CALLED, FORWARDED)
    there: dict[str, Any] = {"to": sip(FORWARDED), "request_uri": f"sip:+{FORWARDED}@example.net;user=phone"}
    assert bench.verify(base, div, **there).result is Result.PASSED
    again = diverted(bench, base, FORWARDED, FORWARDED)
    for number, divs in enumerate([(div, div), (div, div, div), (div, again), (again, div, div)]):
        verdict = bench.verify(base, *divs, call_id=f"replay {number}", **there)
        assert verdict.failure is FailureCode.REPLAYED, divs


def test_where_to_still_names_the_first_target_no_div_makes_a_difference(bench: Bench) -> None:
    # RFC 3261 §16.6: who only routes the call elsewhere keeps To, and Call-ID with it.
    base = identity_of(bench.pair)
    div = diverted(bench, base, CALLED, FORWARDED)
    elsewhere: dict[str, Any] = {"request_uri": f"sip:+{FORWARDED}@example.net;user=phone"}
    assert bench.verify(base).result is Result.PASSED
    assert bench.verify(base, div, **elsewhere).result is Result.PASSED
    assert bench.verify(base, div, call_id="two", **elsewhere).failure is FailureCode.REPLAYED
    assert bench.verify(base, call_id="three", **elsewhere).failure is FailureCode.REPLAYED


def test_each_of_several_targets_is_a_call_of_its_own(bench: Bench) -> None:
    base = identity_of(bench.pair)
    hops = [diverted(bench, base, CALLED, FORWARDED), diverted(bench, base, FORWARDED, "12025550188")]
    for number, target in enumerate((FORWARDED, "12025550188")):
        there: dict[str, Any] = {"to": "<sip:queue@example.net>", "request_uri": f"sip:+{target}@example.net"}
        assert bench.verify(base, *hops, call_id=f"first {number}", **there).result is Result.PASSED
        assert bench.verify(base, *hops, call_id=f"replay {number}", **there).failure is FailureCode.REPLAYED


def test_what_fails_anyway_is_not_remembered(bench: Bench) -> None:
    assert bench.verify("nonsense").result is Result.FAILED
    assert bench.verify(identity_of(bench.pair, iat=NOW - 61)).result is Result.FAILED
    assert bench.memory.seen == {}


@pytest.mark.parametrize("bench", [ReplayMode.REPORT], indirect=True)
def test_by_default_it_is_reported_and_the_verdict_stays(bench: Bench) -> None:
    token = identity_of(bench.pair)
    assert not bench.verify(token).replayed
    verdict = bench.verify(token, call_id="two")
    assert (verdict.result, verdict.failure, verdict.replayed) == (Result.PASSED, None, True)


@pytest.mark.parametrize("bench", [ReplayMode.OFF], indirect=True)
def test_switched_off_nothing_is_remembered(bench: Bench) -> None:
    assert bench.verify(identity_of(bench.pair)).result is Result.PASSED
    assert bench.memory.seen == {}


def test_a_memory_that_cannot_be_asked_is_an_alarm_and_no_failure(bench: Bench) -> None:
    bench.memory.broken = True
    verdict = bench.verify(identity_of(bench.pair))
    assert verdict.result is Result.PASSED
    assert [alarm.name for alarm in verdict.alarms] == ["replay_unchecked"]
