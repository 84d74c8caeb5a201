"""Credentials: loading them, which one signs, and when (RFC 8224 §6.1 steps 1 and 3)."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shaken_plugin.authentication import Credential, SigningPair
from shaken_plugin.certs.credentials import load_pair, load_signer
from shaken_plugin.core.jws import verify_es256
from shaken_plugin.core.records import Gateway, Trunk
from shaken_plugin.core.sip import format_date
from shaken_plugin.errors import CredentialError, SigningError, SkipReason
from shaken_plugin.lab.pki import Authority, Defect, Issued
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.stores.policy import Policy
from tests.conftest import NOW
from tests.records import reached
from tests.services.builders import (
    ACME,
    CALLER,
    GATEWAY_ADDRESS,
    RANDOM_ORIGID,
    SPC,
    X5U,
    call,
    pair,
    policy_of,
    service,
    sip,
    token_part,
)

NEXT = "https://certificates.example.com/next.pem"
HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(spc=SPC, now=NOW)


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


def _load(issued: Issued, *, key: bytes | None = None, x5u: str = X5U, spc: str | None = SPC) -> SigningPair:
    return load_pair(key=issued.key if key is None else key, chain=issued.chain, x5u=x5u, live_from=0.0, spc=spc)


# --- Loading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_p256_key_signs_in_every_usual_encoding(issued: Issued, encoding: Encoding, form: PrivateFormat) -> None:
    key = load_pem_private_key(issued.key, None)
    loaded = _load(issued, key=key.private_bytes(encoding, form, NoEncryption()))
    assert verify_es256(loaded.certificate.public_key, b"data", loaded.signer.sign(b"data"))


def test_a_certificate_in_der_is_taken(issued: Issued) -> None:
    der = issued.certificate.public_bytes(Encoding.DER)
    loaded = load_pair(key=issued.key, chain=der, x5u=X5U, live_from=0.0, spc=SPC)
    assert loaded.certificate.spc == SPC


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _encrypted() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"", "not a private key"),
        (b"\x30garbage", "not a private key"),
        (b"-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n", "not a private key"),
        (_encrypted(), "encrypted"),
        (_pem(ec.generate_private_key(ec.SECP384R1())), "not on P-256"),
        (_pem(ec.generate_private_key(ec.SECP256K1())), "not on P-256"),
        (_pem(rsa.generate_private_key(65537, 2048)), "not on P-256"),
        (_pem(ed25519.Ed25519PrivateKey.generate()), "not on P-256"),
    ],
    ids=["empty", "bad DER", "bad PEM", "encrypted", "P-384", "secp256k1", "RSA", "Ed25519"],
)
def test_a_key_that_cannot_make_es256_is_refused_and_not_quoted(key: bytes, reason: str) -> None:
    # RFC 8225 §4.2: ES256 only.
    with pytest.raises(CredentialError, match=reason) as refused:
        load_signer(key)
    assert b"MIGH" not in str(refused.value).encode()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize(
    ("defect", "reason"),
    [
        (Defect.KEY_MISMATCH, "does not match"),
        (Defect.CA_LEAF, "CA certificate"),
        (Defect.NO_DIGITAL_SIGNATURE, "digitalSignature"),
        (Defect.NO_TNAUTHLIST, "no TNAuthList"),
        (Defect.MALFORMED_TNAUTHLIST, "TNAuthList"),
        (Defect.WRONG_CURVE, "not on P-256"),
        (Defect.RSA_LEAF, "not on P-256"),
    ],
)
def test_a_pair_that_verifiers_would_refuse_is_refused_at_the_start(
    authority: Authority, defect: Defect, reason: str
) -> None:
    with pytest.raises(CredentialError, match=reason):
        _load(authority.issue(spc=SPC, now=NOW, defect=defect))


def test_a_key_whose_certificate_is_another_curve_is_refused(authority: Authority, issued: Issued) -> None:
    other = authority.issue(spc=SPC, now=NOW, defect=Defect.WRONG_CURVE)
    with pytest.raises(CredentialError, match="not on P-256"):
        load_pair(key=issued.key, chain=other.chain, x5u=X5U, live_from=0.0, spc=SPC)


@pytest.mark.parametrize("defect", [Defect.EXPIRED, Defect.NOT_YET_VALID])
def test_a_pair_outside_its_validity_may_lie_ready_or_stay(authority: Authority, defect: Defect) -> None:
    loaded = _load(authority.issue(spc=SPC, now=NOW, defect=defect))
    assert Credential("main", (loaded,)).current(NOW) is None


def test_a_certificate_with_another_spc_is_refused_and_both_are_named(issued: Issued) -> None:
    with pytest.raises(CredentialError, match="SPC is 709J, the settings say 811K"):
        _load(issued, spc="811K")


def test_a_certificate_with_numbers_has_no_spc_to_compare(authority: Authority) -> None:
    delegate = authority.issue(numbers=(CALLER,), now=NOW)
    assert _load(delegate, spc=None).certificate.spc is None
    with pytest.raises(CredentialError, match="SPC is none, the settings say 709J"):
        _load(delegate)


@pytest.mark.parametrize(
    "x5u", ["http://certificates.example.com/a.pem", "https://10.0.0.1/a.pem", "https://a.example:9000/a"]
)
def test_an_x5u_that_verifiers_refuse_is_refused_at_the_start(issued: Issued, x5u: str) -> None:
    with pytest.raises(CredentialError, match="verifiers refuse it"):
        _load(issued, x5u=x5u)


def test_what_is_no_url_is_not_quoted(issued: Issued) -> None:
    # It may be a key that was pasted into the wrong line.
    with pytest.raises(CredentialError, match="verifiers refuse it") as refused:
        _load(issued, x5u="MIGHAgEAMBMGByqGSM49AgEG")
    assert "MIGH" not in str(refused.value)


def test_lab_hosts_may_have_any_port(issued: Issued) -> None:
    loaded = load_pair(
        key=issued.key,
        chain=issued.chain,
        x5u="https://127.0.0.1:9000/a",
        live_from=0.0,
        spc=SPC,
        lab_hosts=frozenset({"127.0.0.1:9000"}),
    )
    assert loaded.x5u == "https://127.0.0.1:9000/a"


def test_a_pair_that_would_go_live_after_its_end_is_refused(issued: Issued) -> None:
    with pytest.raises(CredentialError, match="live_from lies after the certificate's end on 2027-02-15 11:06 UTC"):
        load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=NOW + 90 * DAY, spc=SPC)


def test_a_signer_cannot_be_copied_pickled_or_shown(issued: Issued) -> None:
    signer, _ = load_signer(issued.key)
    assert repr(signer) == "LocalSigner(…)"
    for hand_out in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not handed around"):
            hand_out(signer)


def test_a_signer_translates_every_fault_of_the_library(issued: Issued) -> None:
    signer, _ = load_signer(issued.key)
    with pytest.raises(SigningError, match="TypeError"):
        signer.sign("text")  # type: ignore[arg-type]  # the fault


# --- Which credential -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trunk", "customer", "used"),
    [(None, None, "main"), (None, "second", "second"), ("third", "second", "third"), ("third", None, "third")],
    ids=["default", "customer's", "trunk's before customer's", "trunk's"],
)
def test_the_narrowest_credential_that_is_named_signs(
    authority: Authority, ours: SigningPair, trunk: str | None, customer: str | None, used: str
) -> None:
    others = [Credential(name, (pair(authority, x5u=f"{X5U}{name}"),)) for name in ("second", "third")]
    store = MemoryStore(policy_of(Trunk("t", replace(ACME, credential=customer), trunk)))
    signing = service(ours, store=store, others=others).sign(call(), NOW, RANDOM_ORIGID)
    assert signing.credential is not None
    assert signing.credential.name == used


@pytest.mark.parametrize(("named", "used"), [("second", "second"), (None, "main")])
def test_a_gateways_own_credential_signs_its_calls(
    authority: Authority, ours: SigningPair, named: str | None, used: str
) -> None:
    gateway = Gateway("intl", "International gateway", named)
    store = MemoryStore(Policy(gateways=(reached(gateway, GATEWAY_ADDRESS),)))
    others = [Credential("second", (pair(authority, x5u=NEXT),))]
    signing = service(ours, store=store, others=others).sign(call(source=GATEWAY_ADDRESS), NOW, RANDOM_ORIGID)
    assert signing.credential is not None
    assert signing.credential.name == used


def test_an_unknown_credential_leaves_the_call_unsigned_and_takes_no_other(ours: SigningPair) -> None:
    store = MemoryStore(policy_of(Trunk("t", ACME, "gone")))
    signing = service(ours, store=store).sign(call(), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity) == (SkipReason.NO_CREDENTIAL, None)


# --- For whom ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        ({"numbers": (CALLER,)}, True),
        ({"numbers": ("12155551213",)}, False),
        ({"ranges": (("12155551200", 100),)}, True),
        ({"ranges": (("12155551200", 12),)}, False),
        ({"ranges": (("12155551200", 13),)}, True),
        ({"spc": SPC, "numbers": ("12155551213",)}, True),
    ],
    ids=["number", "other number", "in range", "just behind the range", "last of the range", "SPC and number"],
)
def test_a_credential_signs_for_the_numbers_of_its_tnauthlist_alone(
    authority: Authority, scope: dict[str, object], covered: bool
) -> None:
    # RFC 8224 §6.1 step 1: MUST NOT add Identity where it is not authoritative.
    signing = service(pair(authority, **scope)).sign(call(), NOW, RANDOM_ORIGID)  # type: ignore[arg-type]  # choices
    assert (signing.identity is not None) == covered
    assert signing.skip is (None if covered else SkipReason.CREDENTIAL_SCOPE)


def test_a_credential_with_numbers_does_not_sign_for_a_uri(authority: Authority) -> None:
    message = replace(call(), callers=dict.fromkeys(call().callers, ("<sip:alice@example.com>",)))
    signing = service(pair(authority, numbers=(CALLER,))).sign(message, NOW, RANDOM_ORIGID)
    assert signing.skip is SkipReason.CREDENTIAL_SCOPE


# --- When -------------------------------------------------------------------------------------


@pytest.mark.parametrize("defect", [Defect.EXPIRED, Defect.NOT_YET_VALID])
def test_nothing_is_signed_outside_the_certificates_validity(authority: Authority, defect: Defect) -> None:
    signing = service(pair(authority, defect=defect)).sign(call(), NOW, RANDOM_ORIGID)
    assert (signing.skip, signing.identity) == (SkipReason.CREDENTIAL_NOT_VALID, None)


@pytest.mark.parametrize(
    ("issue", "now", "date"),
    [
        # Both moments are fresh, but one of the two lies outside the validity.
        ({"age": timedelta(0)}, NOW + 30, NOW - 1),
        ({"age": timedelta(0)}, NOW - 1, NOW + 30),
        ({"age": timedelta(0), "lifetime": timedelta(seconds=60)}, NOW + 59, NOW + 61),
        ({"age": timedelta(0), "lifetime": timedelta(seconds=60)}, NOW + 61, NOW + 59),
    ],
    ids=["Date before", "now before", "Date behind", "now behind"],
)
def test_now_and_date_must_both_lie_within_the_validity(
    authority: Authority, issue: dict[str, timedelta], now: float, date: float
) -> None:
    # RFC 8224 §6.1 step 3: "MUST verify that both the current time and the date lie within the
    # validity period of its credential".
    signer = service(pair(authority, **issue))  # type: ignore[arg-type]  # age and lifetime
    signing = signer.sign(call(date=format_date(date)), now, RANDOM_ORIGID)
    assert (signing.skip, signing.identity) == (SkipReason.CREDENTIAL_NOT_VALID, None)


def _x5u(signer: object, now: float) -> str | None:
    signing = signer.sign(call(callers=call().callers, to=sip("12025550143")), now, RANDOM_ORIGID)  # type: ignore[attr-defined]  # it is there
    return token_part(signing.identity, 0)["x5u"] if signing.identity else None


def test_the_next_pair_goes_live_at_its_second_and_the_old_one_signs_before(
    authority: Authority, ours: SigningPair
) -> None:
    signer = service(ours, pair(authority, x5u=NEXT, live_from=NOW + HOUR))
    assert _x5u(signer, NOW) == X5U
    assert _x5u(signer, NOW + HOUR - 0.001) == X5U
    assert _x5u(signer, NOW + HOUR) == NEXT


def test_the_old_pair_takes_over_again_when_the_newer_one_expires_first(
    authority: Authority, ours: SigningPair
) -> None:
    short = pair(authority, x5u=NEXT, live_from=NOW, age=timedelta(0), lifetime=timedelta(hours=1))
    signer = service(ours, short)
    assert _x5u(signer, NOW + HOUR) == NEXT
    assert _x5u(signer, NOW + HOUR + 1) == X5U


def test_a_live_pair_whose_certificate_is_not_valid_yet_does_not_displace_the_old_one(
    authority: Authority, ours: SigningPair
) -> None:
    early = pair(authority, x5u=NEXT, live_from=NOW, age=timedelta(hours=-1))
    signer = service(ours, early)
    assert _x5u(signer, NOW + HOUR - 1) == X5U
    assert _x5u(signer, NOW + HOUR) == NEXT


def _spans(authority: Authority, *spans: tuple[float, float, float]) -> Credential:
    """A credential of pairs that begin, end and go live some hours from now."""
    pairs = [
        pair(
            authority,
            x5u=f"{X5U}{index}",
            live_from=NOW + live * HOUR,
            age=timedelta(hours=-start),
            lifetime=timedelta(hours=end - start),
        )
        for index, (start, end, live) in enumerate(spans)
    ]
    return Credential("main", tuple(pairs))


@pytest.mark.parametrize(
    ("spans", "hours"),
    [
        ([(-1, 10, 0)], 10),
        ([(-1, 10, 0), (5, 20, 8)], 20),
        ([(-1, 10, 0), (12, 20, 0)], 10),
        ([(-1, 10, 0), (5, 20, 11)], 10),
        ([(-1, 10, 0), (-1, 4, 2)], 10),
        ([(-20, -10, -20)], 0),
        ([(1, 10, 0)], 0),
        ([(-1, 10, 0), (15, 30, 0), (5, 20, 5)], 30),
    ],
    ids=["one", "next in time", "gap", "live too late", "newer ends first", "expired", "not yet", "any order"],
)
def test_lasts_until_is_the_moment_at_which_signing_will_stop(
    authority: Authority, spans: list[tuple[float, float, float]], hours: float
) -> None:
    assert _spans(authority, *spans).lasts_until(NOW) == NOW + hours * HOUR


def test_lasts_until_of_no_pair_is_now() -> None:
    assert Credential("main", ()).lasts_until(NOW) == NOW
