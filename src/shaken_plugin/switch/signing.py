"""The signing half of a `Switch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shaken_plugin.authentication import AuthenticationService
from shaken_plugin.core.call import CallMessage
from shaken_plugin.errors import SkipReason, StoreUnavailable
from shaken_plugin.ports import Observer
from shaken_plugin.records.call import signed
from shaken_plugin.runtime import Services
from shaken_plugin.switch.actions import Action, Outcome, Reject, signing_variables, strip_foreign
from shaken_plugin.switch.faults import OUR_FAULT, Guard
from shaken_plugin.switch.keeping import LeftAs
from shaken_plugin.switch.sealing import Seal
from shaken_plugin.switch.size import SizeAdvice, SizeOutcome
from shaken_plugin.switch.sizeguard import SizeGuard
from shaken_plugin.switch.substitution import substitution


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
            ``substituted_for``; for `attach` ``identity``, ``ppi``, ``date``, ``replace_date``, ``drop``,
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
        settings, now = self.services.settings, self._clock()
        active = settings.signing.mode == "active"
        signing = service.sign(message, now, self._new_uuid(), again=again)
        if left_as is not None:
            signing = left_as.kept(signing, message, self.services.plan)
        self._reports.signing(message, signing, settings, now)
        reject = None
        if signing.refuse and active:
            reject = Reject(*settings.signing.answer(signing.refusal))
            if signing.skip is SkipReason.STORE_UNAVAILABLE:
                reject = OUR_FAULT
        variables = signing_variables(message, signing, now, active=active)
        actions = self._unmarked(message, variables.get("substitute")) if active and reject is None else ()
        outcome = Outcome(variables, actions, reject)
        if not active and left_as is not None and str(signing.substitute or "") == left_as.number:
            outcome = self._unjudged(outcome, left_as, message)  # we only watch now, but its dialog was begun before
        if signing.skip is not SkipReason.NOT_INITIAL_INVITE:
            # Last: nothing behind it can fail, and make another record of the same call.
            self._record(lambda: signed(message, signing, now, observe=not active), now)
        return outcome

    def admit(self, read: Callable[[], CallMessage]) -> Outcome:
        """Whether a call will be refused, asked before it is sent on; nothing is logged of one that will not.

        For a switch that signs each leg as it leaves, and can answer in the policy's own words
        only before that.
        """
        service = self.services.authentication
        settings = self.services.settings.signing
        if service is None or settings.mode != "active":
            return Outcome()
        message: CallMessage | None = None
        try:
            now = self._clock()
            message = read()
            if not service.refuses(message, now):
                return Outcome()
        except BaseException as exc:
            return self._fault("sign", exc, message)
        found = message
        return self.sign(lambda: found)

    def _unmarked(self, message: CallMessage, substitute: str | None) -> tuple[Action, ...]:
        """Foreign verstat out: a customer's is believed no more than a stranger's."""
        if not message.is_initial_invite:
            return ()
        # The same header cannot be edited twice; what is written anew has none.
        written = self.substitution(message, substitute) if substitute else ()
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
            age = self._clock() - float(variables.get("signed_at", ""))
        except ValueError:
            return False
        return age > self.services.settings.signing.resign_after

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
