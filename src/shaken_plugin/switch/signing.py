"""The signing half of a `Switch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path

from shaken_plugin.authentication import Asked, AuthenticationService, Follow, Signing, Usual
from shaken_plugin.core.attestation import Refusal
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.limits import key
from shaken_plugin.core.sip import NameAddr, Uri, format_date
from shaken_plugin.core.telephone import canonical_party
from shaken_plugin.errors import NumberError, SigningError, SipSyntaxError, SkipReason, StoreUnavailable
from shaken_plugin.ports import Observer
from shaken_plugin.records.usual import Signed
from shaken_plugin.runtime import Services
from shaken_plugin.stores.sqlite import SqliteStore
from shaken_plugin.switch.actions import Action, Outcome, Reject, signing_variables, strip_foreign
from shaken_plugin.switch.faults import OUR_FAULT, Guard
from shaken_plugin.switch.keeping import LeftAs
from shaken_plugin.switch.sealing import Seal
from shaken_plugin.switch.size import SizeAdvice, SizeOutcome, added_bytes
from shaken_plugin.switch.sizeguard import SizeGuard
from shaken_plugin.switch.substitution import substitution
from shaken_plugin.switch.usual import MAX_TEXT, is_unmarked, told_of
from shaken_plugin.telemetry import MAX_LINE


def _any(_slot: str) -> bool:
    return True


class SigningGuard(Guard):
    """Calls that leave: decided, signed, substituted, and small enough.

    Args:
        services, observer, clock: see `Guard`.
        new_uuid: a fresh random UUID as text.
    """

    def __init__(
        self, services: Services, observer: Observer, clock: Callable[[], float], new_uuid: Callable[[], str]
    ) -> None:
        super().__init__(services, observer, clock)
        self.sizes = SizeGuard(self._reports, clock)
        self.seal = Seal()
        self._new_uuid = new_uuid
        self.tells_ends = False
        """Whether the adapter tells the end of each call that has a slot (`ended`)."""
        self.follow: Follow = _any
        """Asks the adapter about such a call."""
        self.to_tell_ends = ""
        """What the operator has to do for that."""

    def sign(
        self,
        read: Callable[[], CallMessage],
        *,
        again: bool = False,
        left_as: LeftAs | None = None,
        call_id: Callable[[], str] | None = None,
    ) -> Outcome:
        """Decide and sign one outgoing call.

        Args:
            read: reads the call; what it raises is a fault like any other.
            again: it was signed before and leaves once more (`needs_new_signature`).
            left_as: it has left before with another caller ID; with that it leaves, signed or not, in every
                mode and whatever is decided now.
            call_id: reads its Call-ID alone, for the record of a call that could not be read.

        Returns:
            Variables ``level`` (not for a ``div``), ``ppt`` where it is signed, ``skip``,
            ``customer``, ``source``, ``origid``, ``rules``, ``policy``, ``refusal``, ``unauthorised``,
            ``substituted_for``, ``over_limit``, ``counted`` (as what, for `CallMessage`), ``slot`` (the same,
            its end is to be told); for `attach` ``identity``, ``ppi``, ``date``, ``replace_date``, ``drop``,
            ``signed_at``, and for `substitution` ``substitute``; actions that take verstat out; an answer
            where the call is refused.
        """
        message: CallMessage | None = None
        try:
            if self.services.authentication is not None:
                message = read()
                return self._signed(self.services.authentication, message, again=again, left_as=left_as)
            outcome = Outcome({"skip": SkipReason.SIGNING_OFF.code})
            message = read() if left_as is not None else None
        except BaseException as exc:  # nothing of ours may drop a call
            if message is None:
                self._record_unread("sign", call_id)
            outcome = self._fault("sign", exc, message)
        return outcome if left_as is None else self._unjudged(outcome, left_as, message)

    def _signed(
        self, service: AuthenticationService, message: CallMessage, *, again: bool, left_as: LeftAs | None
    ) -> Outcome:
        now = self._clock()
        asked: Asked | None = None
        if left_as is None and not again and (usual := self._usual(service, message, now)) is not None:
            asked = service.ask(usual, message, self._new_uuid, follow=self._follow)
            if (outcome := self._usually(service, message, usual, asked, now)) is not None:
                return outcome
        signing = service.sign(message, now, self._new_uuid, again=again, follow=self._follow, asked=asked)
        self._warn_of_services(service, now)
        if left_as is not None:
            signing = left_as.kept(signing, message, self.services.plan)
        return self._outcome(message, signing, now, left_as)

    @property
    def _follow(self) -> Follow | None:
        return self.follow if self.tells_ends else None

    def _usual(self, service: AuthenticationService, message: CallMessage, now: float) -> Usual | None:
        """A usual call (`authentication.usual`), None for any other."""
        settings, call_id = self.services.settings, message.call_id
        if settings.signing.mode != "active" or not 0 < len(call_id) <= MAX_TEXT or not is_unmarked(message):
            return None
        return service.usual(message, now)

    def _usually(
        self, service: AuthenticationService, message: CallMessage, usual: Usual, asked: Asked | None, now: float
    ) -> Outcome | None:
        """What becomes of a usual call; None where that is not so simple, and nothing is said yet."""
        if asked is not None:
            if not asked.is_usual:
                return None
            usual = usual.counted(asked)
        call_id = quoted(message.call_id)
        if (told := told_of(usual, message, self.services.settings)) is None:
            return None
        line = told.log_line(call_id, usual)
        if len(line) > MAX_LINE:
            return None  # it has to be cut
        try:
            identity = service.sealed(usual)
        except SigningError:
            return None  # tried once more, and told
        self._warn_of_services(service, now)
        signature = identity.partition(";")[0].rpartition(".")[2]
        self._reports.usual_signing(told.counted, usual.ready.credential, line, now)
        outcome = told.outcome(identity, signature, format_date(usual.iat), now, asked)
        # Last, as in `_outcome`; what it is made of has stood in the log line.
        self._keep(told.filled(call_id, usual, signature, now), now)
        return outcome

    def _warn_of_services(self, service: AuthenticationService, now: float) -> None:
        if self.services.copy is not None and (trouble := self.services.copy.trouble) is not None:
            self._reports.warn("copy_stale", f"shaken: {trouble}", now)
        if unusable := service.credentials.trouble:
            self._reports.warn("key_unusable", f"shaken: {'; '.join(unusable)}", now)

    def _outcome(self, message: CallMessage, signing: Signing, now: float, left_as: LeftAs | None) -> Outcome:
        """What is to be done about a call; it is said, counted and recorded."""
        settings = self.services.settings
        active = settings.signing.mode == "active"
        self._reports.signing(message, signing, settings, now)
        if signing.slotless:
            self.warn_slotless()
        reject = self._answer(signing) if signing.refuse and active else None
        variables = signing_variables(message, signing, now, active=active)
        actions = self._unmarked(message, variables.get("substitute")) if active and reject is None else ()
        outcome = Outcome(variables, actions, reject)
        if not active and left_as is not None and str(signing.substitute or "") == left_as.number:
            outcome = self._unjudged(outcome, left_as, message)  # we only watch now, but its dialog was begun before
        if signing.skip is not SkipReason.NOT_INITIAL_INVITE:
            # Last: nothing behind it can fail, and make another record of the same call.
            self._record(lambda: Signed(message, signing, now, observe=not active), now)
        return outcome

    def _answer(self, signing: Signing) -> Reject:
        if signing.skip in {SkipReason.STORE_UNAVAILABLE, SkipReason.LIMITS_UNAVAILABLE}:
            return OUR_FAULT
        settings = self.services.settings
        over = signing.refusal is Refusal.OVER_LIMIT
        return Reject(*settings.answer(signing.refusal), retry_after=settings.limits.retry_after if over else 0)

    def admit(self, read: Callable[[], CallMessage]) -> Outcome:
        """Whether a call will be refused, asked before it is sent on; nothing is logged of one that will not.

        For a switch that signs each leg as it leaves, and can answer in the policy's own words
        only before that. The variable ``slot`` as in `sign`.
        """
        service = self.services.authentication
        settings = self.services.settings.signing
        if service is None or settings.mode != "active":
            return Outcome()
        message: CallMessage | None = None
        try:
            now = self._clock()
            message = read()
            signing = service.admit(message, now, self._new_uuid, follow=self._follow)
            if signing.refuse:
                return self._outcome(message, signing, now, None)
            return Outcome({"slot": signing.slot} if signing.slot else {})
        except BaseException as exc:
            return self._fault("sign", exc, message)

    def warn_slotless(self) -> None:
        """Say that limits on concurrent calls are not enforced here."""
        text = (
            f"shaken: limits on concurrent calls are NOT enforced: {self.to_tell_ends}; those on calls per second are"
        )
        self.warn("limits_without_ends", text)

    def check_limits(self) -> None:
        """Say so at the start, where any customer has such a limit."""
        if not self.tells_ends and self.services.limiter is not None and self._limits_concurrency():
            self.warn_slotless()

    def check_presence(self) -> None:
        """In each process that has calls: say so if its concurrent calls cannot be counted, and any customer's are."""
        limiter = self.services.limiter
        if limiter is None or not self.tells_ends:
            return
        try:
            if self._limits_concurrency() and (trouble := limiter.trouble()):
                self.warn("limits_unavailable", f"shaken: limits on concurrent calls are NOT enforced: {trouble}")
        except BaseException as exc:
            self._fault("check_presence", exc, None)

    def _limits_concurrency(self) -> bool:
        try:
            return SqliteStore(Path(self.services.settings.store.path)).limits_concurrency()
        except StoreUnavailable:
            return False  # said by whoever decides calls

    def followed(self, slot: str, owner: str = "") -> None:
        """The call with this ``slot`` goes on until its end is told, see `ports.CallLimiter`."""
        if self.services.limiter is not None:
            self.services.limiter.followed(slot, owner)

    def ended(self, slot: str) -> None:
        """The call with this ``slot`` has ended, or failed: it is free for another."""
        if self.services.limiter is not None:
            self.services.limiter.ended(slot)

    def referred(self, slot: str, target: str) -> None:
        """A REFER in the dialog of a call with this ``slot``: the call to its target takes the slot over.

        Args:
            slot: as `sign` returned it.
            target: the Refer-To value.
        """
        if self.services.limiter is None:
            return
        try:
            to = canonical_party(Uri.parse(NameAddr.parse(target).uri), self.services.plan)
        except (SipSyntaxError, NumberError):
            return
        if to is not None:
            self.services.limiter.referred(slot, key(str(to)))

    def _unmarked(self, message: CallMessage, substitute: str | None) -> tuple[Action, ...]:
        """Foreign verstat out: a customer's is believed no more than a stranger's."""
        if not message.is_initial_invite:
            return ()
        if not substitute:
            return strip_foreign(message)
        # The same header cannot be edited twice; what is written anew has none.
        written = self.substitution(message, substitute)
        anew = {action.name for action in written}
        return tuple(action for action in strip_foreign(message) if action.name not in anew)

    def substitution(self, message: CallMessage, number: str, *, within_dialog: bool = False) -> tuple[Action, ...]:
        """What makes a request leave as a call of another number; see `substitution.substitution`."""
        signing = self.services.settings.signing
        return substitution(
            message,
            number,
            self.services.plan,
            signing.substitute_in,
            signing.substitute_host,
            within_dialog=within_dialog,
        )

    @property
    def signs_actively(self) -> bool:
        """Whether signing may change what goes over the wire."""
        return self.services.authentication is not None and self.services.settings.signing.mode == "active"

    def needs_new_signature(self, variables: Mapping[str, str]) -> bool:
        """Whether a signature made earlier is too old for a branch that leaves now."""
        try:
            return self._clock() - float(variables.get("signed_at", "")) > self.services.settings.signing.resign_after
        except ValueError:  # there is none
            return False

    def fresh_until(self, signed_at: str) -> str:
        """Until when (POSIX seconds, exclusive) a signature of that moment surely is young enough to leave."""
        return str(int(signed_at) + int(self.services.settings.signing.resign_after))

    def is_before(self, until: str) -> bool:
        """Whether it is earlier than that."""
        return self._clock() < int(until)

    def fits(self, variables: Mapping[str, str], size_without: int) -> bool:
        """Whether an INVITE is small enough for UDP, wherever it goes; see `check_size`."""
        threshold = self.services.settings.signing.size.threshold
        return not threshold or size_without + added_bytes(variables) <= threshold

    def check_size(
        self,
        variables: Mapping[str, str],
        size_without: int,
        transport: str,
        peer: str | None = None,
        *,
        may_switch: bool = True,
    ) -> SizeAdvice:
        """Whether an INVITE is too large for UDP with our headers, and what to do about it.

        Counts it, and says so once per trunk.

        Args:
            variables: those that `sign` returned.
            size_without: bytes of the INVITE as it leaves, without what `attach` adds.
            transport: by which it would leave; all but ``udp`` take any size.
            peer: where it would go, any text; by it is remembered who does not answer by TCP
                (``sizes.tcp_answered``, ``sizes.tcp_failed``). None: it may always be tried.
            may_switch: False where the operator has asked for UDP explicitly.
        """
        try:
            if transport == "udp":
                settings = self.services.settings.signing.size
                return self.sizes.check(variables, size_without, settings, peer, may_switch=may_switch)
        except BaseException as exc:
            self._fault("size", exc, None)
        return SizeAdvice(SizeOutcome.FITS, size_without, variables)

    def check_store(self) -> None:
        """Say so if this process cannot read the policy: rights differ from user to user."""
        if self.services.authentication is None:
            return
        try:
            self.services.authentication.store.facts(None, None, None)
        except StoreUnavailable as exc:
            self.warn("store_unavailable", f"shaken: the policy cannot be read here: {exc}")
        except BaseException as exc:
            self._fault("check_store", exc, None)
