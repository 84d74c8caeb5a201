"""The adapter inside FreeSWITCH, by mod_python3.

mod_python3 loads the script anew at every call; what has to last is here, and not in it. It runs scripts
on threads with 240 KiB of stack and a recursion limit of 240 (measured); so the work is done by threads of
our own, with as much stack as Python is used to, and a call waits for it, for a bounded time. What escapes
a script would only be logged by the switch, and a long text would end it: nothing escapes from here.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from shaken_plugin.adapters.freeswitch import functions
from shaken_plugin.adapters.freeswitch.kept import keep
from shaken_plugin.adapters.freeswitch.leg import (
    PROFILE,
    Answer,
    Caller,
    Command,
    Export,
    HangUp,
    ReadLeg,
    Set,
    SetPartner,
)
from shaken_plugin.adapters.freeswitch.others import OtherLegs
from shaken_plugin.adapters.freeswitch.workers import Workers
from shaken_plugin.ports import Severity
from shaken_plugin.runtime.inline import download_inline
from shaken_plugin.switch import Switch
from shaken_plugin.switch.process import load
from shaken_plugin.telemetry import clean

STACK: Final = 1024 * 1024
"""Bytes of stack for the threads that do the work."""

SPARE: Final = 8
"""Threads beside those that may wait for a certificate."""

MAX_CALLS: Final = 256
"""Most calls that wait for the work; further ones go on at once, in the declared mode."""

PATIENCE: Final = 2.0
"""Seconds a call gives the work, beyond the time it may wait for a certificate."""

_LEVELS: Final = {
    Severity.DEBUG: "debug",
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "err",
}


_DONE_WITH: Final = tuple(Set(name, "") for name in (functions.HOOK, "current_application", "current_application_data"))
"""What had a leg signed, and what FreeSWITCH notes of it when it runs that: legs that are not signed have neither."""


class FreeSwitchObserver:
    """A `ports.Observer` on FreeSWITCH's log, with counters of its own."""

    def __init__(self, freeswitch: Any) -> None:
        self._freeswitch = freeswitch
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def log(self, severity: Severity, text: str) -> None:
        """See `ports.Observer.log`."""
        self._freeswitch.consoleLog(_LEVELS[severity], clean(text) + "\n")

    def count(self, name: str) -> None:
        """See `ports.Observer.count`."""
        with self._lock:
            self.counts[name] += 1


class _Known(dict[str, str | None]):
    """What is known of a leg: to look that up again is no more than a dictionary's work. What is not is asked for.

    Args:
        ask: a variable of the leg, by its name.
    """

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[str], str | None]) -> None:
        self._ask = ask

    def __missing__(self, name: str) -> str | None:
        value = self[name] = self._ask(name)
        return value


class SessionLeg:
    """A `Leg` on a session of mod_python3, as it was when the script began.

    Args:
        freeswitch: the switch's own module.
        session: the leg's.
        others: tells of other legs; None where it cannot be had.
    """

    def __init__(self, freeswitch: Any, session: Any, others: OtherLegs | None = None) -> None:
        self._freeswitch = freeswitch
        self._session = session
        self._others = others
        self._partner: str | None = None
        self._known: dict[str, str | None] = {}
        self._partners: dict[str, str | None] = {}

    def get(self, name: str) -> str | None:
        """See `Leg.get`."""
        if name not in self._known:
            self._known[name] = self._session.getVariable(name)
        return self._known[name]

    def partner(self, name: str) -> str | None:
        """See `Leg.partner`."""
        if not self._other():
            return None
        if name not in self._partners:
            if self._others is None:
                self._partners[name] = self._asked(name)
            else:
                names = functions.ASKED_OF_PARTNER if name in functions.ASKED_OF_PARTNER else (name,)
                self._partners |= self._others.get(self._other(), names)
        return self._partners[name]

    def read(self, names: tuple[str, ...]) -> ReadLeg:
        """This leg, with these variables read in one go, and all that is mostly asked of the one it was made for."""
        # What a session is held by must not refer to what it holds: it has to go as soon as nobody uses it.
        own = _Known(self._session.getVariable)
        found = self._others.get(self._session.get_uuid(), names) if self._others is not None else {}
        if not found.get("direction"):  # it is ending, or there is no library
            found = dict(zip(names, map(self._session.getVariable, names), strict=True))
        own.update(found)
        self._partner = own["originating_leg_uuid"] or ""
        if not self._partner:
            return ReadLeg(own.__getitem__, _nothing)
        other = _Known(self.partner)
        if self._others is not None:
            other.update(self._others.get(self._partner, functions.ASKED_OF_PARTNER))
        return ReadLeg(own.__getitem__, other.__getitem__)

    def _asked(self, name: str) -> str | None:
        """A variable of the other leg, by an API command."""
        answer: str = self._freeswitch.API().executeString(f"uuid_getvar {self._partner} {name}") or ""
        return None if answer in {"", "_undef_"} or answer.startswith("-ERR") else answer

    def set_partner(self, name: str, value: str) -> None:
        """Do a `SetPartner`; on none where there is none."""
        if self._other():
            self._freeswitch.API().executeString(f"uuid_setvar {self._partner} {name} {value}")

    def _other(self) -> str:
        if self._partner is None:
            self._partner = self.get("originating_leg_uuid") or ""
        return self._partner


def _nothing(_name: str) -> None:
    """A variable of a leg that is not there."""


class ModPython:
    """What one FreeSWITCH process keeps: the switch, its threads, its counters.

    Args:
        freeswitch: the switch's own module.
        path: the settings file, by default from ``SHAKEN_SETTINGS``.
        switch: instead of the process's own, for tests.
    """

    def __init__(self, freeswitch: Any, path: Path | None = None, switch: Switch | None = None) -> None:
        self._freeswitch = freeswitch
        self.observer = FreeSwitchObserver(freeswitch)
        self.switch = switch or load(lambda: self.observer, path, download_inline)
        self.switch.tells_ends = True
        self.switch.to_tell_ends = f"the variables {' and '.join(functions.HANGUP_HOOKS)} are both in use"
        self._others = _other_legs(self.observer)
        self._places = deque(range(MAX_CALLS))
        """Each call takes one while it waits: to take and to give back are one step each."""
        self._workers = Workers(SPARE + self.switch.services.settings.verification.max_waiting, STACK, "shaken")

    def run(self, name: str, session: Any, work: Callable[[Switch, SessionLeg], list[Command]]) -> None:
        """Run one of the `functions` for a session, and do what it says.

        Never raises: the call goes on as the declared mode has it, and the log says what happened.
        """
        leg = SessionLeg(self._freeswitch, session, self._others)
        try:
            self._do(session, leg, self._worked(leg, work))
        except BaseException as exc:
            try:
                self._do(session, leg, functions.survive(self.switch, leg, name, exc))
            except BaseException as worse:
                self.switch.fault(name, worse)

    def _worked(self, leg: SessionLeg, work: Callable[[Switch, SessionLeg], list[Command]]) -> list[Command]:
        """What the work says, in bounded time; work that nobody waits for any more is not begun.

        Raises:
            TimeoutError: there was none in time.
        """
        try:
            place = self._places.pop()
        except IndexError:
            raise TimeoutError("too many calls wait for a thread") from None
        try:
            patience = PATIENCE + self.switch.services.settings.verification.wait
            return self._workers.done(partial(work, self.switch, leg), patience, self._give_back)
        finally:
            self._places.append(place)

    def _give_back(self, commands: Sequence[Command]) -> None:
        """Nobody waited any longer: a call that was given a slot has no hook that would tell its end."""
        for command in commands:
            if isinstance(command, Set | SetPartner) and command.value.startswith(functions.ENDED):
                self.ended(command.value.removeprefix(functions.ENDED).strip())

    def _do(self, session: Any, leg: SessionLeg, commands: Sequence[Command]) -> None:
        # By setVariable: what session.execute is given, FreeSWITCH expands (${…} runs commands).
        put = session.setVariable
        for command in commands:
            if isinstance(command, Set):
                put(command.name, command.value)
            elif isinstance(command, Export):
                self._export(session, command)
            elif isinstance(command, SetPartner):
                leg.set_partner(command.name, command.value)
            elif isinstance(command, Caller):
                for name in PROFILE:
                    session.execute("set_profile_var", f"{name}={command.number}")
            elif isinstance(command, Answer):
                if command.reasons:
                    session.setVariable("sip_reason", ", ".join(command.reasons))
                session.execute("respond", f"{command.status} {command.phrase.replace('$', '')}")
            elif isinstance(command, HangUp):
                session.hangup(command.cause)

    def _export(self, session: Any, command: Export) -> None:
        """As the application ``export`` would with ``nolocal:``, but without expanding the value."""
        name = f"nolocal:{command.name}"
        session.setVariable(name, command.value)
        exported = session.getVariable("export_vars") or ""
        if name not in exported.split(","):
            session.setVariable("export_vars", f"{exported},{name}" if exported else name)

    def ended(self, slot: str) -> str:
        """A call has ended. Told by a thread that has a line to the agent: that of the leg ends now."""
        self._workers.begin(partial(self.switch.ended, slot))
        return "+OK"

    def status(self) -> str:
        """The counters, as JSON."""
        return json.dumps(dict(sorted(self.observer.counts.items())))

    def reload(self) -> str:
        """Take the settings that are in force; the log says what came of it."""
        self.switch = load(lambda: self.observer)
        return "+OK settings were read again, see the log"


def _other_legs(observer: FreeSwitchObserver) -> OtherLegs | None:
    try:
        return OtherLegs()
    except (AttributeError, OSError) as exc:
        observer.log(Severity.INFO, f"shaken: other legs are asked by API commands, which costs more: {exc}")
        return None


def _sign(switch: Switch, leg: SessionLeg) -> list[Command]:
    read = leg.read(functions.ASKED)
    commands = functions.sign(switch, read)
    # What has done its work on this leg would still be in all that FreeSWITCH copies of it.
    return [*_DONE_WITH, *commands] if commands and functions.leaves(read) else commands


class Script:
    """What the script calls, whatever state things are in.

    Args:
        freeswitch: the switch's own module.
        name: of the script, which is kept as it is from now on.
    """

    process: ModPython | None = None
    _lock = threading.Lock()
    _refused_at = float("-inf")

    def __init__(self, freeswitch: Any, name: str = "") -> None:
        self._freeswitch = freeswitch
        if name:
            keep(name)

    def sign(self, session: Any) -> None:
        """See `functions.sign`."""
        self._run("sign", session, _sign)

    def verify(self, session: Any) -> None:
        """See `functions.verify`."""
        self._run("verify", session, functions.verify)

    def pass_through(self, session: Any) -> None:
        """See `functions.pass_through`."""
        self._run("pass_through", session, functions.pass_through)

    def answered(self, session: Any) -> None:
        """See `functions.answered`."""
        self._run("answered", session, functions.answered)

    def warm_up(self) -> None:
        """Load everything when FreeSWITCH starts, and not in the first call."""
        self._started()

    def command(self, words: str) -> str:
        """The API command ``python shaken …``: ``status``, ``reload``, or ``ended`` with the slot of a call."""
        try:
            process = self._started()
            if process is None:
                return "-ERR the settings are refused, see the log"
            if words.strip() == "reload":
                return process.reload()
            if words.startswith("ended "):
                return process.ended(words.removeprefix("ended ").strip())
            return process.status()
        except BaseException as exc:
            return f"-ERR {type(exc).__name__}"

    def _run(self, name: str, session: Any, work: Callable[[Switch, SessionLeg], list[Command]]) -> None:
        process = self._started()
        if process is not None:
            process.run(name, session, work)

    def _started(self) -> ModPython | None:
        if (process := Script.process) is not None:
            return process
        with Script._lock:
            if Script.process is None and time.monotonic() - Script._refused_at > 10:
                try:
                    Script.process = ModPython(self._freeswitch)
                except BaseException as exc:
                    # Said every ten seconds at most, while calls go on unsigned and unverified.
                    Script._refused_at = time.monotonic()
                    text = f"shaken: not started, calls go on unsigned and unverified: {exc}"
                    self._freeswitch.consoleLog("err", clean(text) + "\n")
            return Script.process
