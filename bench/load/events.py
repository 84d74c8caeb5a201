"""What happens while calls go on: the policy changes, the key is rotated, agents end and come back."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Final

from bench.load import callers, mix
from bench.load.hosts import Host, Hosts
from bench.load.observed import Absence, Call, Event
from bench.load.timeline import ARRIVES_WITHIN, Timeline
from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab import sipp
from shaken_plugin.lab.servers import LOOPBACK

AWAY: Final = 2.0
"""Seconds for which an agent is away."""

NOTICE: Final = 2
"""Seconds before its end at which a letter is told to end."""

IN_TRANSIT: Final = 5
"""Calls that were signed before a rotation and are placed after it."""

UNKNOWN: Final = 64
"""Calls of signers whom nobody knows, before all others: some for each process that holds calls. What such a process
loads and keeps with its first ones is no growth; by rotations alone it would have those all through the run."""

CHANGES: Final = ("add", "suspend", "end_letter", "rotate", "remove", "reinstate", "renew_letter")
"""In turns, from the first again after the last."""

ENDS: Final = (("originating", True), ("terminating", False), ("originating", False), ("terminating", True))
"""Whose agent ends, and whether it is killed; all in the first half, so that the last ones live long enough."""

FIRST_PAUSE: Final = 3.0


def pause_of(seconds: float) -> float:
    """Seconds between two things that happen in a run of so many."""
    return max(4.0, seconds / 40)


def schedule(seconds: float) -> list[tuple[float, int | None]]:
    """When something happens, in seconds from the beginning: the number of one of `ENDS`, or None for a change."""
    pause = pause_of(seconds)
    count = max(0, int((seconds - FIRST_PAUSE - AWAY) / pause))
    ends = {round(count / 2 * (number + 0.5) / len(ENDS)): number for number in range(len(ENDS))}
    return [(FIRST_PAUSE + pause * slot, ends.get(slot)) for slot in range(count)]


class Director:
    """Does all of it, and notes what it did.

    Args:
        hosts: where.
        folder: for files of calls in transit.
        say: told what is done.
    """

    def __init__(self, hosts: Hosts, folder: Path, say: Callable[[str], object]) -> None:
        self.in_force = {kind.name: Timeline(kind.outcome) for kind in mix.KINDS}
        self.keys = Timeline(frozenset({hosts.pairs[0].x5u}))
        self.events: list[Event] = []
        self.absences: list[Absence] = []
        self.arriving: dict[str, Call] = {}
        self._hosts, self._folder, self._say = hosts, folder, say
        self._changes: Iterator[str] = cycle(CHANGES)
        self._stored: list[str] = []

    def prime(self) -> None:
        """Have calls of unknown signers held, before anything else happens."""
        self._say("calls of signers nobody knows")
        self._place(mix.UNKNOWN, "unknown", [(pair, self._token(pair)) for pair in self._hosts.strangers(UNKNOWN)])

    def run(self, begin: float, seconds: float) -> None:
        """Do what is due, at its time."""
        # The terminating host meets this certificate now for the first time.
        self.keys.change(begin, time.time() + ARRIVES_WITHIN, self.keys.first)
        for at, end in schedule(seconds):
            time.sleep(max(0.0, begin + at - time.time()))
            if end is None:
                # An agent that was slow to come back takes the place of changes: they are not made up for in a row.
                if time.time() - begin - at < pause_of(seconds) / 2:
                    self.change()
            else:
                name, killed = ENDS[end]
                self._end_agent(next(host for host in self._hosts if host.name == name), killed=killed)
        time.sleep(max(0.0, begin + seconds - time.time()))

    # --- Changes of the policy ------------------------------------------------------------------

    def change(self, *, quick: bool = False) -> None:
        """Do the next change; by ``quick`` none that takes seconds."""
        name = next(self._changes)
        if quick and name == "rotate":
            name = next(self._changes)
        getattr(self, f"_{name}")()

    def _decide(self, kind: mix.Kind, after: frozenset[mix.Outcome], what: str, *words: str) -> None:
        """By a command calls of a kind are decided otherwise from now on, within a second."""
        begin, end = self._command(what, "change", *words)
        self.in_force[kind.name].change(begin, end + ARRIVES_WITHIN, after)

    def _command(self, what: str, kind: str, *words: str) -> tuple[float, float]:
        self._say(what)
        begin = time.time()
        self._hosts.admin.change(*words)
        self.events.append(Event(begin, time.time(), what, kind))
        return begin, self.events[-1].end

    def _add(self) -> None:
        words = ("number", "add", mix.ADDED.span, "--customer", mix.DIALLER, "--basis", "assigned")
        self._decide(mix.ADDED, mix.A, "numbers added", *words)

    def _remove(self) -> None:
        words = ("number", "remove", mix.ADDED.span, "--customer", mix.DIALLER)
        self._decide(mix.ADDED, mix.B, "numbers removed", *words)

    def _suspend(self) -> None:
        self._decide(mix.SWITCHED, mix.REFUSED, "customer suspended", "customer", "suspend", "switched")

    def _reinstate(self) -> None:
        self._decide(mix.SWITCHED, mix.A, "customer reinstated", "customer", "reinstate", "switched")

    def _end_letter(self) -> None:
        """It ends by itself, a little later, and then at once for everybody."""
        moment = math.ceil(time.time()) + NOTICE
        stated = datetime.fromtimestamp(moment, UTC).isoformat()
        words = ("letter", "set", mix.LETTER_ID, "--valid-until", stated)
        _, end = self._command("letter told to end", "change", *words)
        self.in_force[mix.LETTER.name].change(moment, max(moment, end + ARRIVES_WITHIN), mix.B)
        self.events.append(Event(moment, moment, "letter ends", "change"))

    def _renew_letter(self) -> None:
        words = ("letter", "set", mix.LETTER_ID, "--clear", "valid-until")
        self._decide(mix.LETTER, mix.A, "letter renewed", *words)

    # --- Keys ---------------------------------------------------------------------------------

    def _rotate(self) -> None:
        """A new pair signs; the one before the last goes. What the last one signed is still to be verified."""
        self._say("key rotated")
        old = self._hosts.pairs[-1]
        before = [(old, self._token(old)) for _ in range(IN_TRANSIT)]
        if len(self._stored) > 1:
            self._hosts.admin.change("key", "remove", self._stored.pop(0))
        begin = time.time()
        name, pair = self._hosts.new_pair(len(self._hosts.pairs))
        end = time.time()
        self._stored.append(name)
        self.keys.change(begin, end + ARRIVES_WITHIN, {pair.x5u})
        self.events.append(Event(begin, end, "key rotated", "key"))
        time.sleep(ARRIVES_WITHIN)
        self._place(mix.IN_TRANSIT, name, before)

    def _token(self, pair: SigningPair) -> str:
        orig, dest = (TelephoneNumber(number.lstrip("+")) for number in (mix.IN_TRANSIT.numbers[0], mix.CALLED[0]))
        claims = shaken_claims(attest=Attest.A, orig=orig, dest=dest, iat=int(time.time()), origid=str(uuid.uuid4()))
        return identity_header(pair, claims).digest

    def _place(self, kind: mix.Kind, label: str, tokens: list[tuple[SigningPair, str]]) -> None:
        """Calls with tokens that are there already, to the terminating host."""
        folder = self._folder / label
        folder.mkdir(parents=True)
        injected, scenario, trace = folder / "tokens.inf", folder / "uac_tokens.xml", folder / "messages"
        rows = [f"{token};{pair.x5u}" for pair, token in tokens]
        injected.write_text("\n".join(["SEQUENTIAL", *rows, ""]), "ascii")
        text = sipp.scenario("uac_identity").read_text("utf-8")
        header = 'Identity: [field0];info=<[field1]>;alg=ES256;ppt="shaken"'  # ";" separates the fields of the file
        scenario.write_text(text.replace("Identity: [identity]", header), "utf-8")
        number = kind.numbers[0]
        sipp.call(
            "uac_identity",
            folder,
            f"{LOOPBACK}:{self._hosts.target.switch.outside_port}",
            label=label,
            address=kind.source,
            keys={"from": number, "to": mix.CALLED[0], "pai_user": number},
            calls=len(tokens),
            trace=False,
            file=scenario,
            arguments=("-inf", str(injected), "-trace_shortmsg", "-shortmessage_file", str(trace)),
        )
        self.arriving |= callers.placed(trace, lambda _: kind.name)

    # --- Agents -------------------------------------------------------------------------------

    def _end_agent(self, host: Host, *, killed: bool) -> None:
        """The agent of a host is away for a while, in which the policy changes, too."""
        what = f"agent of the {host.name} host {'killed' if killed else 'stopped'}"
        self._say(what)
        begin = time.time()
        host.agent.kill() if killed else host.agent.stop()
        if host is self._hosts.origin:
            self.change(quick=True)
        time.sleep(max(0.0, begin + AWAY - time.time()))
        host.start_agent()
        end = time.time()
        for timeline in self.in_force.values():
            timeline.put_off(begin, end + ARRIVES_WITHIN)
        self.events.append(Event(begin, end, what, f"{host.name} agent"))
        self.absences.append(Absence(host.name, begin, end))
