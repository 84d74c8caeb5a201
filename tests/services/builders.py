"""Calls, records and credentials for the tests of the services."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NoReturn

from shaken_plugin.authentication import (
    AuthenticationService,
    Credential,
    Credentials,
    SigningPair,
    SigningRules,
    identity_header,
)
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.attestation import AttestationPolicy
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, Trunk
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import SigningError
from shaken_plugin.lab.pki import Authority
from shaken_plugin.ports import PolicyStore, Signer
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.stores.policy import Policy
from tests.conftest import NOW
from tests.records import number_right, reached

CALLER = "12155551212"
CALLED = "12025550143"
SPC = "709J"
X5U = "https://certificates.example.com/709J.pem"
CUSTOMER_ADDRESS = "198.51.100.7"
GATEWAY_ADDRESS = "203.0.113.7"
PENDING_ADDRESS = "198.51.100.21"
SUSPENDED_ADDRESS = "198.51.100.22"
STRANGE_ADDRESS = "192.0.2.1"
RANDOM_ORIGID = "3b9f1c0a-7d45-4b8e-9a53-1f2e6f7c8d90"

ACME = Customer("acme", "Acme Contact Centre", CustomerState.VERIFIED)
PENDING = Customer("pending", "Newcomer Ltd", CustomerState.PENDING)
SUSPENDED = Customer("banned", "Suspended Inc", CustomerState.SUSPENDED)
TRUNK = Trunk("acme-main", ACME)
GATEWAY = Gateway("intl", "International gateway")


def policy(**changes: Any) -> Policy:
    """Records in which `CALLER` belongs to Acme; ``changes`` replace whole fields."""
    whole = Policy(
        customers=(ACME, PENDING, SUSPENDED),
        trunks=(
            reached(TRUNK, CUSTOMER_ADDRESS),
            reached(Trunk("newcomer", PENDING), PENDING_ADDRESS),
            reached(Trunk("suspended", SUSPENDED), SUSPENDED_ADDRESS),
        ),
        gateways=(reached(GATEWAY, GATEWAY_ADDRESS),),
        rights=(number_right("acme", "12155551200", "12155551299", Basis.ASSIGNED),),
    )
    return replace(whole, **changes)


def policy_of(trunk: Trunk) -> Policy:
    """Records with one trunk at `CUSTOMER_ADDRESS`, whose customer owns `CALLER`."""
    return Policy(
        customers=(trunk.customer,),
        trunks=(reached(trunk, CUSTOMER_ADDRESS),),
        rights=(number_right(trunk.customer.id, CALLER, CALLER, Basis.ASSIGNED),),
    )


def sip(number: str) -> str:
    """``<sip:+number@…;user=phone>``."""
    return f"<sip:+{number}@example.com;user=phone>"


def call(**changes: Any) -> CallMessage:
    """An initial INVITE from `CALLER` to `CALLED` over Acme's trunk."""
    message = CallMessage(
        method="INVITE",
        request_uri=f"sip:+{CALLED}@example.net;user=phone",
        to=sip(CALLED),
        callers={CallerHeader.ASSERTED: (sip(CALLER),), CallerHeader.FROM: (f"{sip(CALLER)};tag=1",)},
        call_id="call-1@example.com",
        source=CUSTOMER_ADDRESS,
    )
    return replace(message, **changes)


EMERGENCIES: dict[str, dict[str, Any]] = {
    "911": {"request_uri": "sip:911@example.net", "to": "<sip:911@example.net>"},
    "911 with its country code": {"request_uri": "tel:+1911", "to": "<tel:+1911>"},
    "933": {"request_uri": "sip:933@example.net", "to": "<sip:933@example.net>"},
    "112": {"request_uri": "tel:112;phone-context=+1", "to": "<tel:112;phone-context=+1>"},
    "sos": {"request_uri": "urn:service:sos", "to": "<urn:service:sos>"},
    "sos.police": {"request_uri": "urn:service:sos.police", "to": "<urn:service:sos.police>"},
    "911 in To, rewritten in the Request-URI": {"request_uri": "sip:psap@psap.example", "to": "<sip:911@example.net>"},
    "psap-callback": {"priority": "psap-callback"},
    "911 escaped": {"request_uri": "sip:%39%31%31@example.net", "to": "<sip:%39%31%31@example.net>"},
    "911 with an empty port": {"request_uri": "sip:911@127.0.0.1:", "to": sip(CALLED)},
    "911 with a parameter that is none": {"request_uri": "sip:911@127.0.0.1;x=a@b", "to": sip(CALLED)},
    "911 with a host that is none": {"request_uri": "sip:911@bad~host", "to": sip(CALLED)},
    "911 with a password": {"request_uri": "sip:911:secret@example.net", "to": sip(CALLED)},
    "sos with a parameter": {"request_uri": "urn:service:sos;a=b", "to": sip(CALLED)},
}
"""Changes of `call` that make it an emergency call (RFC 5031 §4.2, RFC 7090 §5), by name."""


def pair(
    authority: Authority, *, x5u: str = X5U, live_from: float = 0.0, now: float = NOW, **issue: Any
) -> SigningPair:
    """A signing pair of the authority, by default with the provider's SPC."""
    if not issue.keys() & {"spc", "numbers", "ranges"}:
        issue["spc"] = SPC
    issued = authority.issue(now=now, **issue)
    return load_pair(key=issued.key, chain=issued.chain, x5u=x5u, live_from=live_from, spc=issue.get("spc"))


def rules(**changes: Any) -> SigningRules:
    """The operator's choices; ``changes`` replace fields."""
    plain = SigningRules(
        plan=dial_plan("US"),
        attestation=AttestationPolicy(),
        origid_namespace=uuid.UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
        default_credential="main",
    )
    return replace(plain, **changes)


def service(
    *pairs: SigningPair,
    store: PolicyStore | None = None,
    others: Iterable[Credential] = (),
    **changes: Any,
) -> AuthenticationService:
    """An authentication service whose default credential has these pairs."""
    credentials = [Credential("main", pairs), *others]
    return AuthenticationService(
        rules(**changes),
        MemoryStore(policy()) if store is None else store,
        Credentials({credential.name: credential for credential in credentials}),
    )


def token_part(identity: str | None, index: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of an Identity value, read without this package."""
    assert identity is not None
    segment = identity.partition(";")[0].split(".")[index]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    return found


def claims_of(identity: str | None) -> dict[str, Any]:
    """The claims of an Identity value."""
    return token_part(identity, 1)


def identity_of(by: SigningPair, *, iat: float = NOW, attest: Attest = Attest.A, **changes: Any) -> str:
    """An Identity value for `call`; ``changes`` replace claims."""
    claims = shaken_claims(
        attest=attest, orig=TelephoneNumber(CALLER), dest=TelephoneNumber(CALLED), iat=int(iat), origid=RANDOM_ORIGID
    )
    return identity_header(by, claims | changes).format()


class FailingSigner:
    """A `ports.Signer` that cannot sign, as one whose security module is away."""

    def sign(self, data: bytes) -> bytes:
        raise SigningError("the security module does not answer")


def with_signer(of: SigningPair, signer: Signer) -> SigningPair:
    """The pair with another signer."""
    return replace(of, signer=signer)


class BrokenStore:
    """A store with a fault of its own."""

    def facts(self, *question: str | None, **more: str | None) -> NoReturn:
        raise RuntimeError("a bug")

    def stamp(self) -> None:
        """See `ports.PolicyStore.stamp`."""
