"""The claims origid (RFC 8588 §5) and mky (RFC 8225 §5.2.2) of the calls we sign."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from shaken_plugin.authentication import OrigidScope, SigningPair
from shaken_plugin.core.records import Customer, CustomerState, Trunk
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.memory import MemoryStore
from tests.conftest import NOW
from tests.records import reached
from tests.services.builders import (
    ACME,
    CUSTOMER_ADDRESS,
    GATEWAY_ADDRESS,
    RANDOM_ORIGID,
    call,
    claims_of,
    pair,
    policy,
    policy_of,
    service,
)


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


# --- origid -----------------------------------------------------------------------------------


def _origids(ours: SigningPair, scope: OrigidScope) -> dict[str, str | None]:
    """origids of two trunks of one customer, of another customer, and of a gateway."""
    other = Trunk("other-main", Customer("other", "Other", CustomerState.VERIFIED))
    records = policy()
    more = (reached(Trunk("acme-second", ACME), "198.51.100.8"), reached(other, "198.51.100.9"))
    # A service of its own each time: what a restart would make.
    store = MemoryStore(replace(records, trunks=(*records.trunks, *more)))
    sources = {"first": CUSTOMER_ADDRESS, "second": "198.51.100.8", "other": "198.51.100.9", "gateway": GATEWAY_ADDRESS}
    return {
        name: service(ours, store=store, origid=scope).sign(call(source=address), NOW, str(uuid.uuid4())).origid
        for name, address in sources.items()
    }


def test_origid_per_trunk_names_the_trunk_and_stays_over_restarts(ours: SigningPair) -> None:
    origids = _origids(ours, OrigidScope.TRUNK)
    assert len(set(origids.values())) == 4
    assert origids == _origids(ours, OrigidScope.TRUNK)


def test_origid_per_customer_is_one_for_all_trunks_of_a_customer(ours: SigningPair) -> None:
    origids = _origids(ours, OrigidScope.CUSTOMER)
    assert origids["first"] == origids["second"]
    assert len(set(origids.values())) == 3
    assert origids == _origids(ours, OrigidScope.CUSTOMER)


def test_origid_per_call_is_the_random_one_and_hides_the_customer(ours: SigningPair) -> None:
    signing = service(ours, origid=OrigidScope.CALL).sign(call(), NOW, RANDOM_ORIGID)
    assert claims_of(signing.identity)["origid"] == RANDOM_ORIGID
    assert len(set(_origids(ours, OrigidScope.CALL).values())) == 4


@pytest.mark.parametrize("scope", [OrigidScope.TRUNK, OrigidScope.CUSTOMER])
def test_a_customers_fixed_origid_wins_over_the_derived_one(ours: SigningPair, scope: OrigidScope) -> None:
    fixed = "11111111-2222-4333-8444-555555555555"
    store = MemoryStore(policy_of(Trunk("t", replace(ACME, origid=fixed))))
    signing = service(ours, store=store, origid=scope).sign(call(), NOW, RANDOM_ORIGID)
    assert claims_of(signing.identity)["origid"] == fixed


def test_origids_of_two_providers_differ(ours: SigningPair) -> None:
    mine = service(ours).sign(call(), NOW, RANDOM_ORIGID).origid
    theirs = service(ours, origid_namespace=uuid.UUID(int=7)).sign(call(), NOW, RANDOM_ORIGID).origid
    assert mine != theirs


# --- Media keys -------------------------------------------------------------------------------

SDP = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVP 0\r\na=fingerprint:sha-256 4A:AD:B9:B1\r\na=setup:actpass\r\n"


def test_fingerprints_in_the_sdp_are_signed_as_mky(ours: SigningPair) -> None:
    # RFC 8224 §4.1: where SDP has fingerprints, "mky" MUST be there; form: RFC 8225 §5.2.2.
    signing = service(ours).sign(call(sdp=SDP), NOW, RANDOM_ORIGID)
    assert claims_of(signing.identity)["mky"] == [{"alg": "sha-256", "dig": "4AADB9B1"}]


@pytest.mark.parametrize(("sdp", "mky"), [(SDP, False), ("v=0\r\nm=audio 9 RTP/AVP 0\r\n", True), ("", True)])
def test_there_is_no_mky_without_fingerprints_or_if_switched_off(ours: SigningPair, sdp: str, mky: bool) -> None:
    claims = claims_of(service(ours, mky=mky).sign(call(sdp=sdp), NOW, RANDOM_ORIGID).identity)
    assert "mky" not in claims
