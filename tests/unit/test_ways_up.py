"""Finding the way from a certificate to an anchor, in bounded time whatever lies in the document."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.core import waysup
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.issuers import MAX_CHAIN
from shaken_plugin.core.waysup import is_signed_by, way_up
from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.lab.pki import Authority
from tests.conftest import NOW
from tests.unit.test_certificates import CA_EXTENSIONS, DAY, KEY, LEAF_EXTENSIONS, START, certificate, code

X = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "X")])


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[x509.Certificate]:
    """The certificates with whose key a signature was checked, names that do not fit left out."""
    parents: list[x509.Certificate] = []

    def noted(child: x509.Certificate, parent: x509.Certificate) -> bool:
        if child.issuer == parent.subject:
            parents.append(parent)
        return is_signed_by(child, parent)

    monkeypatch.setattr(waysup, "is_signed_by", noted)
    return parents


def issued(
    key: Any, serial: int, issuer: x509.Name, issuer_key: Any, age: timedelta = timedelta(0)
) -> x509.Certificate:
    """A CA certificate of the name X."""
    builder = x509.CertificateBuilder(issuer, X, key.public_key(), serial)
    builder = builder.not_valid_before(START - age).not_valid_after(START - age + 2 * DAY)
    for extension, critical in CA_EXTENSIONS:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, SHA256())


def below(authority: Authority, key: Any) -> x509.Certificate:
    return certificate(authority, *LEAF_EXTENSIONS, issuer=X, issuer_key=key)


def test_a_stranger_s_certificates_cost_no_check_with_a_stranger_s_key(
    authority: Authority, checks: list[x509.Certificate]
) -> None:
    """Seven of one name and one key cost 28 ms at every call, on P-521 190 ms."""
    many = [issued(KEY, serial, X, KEY) for serial in range(1, MAX_CHAIN)]
    assert code(authority, below(authority, KEY), *many) is FailureCode.CERTIFICATE_UNTRUSTED
    assert checks == []
    lying = [issued(KEY, serial, authority.root.subject, KEY) for serial in range(1, MAX_CHAIN)]
    assert code(authority, below(authority, KEY), *lying) is FailureCode.CERTIFICATE_UNTRUSTED
    assert checks == [authority.root] * len(lying)


def test_a_delegate_s_own_certificates_are_not_tried_in_every_order(
    authority: Authority, checks: list[x509.Certificate]
) -> None:
    first = issued(KEY, 1, authority.root.subject, authority.root_key)
    chain = [below(authority, KEY), *(issued(KEY, serial, X, KEY) for serial in range(2, MAX_CHAIN)), first]
    assert TrustAnchors([authority.root]).path(chain, NOW) == [chain[0], first, authority.root]
    assert checks == [authority.root, first]


def test_longest_way_is_found_and_each_step_is_checked_once(authority: Authority) -> None:
    keys = [authority.root_key, *(ec.generate_private_key(ec.SECP256R1()) for _ in range(MAX_CHAIN - 1))]
    names = [authority.root.subject, *[X] * (MAX_CHAIN - 1)]
    above = [issued(keys[n + 1], n + 1, names[n], keys[n]) for n in range(MAX_CHAIN - 1)]
    assert way_up([below(authority, keys[-1]), *above], [authority.root], NOW) == above[::-1]


def test_a_renewed_issuer_is_taken_whatever_its_place(authority: Authority) -> None:
    old = issued(KEY, 1, authority.root.subject, authority.root_key, age=5 * DAY)
    early = issued(KEY, 2, authority.root.subject, authority.root_key, age=-5 * DAY)
    new = issued(KEY, 3, authority.root.subject, authority.root_key)
    assert code(authority, below(authority, KEY), old, early, new) is None
    assert code(authority, below(authority, KEY), old) is FailureCode.CERTIFICATE_EXPIRED
    assert code(authority, below(authority, KEY), early) is FailureCode.CERTIFICATE_NOT_YET_VALID


@pytest.mark.parametrize(
    ("generate", "fits"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), True),
        (lambda: rsa.generate_private_key(65_537, 2_048), True),
        (lambda: ec.generate_private_key(ec.SECP521R1()), False),
        (lambda: rsa.generate_private_key(65_537, 4_104), False),
        (ed25519.Ed25519PrivateKey.generate, False),
    ],
    ids=["P-384", "RSA 2048", "P-521", "RSA 4104", "Ed25519"],
)
def test_keys_of_issuers_are_bounded(authority: Authority, generate: Callable[[], Any], fits: bool) -> None:
    key = generate()
    issuer = issued(key, 1, authority.root.subject, authority.root_key)
    leaf = below(authority, KEY if isinstance(key, ed25519.Ed25519PrivateKey) else key)
    if fits:
        assert code(authority, leaf, issuer) is None
        return
    with pytest.raises(VerificationFailure, match="an issuer's key is none of P-256, P-384 and RSA") as caught:
        TrustAnchors([authority.root]).validate([leaf, issuer], NOW)
    assert caught.value.code is FailureCode.CERTIFICATE_UNTRUSTED


def test_an_issuer_s_key_that_cannot_be_read_leads_nowhere(authority: Authority) -> None:
    point = KEY.public_key().public_numbers().y.to_bytes(32)
    whole = issued(KEY, 1, authority.root.subject, authority.root_key)
    issuer = x509.load_der_x509_certificate(whole.public_bytes(Encoding.DER).replace(point, bytes(32)))
    assert code(authority, below(authority, KEY), issuer) is FailureCode.CERTIFICATE_UNTRUSTED
