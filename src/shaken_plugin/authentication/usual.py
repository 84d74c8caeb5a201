"""The usual call, signed in one go: an initial INVITE of which nothing is rare, decided as one before it.

What `AuthenticationService.sign` does about such a call is done here without its steps; of any other call nothing is
said, and it goes through them. The property tests hold both against each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from shaken_plugin.authentication.model import Credential, Signing, SigningPair
from shaken_plugin.core.attestation import Decision
from shaken_plugin.core.call import CallMessage, Target
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.telephone import Party


class Ready:
    """What all usual calls of one judgement are signed with, between two moments."""

    __slots__ = ("after", "attest", "credential", "decision", "orig", "origid", "pair", "told", "until")

    def __init__(
        self, decision: Decision, attest: Attest, orig: Party, origid: str, credential: Credential, pair: SigningPair
    ) -> None:
        self.decision = decision
        self.attest = attest
        self.orig = orig
        self.origid = origid
        self.credential = credential
        self.pair = pair
        self.after, self.until = float("-inf"), float("inf")
        self.told: Any = None
        """What a switch has made of it, to say the same of each call."""

    def hold(self, now: float) -> None:
        """Set the two moments, around ``now``, between which no pair of the credential begins or ends (exclusive)."""
        for pair in self.credential.pairs:
            for edge in (pair.live_from, pair.certificate.not_before, pair.certificate.not_after):
                if edge < now:
                    self.after = max(self.after, edge)
                else:
                    self.until = min(self.until, edge)


class Usual(NamedTuple):
    """A call that may be signed as it is."""

    ready: Ready
    dest: Party
    iat: int

    def signing(self, identity: str, date: str) -> Signing:
        """What `AuthenticationService.sign` says of it."""
        ready, signing = self.ready, Signing(decision=self.ready.decision, orig=self.ready.orig, dest=self.dest)
        signing.credential, signing.origid, signing.iat = ready.credential, ready.origid, self.iat
        signing.identity, signing.date = identity, date
        return signing


def plain_target(message: CallMessage, target: Target) -> Party | None:
    """Whom a call is for of which nothing is rare: the same party in To and Request-URI; None for any other call.

    It begins a call, is no emergency, carries no PASSporT, no Date (`AuthenticationService` would look at it) and no
    header that `core.verstat` would have to be looked for in.
    """
    if message.method != "INVITE" or message.identity or message.priority or message.date is not None:
        return None
    if message.naming or message.unreadable or target.to_tag is not None or target.emergency:
        return None
    return target.to if target.to == target.uri else None
