"""What signing works with and comes to: credentials, the operator's choices, the outcome."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from shaken_plugin.core.attestation import (
    AttestationPolicy,
    Decision,
    Refusal,
)
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.certificates import SigningCertificate
from shaken_plugin.core.records import Customer
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber
from shaken_plugin.errors import (
    SkipReason,
)
from shaken_plugin.ports import Signer

PPT: Final = "shaken"
PPT_DIV: Final = "div"


Fresh = str | Callable[[], str]
"""A random UUID as text, or what draws one: most calls need none."""


def drawn(fresh: Fresh) -> str:
    """The UUID itself."""
    return fresh if isinstance(fresh, str) else fresh()


class ExistingIdentity(Enum):
    """What happens to a call that already carries an Identity header."""

    SKIP = "skip"
    """Keep it and do not sign (the default; nobody may remove another signer's header)."""
    ADD = "add"
    """Keep it and add ours."""
    REPLACE_OURS = "replace_ours"
    """Replace those that point to our own certificates; with foreign ones alone, skip."""


class StaleDate(Enum):
    """What happens to a call whose Date header is outside the freshness window."""

    LEAVE = "leave"
    """Do not sign (RFC 8224 §6.1 step 3: MUST NOT)."""
    REPLACE = "replace"
    """On a customer's own call, replace the Date by the present time, then sign."""


class DiversionMode(Enum):
    """What happens to a call with Identity headers that we send on to somebody else."""

    SIGN = "sign"
    """Keep them, and sign a div (RFC 8946) where the diverting number is ours."""
    LEAVE = "leave"
    """Sign no div; it is a call like any other."""


class OrigidScope(Enum):
    """What one origid stands for."""

    TRUNK = "trunk"
    CUSTOMER = "customer"
    CALL = "call"


class StoreDown(Enum):
    """What happens to calls while the policy store cannot be read."""

    LAST_KNOWN = "last_known"
    """Decide from what was last read for the same source and number, else go on unsigned."""
    UNSIGNED = "unsigned"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class SigningPair:
    """A key, its certificate, and the URL the certificate is published at."""

    signer: Signer
    certificate: SigningCertificate
    x5u: str
    live_from: float
    """POSIX seconds from which this pair signs."""

    def refuses(self, speaker: Party, iat: float, now: float) -> SkipReason | None:
        """Why nothing may be signed with it for this party and these times, None where it may.

        Args:
            speaker: the caller, or for a ``div`` the diverting number (RFC 8946 §4.2).
            iat: POSIX seconds.
            now: likewise.
        """
        # RFC 8224 §6.1 step 3: "MUST verify that both the current time and the date lie within
        # the validity period of its credential".
        if not (self.certificate.valid_at(now) and self.certificate.valid_at(iat)):
            return SkipReason.CREDENTIAL_NOT_VALID
        # RFC 8224 §6.1 step 1: MUST NOT add Identity where it is not authoritative.
        if not self.certificate.authorises(speaker):
            return SkipReason.CREDENTIAL_SCOPE
        return None


@dataclass(frozen=True, slots=True)
class Credential:
    """A named identity to sign with: one or more pairs, so that a new one can lie ready."""

    name: str
    pairs: tuple[SigningPair, ...]

    def current(self, now: float) -> SigningPair | None:
        """The live and valid pair that went live last; None where there is none.

        Nothing is ever signed outside a certificate's validity. An old pair takes over again
        if the newer one expired first.
        """
        found: SigningPair | None = None
        for pair in self.pairs:
            usable = pair.live_from <= now and pair.certificate.valid_at(now)
            if usable and (found is None or pair.live_from > found.live_from):
                found = pair
        return found

    def lasts_until(self, now: float) -> float:
        """When signing with this credential will stop, pairs in waiting counted; POSIX seconds."""
        end = now
        spans = [(max(pair.live_from, pair.certificate.not_before), pair.certificate.not_after) for pair in self.pairs]
        for begin, until in sorted(spans):
            if begin <= end:
                end = max(end, until)
        return end


class Credentials:
    """The credentials of this host, by name, as they are now.

    Args:
        named: all of them.
    """

    def __init__(self, named: Mapping[str, Credential]) -> None:
        self.named = named

    def look(self, version: int, now: float) -> None:
        """Take over what changed with a policy version; these never do.

        Args:
            version: the policy version that the call is decided from.
            now: POSIX seconds.
        """

    def own(self, url: str | None) -> bool:
        """Whether one of our certificates is published there."""
        return any(pair.x5u == url for credential in self.named.values() for pair in credential.pairs)

    @property
    def trouble(self) -> tuple[str, ...]:
        """What keeps credentials from being taken over, for people."""
        return ()


@dataclass(frozen=True, slots=True)
class SigningRules:
    """The operator's choices for signing.

    ``sources`` is the order in which headers are asked for the caller (`CallMessage.caller`). ``freshness`` in seconds
    (RFC 8224 §6.1 step 3: 60 RECOMMENDED). ``mky`` adds the media keys of an SDP with
    fingerprints (RFC 8224 §4.1). ``origid_namespace`` makes stable origids; without it they
    would be the same at every provider.
    """

    plan: DialPlan
    attestation: AttestationPolicy
    origid_namespace: uuid.UUID
    default_credential: str
    sources: tuple[CallerHeader, ...] = (CallerHeader.ASSERTED, CallerHeader.FROM)
    existing: ExistingIdentity = ExistingIdentity.SKIP
    diversion: DiversionMode = DiversionMode.SIGN
    stale_date: StaleDate = StaleDate.LEAVE
    store_down: StoreDown = StoreDown.LAST_KNOWN
    origid: OrigidScope = OrigidScope.TRUNK
    freshness: int = 60
    quote_ppt: bool = True
    mky: bool = True


@dataclass(slots=True)
class Signing:
    """The outcome for one call, filled in while it is judged and signed.

    ``identity`` is the header value to add, None where not signed.

    ``skip`` says why there is none; ``refuse`` that the call should be answered instead of
    going on. ``date`` is the Date header to send, replacing one that is there if
    ``replace_date``. ``drop`` are the indices of Identity headers to remove. ``diverting`` is the
    number that sends the call on where this is about a ``div``, ``holder`` the customer whose it is.
    ``substitute`` is the caller ID that the call must go on with, signed or not; then ``orig`` is that, and
    ``substituted_for`` the caller as it came. ``routed_by`` are the digits by which the route is found.
    """

    skip: SkipReason | None = None
    refuse: bool = False
    decision: Decision | None = None
    emergency: bool = False
    orig: Party | None = None
    dest: Party | None = None
    routed_by: str | None = None
    identity: str | None = None
    date: str | None = None
    replace_date: bool = False
    drop: tuple[int, ...] = ()
    credential: Credential | None = None
    iat: int | None = None
    origid: str | None = None
    detail: str = ""
    diverting: TelephoneNumber | None = None
    holder: Customer | None = None
    substitute: TelephoneNumber | None = None
    substituted_for: Party | None = None
    counted: str = ""
    """The call's key at the limits, where it was counted."""
    slot: str = ""
    """The same, where its end is to be told."""
    over_limit: str = ""
    """Which limit it is over: ``rate`` or ``concurrent``, with the level where the bound is one of a level."""
    uncounted: str = ""
    """Why it was not counted although the customer has limits."""
    slotless: bool = False
    """It is not among the customer's concurrent calls, because the switch would not tell its end."""

    @property
    def refusal(self) -> Refusal | None:
        """Why the records refuse the call, None where they do not."""
        return self.decision.refusal if self.decision else None

    @property
    def ppt(self) -> str:
        """The type of PASSporT that this is about."""
        return PPT if self.diverting is None else PPT_DIV
