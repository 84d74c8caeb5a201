"""Keys and trust anchors that a store holds for every host, beside the records of its policy.

Unlike records they have no history: a store has those in force and no others, and no export names them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredPair:
    """A private key, sealed, with its certificate chain: one pair of a credential.

    ``sealed`` is what `certs.sealing.seal` made, ``chain`` PEM, signer first; ``live_from`` in POSIX seconds. In a
    lab ``sealed`` may be no more than the key in disguise, so a pair is neither shown in full nor pickled.
    """

    name: str
    credential: str
    sealed: str = field(repr=False)
    chain: str = field(repr=False)
    x5u: str
    live_from: float = 0.0

    @property
    def bound(self) -> str:
        """What the seal binds the key to: all else of the pair. Whoever edits any of it has a pair that nobody opens.

        Else one write to the store would have every call of a fleet point to a chain that is not there, or give the
        key to a credential that asks for no SPC.
        """
        digest = hashlib.sha256(self.chain.encode("utf-8", "surrogatepass")).hexdigest()
        return json.dumps([self.name, self.credential, self.x5u, float(self.live_from).hex(), digest])

    def __reduce__(self) -> str:
        raise TypeError("a private key is not handed around, sealed neither")


@dataclass(frozen=True, slots=True)
class StoredAnchors:
    """Roots that every verifier believes, in PEM."""

    name: str
    certificates: str = field(repr=False)


Material = StoredPair | StoredAnchors
