"""Certificates put together octet by octet, so that anything about them can be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from shaken_plugin.certs.credentials import load_signer
from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lab.pki import CRL_ISSUER
from shaken_plugin.lint.certificate import (
    AUTHORITY_KEY_IDENTIFIER,
    BASIC_CONSTRAINTS,
    CERTIFICATE_POLICIES,
    COMMON_NAME,
    COUNTRY,
    CP_1_4,
    CRL_DISTRIBUTION_POINTS,
    ECDSA_SHA256,
    ECDSA_SHA384,
    KEY_USAGE,
    ORGANIZATION,
    SUBJECT_KEY_IDENTIFIER,
    TNAUTHLIST,
    Certificate,
)
from shaken_plugin.lint.revocation import Crl
from shaken_plugin.ports import Signer
from tests.conftest import NOW

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
RSA_SHA256 = "1.2.840.113549.1.1.11"
DAY = 86_400.0
PRINTABLE, UTF8 = 0x13, 0x0C


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for arc in (40 * first + second, *rest):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.insert(0, arc & 0x7F | 0x80)
        content += bytes(octets)
    return tlv(0x06, content)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def time(moment: float, *, generalized: bool = False) -> bytes:
    if generalized:
        return tlv(0x18, f"{datetime.fromtimestamp(moment, UTC):%Y%m%d%H%M%SZ}".encode())
    # RFC 5280 §4.1.2.5: "CAs … MUST always encode certificate validity dates through the year 2049 as UTCTime".
    return tlv(0x17, f"{datetime.fromtimestamp(moment, UTC):%y%m%d%H%M%SZ}".encode())


def policies(*dotted: str) -> bytes:
    return tlv(0x30, *(tlv(0x30, oid(one)) for one in dotted))


def crl_point(url: str | None = "https://sti-pa.example/crl", issuer: bytes | None = b"") -> bytes:
    """``issuer`` is the name of the list's issuer, that of the lab by default."""
    point = tlv(0xA0, tlv(0xA0, tlv(0x86, url.encode()))) if url is not None else b""
    point += tlv(0xA2, tlv(0xA4, issuer or name(*CRL_ISSUER))) if issuer is not None else b""
    return tlv(0x30, point)


def key_usage(*bits: int) -> bytes:
    value = sum(0x80 >> bit for bit in bits)
    unused = (value & -value).bit_length() - 1
    return tlv(0x03, bytes((unused, value)) if value else b"\0")


def tnauthlist(*codes: str) -> bytes:
    return tlv(0x30, *(tlv(0xA0, tlv(0x16, code.encode())) for code in codes))


_KINDS = {"C": COUNTRY, "O": ORGANIZATION, "CN": COMMON_NAME, "serialNumber": "2.5.4.5"}


def name(*attributes: tuple[str, str] | tuple[str, str, int]) -> bytes:
    made = []
    for kind, text, *tag in attributes:
        value = tlv(tag[0] if tag else UTF8, text.encode())
        made.append(tlv(0x31, tlv(0x30, oid(_KINDS[kind]), value)))
    return tlv(0x30, *made)


@cache
def key(label: str = "leaf", kind: str = "p256") -> Key:
    """A key of its own for every label."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1())


def signer(label: str = "leaf") -> Signer:
    """The key of a label as the command loads it."""
    return load_signer(key(label).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))[0]


PA = PolicyAdministrator.new(NOW)


def crl(*revoked: Recipe, now: float = NOW) -> Crl:
    """The list of the lab, a day long."""
    named = [x509.load_der_x509_certificate(recipe.der()) for recipe in revoked]
    return Crl.parse("list.crl", PA.crl(named, now=now), [PA.crl_signer], NOW)


def spki(private: Key) -> bytes:
    return private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def identifier(private: Key) -> bytes:
    kind = PublicFormat.UncompressedPoint if isinstance(private, ec.EllipticCurvePrivateKey) else PublicFormat.PKCS1
    encoding = Encoding.X962 if isinstance(private, ec.EllipticCurvePrivateKey) else Encoding.DER
    return hashlib.sha1(private.public_key().public_bytes(encoding, kind)).digest()


@dataclass(frozen=True)
class Recipe:
    """A certificate to be; ``extensions`` are (critical, value) by OID."""

    subject: bytes
    issuer: bytes
    own_key: Key
    issuer_key: Key
    extensions: Mapping[str, tuple[bool, bytes]] = field(default_factory=dict)
    version: int | None = 2
    serial: int = 0x7EDCBA9876543210FEDC
    not_before: float = NOW - 10 * DAY
    not_after: float = NOW + 80 * DAY
    generalized: bool = False
    """Whether the end of the validity is written as GeneralizedTime."""
    algorithm: str = ECDSA_SHA256
    inner_algorithm: str | None = None
    parameters: bytes = b""
    public_key: bytes | None = None
    more: Sequence[bytes] = ()

    def but(self, **changes: object) -> Recipe:
        return replace(self, **changes)  # type: ignore[arg-type]  # a test says what fits

    def having(self, kind: str, value: bytes, *, critical: bool = False) -> Recipe:
        return replace(self, extensions={**self.extensions, kind: (critical, value)})

    def without(self, kind: str) -> Recipe:
        return replace(self, extensions={one: value for one, value in self.extensions.items() if one != kind})

    def critical(self, kind: str, critical: bool) -> Recipe:
        return self.having(kind, self.extensions[kind][1], critical=critical)

    def der(self) -> bytes:
        def algorithm(which: str) -> bytes:
            return tlv(0x30, oid(which), self.parameters)

        listed = [
            tlv(0x30, oid(kind), tlv(0x01, b"\xff") if critical else b"", tlv(0x04, value))
            for kind, (critical, value) in self.extensions.items()
        ]
        extensions = [*listed, *self.more]
        tbs = tlv(
            0x30,
            b"" if self.version is None else tlv(0xA0, integer(self.version)),
            integer(self.serial),
            algorithm(self.inner_algorithm or self.algorithm),
            self.issuer,
            tlv(0x30, time(self.not_before), time(self.not_after, generalized=self.generalized)),
            self.subject,
            self.public_key or spki(self.own_key),
            tlv(0xA3, tlv(0x30, *extensions)) if extensions else b"",
        )
        digest = hashes.SHA384() if self.algorithm == ECDSA_SHA384 else hashes.SHA256()
        if isinstance(self.issuer_key, ec.EllipticCurvePrivateKey):
            signature = self.issuer_key.sign(tbs, ec.ECDSA(digest))
        else:
            signature = self.issuer_key.sign(tbs, padding.PKCS1v15(), digest)
        return tlv(0x30, tbs, algorithm(self.algorithm), tlv(0x03, b"\0", signature))

    @property
    def certificate(self) -> Certificate:
        return Certificate.parse(self.der())


ROOT_NAME = name(("C", "US"), ("O", "Lab STI-CA"), ("CN", "Lab SHAKEN ROOT"))
ISSUER_NAME = name(("C", "US"), ("O", "Lab STI-CA"), ("CN", "Lab SHAKEN Intermediate"))
LEAF_NAME = name(("C", "US"), ("O", "Lab Provider"), ("CN", "SHAKEN 709J"), ("serialNumber", "7", PRINTABLE))


def _identifiers(own: Key, issuer: Key) -> dict[str, tuple[bool, bytes]]:
    return {
        SUBJECT_KEY_IDENTIFIER: (False, tlv(0x04, identifier(own))),
        AUTHORITY_KEY_IDENTIFIER: (False, tlv(0x30, tlv(0x80, identifier(issuer)))),
    }


def root() -> Recipe:
    own = key("root")
    return Recipe(
        ROOT_NAME, ROOT_NAME, own, own,
        {
            BASIC_CONSTRAINTS: (True, tlv(0x30, tlv(0x01, b"\xff"))),
            KEY_USAGE: (True, key_usage(5)),
            **_identifiers(own, own),
        },
        not_before=NOW - 365 * DAY, not_after=NOW + 3650 * DAY,
    )  # fmt: skip


def issuer() -> Recipe:
    own, above = key("issuer"), key("root")
    return Recipe(
        ISSUER_NAME, ROOT_NAME, own, above,
        {
            BASIC_CONSTRAINTS: (True, tlv(0x30, tlv(0x01, b"\xff"), integer(0))),
            KEY_USAGE: (True, key_usage(5)),
            CERTIFICATE_POLICIES: (False, policies(CP_1_4)),
            CRL_DISTRIBUTION_POINTS: (False, tlv(0x30, crl_point())),
            **_identifiers(own, above),
        },
        not_before=NOW - 365 * DAY, not_after=NOW + 3000 * DAY,
    )  # fmt: skip


def leaf() -> Recipe:
    own, above = key("leaf"), key("issuer")
    return Recipe(
        LEAF_NAME, ISSUER_NAME, own, above,
        {
            BASIC_CONSTRAINTS: (True, tlv(0x30)),
            KEY_USAGE: (True, key_usage(0)),
            CERTIFICATE_POLICIES: (False, policies(CP_1_4)),
            CRL_DISTRIBUTION_POINTS: (False, tlv(0x30, crl_point())),
            TNAUTHLIST: (False, tnauthlist("709J")),
            **_identifiers(own, above),
        },
    )  # fmt: skip


def pem(*documents: bytes) -> bytes:
    import base64

    return b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(one) + b"-----END CERTIFICATE-----\n" for one in documents
    )
