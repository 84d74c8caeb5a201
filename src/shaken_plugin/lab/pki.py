"""A certificate authority for tests, after the profile of ATIS-1000080, with deliberate defects.

    authority = Authority.new(now)
    issued = authority.issue(spc="709J", now=now)
    issued.key, issued.chain, authority.root_pem

Every certificate looks like a real one, so that what refuses it is what would refuse a real one.
Keys lie about unencrypted: never trust a lab's root outside the lab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from shaken_plugin.core.tnauthlist import OID as TNAUTHLIST_OID
from shaken_plugin.core.tnauthlist import TnAuthList, TnRange

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

POLICY_OID: Final = x509.ObjectIdentifier("2.16.840.1.114569.1.1.4")
"""SHAKEN certificate policy 1.4, as leafs in use carry it."""
CRL_URL: Final = "https://sti-pa.example/download/v1/crl"
_CRL_ISSUER = (("C", "US"), ("O", "Lab STI-PA"), ("CN", "Lab STI-PA CRL"))


AGE: Final = timedelta(days=1)
"""How long ago the validity of a certificate began, unless it is told: clocks differ."""


class Defect(Enum):
    """What can be wrong with a certificate on purpose."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNTRUSTED = "untrusted"
    ISSUER_EXPIRED = "issuer-expired"
    ISSUER_NOT_CA = "issuer-not-ca"
    MISSING_ISSUER = "missing-issuer"
    NO_DIGITAL_SIGNATURE = "no-digital-signature"
    CA_LEAF = "ca-leaf"
    WRONG_CURVE = "wrong-curve"
    RSA_LEAF = "rsa-leaf"
    NO_TNAUTHLIST = "no-tnauthlist"
    MALFORMED_TNAUTHLIST = "malformed-tnauthlist"
    KEY_MISMATCH = "key-mismatch"


class KeyKind(Enum):
    """Keys of issuers; leafs have P-256."""

    P256 = "p256"
    P384 = "p384"
    RSA = "rsa"


@dataclass(frozen=True, slots=True)
class Issued:
    """A key and its chain, PEM; the key is on P-256 unless the defect is another kind."""

    key: bytes
    chain: bytes
    certificate: x509.Certificate


def _new_key(kind: KeyKind) -> Key:
    if kind is KeyKind.RSA:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1() if kind is KeyKind.P256 else ec.SECP384R1())


def key_pem(key: Key) -> bytes:
    """A private key as unencrypted PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


_ATTRIBUTES = {"C": NameOID.COUNTRY_NAME, "O": NameOID.ORGANIZATION_NAME, "CN": NameOID.COMMON_NAME}


def _name(parts: Sequence[tuple[str, str]]) -> x509.Name:
    return x509.Name([x509.NameAttribute(_ATTRIBUTES[kind], value) for kind, value in parts])


@dataclass(frozen=True, slots=True)
class Authority:
    """A root and an intermediate that issue certificates."""

    root_key: Key
    root: x509.Certificate
    issuer_key: Key
    issuer: x509.Certificate

    @classmethod
    def new(cls, now: float, *, name: str = "Lab", kind: KeyKind = KeyKind.P256) -> Authority:
        """A new authority whose certificates are valid from a year ago for ten years.

        Args:
            now: POSIX seconds.
            name: stands in the names of both certificates.
            kind: of both keys.
        """
        start = datetime.fromtimestamp(now, UTC) - timedelta(days=365)
        root_key, issuer_key = _new_key(kind), _new_key(kind)
        root_name = _name([("C", "US"), ("O", f"{name} STI-CA"), ("CN", f"{name} SHAKEN ROOT")])
        issuer_name = _name([("C", "US"), ("O", f"{name} STI-CA"), ("CN", f"{name} SHAKEN Intermediate")])
        root = _ca(root_name, root_key, root_name, root_key, start, timedelta(days=3650))
        issuer = _ca(issuer_name, issuer_key, root_name, root_key, start, timedelta(days=3600), length=0)
        return cls(root_key, root, issuer_key, issuer)

    @classmethod
    def load(cls, document: bytes) -> Authority:
        """An authority from what `dump` made.

        Raises:
            ValueError: it is something else.
        """
        blocks = [part + b"-----END" for part in document.split(b"-----END") if b"-----BEGIN" in part]
        if len(blocks) != 4:
            raise ValueError("not a lab authority")
        keys = [_load_key(document, index) for index in (0, 1)]
        certificates = x509.load_pem_x509_certificates(document)
        return cls(keys[0], certificates[0], keys[1], certificates[1])

    def dump(self) -> bytes:
        """Keys and certificates, to issue more later."""
        return key_pem(self.root_key) + key_pem(self.issuer_key) + _pem(self.root, self.issuer)

    @property
    def root_pem(self) -> bytes:
        """The trust anchor."""
        return _pem(self.root)

    def issue(
        self,
        *,
        now: float,
        spc: str | None = None,
        numbers: Sequence[str] = (),
        ranges: Sequence[tuple[str, int]] = (),
        lifetime: timedelta = timedelta(days=90),
        age: timedelta = AGE,
        defect: Defect | None = None,
    ) -> Issued:
        """A signing key and its chain.

        Args:
            now: POSIX seconds.
            spc: Service Provider Code for the TNAuthList.
            numbers: single numbers for it.
            ranges: first number and count for it.
            lifetime: from start to end of validity, ``age`` included.
            age: how long ago validity began; negative for the future.
            defect: what shall be wrong.
        """
        moment = datetime.fromtimestamp(now, UTC)
        start = moment - age
        if defect is Defect.EXPIRED:
            start = moment - lifetime - timedelta(days=1)
        elif defect is Defect.NOT_YET_VALID:
            start = moment + timedelta(days=1)
        signer = self
        if defect is Defect.UNTRUSTED:
            signer = Authority.new(now, name="Unknown")
        issuer, issuer_key, above = signer.issuer, signer.issuer_key, list[x509.Certificate]()
        if defect is Defect.ISSUER_EXPIRED:
            issuer = _ca(
                issuer.subject, issuer_key, self.root.subject, self.root_key,
                moment - timedelta(days=60), timedelta(days=30), length=0,
            )  # fmt: skip
        elif defect is Defect.ISSUER_NOT_CA:
            other = self.issue(now=now, spc=spc or "000X")
            issuer, issuer_key, above = other.certificate, _load_key(other.key, 0), [self.issuer]
        key = _leaf_key(defect)
        builder = _builder(_leaf_name(spc, numbers), key, issuer.subject, issuer_key, start, lifetime)
        builder = _leaf_extensions(builder, defect)
        if defect is not Defect.NO_TNAUTHLIST:
            content = TnAuthList(
                (spc,) if spc else (), tuple(TnRange(first, count) for first, count in ranges), tuple(numbers)
            ).to_der()
            if defect is Defect.MALFORMED_TNAUTHLIST:
                content = content[:-1]
            builder = builder.add_extension(x509.UnrecognizedExtension(TNAUTHLIST_OID, content), critical=False)
        leaf = builder.sign(issuer_key, _hash(issuer_key))
        chain = _pem(leaf) if defect is Defect.MISSING_ISSUER else _pem(leaf, issuer, *above)
        return Issued(key_pem(_new_key(KeyKind.P256) if defect is Defect.KEY_MISMATCH else key), chain, leaf)


def _leaf_key(defect: Defect | None) -> Key:
    if defect is Defect.WRONG_CURVE:
        return _new_key(KeyKind.P384)
    return _new_key(KeyKind.RSA if defect is Defect.RSA_LEAF else KeyKind.P256)


def _leaf_name(spc: str | None, numbers: Sequence[str]) -> x509.Name:
    holder = f"SHAKEN {spc}" if spc else f"SHAKEN delegate {numbers[0] if numbers else 'range'}"
    return _name([("C", "US"), ("O", "Lab Provider"), ("CN", holder)])


def _load_key(document: bytes, index: int) -> Key:
    blocks = document.split(b"-----BEGIN PRIVATE KEY-----")
    key = load_pem_private_key(b"-----BEGIN PRIVATE KEY-----" + blocks[index + 1], password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def _hash(key: Key) -> hashes.SHA256 | hashes.SHA384:
    is_p384 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
    return hashes.SHA384() if is_p384 else hashes.SHA256()


def _builder(
    subject: x509.Name, key: Key, issuer: x509.Name, issuer_key: Key, start: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _usage(*, signs: bool, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=not signs and not certifies,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certifies,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _leaf_extensions(builder: x509.CertificateBuilder, defect: Defect | None) -> x509.CertificateBuilder:
    is_ca = defect is Defect.CA_LEAF
    signs = defect is not Defect.NO_DIGITAL_SIGNATURE
    distribution = x509.DistributionPoint(
        [x509.UniformResourceIdentifier(CRL_URL)], None, None, [x509.DirectoryName(_name(_CRL_ISSUER))]
    )
    return (
        builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(_usage(signs=signs, certifies=is_ca), critical=True)
        .add_extension(x509.CertificatePolicies([x509.PolicyInformation(POLICY_OID, None)]), critical=False)
        .add_extension(x509.CRLDistributionPoints([distribution]), critical=False)
    )


def _ca(
    subject: x509.Name,
    key: Key,
    issuer: x509.Name,
    issuer_key: Key,
    start: datetime,
    lifetime: timedelta,
    length: int | None = None,
) -> x509.Certificate:
    return (
        _builder(subject, key, issuer, issuer_key, start, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
        .add_extension(_usage(signs=False, certifies=True), critical=True)
        .sign(issuer_key, _hash(issuer_key))
    )
