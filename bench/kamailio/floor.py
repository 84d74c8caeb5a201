"""What Python in Kamailio costs before it does anything of ours: steps towards a signed call, each by itself.

Loaded instead of shaken.py into the plain relay; SHAKEN_SETTINGS names a file beside which steps that write may do so.
"""

import os
from pathlib import Path

import KSR
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

_KEY = ec.generate_private_key(ec.SECP256R1())
_METHOD = ec.ECDSA(SHA256(), deterministic_signing=True)
_PASSPORT = b"x" * 370
"""As many octets as are signed of a PASSporT."""
_RECORD = b"x" * 600 + b"\n"


def mod_init():
    return Floor()


class Floor:
    def child_init(self, rank):
        path = Path(os.environ["SHAKEN_SETTINGS"]).parent / f"floor-{os.getpid()}"
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return 1

    def nothing(self, msg):
        return 1

    def read(self, msg):
        KSR.pv.get("$mb")
        return 1

    def sign(self, msg):
        _KEY.sign(_PASSPORT, _METHOD)
        return 1

    def sign_and_write(self, msg):
        KSR.pv.get("$mb")
        value = _KEY.sign(_PASSPORT, _METHOD).hex()
        KSR.hdr.append(f"X-Floor: {value}{value}{value}\r\n")
        os.write(self.file, _RECORD)
        KSR.info("one line of a log\n")
        return 1
