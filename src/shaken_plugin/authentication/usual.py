"""The usual call, signed in one go: an initial INVITE of which nothing is rare, decided as one before it.

What `AuthenticationService.sign` does about such a call is done here without its steps; of any other call nothing is
said, and it goes through them. The property tests hold both against each other.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from shaken_plugin.authentication.limiting import Asked
from shaken_plugin.authentication.model import Credential, Signing, SigningPair
from shaken_plugin.core.attestation import Decision
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.limits import Verdict
from shaken_plugin.core.passport import Attest, dest_member, shaken_payload
from shaken_plugin.core.telephone import Party, TelephoneNumber

_SAMPLE: Final = TelephoneNumber("0")


class Ready:
    """What all usual calls of one judgement are signed with, between two moments."""

    __slots__ = (
        "after", "at_limits", "attest", "claims", "credential", "decision", "orig", "origid", "pair", "told", "until",
    )  # fmt: skip

    def __init__(
        self, decision: Decision, attest: Attest, orig: Party, origid: str, credential: Credential, pair: SigningPair
    ) -> None:
        self.decision = decision
        self.attest = attest
        self.orig = orig
        self.origid = origid
        self.credential = credential
        self.pair = pair
        sample = shaken_payload(attest=attest, orig=orig, dest=_SAMPLE, iat=0, origid=origid).decode()
        before, _, behind = sample.partition(f'{dest_member(_SAMPLE)}}},"iat":0')
        self.claims = before, behind
        """The claims before the called party and behind the time."""
        self.after, self.until = float("-inf"), float("inf")
        self.told: Any = None
        """What a switch has made of it, to say the same of each call."""
        self.at_limits: dict[Verdict | None, Ready] = {}
        """What `counted` has made."""

    def hold(self, now: float) -> None:
        """Set the two moments, around ``now``, between which no pair of the credential begins or ends (exclusive)."""
        for pair in self.credential.pairs:
            for edge in (pair.live_from, pair.certificate.not_before, pair.certificate.not_after):
                if edge < now:
                    self.after = max(self.after, edge)
                else:
                    self.until = min(self.until, edge)

    def counted(self, asked: Asked) -> Ready:
        """The same for calls of which this was said at their customer's limits."""
        made = Ready(asked.traced(self.decision), self.attest, self.orig, self.origid, self.credential, self.pair)
        made.after, made.until = self.after, self.until
        return self.at_limits.setdefault(asked.verdict, made)


class Usual(NamedTuple):
    """A call that may be signed as it is."""

    ready: Ready
    dest: Party
    iat: int

    def counted(self, asked: Asked) -> Usual:
        """The same, of which this was said at its customer's limits."""
        ready, dest, iat = self
        return Usual(ready.at_limits.get(asked.verdict) or ready.counted(asked), dest, iat)

    def payload(self) -> bytes:
        """`core.passport.shaken_payload` of the call."""
        ready, dest, iat = self
        before, behind = ready.claims
        return f'{before}{dest_member(dest)}}},"iat":{iat}{behind}'.encode()

    def signing(self, identity: str, date: str) -> Signing:
        """What `AuthenticationService.sign` says of it."""
        ready, signing = self.ready, Signing(decision=self.ready.decision, orig=self.ready.orig, dest=self.dest)
        signing.credential, signing.origid, signing.iat = ready.credential, ready.origid, self.iat
        signing.identity, signing.date = identity, date
        return signing


def is_plain(message: CallMessage) -> bool:
    """Whether a call carries no PASSporT, no Date and no other header that would have to be looked at."""
    return (
        message.method == "INVITE" and not message.identity and message.date is None and not message.priority
        and not message.naming and not message.unreadable
    )  # fmt: skip
