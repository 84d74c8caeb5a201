"""Offences as tests tell them: times in hours, numbers in short, and an account kept in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from shaken_plugin.core.offences import Account, Finding, Judgement, OffenceRules, Stage, Window, judge

HOUR = 3_600.0


class Story:
    """One customer's account, driven by the pure function alone."""

    def __init__(self, rules: OffenceRules) -> None:
        self.rules = rules
        self.account = Account()
        self.windows: dict[str, list[Window]] = {}
        self.calls: Counter[int] = Counter()
        self.closed: dict[int, Stage] = {}
        self.ids = 0

    def call(self, hours: float, number: str) -> Judgement:
        """One call; what it was found to be."""
        at = hours * HOUR
        known = self.windows.setdefault(number, [])
        window = min(known, key=lambda one: (abs(one.begins - at), one.offence), default=None)
        judged = judge(self.account, window, at, self.rules, self.ids + 1)
        if judged.finding is Finding.OPENED:
            self.ids += 1
        self.account = judged.account
        if judged.offence is not None:
            self.calls[judged.offence] += 1
            if window is None or not window.covers(at):
                known[:] = [one for one in known if one.offence != judged.offence]
                known.append(Window(judged.offence, at))
        return judged

    def tell(self, told: Iterable[object]) -> None:
        """Calls as (hours, number), and decisions: warned HOURS, suspend HOURS, reinstate HOURS, dismiss ID HOURS."""
        for one in told:
            if isinstance(one, tuple):
                self.call(*one)
            else:
                self.decide(str(one))

    def decide(self, text: str) -> None:
        """What a person does, or the webhook."""
        what, *values = text.split()
        at = float(values[-1]) * HOUR
        before = self.account
        if what == "warned":
            self.account = before.warned(at)
        elif what == "suspend":
            self.account = before.suspend()
        elif what == "reinstate":
            self.account = before.reinstate(at)
        else:
            self.account = before.dismiss(int(values[0]), at)
        for offence in before.open:
            if self.account.find(offence.id) is None:
                self.closed[offence.id] = Stage.DISMISSED if what == "dismiss" else Stage.SETTLED

    def end(self) -> str:
        """How it ended, for people to compare."""
        stages = self.closed | {offence.id: offence.stage for offence in self.account.open}
        texts = [
            f"{one} {stages[one].value}: {self.calls[one]} call{'s' if self.calls[one] != 1 else ''}"
            for one in sorted(stages)
        ]
        return ", ".join([*texts, *(["customer suspended"] if self.account.suspended else [])])
