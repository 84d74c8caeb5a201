"""Others that do the same: OpenSSL's own measurement, and libsecsipid."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import subprocess
from typing import Final

from bench.results import BenchError

_RATES: Final = re.compile(r"^\+F4:\d+:256:([\d.]+):([\d.]+)$", re.MULTILINE)


def openssl_rates(seconds: int = 1) -> tuple[float, float]:
    """P-256 signatures and verifications a second of CPU time, by ``openssl speed``.

    Args:
        seconds: for each of the two.

    Raises:
        BenchError: there is no openssl, or it says something else.
    """
    command = ["openssl", "speed", "-mr", "-seconds", str(seconds), "ecdsap256"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60 + 4 * seconds)
    except (OSError, subprocess.SubprocessError) as exc:
        raise BenchError(f"openssl speed: {exc}; install it with: apt-get install openssl") from exc
    return parse_rates(done.stdout)


def parse_rates(text: str) -> tuple[float, float]:
    """What ``openssl speed -mr ecdsap256`` says: signatures, verifications a second.

    Raises:
        BenchError: it says something else.
    """
    found = _RATES.search(text)
    if found is None:
        raise BenchError(f"openssl speed says something else than expected: {text[-200:]!r}")
    return float(found[1]), float(found[2])


class Secsipid:
    """libsecsipid, the Go library behind Kamailio's module secsipid, as that module calls it.

    Raises:
        BenchError: it is not installed.
    """

    NAME: Final = "libsecsipid.so.1"
    EXPIRE: Final = 300
    """Seconds; the module's default."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(self.NAME)
        except OSError as exc:
            raise BenchError(f"{self.NAME}: {exc}; install it with: apt-get install libsecsipid1") from exc
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = [ctypes.c_void_p]
        self._sign = self._library.SecSIPIDGetIdentityPrvKey
        self._sign.argtypes = [ctypes.c_char_p] * 6 + [ctypes.POINTER(ctypes.c_void_p)]
        self._check = self._library.SecSIPIDCheckFullPubKey
        self._check.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]

    def identity(self, orig: bytes, dest: bytes, x5u: bytes, key: bytes) -> bytes:
        """The value of an Identity header at level A with a fresh origid.

        Args:
            orig: the caller's number.
            dest: the called number.
            x5u: of the certificate.
            key: the private key, PEM; the library parses it at each call.

        Raises:
            BenchError: it refuses.
        """
        out = ctypes.c_void_p()
        length = self._sign(orig, dest, b"A", b"", x5u, key, ctypes.byref(out))
        if length <= 0 or not out:
            raise BenchError(f"libsecsipid does not sign: {length}")
        try:
            return ctypes.string_at(out, length)
        finally:
            self._free(out)

    def check(self, identity: bytes, key: bytes) -> None:
        """Check a header: its form, its age, its signature. No certificate, no path, no numbers of the call.

        Args:
            identity: the value.
            key: the public key, PEM; the library parses it at each call.

        Raises:
            BenchError: it does not pass.
        """
        code = self._check(identity, len(identity), self.EXPIRE, key, len(key))
        if code != 0:
            raise BenchError(f"libsecsipid does not accept a header: {code}")
