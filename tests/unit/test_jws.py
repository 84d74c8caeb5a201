"""base64url and ES256, no more and no less (RFC 7515, RFC 7518 §3.4)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given
from hypothesis import strategies as st

from shaken_plugin.core.jws import _raw, b64url, sign_es256, unb64url, verify_es256

RFC6979_KEY = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
RFC6979_SIGNATURE = (
    "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
    "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
)
"""RFC 6979 A.2.5, SHA-256, message "sample"."""

KEY = ec.derive_private_key(RFC6979_KEY, ec.SECP256R1())
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"\x00", "AA"), (b"\xff\xff", "__8"), (b"\xfb\xef\xbe", "----"), (b"abcd", "YWJjZA")],
)
def test_base64url_has_no_padding_and_its_own_alphabet(data: bytes, text: str) -> None:
    """RFC 7515 §2."""
    assert (b64url(data), unb64url(text)) == (text, data)


@pytest.mark.parametrize(
    "text",
    ["AA==", "A", "AAAAA", "A+A/", "AB", "AAB", "A A", "AA\n", "ÀA", "\udc80A", "AA.AA", "\uff21\uff21"],
    ids=["padding", "one", "five", "base64", "stray2", "stray4", "space", "lf", "latin", "raw", "dot", "wide"],
)
def test_other_spellings_of_base64url_are_refused(text: str) -> None:
    """A second spelling of the same octets would let one PASSporT pass for two."""
    with pytest.raises(ValueError, match="base64url"):
        unb64url(text)


def test_signature_is_deterministic_as_rfc_6979_has_it() -> None:
    """RFC 8225 asks for deterministic signatures (RFC 6979)."""
    assert sign_es256(KEY, b"sample").hex().upper() == RFC6979_SIGNATURE


def test_signature_verifies_with_its_own_key_and_data_only() -> None:
    signature = sign_es256(KEY, b"sample")
    public = KEY.public_key()
    assert verify_es256(public, b"sample", signature)
    assert not verify_es256(public, b"Sample", signature)
    assert not verify_es256(ec.generate_private_key(ec.SECP256R1()).public_key(), b"sample", signature)


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_a_signature_with_one_bit_changed_fails(position: int) -> None:
    signature = bytearray(sign_es256(KEY, b"sample"))
    signature[position] ^= 1
    assert not verify_es256(KEY.public_key(), b"sample", bytes(signature))


def test_signature_in_der_is_no_es256_signature() -> None:
    """RFC 7518 §3.4: R and S, 64 octets."""
    assert not verify_es256(KEY.public_key(), b"sample", KEY.sign(b"sample", ec.ECDSA(SHA256())))


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_a_signature_of_another_length_fails(length: int) -> None:
    assert not verify_es256(KEY.public_key(), b"sample", bytes(length))


@pytest.mark.parametrize(
    ("r", "s"), [(0, 0), (0, 1), (1, 0), (N, N), (N, 1), (1, N), (2**256 - 1, 2**256 - 1), (N - 1, N - 1)]
)
def test_r_and_s_outside_the_group_fail(r: int, s: int) -> None:
    assert not verify_es256(KEY.public_key(), b"sample", r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def test_leading_zeroes_of_r_and_s_are_kept() -> None:
    """R and S are 32 octets each, also where they are small numbers."""
    short = next(
        data
        for data in (str(number).encode() for number in range(10_000))
        if min(utils.decode_dss_signature(KEY.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True)))) < 2**248
    )
    signature = sign_es256(KEY, short)
    assert len(signature) == 64
    assert verify_es256(KEY.public_key(), short, signature)


@given(st.integers(1, N - 1), st.integers(1, N - 1))
@example(1, 1)
@example(2**255, 2**255 - 1)
@example(N - 1, 2**248 - 1)
def test_r_and_s_are_those_that_der_says(r: int, s: int) -> None:
    signature = utils.encode_dss_signature(r, s)
    assert _raw(signature) == r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert utils.decode_dss_signature(signature) == (r, s)
