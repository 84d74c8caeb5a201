"""The lab's policy administrator: signs revocation lists and trust lists, as the STI-PA does.

    administrator = PolicyAdministrator.new(now)
    administrator.crl([issued.certificate], now=now)            # DER
    administrator.trust_list([authority.root], now=now)         # a JWS in compact form

A verifier of the lab trusts ``administrator.root`` for both, and nothing else for them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.core.jws import b64url, sign_es256
from shaken_plugin.core.passport import serialise
from shaken_plugin.lab.pki import CRL_ISSUER, CRL_URL, certificate_builder, key_usage, x500_name

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PolicyAdministrator:
    """A root, and below it one who signs revocation lists and one who signs trust lists."""

    root: x509.Certificate
    crl_key: ec.EllipticCurvePrivateKey
    crl_signer: x509.Certificate
    list_key: ec.EllipticCurvePrivateKey
    list_signer: x509.Certificate

    @classmethod
    def new(cls, now: float) -> PolicyAdministrator:
        """A new one, whose certificates are valid from a year ago for ten years."""
        root_key, crl_key, list_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        root = x500_name([("C", "US"), ("O", "Lab STI-PA"), ("CN", "Lab STI-PA ROOT")])
        lists = x500_name([("C", "US"), ("O", "Lab STI-PA"), ("CN", "Lab STI-PA list")])
        return cls(
            _signer(root, root_key, root, root_key, now, key_usage(certifies=True)),
            crl_key,
            _signer(x500_name(CRL_ISSUER), crl_key, root, root_key, now, key_usage(lists=True)),
            list_key,
            _signer(lists, list_key, root, root_key, now, key_usage(signs=True)),
        )

    def crl(
        self,
        revoked: Sequence[x509.Certificate],
        *,
        now: float,
        number: int = 1,
        lifetime: timedelta = DAY,
        age: timedelta = timedelta(hours=1),
    ) -> bytes:
        """An indirect CRL in DER.

        Args:
            revoked: what it names; consecutive ones of one issuer inherit certificateIssuer.
            now: POSIX seconds.
            number: CRL number.
            lifetime: from thisUpdate to nextUpdate.
            age: how long ago thisUpdate was.
        """
        start = datetime.fromtimestamp(now, UTC) - age
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.crl_signer.subject)
            .last_update(start)
            .next_update(start + lifetime)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.crl_key.public_key()), critical=False
            )
            .add_extension(_DISTRIBUTION, critical=True)
        )
        issuer: x509.Name | None = None
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(start)
            if certificate.issuer != issuer:
                issuer = certificate.issuer
                entry = entry.add_extension(x509.CertificateIssuer([x509.DirectoryName(issuer)]), critical=True)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.crl_key, SHA256()).public_bytes(Encoding.DER)

    def trust_list(
        self,
        anchors: Sequence[x509.Certificate],
        *,
        now: float,
        sequence: int = 1,
        lifetime: timedelta = DAY,
        x5u: str | None = None,
    ) -> bytes:
        """A signed list of anchors, with ``x5u``, or else with ``x5c``.

        Args:
            anchors: what it holds.
            now: POSIX seconds.
            sequence: its number.
            lifetime: until it expires.
            x5u: where the signer's certificate is published.
        """
        chain = [base64.b64encode(self.list_signer.public_bytes(Encoding.DER)).decode()]
        header: dict[str, Any] = {"alg": "ES256", "typ": "JWT"} | ({"x5u": x5u} if x5u else {"x5c": chain})
        claims = {
            "version": "1.0",
            "sequence": sequence,
            "exp": int(now + lifetime.total_seconds()),
            "trustList": [anchor.public_bytes(Encoding.PEM).decode() for anchor in anchors],
        }
        signed = f"{b64url(serialise(header))}.{b64url(serialise(claims))}".encode()
        return signed + b"." + b64url(sign_es256(self.list_key, signed)).encode()


_DISTRIBUTION = x509.IssuingDistributionPoint(
    full_name=[x509.UniformResourceIdentifier(CRL_URL)],
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=True,
    only_contains_attribute_certs=False,
)


def _signer(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: float,
    usage: x509.KeyUsage,
) -> x509.Certificate:
    start = datetime.fromtimestamp(now, UTC) - 365 * DAY
    return (
        certificate_builder(name, key, issuer, issuer_key, start, 3650 * DAY)
        .add_extension(x509.BasicConstraints(ca=usage.key_cert_sign, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, SHA256())
    )
