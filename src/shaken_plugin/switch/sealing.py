"""Notes that travel with a dialog in what others can read, and that only this switch understands."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE: Final = 12
MAX_SEALED: Final = 512
"""Most characters that are opened."""


class Seal:
    """Seals texts with a key of its own; to be made before the switch forks.

    The key lasts as long as the switch runs: what was sealed before a restart is not understood after it.
    """

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(128))

    def seal(self, text: str, context: str) -> str:
        """A text as letters, digits, ``-`` and ``_``.

        Args:
            text: what is to be read again.
            context: what it belongs to, the Call-ID; with another it is not opened.
        """
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, _bytes(text), _bytes(context))
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")

    def open(self, sealed: str, context: str) -> str | None:
        """The text, None for anything that was not sealed by this one in this context."""
        if len(sealed) > MAX_SEALED:
            return None
        try:
            data = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
            return self._cipher.decrypt(data[:_NONCE], data[_NONCE:], _bytes(context)).decode()
        except (binascii.Error, InvalidTag, ValueError):
            return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
