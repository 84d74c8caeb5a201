"""Signing what the policy lets be signed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from shaken_plugin.authentication.judging import Judge, Judgement, number_digits
from shaken_plugin.authentication.limiting import Asked, Follow, Limiter
from shaken_plugin.authentication.model import (
    PPT,
    Credential,
    Credentials,
    ExistingIdentity,
    Fresh,
    OrigidScope,
    Signing,
    SigningPair,
    SigningRules,
    StaleDate,
    drawn,
)
from shaken_plugin.authentication.usual import Ready, Usual, is_plain
from shaken_plugin.core.attestation import (
    Decision,
    Level,
)
from shaken_plugin.core.call import CallMessage, is_anonymous
from shaken_plugin.core.diverting import RIGHT, diverted, diverting_holder, is_signed, links
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.jws import b64url
from shaken_plugin.core.passport import (
    div_claims,
    media_keys,
    passport_header,
    serialise,
    shaken_payload,
    signing_input,
)
from shaken_plugin.core.records import Gateway, PolicyFacts, Trunk
from shaken_plugin.core.sip import format_date, parse_date
from shaken_plugin.core.telephone import Party, TelephoneNumber
from shaken_plugin.errors import (
    SigningError,
    SipSyntaxError,
    SkipReason,
    VerificationFailure,
)
from shaken_plugin.ports import PolicyStore


def identity_header(pair: SigningPair, claims: Mapping[str, Any], ppt: str = PPT) -> IdentityHeader:
    """The Identity header for claims, signed with a pair.

    Raises:
        SigningError: the key cannot be used.
    """
    signed = signing_input(passport_header(pair.x5u, ppt), claims)
    token = f"{signed.decode('ascii')}.{b64url(pair.signer.sign(signed))}"
    return IdentityHeader(token, pair.x5u, "ES256", ppt)


def identity_value(pair: SigningPair, payload: bytes, ppt: str = PPT, *, quote_ppt: bool = True) -> str:
    """`identity_header` in the form to send, for claims as `core.passport.serialise` writes them.

    Raises:
        SigningError: the key cannot be used.
    """
    before, behind = _around(pair.x5u, ppt, quote_ppt)
    signed = before + b64url(payload)
    return f"{signed}.{b64url(pair.signer.sign(signed.encode('ascii')))}{behind}"


@lru_cache(64)
def _around(x5u: str, ppt: str, quote_ppt: bool) -> tuple[str, str]:
    """What is the same in all headers of a pair: before the claims, and behind the signature."""
    header = b64url(serialise(passport_header(x5u, ppt)))
    return f"{header}.", IdentityHeader("", x5u, "ES256", ppt).format(quote_ppt=quote_ppt)


class AuthenticationService(Judge):
    """Signs calls with the provider's own credentials.

    Args:
        rules: the operator's choices.
        store: the records.
        credentials: ``rules.default_credential`` must be among them.
        limiter: has calls counted; without it no limit is looked at.
        remembers, look_every: see `Judge`.
    """

    def __init__(
        self,
        rules: SigningRules,
        store: PolicyStore,
        credentials: Credentials,
        limiter: Limiter | None = None,
        *,
        remembers: bool = True,
        look_every: float = 0.0,
    ) -> None:
        super().__init__(rules, store, remembers=remembers, look_every=look_every)
        self.limiter = limiter
        self.credentials = credentials

    def sign(
        self,
        message: CallMessage,
        now: float,
        random_origid: Fresh,
        *,
        again: bool = False,
        follow: Follow | None = None,
        asked: Asked | None = None,
    ) -> Signing:
        """Decide a call's level and, where it gets one, sign it.

        Args:
            message: the call. Where it has Identity headers and ``diverting`` names a number other than
                the new target, a ``div`` is signed or nothing, unless the caller is substituted; ``existing`` is
                not about those.
            now: POSIX seconds.
            random_origid: a fresh UUID, used (and drawn) where origids are per call, and at the limits.
            again: the call was signed when it came and leaves once more, later: its Date was good
                then, and is now replaced by the present time. It was counted then, too.
            follow: of a switch that tells the end of calls (`ports.CallLimiter.ended`).
            asked: what its customer's limits say, where it was counted already (`ask`).
        """
        base, judgement, diversion, facts = self._judged(message, now)
        if judgement is None or base.decision is None:
            return base
        self.credentials.look(base.decision.policy_version, now)
        if self.limiter is not None and not again:
            base = self.limiter.limited(base, message, random_origid, follow=follow, asked=asked)
            if base.refuse:
                return base
        assert base.decision is not None
        if diversion is not None and facts is not None:
            return self._diverted(base, *diversion, facts, message, now)
        return self._attested(base, base.decision, judgement, message, now, random_origid, again=again)

    def usual(self, message: CallMessage, now: float) -> Usual | None:
        """A usual call that can be signed; None for every other, whatever is about it: `sign` says what.

        All is looked at in each call that may differ from one to the next: the time, the called party; and the store
        now and then (`memory.Looks`).
        """
        target = message.target(self._rules.plan)
        dest = target.usual
        if dest is None or not is_plain(message) or (self._rules.mky and "a=fingerprint" in message.sdp):
            return None
        # The same digits are the same party, but a route is found by a number with its country alone.
        judgement = self._known(message, dest, number_digits(target.uri) or number_digits(dest), now)
        if judgement is None:
            return None
        self.credentials.look(judgement.decision.policy_version, now)
        ready, iat = judgement.ready, int(now)
        if ready is None or not (ready.after < iat and now < ready.until) or not self._has(ready.credential):
            ready = judgement.ready = self._ready(judgement, now)
            if ready is None or not ready.after < iat:
                return None
        return Usual(ready, dest, iat)

    def ask(self, usual: Usual, message: CallMessage, random: Fresh, *, follow: Follow | None) -> Asked | None:
        """Have a usual call counted; None where there are no limits. The arguments are those of `sign`."""
        return None if self.limiter is None else self.limiter.ask(usual.ready.decision, message, random, follow=follow)

    def sealed(self, usual: Usual) -> str:
        """The value of the Identity header of a usual call.

        Raises:
            SigningError: the key cannot be used.
        """
        return identity_value(usual.ready.pair, usual.payload(), quote_ppt=self._rules.quote_ppt)

    def _has(self, credential: Credential) -> bool:
        return self.credentials.named.get(credential.name) is credential

    def _ready(self, judgement: Judgement, now: float) -> Ready | None:
        """What usual calls of a judgement are signed with now; None where they are not, or more is to be said."""
        decision, orig, caller = judgement.decision, judgement.orig, judgement.caller
        attest, source = decision.level.attest, decision.source
        if attest is None or orig is None or caller is None or source is None or decision.unauthorised:
            return None
        if judgement.substitute is not None or judgement.ambiguous or is_anonymous(caller.party):
            return None
        credential = self.credentials.named.get(self._credential_name(source))
        pair = None if credential is None else credential.current(now)
        if credential is None or pair is None or pair.refuses(orig, now, now) is not None:
            return None
        if self._rules.origid is OrigidScope.CALL:
            return None
        ready = Ready(decision, attest, orig, self._origid(source, ""), credential, pair)
        ready.hold(now)
        return ready

    def admit(self, message: CallMessage, now: float, random: Fresh, *, follow: Follow | None = None) -> Signing:
        """What `sign` would do about a call but for the signature: whether it is answered instead of sent on.

        It is counted; `sign` knows it then, when a leg of it leaves.
        """
        base = self._judged(message, now).base
        if not base.refuse and self.limiter is not None:
            base = self.limiter.limited(base, message, random, follow=follow)
        return base

    def _attested(
        self,
        base: Signing,
        decision: Decision,
        judgement: Judgement,
        message: CallMessage,
        now: float,
        random_origid: Fresh,
        *,
        again: bool,
    ) -> Signing:
        """A ``shaken`` PASSporT, where nothing but the level stands against it."""
        drop = self._existing(message, base)
        base.skip = SkipReason.ALREADY_SIGNED if drop is None else _unsignable(base, judgement)
        if decision.level is Level.UNSIGNED:
            base.skip = SkipReason.POLICY_UNSIGNED
        if base.skip is not None:
            return base
        iat, replace_date, base.skip = self._date(message, base, now, again=again)
        if base.skip is not None:
            return base
        base.drop, base.replace_date, base.iat = drop or (), replace_date, iat
        return self._signed(base, decision, message, now, random_origid)

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
            base.skip = SkipReason.DIVERSION_NOT_OURS if by_right else SkipReason.POLICY_UNSIGNED
            return base
        holder = diverting_holder(facts, now, require_approval=self._rules.attestation.require_approval)
        assert holder is not None  # else the level would be UNSIGNED
        base.holder, found = holder[0], links(message.identity)
        if is_signed(found, base.orig, diverting, dest):
            base.skip = SkipReason.DIVERSION_SIGNED
            return base
        original = diverted(found, base.orig, diverting, now, self._rules.freshness)
        if original is None:
            base.skip = SkipReason.DIVERSION_NO_ORIGINAL
            return base
        # RFC 8946 §3: iat SHOULD be that of the original. Not where the call has rung so long that
        # verifiers, who want the last div fresh (§4.2), would find it stale; half the window is for the way.
        iat, replace_date = original.iat, False
        if abs(now - iat) > self._rules.freshness / 2:
            iat, replace_date = int(now), message.date is not None
        base.iat, base.replace_date = iat, replace_date
        claims = div_claims({**original.claims, "iat": iat}, diverting, dest)
        name = holder[0].credential or self._rules.default_credential
        return self._with_header(base, name, diverting, serialise(claims), message, now)

    def _signed(
        self, base: Signing, decision: Decision, message: CallMessage, now: float, random_origid: Fresh
    ) -> Signing:
        rules = self._rules
        assert decision.level.attest is not None
        assert base.orig is not None
        assert base.dest is not None
        assert base.iat is not None
        source = decision.source
        origid = self._origid(source, random_origid)
        payload = shaken_payload(
            attest=decision.level.attest,
            orig=base.orig,
            dest=base.dest,
            iat=base.iat,
            origid=origid,
            mky=media_keys(message.sdp) if rules.mky and "a=fingerprint" in message.sdp else None,
        )
        signing = self._with_header(base, self._credential_name(source), base.orig, payload, message, now)
        if signing.identity is not None:
            signing.origid = origid
        return signing

    def _with_header(
        self, base: Signing, name: str, speaker: Party, payload: bytes, message: CallMessage, now: float
    ) -> Signing:
        """Claims signed with a credential, if it may speak for this party."""
        assert base.iat is not None
        credential = self.credentials.named.get(name)
        if credential is None:
            base.skip = SkipReason.NO_CREDENTIAL
            return base
        base.credential, pair = credential, credential.current(now)
        base.skip = SkipReason.CREDENTIAL_NOT_VALID if pair is None else pair.refuses(speaker, base.iat, now)
        if pair is None or base.skip is not None:
            return base
        try:
            base.identity = identity_value(pair, payload, base.ppt, quote_ppt=self._rules.quote_ppt)
        except SigningError as exc:
            base.skip, base.detail = SkipReason.SIGNER_FAILED, str(exc)
            return base
        # RFC 8224 §6.1 step 3: "If the Date is not present, the authentication service MUST
        # add one". It equals iat, so that compact-form verifiers would agree.
        base.date = format_date(base.iat) if message.date is None or base.replace_date else None
        return base

    def _existing(self, message: CallMessage, base: Signing) -> tuple[int, ...] | None:
        """Indices of Identity headers to remove, None where the call is to be left as it is."""
        if base.substitute is not None:
            # They vouch for a caller whom the call no longer names: no verifier could accept them (RFC 8224 §6.2.3).
            return tuple(range(len(message.identity)))
        if not message.identity or self._rules.existing is ExistingIdentity.ADD:
            return ()
        if self._rules.existing is ExistingIdentity.REPLACE_OURS and not base.emergency:
            ours = tuple(index for index, value in enumerate(message.identity) if self._is_ours(value))
            return ours or None
        return None

    def _is_ours(self, value: str) -> bool:
        try:
            return self.credentials.own(IdentityHeader.parse(value).info)
        except VerificationFailure:
            return False

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

    def _origid(self, source: Trunk | Gateway | None, random_origid: Fresh) -> str:
        """RFC 8588 §5; §10 recommends one per call for privacy, traceback wants a stable one."""
        if self._rules.origid is OrigidScope.CALL or source is None:
            return drawn(random_origid)
        if isinstance(source, Gateway):
            return _origid_of(self._rules.origid_namespace, f"gateway/{source.id}")
        customer = source.customer
        if customer.origid is not None:
            return customer.origid
        name = f"customer/{customer.id}"
        if self._rules.origid is OrigidScope.TRUNK:
            name += f"/trunk/{source.id}"
        return _origid_of(self._rules.origid_namespace, name)


@lru_cache(1_024)
def _origid_of(namespace: uuid.UUID, name: str) -> str:
    return str(uuid.uuid5(namespace, name))


def _unsignable(base: Signing, judgement: Judgement) -> SkipReason | None:
    """What about the parties keeps a call from being signed."""
    if base.dest is None:
        return SkipReason.CALLED_MISSING
    if judgement.caller is None:
        return SkipReason.CALLER_MISSING
    if is_anonymous(judgement.caller.party):
        return SkipReason.CALLER_ANONYMOUS
    # A substitute takes the place of all that the header names.
    return SkipReason.CALLER_AMBIGUOUS if base.substitute is None and judgement.ambiguous else None
