"""Lints of the octets: what strict readers refuse although people can see what is meant.

All of these have been seen in published certificates.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from cryptography import x509

from shaken_plugin.core.tnauthlist import TnAuthList, TnAuthListError
from shaken_plugin.lint import der
from shaken_plugin.lint.certificate import KEY_USAGE, TNAUTHLIST, Certificate
from shaken_plugin.lint.der import DerError
from shaken_plugin.lint.model import EVERY, RFC5280, Edition, Lint, Scope, Severity, having

_MAX_DEPTH: Final = 32
_CONSTRUCTED: Final = 0x20
_VERSION: Final = 0xA0
_STRING_TAGS: Final = {0x0C, 0x12, 0x13, 0x16, 0x1A}


def _trailing_data(certificate: Certificate) -> str | None:
    extra = len(certificate.trailing)
    return f"{extra} octets follow the certificate" if extra else None


def _length(certificate: Certificate) -> str | None:
    waiting = [(der.first(certificate.whole), 0)]
    while waiting:
        element, depth = waiting.pop()
        if not element.is_shortest:
            return f"an element with the tag {element.tag:#04x} has a length that is not written in the shortest way"
        if element.tag & _CONSTRUCTED and depth < _MAX_DEPTH:
            waiting += [(child, depth + 1) for child in element.children]
    return None


def _refused(certificate: Certificate) -> str | None:
    try:
        loaded = x509.load_der_x509_certificate(certificate.whole)
        _ = loaded.extensions, loaded.subject, loaded.issuer, loaded.public_key()
    except Exception as exc:  # this is what is to be found out: whatever it raises
        return f"the library cryptography refuses it: {type(exc).__name__}: {exc}"
    return None


def _algorithm_parameters(certificate: Certificate) -> str | None:
    algorithms = (certificate.inner_algorithm, certificate.algorithm)
    # RFC 5758 §3.2: "the encoding MUST omit the parameters field".
    wrong = any(one.oid.startswith("1.2.840.10045.4.3.") and one.parameters is not None for one in algorithms)
    return "the ECDSA signature algorithm has parameters" if wrong else None


def _algorithms_differ(certificate: Certificate) -> str | None:
    same = certificate.inner_algorithm.whole == certificate.algorithm.whole
    return None if same else "the signature algorithms inside and outside the signed part differ"


def _duplicate_extension(certificate: Certificate) -> str | None:
    twice = [oid for oid, count in Counter(one.oid for one in certificate.extensions).items() if count > 1]
    return f"the extensions {', '.join(twice)} stand more than once" if twice else None


def _time_format(certificate: Certificate) -> str | None:
    fields = der.first(certificate.tbs).children
    validity = fields[4 if fields[0].tag == _VERSION else 3]
    # RFC 5280 §4.1.2.5: "CAs conforming to this profile MUST always encode certificate validity dates
    # through the year 2049 as UTCTime".
    early = [time.content.decode("ascii") for time in validity.children
             if time.tag == der.GENERALIZED_TIME and time.content[:4] < b"2050"]  # fmt: skip
    return f"the validity has {' and '.join(early)} as GeneralizedTime" if early else None


def _key_usage_encoding(certificate: Certificate) -> str | None:
    extension = certificate.extension(KEY_USAGE)
    assert extension is not None
    content = der.only(extension.value, der.BIT_STRING, "KeyUsage").content
    if not content:
        raise DerError("a bit string without octets")
    unused, bits = content[0], content[1:]
    # X.690 §11.2.2: with a named bit list "the bitstring shall have all trailing 0 bits removed".
    trailing = (bits[-1] & -bits[-1]).bit_length() - 1 if bits and bits[-1] else None
    right = unused == trailing if bits else unused == 0
    return None if right else f"KeyUsage is the bit string {content.hex()}, which has zeros at its end or a wrong count"


def _outer_length(certificate: Certificate) -> str | None:
    value = _tnauthlist(certificate)
    if len(value) < 2 or value[0] != der.SEQUENCE or value[1] >= 0x80 or value[1] == len(value) - 2:
        return None  # a long form that is wrong is no TNAuthList at all
    return f"the TNAuthList announces {value[1]} octets and has {len(value) - 2}"


def _bare_string(certificate: Certificate) -> str | None:
    try:
        entries = der.first(_tnauthlist(certificate)).children
    except DerError:
        return None  # e_atis_tn_auth_list says so
    bare = [der.text(entry) for entry in entries if entry.tag in _STRING_TAGS]
    return f"the TNAuthList holds the bare string {', '.join(bare)}" if bare else None


def _lower_case(certificate: Certificate) -> str | None:
    try:
        codes = TnAuthList.from_der(_tnauthlist(certificate)).spcs
    except TnAuthListError:
        return None  # e_atis_tn_auth_list says so
    lower = [code for code in codes if re.search("[a-z]", code)]
    return f"the SPC {', '.join(lower)} has small letters" if lower else None


def _tnauthlist(certificate: Certificate) -> bytes:
    extension = certificate.extension(TNAUTHLIST)
    assert extension is not None
    return extension.value


def _unreadable(reason: DerError) -> str | None:
    return f"it is not a certificate: {reason}"


ERROR, WARN = Severity.ERROR, Severity.WARN
_RFC8226 = Edition("RFC 8226")
_WITH_LIST: Final = having(TNAUTHLIST, "TNAuthList")

ENCODING_LINTS: Final = (
    Lint("e_der_trailing_data", ERROR, Edition("X.690"), "§8.1", EVERY, _trailing_data,
         "cut the file after the certificate; verifiers refuse it as it is"),
    Lint("e_der_length", ERROR, Edition("X.690"), "§10.1", EVERY, _length,
         "the issuer must write DER"),
    Lint("e_der_refused", ERROR, RFC5280, "§4.1", EVERY, _refused,
         "have it issued anew; verifiers that use strict libraries cannot read it"),
    Lint("e_der_algorithm_parameters", ERROR, Edition("RFC 5758"), "§3.2", EVERY, _algorithm_parameters,
         "the issuer must leave the parameters out, NULL too"),
    Lint("e_der_algorithms_differ", ERROR, RFC5280, "§4.1.1.2", EVERY, _algorithms_differ,
         "the issuer must write the same algorithm in both places"),
    Lint("e_der_duplicate_extension", ERROR, RFC5280, "§4.2", EVERY, _duplicate_extension,
         "the issuer must write each extension once"),
    Lint("e_wrong_time_format_pre2050", ERROR, RFC5280, "§4.1.2.5", EVERY, _time_format,
         "the issuer must write times before 2050 as UTCTime"),
    Lint("e_incorrect_ku_encoding", ERROR, Edition("X.690"), "§11.2.2", EVERY & having(KEY_USAGE, "KeyUsage"),
         _key_usage_encoding, "the issuer must write the bits without zeros at the end"),
    Lint("e_tnauthlist_outer_length", ERROR, _RFC8226, "§9", EVERY & _WITH_LIST, _outer_length,
         "the TNAuthList in the request was built wrongly; build it anew"),
    Lint("e_tnauthlist_bare_string", ERROR, _RFC8226, "§9", EVERY & _WITH_LIST, _bare_string,
         "wrap the SPC: each entry is [0] around an IA5String"),
    Lint("w_tnauthlist_lower_case", WARN, Edition("ATIS-1000080.v005 §6.4.1"), "", EVERY & _WITH_LIST, _lower_case,
         "have it issued with the SPC in capitals; verifiers compare it as it stands"),
)  # fmt: skip
"""For every certificate, whenever it was issued."""

UNREADABLE: Final = (
    Lint("e_der_unreadable", ERROR, RFC5280, "§4.1",
         Scope[DerError]("what should be a certificate and is none", lambda _: True), _unreadable,
         "put the certificate there as it was issued"),
)  # fmt: skip
"""For what cannot be taken apart at all."""
