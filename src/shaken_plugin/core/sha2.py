"""SHA-256 of the short texts of one call (FIPS 180-4): a PASSporT, a signature, the name of a call.

Python has two. That of `hashlib` is OpenSSL's, which is faster by the octet, and takes thousands of instructions to
begin and a library that a switch otherwise has no use for: in a worker that has done something else meanwhile 7 µs,
where the one that is part of Python takes 3.
"""

from __future__ import annotations

try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]  # CPython 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]  # CPython 3.11
    except ImportError:
        from hashlib import sha256  # of a Python that was built without

__all__ = ["sha256"]
