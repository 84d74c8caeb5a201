"""Calls at a steady rate through both sides: every one counted, none lost, none unsigned."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.conftest import Network

CALLS, RATE = 400, 100


@pytest.mark.alone
@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_no_call_is_lost_and_every_one_is_signed_and_verified(network: Network, kemi: bool) -> None:
    origin = network.provider("origin", signing={"origid": {"per": "call"}})
    target = network.provider("target", spc="123T", policy={})
    target.publish(origin.x5u, origin.credential.chain)
    called = network.called()
    verifier = network.kamailio(target, inside_peer=called.uri, kemi=kemi)
    signer = network.kamailio(origin, outside_peer=f"sip:127.0.0.1:{verifier.outside_port}", kemi=kemi)
    run = network.call("uac_call", signer.inside_port, calls=CALLS, rate=RATE, trace=False)
    assert (run.counts.successful, run.counts.failed) == (CALLS, 0), run.errors
    # On loopback nothing is lost; a few retransmissions mean that a worker was late, more that it stalled.
    assert run.counts.retransmissions <= CALLS // 50, run.counts
    signed, verified = signer.counters(), verifier.counters()
    assert (signed["signed_a"], verified["verified_passed"]) == (CALLS, CALLS)
    assert not [name for name in (*signed, *verified) if name.startswith(("fault", "failure", "unsigned"))]
    tokens = Counter(value for invite in called.invites() for value in invite.header("Identity"))
    assert len(tokens) == CALLS  # every call its own token, and none twice
    marks = [value for invite in called.invites() for value in invite.header("P-Asserted-Identity")]
    assert len(marks) >= CALLS
    assert all("verstat=TN-Validation-Passed@" in mark for mark in marks)
