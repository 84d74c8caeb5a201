"""A certificate document taken apart: PEM blocks or one DER certificate, as far as they can be read."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from shaken_plugin.core.issuers import MAX_CHAIN
from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.der import DerError
from shaken_plugin.lint.model import Edition, Lint, Scope, Severity

MAX_LENGTH: Final = 1_048_576
"""Longest document that is looked into, octets. A verifier takes far less; a list of roots may be long."""

MAX_CERTIFICATES: Final = 500
"""Most certificates of a document that are looked at."""

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_CERTIFICATE_LABELS: Final = {b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"}
_WHITE: Final = re.compile(rb"[ \t\r\n]+")


@dataclass(frozen=True, slots=True)
class Document:
    """What a document holds. ``problems`` are PEM blocks that cannot be read."""

    length: int
    is_pem: bool = False
    has_private_key: bool = False
    certificates: tuple[Certificate | DerError, ...] = ()
    problems: tuple[str, ...] = ()
    foreign: tuple[str, ...] = field(default=())
    """Labels of PEM blocks that are neither certificates nor keys."""

    @property
    def readable(self) -> list[Certificate]:
        """The certificates that could be taken apart."""
        return [one for one in self.certificates if isinstance(one, Certificate)]

    @property
    def is_chain(self) -> bool:
        """Whether there is a signer in it; else it is a list of CA certificates."""
        return any(not certificate.is_ca for certificate in self.readable)

    @classmethod
    def parse(cls, data: bytes) -> Document:
        """Take a document apart; whatever is wrong with it stands in the result."""
        length = len(data)
        data = data[:MAX_LENGTH]
        if _BEGIN.search(data) is None:
            is_der = data[:1] == b"\x30"
            return cls(length, certificates=(_certificate(data),) if is_der else ())
        found: list[Certificate | DerError] = []
        problems: list[str] = []
        foreign: list[str] = []
        has_private_key = False
        for label, content in _blocks(data):
            if label.endswith(b"PRIVATE KEY"):
                has_private_key = True
            elif label not in _CERTIFICATE_LABELS:
                foreign.append(label.decode("ascii"))
            elif len(found) < MAX_CERTIFICATES:
                block = f"PEM block {len(found) + len(problems) + 1}"
                if content is None:
                    problems.append(f"{block} has no end")
                    continue
                try:
                    found.append(_certificate(base64.b64decode(_WHITE.sub(b"", content), validate=True)))
                except binascii.Error:
                    problems.append(f"{block} is not base64")
        return cls(
            length,
            is_pem=True,
            has_private_key=has_private_key,
            certificates=tuple(found),
            problems=tuple(problems),
            foreign=tuple(foreign),
        )


def _blocks(data: bytes) -> list[tuple[bytes, bytes | None]]:
    """Label and content of all PEM blocks; the content is None where the end is missing."""
    starts = list(_BEGIN.finditer(data))
    ends = [start.start() for start in starts[1:]] + [len(data)]
    found = []
    for start, limit in zip(starts, ends, strict=True):
        end = data.find(b"-----END " + start[1] + b"-----", start.end(), limit)
        found.append((start[1], None if end < 0 else data[start.end() : end]))
    return found


def _certificate(data: bytes) -> Certificate | DerError:
    try:
        return Certificate.parse(data)
    except DerError as exc:
        return exc


def _no_certificate(document: Document) -> str | None:
    if document.certificates or document.problems:
        return None
    return "the document is empty" if document.length == 0 else "there is no certificate in it"


def _too_large(document: Document) -> str | None:
    if document.length > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} octets; what comes after them was not looked at"
    return None


def _pem(document: Document) -> str | None:
    return "; ".join(document.problems) or None


def _private_key(document: Document) -> str | None:
    return "there is a private key in it" if document.has_private_key else None


def _foreign_block(document: Document) -> str | None:
    return f"there are PEM blocks of another kind: {', '.join(document.foreign)}" if document.foreign else None


def _leaf_first(document: Document) -> str | None:
    first = document.certificates[0]
    return "the first certificate is one of a CA" if isinstance(first, Certificate) and first.is_ca else None


def _incomplete(document: Document) -> str | None:
    (only,) = document.readable
    return f"it holds the signer alone, not its issuer {only.issuer}"


def _long(document: Document) -> str | None:
    count = len(document.certificates)
    return f"it holds {count} certificates" if count > MAX_CHAIN else None


_ANY: Final = Scope[Document]("every document", lambda _: True)
_CHAIN: Final = Scope[Document]("documents with a signer", lambda document: document.is_chain)
_LONE: Final = Scope[Document](
    "documents with one certificate, not self-signed",
    lambda document: document.is_chain and len(document.certificates) == 1 and not document.readable[0].is_self_signed,
)
ERROR, WARN = Severity.ERROR, Severity.WARN
_PEM_CHAIN: Final = Edition("RFC 8555 §9.1")
_RFC7468: Final = Edition("RFC 7468")

DOCUMENT_LINTS: Final = (
    Lint("e_document_no_certificate", ERROR, _PEM_CHAIN, "", _ANY, _no_certificate,
         "put the chain there as PEM, signer first"),
    Lint("e_document_too_large", ERROR, _PEM_CHAIN, "", _ANY, _too_large,
         "put the chain there and nothing else; verifiers take a few KiB"),
    Lint("e_document_pem", ERROR, _RFC7468, "§3", _ANY, _pem,
         "write the block anew from the certificate"),
    Lint("e_document_private_key", ERROR, Edition("operating practice"), "", _ANY, _private_key,
         "take it out at once; if it was published, have the certificate revoked and make a new key"),
    Lint("w_document_foreign_block", WARN, _PEM_CHAIN, "", _ANY, _foreign_block,
         "take them out; only certificates belong there"),
    Lint("e_chain_leaf_first", ERROR, _PEM_CHAIN, "", _CHAIN, _leaf_first,
         "put the signer's certificate first, then each one's issuer"),
    Lint("w_chain_incomplete", WARN, _PEM_CHAIN, "", _LONE, _incomplete,
         "append the certificates of the issuers; a verifier that has only the roots finds no path without them"),
    Lint("w_chain_long", WARN, _PEM_CHAIN, "", _CHAIN, _long,
         f"publish the one chain alone; our verifier looks at {MAX_CHAIN} certificates at most"),
)  # fmt: skip
