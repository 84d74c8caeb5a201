"""Tokens, messages and verdicts for tests, each valid unless the test says otherwise.

bench = Bench.make(authority, us)
call = message(bench.identity(claims=claims(attest="B")))
bench.verify(call).result
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.certificates import TrustAnchors, TrustedPath, parse_chain
from shaken_plugin.core.jws import b64url, sign_es256
from shaken_plugin.core.passport import serialise
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import Pending, Verdict, VerificationRules, begin, finish
from shaken_plugin.core.verification.usual import usual
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.lab.pki import Authority, Issued
from tests.conftest import NOW

ORIG: Final = "12155551212"
DEST: Final = "12025550143"
URL: Final = "https://certificates.example.com/709j.pem"
ORIGID: Final = "123e4567-e89b-42d3-a456-426655440000"
PARAMS: Final = f';info=<{URL}>;alg=ES256;ppt="shaken"'
"""The parameters of a right Identity header."""


class _Absent:
    def __repr__(self) -> str:  # stands in names of tests, which must be the same in every process
        return "ABSENT"


ABSENT: Final = _Absent()
"""As a value for `claims` or `jose`: the member is left out."""


def _changed(members: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (members | dict(changes)).items() if value is not ABSENT}


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a SHAKEN PASSporT from ORIG to DEST at NOW, with some changed or `ABSENT`."""
    members = {
        "attest": "A",
        "dest": {"tn": [DEST]},
        "iat": int(NOW),
        "orig": {"tn": ORIG},
        "origid": ORIGID,
    }
    return _changed(members, changes)


def jose(**changes: Any) -> dict[str, Any]:
    """The JOSE header of a SHAKEN PASSporT, with some members changed or `ABSENT`."""
    return _changed({"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": URL}, changes)


def token(key: ec.EllipticCurvePrivateKey, header: bytes, payload: bytes) -> str:
    """A PASSporT in full form over exactly these octets."""
    signed = f"{b64url(header)}.{b64url(payload)}"
    return f"{signed}.{b64url(sign_es256(key, signed.encode()))}"


def signed_header(
    key: ec.EllipticCurvePrivateKey,
    *,
    claims: Mapping[str, Any],
    header: Mapping[str, Any] | None = None,
    params: str = PARAMS,
) -> str:
    """An Identity header value.

    Args:
        key: signs it.
        claims: from `claims`, or anything.
        header: from `jose`, or anything.
        params: what follows the token.
    """
    return token(key, serialise(jose() if header is None else header), serialise(claims)) + params


def private_key(issued: Issued) -> ec.EllipticCurvePrivateKey:
    """The P-256 key that the lab issued."""
    key = load_pem_private_key(issued.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def message(*identity: str, **changes: Any) -> CallMessage:
    """An INVITE from ORIG to DEST without a Date, with these Identity headers.

    Args:
        identity: header values.
        changes: fields of `CallMessage`.
    """
    call = CallMessage(
        method="INVITE",
        request_uri=f"sip:+{DEST}@b.example.com;user=phone",
        to=f"<sip:+{DEST}@b.example.com;user=phone>",
        callers={CallerHeader.FROM: (f"<sip:+{ORIG}@a.example.com;user=phone>;tag=1",)},
        identity=identity,
    )
    return replace(call, **changes)


@dataclass(frozen=True)
class Bench:
    """A signer, and a verifier that trusts the signer's root and has the certificate at hand."""

    plan: DialPlan
    issued: Issued
    anchors: TrustAnchors

    @classmethod
    def make(cls, authority: Authority, plan: DialPlan, **issue: Any) -> Bench:
        """A bench whose certificate carries the SPC 709J, or what ``issue`` says."""
        issued = authority.issue(now=NOW, **(issue or {"spc": "709J"}))
        return cls(plan, issued, TrustAnchors([authority.root]))

    def identity(self, **parts: Any) -> str:
        """An Identity header value; ``parts`` as in `signed_header`."""
        return signed_header(private_key(self.issued), **({"claims": claims()} | parts))

    def path(self, now: float = NOW) -> TrustedPath | VerificationFailure:
        """What the certificate is worth."""
        try:
            return self.anchors.validate(parse_chain(self.issued.chain), now)
        except VerificationFailure as failure:
            return failure

    def pending(self, call: CallMessage, now: float = NOW, **rules: Any) -> Pending | Verdict:
        """The first half of a verification."""
        return begin(call, VerificationRules(self.plan, **rules), now)

    def verify(self, call: CallMessage, now: float = NOW, **rules: Any) -> Verdict:
        """Both halves; the bench's certificate answers for every URL. What is said quickly of the call is the same."""
        pending = self.pending(call, now, **rules)
        verdict = (
            pending
            if isinstance(pending, Verdict)
            else finish(pending, dict.fromkeys(pending.urls, self.path(now)), now)
        )
        assert self.quickly(call, now, **rules) in (None, verdict)
        return verdict

    def quickly(self, call: CallMessage, now: float = NOW, **rules: Any) -> Verdict | None:
        """What `usual` says of a call, None where it leaves it to both halves."""
        asked, path = usual(call, VerificationRules(self.plan, **rules), now), self.path(now)
        return None if asked is None or not isinstance(path, TrustedPath) else asked.verdict(path, now)
