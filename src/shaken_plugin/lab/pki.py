"""A certificate authority for tests, after the profile of ATIS-1000080, with deliberate defects.

    authority = Authority.new(now)
    issued = authority.issue(spc="709J", now=now)
    issued.key, issued.chain, authority.root_pem

Every certificate looks like a real one, so that what refuses it is what would refuse a real one.
Keys lie about unencrypted: never trust a lab's root outside the lab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

from shaken_plugin.core.constraints import ENHANCED_OID, ClaimConstraints
from shaken_plugin.core.constraints import OID as CONSTRAINTS_OID
from shaken_plugin.core.extensions import tnauthlist_of
from shaken_plugin.core.tnauthlist import OID as TNAUTHLIST_OID
from shaken_plugin.core.tnauthlist import TnAuthList, TnRange

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

POLICY_OID: Final = x509.ObjectIdentifier("2.16.840.1.114569.1.1.4")
"""SHAKEN certificate policy 1.4, as leafs in use carry it."""
CRL_URL: Final = "https://sti-pa.example/download/v1/crl"
CRL_ISSUER: Final = (("C", "US"), ("O", "Lab STI-PA"), ("CN", "Lab STI-PA CRL"))
"""The name that leafs have as cRLIssuer; `lab.administrator` signs under it."""


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


def x500_name(parts: Sequence[tuple[str, str]]) -> x509.Name:
    """A name of pairs such as ``("CN", "SHAKEN 709J")``."""
    return x509.Name([x509.NameAttribute(_ATTRIBUTES[kind], value) for kind, value in parts])


@dataclass(frozen=True, slots=True)
class Authority:
    """A root and an intermediate that issue certificates.

    ``above`` are the certificates between the issuer and the root, where a `delegate` issues.
    """

    root_key: Key
    root: x509.Certificate
    issuer_key: Key
    issuer: x509.Certificate
    above: tuple[x509.Certificate, ...] = ()

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
        root_name = x500_name([("C", "US"), ("O", f"{name} STI-CA"), ("CN", f"{name} SHAKEN ROOT")])
        issuer_name = x500_name([("C", "US"), ("O", f"{name} STI-CA"), ("CN", f"{name} SHAKEN Intermediate")])
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

    def delegate(
        self,
        *,
        now: float,
        spc: str | None = None,
        numbers: Sequence[str] = (),
        ranges: Sequence[tuple[str, int]] = (),
    ) -> Authority:
        """A holder of numbers who issues for parts of them (RFC 9060 §4): a CA with a TNAuthList.

        The first is issued by the root, because the intermediate lets no CA stand below it; a
        delegate's delegate by that one. Nothing keeps it from more than its parent has.
        """
        start = datetime.fromtimestamp(now, UTC) - timedelta(days=30)
        is_first = tnauthlist_of(self.issuer) is None
        parent, parent_key = (self.root, self.root_key) if is_first else (self.issuer, self.issuer_key)
        key = _new_key(KeyKind.P256)
        name = x500_name(
            [("C", "US"), ("O", "Lab Delegate"), ("CN", f"SHAKEN delegate CA {x509.random_serial_number():x}")]
        )
        builder = _ca_builder(name, key, parent.subject, parent_key, start, timedelta(days=720))
        builder = builder.add_extension(_tnauthlist(spc, numbers, ranges), critical=False)
        issuer = builder.sign(parent_key, _hash(parent_key))
        return replace(self, issuer_key=key, issuer=issuer, above=() if is_first else (self.issuer, *self.above))

    def issue(
        self,
        *,
        now: float,
        spc: str | None = None,
        numbers: Sequence[str] = (),
        ranges: Sequence[tuple[str, int]] = (),
        lifetime: timedelta = timedelta(days=90),
        age: timedelta = AGE,
        constraints: ClaimConstraints | None = None,
        enhanced: ClaimConstraints | None = None,
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
            constraints: JWTClaimConstraints (RFC 8226 §8).
            enhanced: EnhancedJWTClaimConstraints (RFC 9118).
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
        issuer, issuer_key, above = signer.issuer, signer.issuer_key, list(signer.above)
        if defect is Defect.ISSUER_EXPIRED:
            issuer = _ca(
                issuer.subject, issuer_key, self.root.subject, self.root_key,
                moment - timedelta(days=60), timedelta(days=30), length=0,
            )  # fmt: skip
        elif defect is Defect.ISSUER_NOT_CA:
            other = self.issue(now=now, spc=spc or "000X")
            issuer, issuer_key, above = other.certificate, _load_key(other.key, 0), [self.issuer]
        key = _leaf_key(defect)
        builder = certificate_builder(_leaf_name(spc, numbers), key, issuer.subject, issuer_key, start, lifetime)
        builder = _leaf_extensions(builder, defect)
        if defect is not Defect.NO_TNAUTHLIST:
            content = _tnauthlist(spc, numbers, ranges)
            if defect is Defect.MALFORMED_TNAUTHLIST:
                content = x509.UnrecognizedExtension(content.oid, content.value[:-1])
            builder = builder.add_extension(content, critical=False)
        for oid, value in ((CONSTRAINTS_OID, constraints), (ENHANCED_OID, enhanced)):
            if value is not None:
                builder = builder.add_extension(x509.UnrecognizedExtension(oid, value.to_der()), critical=False)
        leaf = builder.sign(issuer_key, _hash(issuer_key))
        chain = _pem(leaf) if defect is Defect.MISSING_ISSUER else _pem(leaf, issuer, *above)
        return Issued(key_pem(_new_key(KeyKind.P256) if defect is Defect.KEY_MISMATCH else key), chain, leaf)


def _tnauthlist(
    spc: str | None, numbers: Sequence[str], ranges: Sequence[tuple[str, int]]
) -> x509.UnrecognizedExtension:
    spans = tuple(TnRange(first, count) for first, count in ranges)
    return x509.UnrecognizedExtension(TNAUTHLIST_OID, TnAuthList((spc,) if spc else (), spans, tuple(numbers)).to_der())


def _leaf_key(defect: Defect | None) -> Key:
    if defect is Defect.WRONG_CURVE:
        return _new_key(KeyKind.P384)
    return _new_key(KeyKind.RSA if defect is Defect.RSA_LEAF else KeyKind.P256)


def _leaf_name(spc: str | None, numbers: Sequence[str]) -> x509.Name:
    holder = f"SHAKEN {spc}" if spc else f"SHAKEN delegate {numbers[0] if numbers else 'range'}"
    return x500_name([("C", "US"), ("O", "Lab Provider"), ("CN", holder)])


def _load_key(document: bytes, index: int) -> Key:
    blocks = document.split(b"-----BEGIN PRIVATE KEY-----")
    key = load_pem_private_key(b"-----BEGIN PRIVATE KEY-----" + blocks[index + 1], password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def _hash(key: Key) -> hashes.SHA256 | hashes.SHA384:
    is_p384 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
    return hashes.SHA384() if is_p384 else hashes.SHA256()


def certificate_builder(
    subject: x509.Name, key: Key, issuer: x509.Name, issuer_key: Key, start: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    """A certificate with names, key, validity and key identifiers."""
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


def key_usage(*, signs: bool = False, certifies: bool = False, lists: bool = False) -> x509.KeyUsage:
    """digitalSignature, keyCertSign, cRLSign; or a useless one, because an empty key usage is none."""
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=not (signs or certifies or lists),
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certifies,
        crl_sign=lists,
        encipher_only=False,
        decipher_only=False,
    )


def _leaf_extensions(builder: x509.CertificateBuilder, defect: Defect | None) -> x509.CertificateBuilder:
    is_ca = defect is Defect.CA_LEAF
    signs = defect is not Defect.NO_DIGITAL_SIGNATURE
    distribution = x509.DistributionPoint(
        [x509.UniformResourceIdentifier(CRL_URL)], None, None, [x509.DirectoryName(x500_name(CRL_ISSUER))]
    )
    return (
        builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(key_usage(signs=signs, certifies=is_ca), critical=True)
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
    builder = _ca_builder(subject, key, issuer, issuer_key, start, lifetime, length)
    return builder.sign(issuer_key, _hash(issuer_key))


def _ca_builder(
    subject: x509.Name,
    key: Key,
    issuer: x509.Name,
    issuer_key: Key,
    start: datetime,
    lifetime: timedelta,
    length: int | None = None,
) -> x509.CertificateBuilder:
    return (
        certificate_builder(subject, key, issuer, issuer_key, start, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
        .add_extension(key_usage(signs=False, certifies=True), critical=True)
    )
