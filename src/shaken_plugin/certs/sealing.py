"""Private keys sealed for the store: envelope encryption with AES-256-GCM.

Each private key is encrypted by a data key of its own, drawn for it, and that by the key-encryption key (KEK), which
never lies in the store. Both layers authenticate the format's version, what is encrypted, and what it is bound to
(`core.material.StoredPair.bound`), so that it opens there alone. Nothing here is shown, quoted, copied or pickled.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shaken_plugin.errors import CredentialError

KEK_OCTETS: Final = 32
_NONCE_OCTETS: Final = 12
"""NIST SP 800-38D §5.2.1.1: 96 bits; random ones, of which a KEK uses one for each sealed key (§8.3: below 2^32)."""
_DISTINCT: Final = 8
"""Different octets that 32 random ones have: fewer, and somebody typed them."""

_SEALED: Final = "aes256gcm-1"
_PLAIN: Final = "PLAINTEXT-1"
_FORM: Final = re.compile(rf"{_SEALED}:([0-9a-f]{{16}}):([A-Za-z0-9_-]+):([A-Za-z0-9_-]+)")


class Kek:
    """A key-encryption key. ``id`` names it and says nothing of it.

    Args:
        octets: 32 random octets.
    """

    __slots__ = ("__cipher", "id")

    def __init__(self, octets: bytes) -> None:
        self.__cipher = AESGCM(octets)
        self.id: Final = hashlib.sha256(b"shaken-plugin key-encryption key, id 1\0" + octets).hexdigest()[:16]

    def wrap(self, key: bytes, bound: bytes) -> bytes:
        """A data key encrypted: nonce, ciphertext and tag."""
        nonce = secrets.token_bytes(_NONCE_OCTETS)
        return nonce + self.__cipher.encrypt(nonce, key, bound)

    def unwrap(self, wrapped: bytes, bound: bytes) -> bytes:
        """The data key.

        Raises:
            InvalidTag, ValueError: it is not what `wrap` made.
        """
        return self.__cipher.decrypt(wrapped[:_NONCE_OCTETS], wrapped[_NONCE_OCTETS:], bound)

    def __repr__(self) -> str:
        return f"Kek({self.id})"

    def __reduce__(self) -> str:
        raise TypeError("a key-encryption key is not handed around")


def parse_kek(content: bytes) -> Kek:
    """A key-encryption key from the content of its file: 32 raw octets, or these in hex or base64 in one line.

    Raises:
        CredentialError: it is none. The text quotes nothing of it.
    """
    octets = _octets(content)
    if len(octets) != KEK_OCTETS:
        raise CredentialError(
            f"a key-encryption key has {KEK_OCTETS} octets, raw, as 64 hex digits or as 44 characters of base64; this "
            f"has {len(octets)}. 'shaken key new-encryption FILE' makes one"
        )
    if len(set(octets)) < _DISTINCT:
        raise CredentialError("this is no random key; 'shaken key new-encryption FILE' makes one")
    return Kek(octets)


def _octets(content: bytes) -> bytes:
    text = content.strip()
    if not text.isascii() or not text.decode("ascii").isprintable():
        return content
    if len(text) == 2 * KEK_OCTETS:
        try:
            return bytes.fromhex(text.decode("ascii"))
        except ValueError:
            raise CredentialError("64 characters, which are not hex digits: no key-encryption key") from None
    try:
        return base64.b64decode(
            text + b"=" * (-len(text) % 4), b"-_" if set(text) & set(b"-_") else b"+/", validate=True
        )
    except (binascii.Error, ValueError):
        raise CredentialError(
            f"a text of {len(text)} characters that is neither 64 hex digits nor 44 of base64: no key-encryption key"
        ) from None


def new_kek() -> str:
    """The content of a file for a new key-encryption key: base64 in one line."""
    return base64.b64encode(secrets.token_bytes(KEK_OCTETS)).decode("ascii") + "\n"


class Keyring:
    """The key-encryption keys of this host.

    Args:
        kek: what is sealed from now on is sealed by it; None where none is configured.
        previous: others that still open.
        plaintext: in a lab keys may lie in the store as they are.
    """

    __slots__ = ("_by_id", "kek", "plaintext")

    def __init__(self, kek: Kek | None = None, previous: Sequence[Kek] = (), *, plaintext: bool = False) -> None:
        self.kek = kek
        self.plaintext = plaintext
        self._by_id = {one.id: one for one in (*previous, *([kek] if kek else []))}

    def find(self, identifier: str) -> Kek | None:
        """The key with an id."""
        return self._by_id.get(identifier)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._by_id)})"

    def __reduce__(self) -> str:
        raise TypeError("key-encryption keys are not handed around")


def seal(keyring: Keyring, bound: str, key: bytes) -> str:
    """A private key as the store may have it.

    Args:
        keyring: with a key-encryption key, or of a lab.
        bound: what it is for; it cannot be opened with anything else. Plaintext is bound to nothing.
        key: in DER.

    Raises:
        CredentialError: there is no key-encryption key.
    """
    if keyring.kek is None:
        if keyring.plaintext:
            return f"{_PLAIN}:{_text(key)}"
        raise CredentialError(
            "the settings have no keys.encryption, by which a private key could be sealed for the store; "
            "'shaken key new-encryption FILE' makes one"
        )
    data_key, nonce = AESGCM.generate_key(KEK_OCTETS * 8), secrets.token_bytes(_NONCE_OCTETS)
    sealed = nonce + AESGCM(data_key).encrypt(nonce, key, _bound("private key", bound))
    wrapped = keyring.kek.wrap(data_key, _bound("data key", bound))
    return f"{_SEALED}:{keyring.kek.id}:{_text(wrapped)}:{_text(sealed)}"


def open_(keyring: Keyring, bound: str, sealed: str) -> bytes:
    """The private key, in DER.

    Raises:
        CredentialError: it cannot be opened here; the text says why, and quotes nothing.
    """
    if is_plaintext(sealed):
        if not keyring.plaintext:
            raise CredentialError("it lies in plaintext in the store, which keys.plaintext does not allow; replace it")
        return _octets_of(sealed.removeprefix(f"{_PLAIN}:"))
    if (found := _FORM.fullmatch(sealed)) is None:
        raise CredentialError("it is sealed in a way that this release does not know, or is damaged")
    kek = keyring.find(found[1])
    if kek is None:
        raise CredentialError(
            f"it is sealed by the key-encryption key {found[1]}, which is neither keys.encryption nor in keys.previous"
        )
    try:
        data_key = kek.unwrap(_octets_of(found[2]), _bound("data key", bound))
        content = _octets_of(found[3])
        return AESGCM(data_key).decrypt(content[:_NONCE_OCTETS], content[_NONCE_OCTETS:], _bound("private key", bound))
    except (InvalidTag, ValueError):
        raise CredentialError(
            "it is damaged, or was sealed with another name, credential, x5u, live_from or chain: it cannot be opened"
        ) from None


def rewrap(keyring: Keyring, bound: str, sealed: str) -> str:
    """The same key sealed by the keyring's present key-encryption key, with a new data key.

    New, because whoever has the old key-encryption key may have had the old data key out of the store.

    Raises:
        CredentialError: it cannot be opened here, or there is no key-encryption key.
    """
    return seal(keyring, bound, open_(keyring, bound, sealed))


def is_plaintext(sealed: str) -> bool:
    """Whether a key lies there as it is."""
    return sealed.startswith(f"{_PLAIN}:")


def sealed_by(sealed: str) -> str | None:
    """The id of the key-encryption key that opens it; None for plaintext, and for what is damaged."""
    found = _FORM.fullmatch(sealed)
    return None if found is None else found[1]


def _bound(what: str, bound: str) -> bytes:
    """What both layers authenticate beside the ciphertext; ``bound`` comes last, so that nothing can be shifted."""
    return f"shaken-plugin\0{_SEALED}\0{what}\0{bound}".encode()


def _text(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _octets_of(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CredentialError("it is damaged: it cannot be opened") from None
