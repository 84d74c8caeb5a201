"""The tolerant reader: what it takes, what it refuses by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shaken_plugin.lint import der
from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.der import DerError
from tests.conftest import NOW
from tests.lint.builders import integer, issuer, key, leaf, oid, root, spki, tlv


def test_lengths_in_long_form_are_read_and_judged() -> None:
    assert der.first(b"\x04\x81\x02xy").is_shortest is False
    assert der.first(b"\x04\x82\x00\x90" + b"x" * 144).is_shortest is False
    long = der.first(b"\x04\x81\x90" + b"x" * 144 + b"rest")
    assert (long.is_shortest, long.content, len(long.whole)) == (True, b"x" * 144, 147)


REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("the data end", lambda: der.first(b"\x30")),
    ("more than one octet", lambda: der.first(b"\x1f\x20\x00")),
    ("indefinite", lambda: der.first(b"\x30\x80\0\0")),
    ("indefinite", lambda: der.first(b"\x30\x85\0\0\0\0\1x")),
    ("announces 5 octets where 1 are left", lambda: der.first(b"\x30\x05x")),
    ("followed by 1 more", lambda: der.only(b"\x02\x01\x07x", der.INTEGER, "a number")),
    ("in place of 0x02", lambda: der.only(b"\x04\x00", der.INTEGER, "a number")),
    ("more than 2000", lambda: der.elements(b"\x05\x00" * 2001)),
    ("object identifier", lambda: der.oid(der.first(b"\x06\x00"))),
    ("object identifier", lambda: der.oid(der.first(b"\x06\x01\x80"))),
    ("object identifier", lambda: der.oid(der.first(tlv(0x06, b"\x01" * 41)))),
    ("without octets", lambda: der.integer(der.first(b"\x02\x00"), "a number")),
    ("the tag 0x04", lambda: der.time(der.first(b"\x04\x00"))),
    ("not written", lambda: der.time(der.first(tlv(0x17, b"2611181106Z")))),
    ("not written", lambda: der.time(der.first(tlv(0x17, "26111811064²Z".encode("latin-1"))))),
    ("no calendar", lambda: der.time(der.first(tlv(0x17, b"261332110640Z")))),
    ("in place of 3", lambda: Certificate.parse(tlv(0x30, integer(1)))),
    ("0 fields", lambda: Certificate.parse(tlv(0x30, tlv(0x30), tlv(0x30), tlv(0x03)))),
    ("subjectPublicKeyInfo has 0 parts", lambda: leaf().but(public_key=tlv(0x30)).certificate),
    ("algorithm identifier is empty",
     lambda: leaf().but(public_key=tlv(0x30, tlv(0x30), tlv(0x03))).certificate),
    ("an extension has 1 parts", lambda: leaf().but(more=[tlv(0x30, oid("1.2.3"))]).certificate),
]  # fmt: skip


@pytest.mark.parametrize(("why", "read"), REFUSED, ids=[f"{row[0]}-{i}" for i, row in enumerate(REFUSED)])
def test_it_refuses_by_name(why: str, read: Callable[[], object]) -> None:
    with pytest.raises(DerError, match=why):
        read()


@pytest.mark.parametrize("dotted", ["2.5.29.15", "1.3.6.1.5.5.7.1.26", "2.16.840.1.114569.1.1.4", "0.9.2342"])
def test_object_identifiers_are_written_with_dots(dotted: str) -> None:
    assert der.oid(der.first(oid(dotted))) == dotted


def test_the_second_arc_below_2_has_no_limit() -> None:
    assert der.oid(der.first(bytes.fromhex("06028837"))) == "2.999"


def test_times_have_two_forms_and_two_centuries() -> None:
    assert der.time(der.first(tlv(0x17, b"261118110640Z"))) == NOW
    assert der.time(der.first(tlv(0x18, b"20261118110640Z"))) == NOW
    assert der.time(der.first(tlv(0x17, b"500101000000Z"))) < 0


def test_a_certificate_is_read_as_it_was_written() -> None:
    read = Certificate.parse(leaf().der() + b"tail")
    assert (read.version, read.serial, read.trailing) == (3, leaf().serial, b"tail")
    assert (read.not_before, read.not_after) == (leaf().not_before, leaf().not_after)
    assert str(read.subject) == "C=US, O=Lab Provider, CN=SHAKEN 709J, serialNumber=7"
    assert (read.kind, read.spc, read.spki) == ("end entity", "709J", spki(key("leaf")))
    assert (issuer().certificate.kind, root().certificate.kind) == ("intermediate", "root")


def test_only_the_right_key_made_a_signature() -> None:
    read = leaf().certificate
    assert read.is_signed_by(spki(key("issuer")))
    assert not read.is_signed_by(spki(key("root")))
    assert not read.is_signed_by(spki(key("rsa", "rsa")))
    assert not read.is_signed_by(b"no key")
    assert not leaf().but(algorithm="1.2.3").certificate.is_signed_by(spki(key("issuer")))
    ed25519 = bytes.fromhex("302a300506032b6570032100") + bytes(32)
    assert not read.is_signed_by(ed25519)
