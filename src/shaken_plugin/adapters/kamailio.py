"""The Kamailio adapter: functions for the routing script, KEMI or native.

    shaken_sign     request route, calls from inside: decide, sign, or refuse
    shaken_divert   request or failure route, calls sent on to another number: sign the diversion
    shaken_branch   branch route: put Identity (and Date) on each branch that leaves
    shaken_left     branch route of a native script that adds these itself: a call with a slot has left
    shaken_verify   request route, calls from outside: verify, mark, or reject
    shaken_reply    onreply route: Reason headers of protocol STIR
    shaken_dialog   request route, requests inside a dialog: a caller ID that was substituted stays so
    shaken_ended    events of the module dialog: a call with a slot has ended or failed
    shaken_event    the same by the module's event_callback
    shaken_refer    request route, REFER inside a dialog: a transfer counts as one call
    shaken_fallback after a t_relay that failed, and failure route: a call that was too large for
                    UDP and not answered by TCP (``signing.size.action: tcp``) goes by UDP

All but the last return 1 (`shaken_dialog` may 2) to go on and 0 where the call has been answered; a native script ends
by itself on 0 (`python_exec`). Results are in ``$xavp(shaken_as=>…)`` and ``$xavp(shaken_vs=>…)``.

Why the header is added in the branch route: what the request route appends stays on every later
branch and cannot be taken off again, so a failover would carry a stale token, or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from shaken_plugin.adapters.kamailio_calls import ENDS, NULL, Calls
from shaken_plugin.adapters.kamailio_dialog import PARAMETER, Dialogs
from shaken_plugin.adapters.kamailio_message import ASKED, Message, utf8
from shaken_plugin.adapters.kamailio_observer import KamailioObserver
from shaken_plugin.adapters.kamailio_size import BranchSize
from shaken_plugin.adapters.kamailio_state import IDLE, INNER, PUBLISHED, STATE, USUAL, pack, unpack
from shaken_plugin.core.call import CallMessage
from shaken_plugin.switch import (
    AddHeader,
    LeftAs,
    Outcome,
    Reject,
    RemoveHeader,
    Same,
    Switch,
    attach,
)
from shaken_plugin.switch.process import Process, load

__all__ = [
    "ANSWERED", "ASKED", "GO_ON", "NOTHING", "OFF", "ROUTES", "SIGNING", "SUBSTITUTED", "VERIFYING", "Kamailio",
    "KamailioObserver",
]  # fmt: skip

GO_ON: Final = 1
SUBSTITUTED: Final = 2
"""`GO_ON`, and the routes for branches and replies have something to do about this request inside a dialog."""

ANSWERED: Final = 0
"""A native script ends when a function returns 0."""

NOTHING: Final = -1
"""Not true in a native script's condition."""

ROUTES: Final = "shaken"
"""Name of the xavp with ``routes``: ``1`` where the call has to pass `shaken_branch` and `shaken_reply`; and ``quiet``:
``1`` where it has one branch, and `shaken_reply` nothing to do about replies to that but their Reason headers."""

OFF: Final = "$shv(shaken_off)"
"""1 where no call leaves signed, and so none with another caller ID: a native script need not look for that later."""

SIGNING: Final = "shaken_as"
VERIFYING: Final = "shaken_vs"
"""Names of the xavps with the results of the authentication and the verification service."""

TASK_GROUP: Final = "shaken"
"""Name of the asynchronous task group whose workers wait for certificates."""

_UNTIL: Final = "until"
"""Variable of a usual call: its first branch needs nothing of us but Identity and Date before this moment
(``kamailio-native.cfg``)."""
_SLOT_UNTIL: Final = "slot_until"
"""In its place where the call has a slot: it is to be told that this has left, too (`Kamailio.shaken_left`)."""

_TOLD: Final = (
    "level", "skip", "customer", "origid", "ppt", "refusal", "unauthorised", "substituted_for", "rules", "policy",
)  # fmt: skip
"""What else a signing may publish; where it is signed anew, nothing of before stays."""


class Kamailio(Message):
    """The object that ``mod_init`` returns. A KEMI routing script derives from it.

    Args:
        ksr: the switch's ``KSR`` module.
        path: the settings file, by default from ``SHAKEN_SETTINGS``.
        switch: instead of this process's own, for tests.
    """

    def __init__(self, ksr: Any, path: Path | None = None, switch: Switch | None = None) -> None:
        super().__init__(ksr)
        self.switch = switch or load(lambda: KamailioObserver(ksr), path)
        self._size = BranchSize(ksr, self.switch)
        self._dialogs = Dialogs(ksr, self.switch, self._execute)
        self._dialogs.check_start()
        self._calls = Calls(ksr, self.switch)

    def child_init(self, rank: int) -> int:
        """Called by Kamailio in every process, after the fork and after a reload."""
        if isinstance(Process.observer, KamailioObserver):
            Process.observer.find_counters()
        # Kamailio may have changed to another user since mod_init.
        self.switch.check_store()
        if rank > 0:  # one that has calls
            self.switch.check_presence()
        self._ksr.pv.seti(OFF, 0 if self.switch.signs_actively else 1)
        return GO_ON

    # --- For the routing script ---------------------------------------------------------------

    def shaken_sign(self, _msg: object = None, user: str | None = None) -> int:
        """Decide and sign a call from inside; the header is added by `shaken_branch`.

        Args:
            user: the account that the script has authenticated, for instance ``$au`` after
                ``auth_check``. Never pass a name that was not checked.
        """
        # Nothing is said of a call that we have nothing to do with: to set one variable costs more than to come here.
        # And a function with another inside, as `_sign` is, makes cells for that when it begins.
        return GO_ON if self.switch.services.authentication is None else self._sign(user)

    def _sign(self, user: str | None) -> int:
        try:
            before = self._get(SIGNING, "state")  # the rest is empty where this is
            if before and (self._get(SIGNING, "signed_at") or self._get(SIGNING, "substitute")):
                return GO_ON  # a failover: the branch route signs anew if it must
            account = None if user in {None, "", NULL} else user
            counted = self._get(SIGNING, "counted") if before else ""
            outcome = self.switch.sign(
                lambda: self._read(user=account, body=True, counted=counted), call_id=self._call_id
            )
            if self._calls.noted:
                self._calls.settle(outcome.variables.get("slot", ""))
            if not before and outcome.same is not None and self._publish_usual(outcome.same, outcome.variables):
                found = GO_ON
            else:
                self._publish_signing(outcome.variables)
                found = self._finish(outcome)
            if account or (before and self._get(SIGNING, "user")):
                self._set(SIGNING, "user", account or "")
            return found
        except BaseException as exc:
            return self._survive("sign", exc)

    def shaken_divert(self, _msg: object = None, diverting: str = "") -> int:
        """Sign that a call is sent on to another number, after the script has written that into ``$ru``.

        The Identity headers that are there stay, and a ``div`` goes on from them (RFC 8946); a call
        without any is signed as by `shaken_sign`. The header is added by `shaken_branch`.

        Args:
            diverting: the URI that the call was for, ``$ou``.
        """
        try:
            counted = self._get(SIGNING, "counted")
            outcome = self._sign_anew(f"<{utf8(diverting)}>", counted, again=bool(self._get(SIGNING, "signed_at")))
            self._publish_signing(outcome.variables)
            return self._finish(outcome)
        except BaseException as exc:
            return self._survive("divert", exc)

    def shaken_ended(self, _msg: object = None, slot: str = "") -> int:
        """A call with a slot has ended, or failed: for the module's event routes ``dialog:end`` and ``dialog:failed``.

        Args:
            slot: ``$dlg_var(shaken_slot)``; of other calls nothing is told.
        """
        try:
            if slot and slot != NULL:
                self.switch.ended(slot)
            return GO_ON
        except BaseException as exc:
            return self._survive("ended", exc)

    def shaken_event(self, _msg: object = None, event: str = "") -> int:
        """The same for the module's ``event_callback``.

        Args:
            event: its name; of others than ``dialog:end`` and ``dialog:failed`` nothing is told. Event routes that call
                this with ``$dlg_var(shaken_slot)`` behind a space, as the examples once did, tell the same.
        """
        try:
            name, _, slot = event.partition(" ")
            return self.shaken_ended(slot=slot or self._calls.slot()) if name in ENDS else GO_ON
        except BaseException as exc:
            return self._survive("event", exc)

    def shaken_refer(self, _msg: object = None) -> int:
        """For a REFER inside a dialog, from either side: the call that comes of it takes over the slot."""
        try:
            self._calls.refer()
            return GO_ON
        except BaseException as exc:
            return self._survive("refer", exc)

    def _sign_anew(self, diverting: str, counted: str, *, again: bool) -> Outcome:
        """Sign a call once more, for where it goes now; nothing of an earlier signature stays."""
        before, number, replaced = (self._get(SIGNING, name) for name in ("ppi", "substitute", "substituted_for"))
        outcome = self.switch.sign(
            lambda: self._read(
                user=self._get(SIGNING, "user") or None, body=True, diverting=diverting, counted=counted
            ),
            again=again,
            left_as=LeftAs(number) if number else None,
            call_id=self._call_id,
        )
        if self._calls.noted:
            self._calls.settle(outcome.variables.get("slot", ""))
        fresh = dict.fromkeys((*STATE, *_TOLD, _UNTIL, _SLOT_UNTIL), "") | dict(outcome.variables)
        if fresh["substitute"]:
            fresh["substituted_for"] = replaced or fresh["substituted_for"]
        fresh["ppi"] = ",".join(filter(None, (before, fresh["ppi"])))  # answers may be about either
        if diverting:
            fresh |= {"diverting": diverting, "target": self._target()}
        return replace(outcome, variables=fresh)

    def shaken_branch(self, _msg: object = None) -> int:
        """Put our Identity on a branch; sign anew where the signature has grown old."""
        try:
            until = _UNTIL
            if self.switch.services.limiter is not None and (slot := self._get(SIGNING, "slot")):
                self.switch.followed(slot)
                until = _SLOT_UNTIL
            if (moment := self._get(SIGNING, until)) and self._attach_usual(moment):
                return GO_ON
            state = self._state()
            # Each branch may go to a number of its own, and that is what a div says.
            diverting = state["diverting"]
            elsewhere = diverting != "" and state["target"] != self._target()
            if not state["identity"] and not state["substitute"] and not elsewhere:
                if self._is_noted() and not self._get(SIGNING, "dialog"):
                    self._dialogs.check_request(self._read())
                return GO_ON
            if elsewhere or self.switch.needs_new_signature(state):
                variables = self._sign_anew(diverting, "", again=True).variables
                self._publish_signing(variables)
                state = unpack(pack(variables))
            if state["substitute"]:
                self._set(SIGNING, "own", self._dialogs.begin(self._read(), state["substitute"]))
            attached, remember = self._size.fit(state)
            for action in attach(attached):
                self._execute(action)
            self._publish(SIGNING, remember)
            self._note_branch(quiet=not state["substitute"] and "tcp" not in remember)
            return GO_ON
        except BaseException as exc:
            return self._survive("branch", exc)

    def shaken_left(self, _msg: object = None, slot: str = "") -> int:
        """A call with a slot has left, with its headers: what `shaken_branch` tells where it adds these.

        Args:
            slot: ``$xavp(shaken_as=>slot)``.
        """
        try:
            if slot and slot != NULL:
                self.switch.followed(slot)
            return GO_ON
        except BaseException as exc:
            return self._survive("left", exc)

    def _attach_usual(self, until: str) -> bool:
        """What ``kamailio-native.cfg`` itself does on the first branch of a usual call; False: not done."""
        if self._ksr.tm.t_get_branch_index() != 0 or not self.switch.is_before(until):
            return False
        self._ksr.hdr.append(f"Date: {self._get(SIGNING, 'date')}\r\nIdentity: {self._get(SIGNING, 'identity')}\r\n")
        self._set(ROUTES, "quiet", "1")
        return True

    def _state(self) -> dict[str, str]:
        """What the branch route needs of the signing."""
        packed = self._get(SIGNING, "state")
        if packed != USUAL:
            return unpack(packed)
        return dict.fromkeys(STATE, "") | {name: self._get(SIGNING, name) for name in PUBLISHED}

    def _note_branch(self, *, quiet: bool) -> None:
        """For `shaken_reply`: this branch has its signature, and maybe nothing else matters in replies to it."""
        index = self._ksr.tm.t_get_branch_index()
        if quiet and index == 0 and not self._get(VERIFYING, "reason"):
            self._set(ROUTES, "quiet", "1")
            return
        earlier = (self._get(SIGNING, "branches") or self._first_branch()) if index else ""
        self._set(SIGNING, "branches", f"{earlier}{index},")
        self._set(ROUTES, "quiet", "")

    def _first_branch(self) -> str:
        """The first branch as `shaken_branch` notes it, where it was quiet."""
        return "0," if self._get(ROUTES, "quiet") == "1" else ""

    def shaken_dialog(self, _msg: object = None) -> int:
        """For each request inside a dialog, from either side, after ``loose_route``.

        Where the caller ID was substituted, the request says so, too; arm `shaken_reply` for its replies.

        Returns:
            `SUBSTITUTED` where the request's route says so, else `GO_ON`; in a native script both are true.
        """
        try:
            if not self._is_noted():
                return GO_ON
            self._set(SIGNING, "dialog", "1")
            self._set(SIGNING, "own", self._dialogs.go_on(self._read(), self._pseudo("$route_uri")))
            self._set(ROUTES, "routes", "1")
            return SUBSTITUTED
        except BaseException as exc:
            return self._survive("dialog", exc)

    def shaken_routes(self, _msg: object = None) -> bool:
        """Whether `shaken_branch` and `shaken_reply` have anything to do: a KEMI script may ask before it arms them.

        A native script asks as ``kamailio-native.cfg`` does.
        """
        try:
            return self._get(ROUTES, "routes") != "" or self._is_noted()
        except BaseException as exc:
            self._survive("routes", exc)
            return True

    def _is_noted(self) -> bool:
        """Whether the request is of a dialog that was begun with another caller ID."""
        return self.switch.signs_actively and f";{PARAMETER}=" in self._pseudo("$route_uri")

    def shaken_fallback(self, _msg: object = None) -> int:
        """Whether the call is to be relayed once more: by UDP (``$du``), because TCP failed.

        Call it where `t_relay` has failed, and in the failure route. It needs `shaken_reply`: a
        branch that was answered, by whatever, does not fall back (RFC 3261 §18.1.1).

        Returns:
            `GO_ON` to arm the routes and `t_relay` again, else `NOTHING`.
        """
        try:
            tcp = self._get(SIGNING, "tcp")
            if not tcp or self._ksr.tm.t_is_canceled() > 0:
                return NOTHING
            self._set(SIGNING, "tcp", "")
            self._size.fall_back(tcp)
            return GO_ON
        except BaseException as exc:
            self._survive("fallback", exc)
            return NOTHING

    def shaken_verify(self, _msg: object = None, route: str = "") -> int:
        """Verify a call from outside and mark it for the inside.

        Args:
            route: the route to come back to where a certificate has to be fetched first. The call
                is held meanwhile, in the task group "shaken", and the route is entered from its
                beginning: it must be the one that calls this function. Without it no call waits.
        """
        try:
            if self.switch.services.verification is None:
                return GO_ON
            text = self._text()
            if not text.startswith("INVITE ") and self._is_of_no_interest(text):
                return GO_ON
            before = self._is_there(VERIFYING)
            if before and self._get(VERIFYING, "result"):
                return GO_ON

            def read() -> CallMessage:
                return self._read(text, body=True, whence=False)

            waited = self._get(VERIFYING, "waiting") if before else ""
            outcome = self.switch.verify(
                read, may_wait=bool(route) and not waited, waited=waited, call_id=self._call_id
            )
            if outcome.wait:
                self._publish(VERIFYING, outcome.variables)
                if self._hold(route):
                    return ANSWERED
                self._set(VERIFYING, "waiting", "")
                self.switch.release(outcome.variables["waiting"])
                outcome = self.switch.verify(read)
                waited = "1"
            if waited or outcome.same is None or not self._publish_passed(outcome.same, outcome.variables):
                self._publish_verdict(outcome.variables, first=not waited)
            return self._finish(outcome)
        except BaseException as exc:
            return self._survive("verify", exc)

    def _is_of_no_interest(self, text: str) -> bool:
        """Whether the request is one inside a dialog in which nobody can have written a verstat.

        Said of what is not an INVITE alone. Each letter of the name may be escaped (`core.verstat`).
        """
        if self._ksr.pv.get("$rm") == "INVITE":
            return False
        try:
            text = text or self._ksr.pv.get("$mb")
        except UnicodeDecodeError:
            return False
        return "%" not in text and "verstat" not in text.lower()

    def _hold(self, route: str) -> bool:
        """Suspend the transaction; a worker of the task group goes on with it in ``route``."""
        try:
            held: bool = self._ksr.__dict__["async"].task_group_route(route, TASK_GROUP) >= 0
        except (KeyError, AttributeError):
            held = False
        if not held:
            self.switch.warn(
                "cannot_hold",
                f"shaken: calls cannot be held: Kamailio needs the module async and "
                f'async_workers_group="name={TASK_GROUP};workers=8;nonblock=0;usleep=0"',
            )
        return held

    def shaken_reply(self, _msg: object = None) -> int:
        """Take STIR Reasons about our PASSporT out of a reply, put those of our verdict in.

        Where the caller ID was substituted, the caller gets its own From back.
        """
        try:
            if self._is_quiet():
                return GO_ON
            if own := self._get(SIGNING, "own"):
                self._dialogs.answer(own)
                if self._get(SIGNING, "substitute") and str(self._ksr.pv.get("$rs")).startswith("2"):
                    self._dialogs.check_answer(self._headers("Record-Route"))
            ours, add = self._get(SIGNING, "ppi"), self._get(VERIFYING, "reason")
            if ours:
                self._check_branch()
                if (tcp := self._get(SIGNING, "tcp")) and self._size.replied(tcp):
                    self._set(SIGNING, "tcp", "")
            if not ours and not add:
                return GO_ON
            lines = list(self._headers("Reason"))
            if not lines and not add:
                return GO_ON
            values = self.switch.reply_reasons(lines, ours or None, add or None)
            if values is not None:
                if lines:
                    self._execute(RemoveHeader("Reason"))
                for value in values:
                    self._execute(AddHeader("Reason", value))
            return GO_ON
        except BaseException as exc:
            return self._survive("reply", exc)

    def _is_quiet(self) -> bool:
        """Whether `shaken_reply` would do nothing: what ``kamailio-native.cfg`` asks before it calls it."""
        if self._get(ROUTES, "quiet") != "1" or self._ksr.tm.t_get_branch_index() != 0:
            return False
        return bool(self._ksr.hdr.is_present("Reason") < 0)

    # --- Doing --------------------------------------------------------------------------------

    def _finish(self, outcome: Outcome) -> int:
        for action in outcome.actions:
            if isinstance(action, AddHeader):
                action.value.encode()  # fail before the first change, not between two
        for action in outcome.actions:
            self._execute(action)
        if outcome.reject is None:
            return GO_ON
        self._answer(outcome.reject)
        return ANSWERED

    def _answer(self, reject: Reject) -> None:
        is_held = bool(self._get(VERIFYING, "waiting"))
        if not is_held:
            # Without a transaction a retransmission would be a call of its own: decided and recorded once more, and by
            # what holds at another moment even let through, to ring where nobody calls any more.
            self._ksr.tm.t_newtran()
        for reason in reject.reasons:
            self._ksr.hdr.append_to_reply(f"Reason: {reason}\r\n")
        if reject.retry_after:
            self._ksr.hdr.append_to_reply(f"Retry-After: {reject.retry_after}\r\n")
        if is_held:
            self._ksr.tm.t_reply(reject.status, reject.phrase)
        else:
            self._ksr.sl.send_reply(reject.status, reject.phrase)

    def _publish_verdict(self, variables: Mapping[str, str], *, first: bool) -> None:
        """For the routing script; ``first``: nothing was published of the call before, so that one call may do it."""
        if not (first and variables and self._publish_together(VERIFYING, variables)):
            self._publish(VERIFYING, variables)
        if variables.get("reason"):
            self._set(ROUTES, "routes", "1")
            for name in (_UNTIL, _SLOT_UNTIL):
                if self._get(SIGNING, name):
                    self._set(SIGNING, name, "")

    def _publish_together(self, root: str, variables: Mapping[str, str]) -> bool:
        """`_publish` by one call of Kamailio; False: not done.

        An xavp of that name would be hidden, not changed.
        """
        if self._explode is None:
            return False
        text = _exploding(variables)
        return text != "" and self._explode(text, root) >= 0

    def _publish_passed(self, same: Same, variables: Mapping[str, str]) -> bool:
        """`_publish_verdict` of a usual call that passed, where nothing was published of it before; False: not done."""
        if same.made is None:
            same.made = _exploding(same.variables)
        if not same.made or self._explode is None:
            return False
        # Digits and hexadecimal ones: no quotes.
        text = f"{same.made};orig='{variables['orig']}';origid='{variables['origid']}'"
        return bool(self._explode(text, VERIFYING) >= 0)

    def _publish_signing(self, variables: Mapping[str, str]) -> None:
        """For the routing script each by its name, for `shaken_branch` together."""
        state = pack(variables)
        self._set(SIGNING, "state", state)  # first: without it nothing else is looked for
        for name, value in variables.items():
            if name not in INNER:
                self._set(SIGNING, name, value)
        if state != IDLE or variables.get("slot"):
            self._set(ROUTES, "routes", "1")

    def _publish_usual(self, same: Same, variables: Mapping[str, str]) -> bool:
        """The same of a usual call that nothing was published of before, as by `_publish_together`; False: not done."""
        if same.made is None:
            same.made = _exploding(same.variables)
        if not same.made or self._explode is None:
            return False
        identity, ppi, at, date = variables["identity"], variables["ppi"], variables["signed_at"], variables["date"]
        text = f"state='{USUAL}';identity='{identity}';ppi='{ppi}';signed_at='{at}';date='{date}';{same.made}"
        until = _UNTIL
        if counted := variables.get("counted"):  # a key
            text = f"{text};counted='{counted}'"
            if "slot" in variables:
                text, until = f"{text};slot='{counted}'", _SLOT_UNTIL
        text = f"{text};{until}='{self._until(identity, date, at)}'"
        if "'" in identity or self._explode(text, SIGNING) < 0:
            return False
        self._set(ROUTES, "routes", "1")
        return True

    def _until(self, identity: str, date: str, signed_at: str) -> str:
        """Until when (POSIX seconds, exclusive) the first branch needs these two headers and nothing else of us.

        Empty where it does: it may be too large, or replies to it get a Reason of ours.
        """
        if self._length is None or not date or not self._size.fits(self._length, identity, date):
            return ""
        return "" if self._get(VERIFYING, "reason") else self.switch.fresh_until(signed_at)

    def _check_branch(self) -> None:
        """A reply to a branch that never passed `shaken_branch` means that it left unsigned."""
        passed = self._get(SIGNING, "branches") or self._first_branch()
        if str(self._ksr.tm.t_get_branch_index()) not in passed.split(","):
            self.switch.warn(
                "branch_without_identity",
                "shaken: a branch left without the Identity header that was signed for it; "
                "arm the branch route (t_on_branch) before every t_relay, in failure routes too",
            )

    def _survive(self, where: str, exc: BaseException) -> int:
        """A fault in this glue: logged and counted, and the call goes on."""
        self.switch.fault(where, exc)
        return GO_ON


def _exploding(variables: Mapping[str, str]) -> str:
    """Variables as Kamailio makes an xavp of them; empty where it cannot: in quotes anything may stand but a quote."""
    text = ";".join([f"{name}='{value}'" for name, value in variables.items()])
    return text if text.count("'") == 2 * len(variables) else ""
