"""What our own authentication service signs of a call that is sent on, again and again, is believed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.records import Basis
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.core.verification import Result, VerificationRules
from shaken_plugin.errors import SkipReason
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.verification import VerificationService
from tests.conftest import NOW
from tests.property.strategies import examples, mutated
from tests.records import number_right
from tests.services.builders import RANDOM_ORIGID, X5U, call, identity_of, policy, rules, service, sip
from tests.services.test_diversions import leaving

NUMBERS = tuple(str(number) for number in range(12_025_550_100, 12_025_550_120))
OURS = number_right("acme", NUMBERS[0], NUMBERS[-1], Basis.ASSIGNED)


class Providers:
    """One that signs whatever is asked, and one that believes it."""

    def __init__(self, authority: Authority, signer: SigningPair, chain: bytes) -> None:
        self.pair = signer
        self.signing = service(signer, store=MemoryStore(policy(rights=(OURS,))))
        self.verifying = VerificationService(
            VerificationRules(rules().plan, inner_freshness=600),
            TrustAnchors([authority.root]),
            CertificateMemory({X5U: chain}),
        )


@pytest.fixture(scope="module")
def providers(authority: Authority) -> Providers:
    issued = authority.issue(spc="709J", now=NOW)
    return Providers(
        authority, load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0, spc=None), issued.chain
    )


@settings(examples, max_examples=60)
@given(
    hops=st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=6, unique=True),
    rang=st.lists(st.integers(0, 90), min_size=5, max_size=5),
    proxied=st.booleans(),
)
def test_a_call_sent_on_any_number_of_times_is_believed(
    providers: Providers, hops: list[str], rang: list[int], proxied: bool
) -> None:
    """However often and after however much ringing, by proxies and B2BUAs."""
    now = NOW
    message = call(identity=(identity_of(providers.pair, dest={"tn": [hops[0]]}),), to=sip(hops[0]))
    for seconds, (before, after) in zip(rang, pairwise(hops), strict=False):
        now += seconds
        message = replace(
            message,
            diverting=sip(before),
            request_uri=f"sip:+{after}@example.net;user=phone",
            to=message.to if proxied else sip(after),
        )
        signing = providers.signing.sign(message, now, RANDOM_ORIGID)
        assert signing.skip is None, signing.skip
        message = leaving(message, signing)
    verdict = providers.verifying.verify(message, now + 29)
    assert verdict.result is Result.PASSED, verdict.results
    assert verdict.diversions == tuple(map(TelephoneNumber, hops[:-1]))


@examples
@given(data=st.data())
def test_whatever_came_is_signed_or_not(providers: Providers, data: st.DataObject) -> None:
    """A header with anything changed raises nothing, and is never touched."""
    value = data.draw(mutated(identity_of(providers.pair, dest={"tn": [NUMBERS[0]]})))
    message = call(
        identity=(value,),
        diverting=data.draw(mutated(sip(NUMBERS[0]))),
        request_uri=data.draw(mutated(f"sip:+{NUMBERS[1]}@example.net;user=phone")),
    )
    signing = providers.signing.sign(message, NOW, RANDOM_ORIGID)
    assert signing.drop == ()
    if signing.diverting is None:
        assert signing.skip in {SkipReason.ALREADY_SIGNED, SkipReason.POLICY_UNSIGNED}
    else:
        assert (signing.identity is None) is (signing.skip is not None)
