"""The Kamailio adapter: five functions for the routing script, KEMI or native.

    shaken_sign     request route, calls from inside: decide, sign, or refuse
    shaken_divert   request or failure route, calls sent on to another number: sign the diversion
    shaken_branch   branch route: put Identity (and Date) on each branch that leaves
    shaken_verify   request route, calls from outside: verify, mark, or reject
    shaken_reply    onreply route: Reason headers of protocol STIR
    shaken_fallback after a t_relay that failed, and failure route: a call that was too large for
                    UDP and not answered by TCP (``signing.size.action: tcp``) goes by UDP

All but the last return 1 to go on and 0 where the call has been answered; a native script ends by itself on 0
(`python_exec`). Results are in ``$xavp(shaken_as=>…)`` and ``$xavp(shaken_vs=>…)``.

Why the header is added in the branch route: what the request route appends stays on every later
branch and cannot be taken off again, so a failover would carry a stale token, or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from shaken_plugin.adapters.kamailio_size import BranchSize
from shaken_plugin.core.call import NAMING, CallerHeader, CallMessage
from shaken_plugin.core.verstat import VERSTAT_PATTERN
from shaken_plugin.ports import Severity
from shaken_plugin.switch import Action, AddHeader, Outcome, Reject, RemoveHeader, StripVerstat, Switch, attach
from shaken_plugin.switch.process import Process, load
from shaken_plugin.telemetry import clean

GO_ON: Final = 1
ANSWERED: Final = 0
"""A native script ends when a function returns 0."""

NOTHING: Final = -1
"""Not true in a native script's condition."""

SIGNING: Final = "shaken_as"
VERIFYING: Final = "shaken_vs"
"""Names of the xavps with the results of the authentication and the verification service."""

COUNTERS: Final = "shaken"
"""Name of the htable that counts, where the configuration defines it."""

METRIC: Final = "shaken_events"
"""Name of the Prometheus counter, with the label ``event``, where the configuration defines it."""

TASK_GROUP: Final = "shaken"
"""Name of the asynchronous task group whose workers wait for certificates."""

MAX_HEADERS: Final = 32
"""Most header lines of one name that are read."""

_STATE: Final = ("identity", "ppi", "date", "replace_date", "drop", "signed_at", "source")
_TOLD: Final = ("level", "skip", "customer", "origid", "ppt")
"""What else a signing may publish; where it is signed anew, nothing of before stays."""
_STRIP: Final = f"/{VERSTAT_PATTERN}//g"


class KamailioObserver:
    """A `ports.Observer` on Kamailio's log and an htable."""

    def __init__(self, ksr: Any) -> None:
        self._ksr = ksr
        self._levels = {
            Severity.DEBUG: ksr.dbg,
            Severity.INFO: ksr.info,
            Severity.WARNING: ksr.warn,
            Severity.ERROR: ksr.err,
        }
        self.counting = False
        self.measuring = False

    def log(self, severity: Severity, text: str) -> None:
        """See `ports.Observer.log`."""
        self._levels[severity](clean(text) + "\n")

    def count(self, name: str) -> None:
        """See `ports.Observer.count`."""
        if self.counting:
            self._ksr.htable.sht_inc(COUNTERS, name)
        if self.measuring:
            self._ksr.xhttp_prom.counter_inc_l1(METRIC, 1, name)

    def find_counters(self) -> None:
        """Count from now on, in what the configuration defines: the htable, the metric, or both."""
        htable, metrics = getattr(self._ksr, "htable", None), getattr(self._ksr, "xhttp_prom", None)
        self.counting = htable is not None and htable.sht_inc(COUNTERS, "loads") > 0
        self.measuring = metrics is not None and metrics.counter_inc_l1(METRIC, 1, "loads") > 0


class Kamailio:
    """The object that ``mod_init`` returns. A KEMI routing script derives from it.

    Args:
        ksr: the switch's ``KSR`` module.
        path: the settings file, by default from ``SHAKEN_SETTINGS``.
        switch: instead of this process's own, for tests.
    """

    def __init__(self, ksr: Any, path: Path | None = None, switch: Switch | None = None) -> None:
        self._ksr = ksr
        self.switch = switch or load(lambda: KamailioObserver(ksr), path)
        self._size = BranchSize(ksr, self.switch)

    def child_init(self, _rank: int) -> int:
        """Called by Kamailio in every process, after the fork and after a reload."""
        if isinstance(Process.observer, KamailioObserver):
            Process.observer.find_counters()
        # Kamailio may have changed to another user since mod_init.
        self.switch.check_store()
        return GO_ON

    # --- For the routing script ---------------------------------------------------------------

    def shaken_sign(self, _msg: object = None, user: str | None = None) -> int:
        """Decide and sign a call from inside; the header is added by `shaken_branch`.

        Args:
            user: the account that the script has authenticated, for instance ``$au`` after
                ``auth_check``. Never pass a name that was not checked.
        """
        try:
            if self._get(SIGNING, "signed_at"):
                return GO_ON  # a failover: the branch route signs anew if it must
            account = None if user in {None, "", "<null>"} else user
            outcome = self.switch.sign(lambda: self._read(user=account, body=True))
            self._set(SIGNING, "user", account or "")
            return self._finish(SIGNING, outcome)
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
            outcome = self._sign_anew(f"<{_utf8(diverting)}>", again=bool(self._get(SIGNING, "signed_at")))
            return self._finish(SIGNING, outcome)
        except BaseException as exc:
            return self._survive("divert", exc)

    def _sign_anew(self, diverting: str, *, again: bool) -> Outcome:
        """Sign a call once more, for where it goes now; nothing of an earlier signature stays."""
        before = self._get(SIGNING, "ppi")
        outcome = self.switch.sign(
            lambda: self._read(user=self._get(SIGNING, "user") or None, body=True, diverting=diverting), again=again
        )
        fresh = dict.fromkeys((*_STATE, *_TOLD), "") | dict(outcome.variables)
        fresh["ppi"] = ",".join(filter(None, (before, fresh["ppi"])))  # answers may be about either
        if diverting:
            fresh |= {"diverting": diverting, "target": self._target()}
        return replace(outcome, variables=fresh)

    def shaken_branch(self, _msg: object = None) -> int:
        """Put our Identity on a branch; sign anew where the signature has grown old."""
        try:
            state, diverting = self._signed(), self._get(SIGNING, "diverting")
            # Each branch may go to a number of its own, and that is what a div says.
            elsewhere = diverting != "" and self._get(SIGNING, "target") != self._target()
            if not state.get("identity") and not elsewhere:
                return GO_ON
            if elsewhere or self.switch.needs_new_signature(state):
                self._publish(SIGNING, self._sign_anew(diverting, again=True).variables)
                state = self._signed()
            variables, remember = self._size.fit(state)
            for action in attach(variables):
                self._execute(action)
            self._publish(SIGNING, remember)
            self._set(SIGNING, "branches", self._get(SIGNING, "branches") + self._branch())
            return GO_ON
        except BaseException as exc:
            return self._survive("branch", exc)

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
            if self._get(VERIFYING, "result"):
                return GO_ON

            def read() -> CallMessage:
                return self._read(body=True)

            waited = self._get(VERIFYING, "waiting")
            outcome = self.switch.verify(read, may_wait=bool(route) and not waited, waited=waited)
            if outcome.wait:
                self._publish(VERIFYING, outcome.variables)
                if self._hold(route):
                    return ANSWERED
                self._set(VERIFYING, "waiting", "")
                self.switch.release(outcome.variables["waiting"])
                outcome = self.switch.verify(read)
            return self._finish(VERIFYING, outcome)
        except BaseException as exc:
            return self._survive("verify", exc)

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
        """Take STIR Reasons about our PASSporT out of a reply, put those of our verdict in."""
        try:
            ours, add = self._get(SIGNING, "ppi"), self._get(VERIFYING, "reason")
            if ours:
                self._check_branch()
                if (tcp := self._get(SIGNING, "tcp")) and self._size.replied(tcp):
                    self._set(SIGNING, "tcp", "")
            if not ours and not add:
                return GO_ON
            lines = list(self._headers("Reason"))
            values = self.switch.reply_reasons(lines, ours or None, add or None)
            if values is not None:
                if lines:
                    self._execute(RemoveHeader("Reason"))
                for value in values:
                    self._execute(AddHeader("Reason", value))
            return GO_ON
        except BaseException as exc:
            return self._survive("reply", exc)

    # --- Reading ------------------------------------------------------------------------------

    def _read(self, *, user: str | None = None, body: bool = False, diverting: str = "") -> CallMessage:
        unreadable: list[str] = []
        pv = self._ksr.pv
        return CallMessage(
            method=pv.get("$rm"),
            request_uri=self._pseudo("$ru") or self._unparsed_uri(),
            to=next(self._headers("To", unreadable), ""),
            callers={
                header: lines for header in CallerHeader if (lines := tuple(self._headers(header.value, unreadable)))
            },
            call_id=self._pseudo("$ci"),
            date=next(self._headers("Date", unreadable), None),
            identity=tuple(self._headers("Identity", unreadable)),
            priority=next(self._headers("Priority", unreadable), ""),
            naming={name: lines for name in NAMING if (lines := tuple(self._headers(name)))},
            resource_priority=tuple(self._headers("Resource-Priority", unreadable)),
            sdp=self._pseudo("$rb") if body else "",
            source=pv.get("$si"),
            user=user,
            diverting=diverting,
            unreadable=tuple(unreadable),
        )

    def _target(self) -> str:
        """Where the call goes now, to compare with."""
        return _utf8(self._pseudo("$ru"))

    def _unparsed_uri(self) -> str:
        """The Request-URI where Kamailio cannot parse it; an emergency call may stand in it."""
        words = self._pseudo("$mb").partition("\r\n")[0].split(" ")
        return words[1] if len(words) > 1 else ""

    def _headers(self, name: str, unreadable: list[str] | None = None) -> Iterator[str]:
        """The values of a header, in order."""
        get = self._ksr.hdr.get_idx
        for index in range(MAX_HEADERS):
            try:
                value = get(name, index)
            except UnicodeDecodeError:
                if unreadable is not None:
                    unreadable.append(name)
                value = self._raw(f"$(hdr({name})[{index}]{{s.encode.hexa}})")
            if value is None:
                return
            yield value

    def _pseudo(self, name: str) -> str:
        """A pseudo-variable as text, ``""`` where it is null."""
        try:
            return self._ksr.pv.get(name) or ""
        except UnicodeDecodeError:
            return self._raw(f"$({name[1:]}{{s.encode.hexa}})") or ""

    def _raw(self, name: str) -> str | None:
        """Bytes that are not UTF-8, as text with surrogate escapes, by way of hexadecimal."""
        digits = self._ksr.pv.get(name)
        return None if digits is None else bytes.fromhex(digits).decode("utf-8", "surrogateescape")

    # --- Doing --------------------------------------------------------------------------------

    def _finish(self, root: str, outcome: Outcome) -> int:
        self._publish(root, outcome.variables)
        for action in outcome.actions:
            if isinstance(action, AddHeader):
                action.value.encode()  # fail before the first change, not between two
        for action in outcome.actions:
            self._execute(action)
        if outcome.reject is None:
            return GO_ON
        self._answer(outcome.reject)
        return ANSWERED

    def _execute(self, action: Action) -> None:
        ksr = self._ksr
        if isinstance(action, AddHeader):
            ksr.hdr.append(f"{action.name}: {action.value}\r\n")
        elif isinstance(action, StripVerstat):
            ksr.textops.subst_hf(action.name, _STRIP, "a")
        elif action.index is None:
            ksr.hdr.remove(action.name)
        else:
            ksr.textops.remove_hf_idx(action.name, action.index)

    def _answer(self, reject: Reject) -> None:
        for reason in reject.reasons:
            self._ksr.hdr.append_to_reply(f"Reason: {reason}\r\n")
        if self._get(VERIFYING, "waiting"):
            self._ksr.tm.t_reply(reject.status, reject.phrase)  # a held call has a transaction
        else:
            self._ksr.sl.send_reply(reject.status, reject.phrase)

    def _publish(self, root: str, variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            self._set(root, name, value)

    def _set(self, root: str, name: str, value: str) -> None:
        self._ksr.pvx.xavp_child_sets(root, name, value)

    def _get(self, root: str, name: str) -> str:
        return self._ksr.pvx.xavp_child_gete(root, name) or ""

    def _signed(self) -> dict[str, str]:
        return {name: self._get(SIGNING, name) for name in _STATE}

    def _branch(self) -> str:
        return f"{self._ksr.tm.t_get_branch_index()},"

    def _check_branch(self) -> None:
        """A reply to a branch that never passed `shaken_branch` means that it left unsigned."""
        if self._branch()[:-1] not in self._get(SIGNING, "branches").split(","):
            self.switch.warn(
                "branch_without_identity",
                "shaken: a branch left without the Identity header that was signed for it; "
                "arm the branch route (t_on_branch) before every t_relay, in failure routes too",
            )

    def _survive(self, where: str, exc: BaseException) -> int:
        """A fault in this glue: logged and counted, and the call goes on."""
        self.switch.fault(where, exc)
        return GO_ON


def _utf8(text: str) -> str:
    """A text that Kamailio takes; bytes that are not UTF-8 are named, not kept."""
    return text.encode("utf-8", "backslashreplace").decode()
