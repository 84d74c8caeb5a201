"""A certificate as its octets say it (RFC 5280 §4.1), also where a strict library refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shaken_plugin.core.tnauthlist import OID as TNAUTHLIST_OID
from shaken_plugin.core.tnauthlist import TnAuthList, TnAuthListError
from shaken_plugin.lint import der
from shaken_plugin.lint.der import DerError, Element

COUNTRY: Final = "2.5.4.6"
ORGANIZATION: Final = "2.5.4.10"
COMMON_NAME: Final = "2.5.4.3"
SERIAL_NUMBER: Final = "2.5.4.5"

_SHORT: Final = {COUNTRY: "C", ORGANIZATION: "O", COMMON_NAME: "CN", SERIAL_NUMBER: "serialNumber",
                 "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.11": "OU"}  # fmt: skip

SUBJECT_KEY_IDENTIFIER: Final = "2.5.29.14"
KEY_USAGE: Final = "2.5.29.15"
BASIC_CONSTRAINTS: Final = "2.5.29.19"
CRL_DISTRIBUTION_POINTS: Final = "2.5.29.31"
CERTIFICATE_POLICIES: Final = "2.5.29.32"
AUTHORITY_KEY_IDENTIFIER: Final = "2.5.29.35"
TNAUTHLIST: Final = TNAUTHLIST_OID.dotted_string

ECDSA_SHA256: Final = "1.2.840.10045.4.3.2"
ECDSA_SHA384: Final = "1.2.840.10045.4.3.3"
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    ECDSA_SHA256: hashes.SHA256(), ECDSA_SHA384: hashes.SHA384(), "1.2.840.10045.4.3.4": hashes.SHA512(),
    "1.2.840.113549.1.1.11": hashes.SHA256(), "1.2.840.113549.1.1.12": hashes.SHA384(),
    "1.2.840.113549.1.1.13": hashes.SHA512(),
}  # fmt: skip

CP_1_3: Final = "2.16.840.1.114569.1.1.3"
CP_1_4: Final = "2.16.840.1.114569.1.1.4"
"""Policies of the United States (CP 1.3 §1.3, CP 1.4 §1.2)."""


class Attribute(NamedTuple):
    """One attribute of a name; ``tag`` is that of its string type."""

    oid: str
    text: str
    tag: int


class Name(tuple[Attribute, ...]):
    """A distinguished name, in the order of its encoding."""

    __slots__ = ()

    def values(self, kind: str) -> list[str]:
        """The texts of all attributes of a type."""
        return [attribute.text for attribute in self if attribute.oid == kind]

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What is compared: RFC 5280 §7.1 folds case and white space, whatever the string type."""
        return tuple((attribute.oid, " ".join(attribute.text.casefold().split())) for attribute in self)

    def __str__(self) -> str:
        return ", ".join(f"{_SHORT.get(attribute.oid, attribute.oid)}={attribute.text}" for attribute in self)


class Extension(NamedTuple):
    """One extension; ``value`` is the content of its OCTET STRING."""

    oid: str
    critical: bool
    value: bytes


class Algorithm(NamedTuple):
    """An AlgorithmIdentifier; ``parameters`` is None where they are absent."""

    oid: str
    parameters: Element | None
    whole: bytes


@dataclass(frozen=True, eq=False)
class Certificate:
    """What a certificate says, and the octets after it. Nothing is verified.

    ``not_before`` and ``not_after`` in POSIX seconds. Properties that read an extension raise
    `DerError` where its value cannot be read, and give an empty value where it is absent.
    """

    whole: bytes
    trailing: bytes
    tbs: bytes
    version: int
    serial: int
    inner_algorithm: Algorithm
    issuer: Name
    not_before: float
    not_after: float
    subject: Name
    spki: bytes
    key_algorithm: Algorithm
    key_bits: bytes
    extensions: tuple[Extension, ...]
    algorithm: Algorithm
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> Certificate:
        """Take a certificate apart.

        Raises:
            DerError: it has not the structure of RFC 5280 §4.1.
        """
        whole = der.first(data).expect(der.SEQUENCE, "a certificate")
        tbs, algorithm, signature = _exactly(whole, 3, "a certificate")
        fields = tbs.expect(der.SEQUENCE, "tbsCertificate").children
        version = 1
        if fields and fields[0].tag == 0xA0:
            version = der.integer(der.only(fields.pop(0).content, der.INTEGER, "the version"), "the version") + 1
        if len(fields) < 6:
            raise DerError(f"tbsCertificate has {len(fields)} fields in place of at least 6")
        serial, inner, issuer, validity, subject, spki, *rest = fields
        not_before, not_after = _exactly(validity, 2, "the validity")
        key_algorithm, key_bits = _exactly(spki, 2, "subjectPublicKeyInfo")
        return cls(
            whole=whole.whole,
            trailing=data[len(whole.whole) :],
            tbs=tbs.whole,
            version=version,
            serial=der.integer(serial, "the serial number"),
            inner_algorithm=_algorithm(inner),
            issuer=_name(issuer),
            not_before=der.time(not_before),
            not_after=der.time(not_after),
            subject=_name(subject),
            spki=spki.whole,
            key_algorithm=_algorithm(key_algorithm),
            key_bits=key_bits.expect(der.BIT_STRING, "the public key").content[1:],
            extensions=_extensions(rest),
            algorithm=_algorithm(algorithm),
            signature=signature.expect(der.BIT_STRING, "the signature").content[1:],
        )

    def extension(self, oid: str) -> Extension | None:
        """The first extension of a type."""
        return next((extension for extension in self.extensions if extension.oid == oid), None)

    def _value(self, oid: str, tag: int, what: str) -> Element | None:
        extension = self.extension(oid)
        return None if extension is None else der.only(extension.value, tag, what)

    @cached_property
    def is_ca(self) -> bool:
        """Whether BasicConstraints says so; not where it cannot be read."""
        try:
            return self.says_ca
        except DerError:
            return False

    @property
    def says_ca(self) -> bool:
        """The cA field of BasicConstraints, false by default."""
        value = self._value(BASIC_CONSTRAINTS, der.SEQUENCE, "BasicConstraints")
        fields = [] if value is None else value.children
        return bool(fields) and fields[0].tag == der.BOOLEAN and fields[0].content != b"\x00"

    @cached_property
    def is_self_signed(self) -> bool:
        """Whether its own key made its signature."""
        return self.is_signed_by(self.spki)

    @property
    def is_root(self) -> bool:
        """A CA certificate that is signed by its own key, or names itself as issuer."""
        return self.is_ca and (self.is_self_signed or self.issuer.key == self.subject.key)

    @property
    def kind(self) -> str:
        """What it is, for people."""
        return "root" if self.is_root else "intermediate" if self.is_ca else "end entity"

    @property
    def policies(self) -> list[str]:
        """The OIDs of the certificate policies."""
        value = self._value(CERTIFICATE_POLICIES, der.SEQUENCE, "CertificatePolicies")
        infos = [] if value is None else value.children
        return [der.oid(der.first(info.expect(der.SEQUENCE, "PolicyInformation").content)) for info in infos]

    def is_under(self, policy: str) -> bool:
        """Whether it names a policy; not where the policies cannot be read."""
        try:
            return policy in self.policies
        except DerError:
            return False

    @property
    def key_usage(self) -> frozenset[int]:
        """The bits that are set, by their numbers in RFC 5280 §4.2.1.3."""
        value = self._value(KEY_USAGE, der.BIT_STRING, "KeyUsage")
        octets = b"" if value is None else value.content[1:3]
        return frozenset(bit for bit in range(8 * len(octets)) if octets[bit // 8] & 0x80 >> bit % 8)

    @property
    def subject_key_identifier(self) -> bytes | None:
        """The key identifier of SubjectKeyIdentifier."""
        value = self._value(SUBJECT_KEY_IDENTIFIER, der.OCTET_STRING, "SubjectKeyIdentifier")
        return None if value is None else value.content

    @property
    def authority_key_identifier(self) -> bytes | None:
        """The keyIdentifier field of AuthorityKeyIdentifier."""
        value = self._value(AUTHORITY_KEY_IDENTIFIER, der.SEQUENCE, "AuthorityKeyIdentifier")
        fields = [] if value is None else value.children
        return next((field.content for field in fields if field.tag == 0x80), None)

    @property
    def crl_distribution_points(self) -> list[Element]:
        """The DistributionPoints."""
        value = self._value(CRL_DISTRIBUTION_POINTS, der.SEQUENCE, "CRLDistributionPoints")
        return [] if value is None else [one.expect(der.SEQUENCE, "a DistributionPoint") for one in value.children]

    @property
    def spc(self) -> str | None:
        """The Service Provider Code, where the TNAuthList can be read and is one SPC and nothing else."""
        extension = self.extension(TNAUTHLIST)
        try:
            found = TnAuthList() if extension is None else TnAuthList.from_der(extension.value)
        except TnAuthListError:
            return None
        return found.spcs[0] if len(found.spcs) == 1 and not found.ranges and not found.ones else None

    def is_signed_by(self, spki: bytes) -> bool:
        """Whether a public key, a SubjectPublicKeyInfo, made the signature."""
        digest = _HASHES.get(self.algorithm.oid)
        if digest is None:
            return False
        try:
            key = load_der_public_key(spki)
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(self.signature, self.tbs, ec.ECDSA(digest))
            elif isinstance(key, rsa.RSAPublicKey):
                key.verify(self.signature, self.tbs, padding.PKCS1v15(), digest)
            else:
                return False
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False
        return True


def _exactly(element: Element, count: int, what: str) -> list[Element]:
    children = element.expect(der.SEQUENCE, what).children
    if len(children) != count:
        raise DerError(f"{what} has {len(children)} parts in place of {count}")
    return children


def _algorithm(element: Element) -> Algorithm:
    children = element.expect(der.SEQUENCE, "an algorithm identifier").children
    if not children:
        raise DerError("an algorithm identifier is empty")
    return Algorithm(der.oid(children[0]), children[1] if len(children) > 1 else None, element.whole)


def _name(element: Element) -> Name:
    attributes = []
    for relative in element.expect(der.SEQUENCE, "a name").children:
        for pair in relative.expect(der.SET, "a relative distinguished name").children:
            kind, value = _exactly(pair, 2, "an attribute of a name")
            attributes.append(Attribute(der.oid(kind), der.text(value), value.tag))
    return Name(attributes)


def _extensions(rest: list[Element]) -> tuple[Extension, ...]:
    found = []
    for block in (one for one in rest if one.tag == 0xA3):  # not the unique identifiers, [1] and [2]
        for element in der.only(block.content, der.SEQUENCE, "the extensions").children:
            parts = element.expect(der.SEQUENCE, "an extension").children
            if not 2 <= len(parts) <= 3:
                raise DerError(f"an extension has {len(parts)} parts")
            critical = len(parts) == 3 and parts[1].content not in {b"", b"\x00"}
            value = parts[-1].expect(der.OCTET_STRING, "an extension's value").content
            found.append(Extension(der.oid(parts[0]), critical, value))
    return tuple(found)
