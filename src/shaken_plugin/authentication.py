"""The authentication service (STI-AS): decides, then signs (RFC 8224 §6.1, ATIS-1000074).

`AuthenticationService.sign` reads nothing but its arguments, its store and its credentials. It
returns what should happen; a switch adapter does it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, NamedTuple

from shaken_plugin.core.attestation import AttestationPolicy, CallFacts, Decision, Level, decide
from shaken_plugin.core.call import Caller, CallerHeader, CallMessage, is_anonymous, is_emergency
from shaken_plugin.core.certificates import SigningCertificate
from shaken_plugin.core.diverting import RIGHT, decide_diversion, diverted, diverting_holder, is_signed, links
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.jws import b64url
from shaken_plugin.core.passport import div_claims, media_keys, passport_header, shaken_claims, signing_input
from shaken_plugin.core.records import Customer, Gateway, PolicyFacts, Trunk
from shaken_plugin.core.sip import format_date, parse_date
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber
from shaken_plugin.errors import (
    SigningError,
    SipSyntaxError,
    SkipReason,
    StoreUnavailable,
    VerificationFailure,
)
from shaken_plugin.ports import PolicyStore, Signer


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
        usable = [pair for pair in self.pairs if pair.live_from <= now and pair.certificate.valid_at(now)]
        return max(usable, key=lambda pair: pair.live_from, default=None)

    def lasts_until(self, now: float) -> float:
        """When signing with this credential will stop, pairs in waiting counted; POSIX seconds."""
        end = now
        spans = [(max(pair.live_from, pair.certificate.not_before), pair.certificate.not_after) for pair in self.pairs]
        for begin, until in sorted(spans):
            if begin <= end:
                end = max(end, until)
        return end


@dataclass(frozen=True, slots=True)
class SigningRules:
    """The operator's choices for signing.

    ``sources`` is the order in which headers are asked for the caller. ``freshness`` in seconds
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


@dataclass(frozen=True, slots=True)
class Signing:
    """The outcome for one call. ``identity`` is the header value to add, None where not signed.

    ``skip`` says why there is none; ``refuse`` that the call should be answered instead of
    going on. ``date`` is the Date header to send, replacing one that is there if
    ``replace_date``. ``drop`` are the indices of Identity headers to remove. ``diverting`` is the
    number that sends the call on where this is about a ``div``, ``holder`` the customer whose it is.
    """

    skip: SkipReason | None = None
    refuse: bool = False
    decision: Decision | None = None
    emergency: bool = False
    orig: Party | None = None
    dest: Party | None = None
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

    @property
    def ppt(self) -> str:
        """The type of PASSporT that this is about."""
        return PPT if self.diverting is None else PPT_DIV


class _Judged(NamedTuple):
    """What the policy says of a call, and what it was asked with; ``base.skip`` where that is all."""

    base: Signing
    caller: Caller | None = None
    diversion: tuple[TelephoneNumber, Party] | None = None
    facts: PolicyFacts | None = None


PPT: Final = "shaken"
PPT_DIV: Final = "div"


def identity_header(pair: SigningPair, claims: Mapping[str, Any], ppt: str = PPT) -> IdentityHeader:
    """The Identity header for claims, signed with a pair.

    Raises:
        SigningError: the key cannot be used.
    """
    signed = signing_input(passport_header(pair.x5u, ppt), claims)
    token = f"{signed.decode('ascii')}.{b64url(pair.signer.sign(signed))}"
    return IdentityHeader(token, pair.x5u, "ES256", ppt)


class AuthenticationService:
    """Signs calls with the provider's own credentials.

    Args:
        rules: the operator's choices.
        store: the records.
        credentials: by name; ``rules.default_credential`` must be among them.
    """

    def __init__(self, rules: SigningRules, store: PolicyStore, credentials: Mapping[str, Credential]) -> None:
        self._rules = rules
        self.store = store
        self._credentials = credentials
        self._own_urls = frozenset(pair.x5u for credential in credentials.values() for pair in credential.pairs)

    def sign(self, message: CallMessage, now: float, random_origid: str, *, again: bool = False) -> Signing:
        """Decide a call's level and, where it gets one, sign it.

        Args:
            message: the call. Where it has Identity headers and ``diverting`` names a number other than
                the new target, a ``div`` is signed or nothing; ``existing`` is not about those.
            now: POSIX seconds.
            random_origid: a fresh UUID, used where origids are per call.
            again: the call was signed when it came and leaves once more, later: its Date was good
                then, and is now replaced by the present time.
        """
        base, caller, diversion, facts = self._judged(message, now)
        if base.skip is not None or base.decision is None or facts is None:
            return base
        if diversion is not None:
            return self._diverted(base, *diversion, facts, message, now)
        return self._attested(base, base.decision, caller, message, now, random_origid, again=again)

    def refuses(self, message: CallMessage, now: float) -> bool:
        """Whether `sign` would have the call answered instead of sent on; nothing is signed for it."""
        return self._judged(message, now).base.refuse

    def _judged(self, message: CallMessage, now: float) -> _Judged:
        """What the policy says of a call."""
        if not message.is_initial_invite:
            return _Judged(Signing(SkipReason.NOT_INITIAL_INVITE))
        rules = self._rules
        caller = self._caller(message)
        diversion = self._diversion(message)
        base = Signing(
            emergency=is_emergency(message.request_uri, message.to, message.priority, rules.plan),
            orig=caller.party if caller else None,
            dest=diversion[1] if diversion else message.called(rules.plan),
            diverting=diversion[0] if diversion else None,
        )
        asked = base.diverting or base.orig
        number = asked.digits if isinstance(asked, TelephoneNumber) else None
        try:
            facts = self.store.facts(message.source, message.user, number)
        except StoreUnavailable as exc:
            refuse = rules.store_down is StoreDown.REFUSE and not base.emergency
            return _Judged(replace(base, skip=SkipReason.STORE_UNAVAILABLE, refuse=refuse, detail=str(exc)))
        # Decided before anything else about the call is looked at: a header that a suspended
        # customer adds, spoils or leaves out must not spare it the refusal.
        if diversion is not None:
            decision = decide_diversion(*diversion, facts, rules.attestation, now, emergency=base.emergency)
        else:
            decision = decide(CallFacts(base.orig, base.dest, base.emergency), facts, rules.attestation, now)
        # Whoever gets no div is judged as any other caller: an Identity header must not spare the refusal.
        if diversion is not None and decision.level is Level.UNSIGNED:
            plain = self._plain(base, message, now)
            decision = plain if plain.level is Level.REFUSE else decision
        base = replace(base, decision=decision)
        if decision.level is Level.REFUSE:
            return _Judged(replace(base, skip=SkipReason.POLICY_REFUSED, refuse=True))
        return _Judged(base, caller, diversion, facts)

    def _plain(self, base: Signing, message: CallMessage, now: float) -> Decision:
        """What would be decided of a call that nobody sends on.

        Raises:
            StoreUnavailable: the records cannot be read.
        """
        number = base.orig.digits if isinstance(base.orig, TelephoneNumber) else None
        facts = self.store.facts(message.source, message.user, number)
        return decide(CallFacts(base.orig, base.dest, base.emergency), facts, self._rules.attestation, now)

    def _attested(
        self,
        base: Signing,
        decision: Decision,
        caller: Caller | None,
        message: CallMessage,
        now: float,
        random_origid: str,
        *,
        again: bool,
    ) -> Signing:
        """A ``shaken`` PASSporT, where nothing but the level stands against it."""
        drop = self._existing(message, base)
        skip = SkipReason.ALREADY_SIGNED if drop is None else self._unsignable(base, message, caller)
        if decision.level is Level.UNSIGNED:
            skip = SkipReason.POLICY_UNSIGNED
        if skip is not None:
            return replace(base, skip=skip)
        iat, replace_date, skip = self._date(message, base, now, again=again)
        if skip is not None:
            return replace(base, skip=skip)
        base = replace(base, drop=drop or (), replace_date=replace_date, iat=iat)
        return self._signed(base, decision, message, now, random_origid)

    def _diversion(self, message: CallMessage) -> tuple[TelephoneNumber, Party] | None:
        """Who diverts the call to whom, None where no ``div`` is asked for.

        RFC 8946 §4.1: only a request that carries Identity already gets a div;
        such a call is signed like any other.
        """
        if not message.identity or self._rules.diversion is DiversionMode.LEAVE:
            return None
        return message.diversion(self._rules.plan)

    def _unsignable(self, base: Signing, message: CallMessage, caller: Caller | None) -> SkipReason | None:
        """What about the parties keeps a call from being signed."""
        if base.dest is None:
            return SkipReason.CALLED_MISSING
        if caller is None:
            return SkipReason.CALLER_MISSING
        if is_anonymous(caller.party):
            return SkipReason.CALLER_ANONYMOUS
        return SkipReason.CALLER_AMBIGUOUS if self._is_ambiguous(message, caller) else None

    def _diverted(
        self,
        base: Signing,
        diverting: TelephoneNumber,
        dest: Party,
        facts: PolicyFacts,
        message: CallMessage,
        now: float,
    ) -> Signing:
        """A ``div`` PASSporT, beside the Identity headers that are there: RFC 8946 §4.1 removes none."""
        assert base.decision is not None
        if base.decision.level is Level.UNSIGNED:
            by_right = base.decision.trace[-1].rule == RIGHT
            return replace(base, skip=SkipReason.DIVERSION_NOT_OURS if by_right else SkipReason.POLICY_UNSIGNED)
        holder = diverting_holder(facts, now)
        assert holder is not None  # else the level would be UNSIGNED
        base, found = replace(base, holder=holder[0]), links(message.identity)
        if is_signed(found, base.orig, diverting, dest):
            return replace(base, skip=SkipReason.DIVERSION_SIGNED)
        original = diverted(found, base.orig, diverting, now, self._rules.freshness)
        if original is None:
            return replace(base, skip=SkipReason.DIVERSION_NO_ORIGINAL)
        # RFC 8946 §3: iat SHOULD be that of the original. Not where the call has rung so long that
        # verifiers, who want the last div fresh (§4.2), would find it stale; half the window is for the way.
        iat, replace_date = original.iat, False
        if abs(now - iat) > self._rules.freshness / 2:
            iat, replace_date = int(now), message.date is not None
        base = replace(base, iat=iat, replace_date=replace_date)
        claims = div_claims({**original.claims, "iat": iat}, diverting, dest)
        name = holder[0].credential or self._rules.default_credential
        return self._with_header(base, name, diverting, claims, message, now)

    def _signed(
        self, base: Signing, decision: Decision, message: CallMessage, now: float, random_origid: str
    ) -> Signing:
        rules = self._rules
        assert decision.level.attest is not None
        assert base.orig is not None
        assert base.dest is not None
        assert base.iat is not None
        origid = self._origid(decision.source, random_origid)
        claims = shaken_claims(
            attest=decision.level.attest,
            orig=base.orig,
            dest=base.dest,
            iat=base.iat,
            origid=origid,
            mky=media_keys(message.sdp) if rules.mky and "a=fingerprint" in message.sdp else None,
        )
        signing = self._with_header(base, self._credential_name(decision.source), base.orig, claims, message, now)
        return signing if signing.identity is None else replace(signing, origid=origid)

    def _with_header(
        self, base: Signing, name: str, speaker: Party, claims: Mapping[str, Any], message: CallMessage, now: float
    ) -> Signing:
        """The claims signed with a credential, if it may speak for this party."""
        assert base.iat is not None
        credential = self._credentials.get(name)
        if credential is None:
            return replace(base, skip=SkipReason.NO_CREDENTIAL)
        pair = credential.current(now)
        skip = SkipReason.CREDENTIAL_NOT_VALID if pair is None else pair.refuses(speaker, base.iat, now)
        if pair is None or skip is not None:
            return replace(base, skip=skip, credential=credential)
        try:
            header = identity_header(pair, claims, base.ppt)
        except SigningError as exc:
            return replace(base, skip=SkipReason.SIGNER_FAILED, credential=credential, detail=str(exc))
        return replace(
            base,
            identity=header.format(quote_ppt=self._rules.quote_ppt),
            # RFC 8224 §6.1 step 3: "If the Date is not present, the authentication service MUST
            # add one". It equals iat, so that compact-form verifiers would agree.
            date=format_date(base.iat) if message.date is None or base.replace_date else None,
            credential=credential,
        )

    def _existing(self, message: CallMessage, base: Signing) -> tuple[int, ...] | None:
        """Indices of Identity headers to remove, None where the call is to be left as it is."""
        if not message.identity or self._rules.existing is ExistingIdentity.ADD:
            return ()
        if self._rules.existing is ExistingIdentity.REPLACE_OURS and not base.emergency:
            ours = tuple(index for index, value in enumerate(message.identity) if self._is_ours(value))
            return ours or None
        return None

    def _is_ours(self, value: str) -> bool:
        try:
            return IdentityHeader.parse(value).info in self._own_urls
        except VerificationFailure:
            return False

    def _caller(self, message: CallMessage) -> Caller | None:
        """The first identity of the configured headers, a number before a URI in each."""
        for header in self._rules.sources:
            callers = list(message.callers_in(header, self._rules.plan))
            for caller in callers:
                if isinstance(caller.party, TelephoneNumber):
                    return caller
            if callers:
                return callers[0]
        return None

    def _is_ambiguous(self, message: CallMessage, caller: Caller) -> bool:
        """Whether the caller's header names another number, too; a verifier would not know which."""
        parties = {other.party for other in message.callers_in(caller.header, self._rules.plan)}
        return any(isinstance(party, TelephoneNumber) and party != caller.party for party in parties)

    def _date(
        self, message: CallMessage, base: Signing, now: float, *, again: bool
    ) -> tuple[int, bool, SkipReason | None]:
        """``iat``, whether the Date is to be replaced, and why the call cannot be signed."""
        if message.date is None or again:
            return int(now), message.date is not None, None
        try:
            date = parse_date(message.date)
        except SipSyntaxError:
            skip = SkipReason.DATE_INVALID
        else:
            if abs(now - date) <= self._rules.freshness:
                return date, False, None
            skip = SkipReason.DATE_STALE
        # RFC 8224 §6.1 step 3: "MUST NOT" sign an outdated Date. A customer's call is ours to
        # repair; one that passed other networks is not.
        source = base.decision.source if base.decision else None
        if self._rules.stale_date is StaleDate.REPLACE and isinstance(source, Trunk) and not base.emergency:
            return int(now), True, None
        return 0, False, skip

    def _credential_name(self, source: Trunk | Gateway | None) -> str:
        named = source.credential if source else None
        if named is None and isinstance(source, Trunk):
            named = source.customer.credential
        return named or self._rules.default_credential

    def _origid(self, source: Trunk | Gateway | None, random_origid: str) -> str:
        """RFC 8588 §5; §10 recommends one per call for privacy, traceback wants a stable one."""
        if self._rules.origid is OrigidScope.CALL or source is None:
            return random_origid
        if isinstance(source, Gateway):
            return str(uuid.uuid5(self._rules.origid_namespace, f"gateway/{source.id}"))
        customer = source.customer
        if customer.origid is not None:
            return customer.origid
        name = f"customer/{customer.id}"
        if self._rules.origid is OrigidScope.TRUNK:
            name += f"/trunk/{source.id}"
        return str(uuid.uuid5(self._rules.origid_namespace, name))
