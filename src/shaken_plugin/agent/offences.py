"""Offences in the agent: calls of the ledger become accounts, accounts become messages and alarms.

Ledger and state file are used on a thread of their own, since either may be locked or slow; messages are
sent from the loop. Whatever is interrupted is done again: the state file says how far everything is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.webhook import NotDelivered, Webhook
from shaken_plugin.conduct import view
from shaken_plugin.conduct.acts import Outcome
from shaken_plugin.conduct.book import Book, Calls
from shaken_plugin.conduct.calls import counting
from shaken_plugin.conduct.message import Message
from shaken_plugin.conduct.state import State
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.offences import OffenceRules, Stage
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Observer, Severity
from shaken_plugin.records.following import Reading, unauthorised_after
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.place import Place
from shaken_plugin.runtime.ledger import open_ledger
from shaken_plugin.stores.statefile import never_made
from shaken_plugin.telemetry import clean

AT_ONCE: Final = 500
"""Calls of one transaction."""
BATCHES: Final = 20
"""Transactions of one look; the rest is for the next."""
MESSAGES_AT_ONCE: Final = 4
LOOK_EVERY: Final = 1.0
"""Seconds after which the ledger is looked at although this host moved nothing into it that counts: others may have,
and what people did since is to be shown."""
MARK_EVERY: Final = 30.0
"""Seconds after which the mark is moved although nothing happened."""

_BEGIN, _HOUR, _DAY = 5.0, 3_600.0, 86_400.0
_TRIES: Final = 32
"""So many take about a day."""

_ANY: Final = 2**63 - 1

ELSEWHERE: Final = 30.0
"""Seconds after which it is asked again whether another host of the fleet still sends a message."""
CLAIMED: Final = 60
"""Seconds, beside those until the next try, for which no other host of the fleet tries to send a message."""

_Found = TypeVar("_Found")
Claim = Callable[[str, int, bytes], bytes | None]
"""Makes this host the one of its fleet that sends a message: its id, for how many seconds, its body; gives the body
that is to be sent, or None where another host sends it."""
Follow = Callable[[Place, int], Reading]
"""Reads on in the ledger: `records.following.unauthorised_after` without its first argument."""


def delay(tries: int) -> float:
    """Seconds until a message is tried again: 5 and twice as long each time up to an hour; after a day, daily."""
    return _DAY if tries > _TRIES else min(_BEGIN * 2**tries, _HOUR)


def say(observer: Observer, outcome: Outcome) -> None:
    """Log what calls led to."""
    for offence in outcome.opened:
        observer.log(Severity.WARNING, f"offence {offence} opened: shaken offence show {offence}")
    for customer in outcome.suspended:
        observer.log(Severity.ERROR, clean(f"customer {customer} suspended for a second offence"))


def following(settings: Settings) -> Follow:
    """Reads on in the ledger that settings name; it is opened when it is first read."""
    opened: list[Ledger] = []

    def follow(place: Place, limit: int) -> Reading:
        if not opened:
            opened.append(open_ledger(settings))
        return unauthorised_after(opened[0], place, limit)

    return follow


@dataclass(slots=True)
class _Looked:
    """What one look at ledger and accounts found."""

    undecided: list[view.Case] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


class Offences:
    """What the agent does about offences.

    Args:
        settings: checked.
        follow: gives what reads on in the ledger of settings.
        alarms: told of what waits for people.
        observer: takes log lines.
        clock: POSIX seconds.
        claim: in a fleet, whose hosts share the messages.
        moved: gives how many records of unauthorised caller IDs this host has moved into the ledger so far; without
            it each look reads the ledger.
    """

    def __init__(
        self,
        settings: Settings,
        follow: Callable[[Settings], Follow],
        alarms: Alarms,
        observer: Observer,
        clock: Callable[[], float],
        claim: Claim | None = None,
        moved: Callable[[], int] | None = None,
    ) -> None:
        self._claim = claim
        self._moved = moved
        self._looked: tuple[int, float] | None = None
        """How many there were when the ledger was looked at last, and when; None where it is to be looked at now."""
        self._following = follow
        self._alarms = alarms
        self._observer = observer
        self._clock = clock
        self._policy = Path(settings.store.path)
        self._state = State(Path(settings.store.state), self._policy)
        self._book = Book(self._state)
        self._thread = ThreadPoolExecutor(1, "offences")
        self._place: Place | None = None
        """How far was read; from the mark up to here nothing counts."""
        self._mark = Place()
        self._marked_at = clock()
        self._told: set[tuple[str, str]] = set()
        self._webhook: Webhook | None = None
        self._before: list[Webhook] = []
        """Those of earlier settings, to be closed."""
        self._hurry = True
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take settings; the state file stays the one it began with."""
        self._chosen = chosen = settings.offences
        self._enabled = chosen.enabled and settings.records.enabled
        self._signs = settings.signing.mode != "off"
        self._before += [self._webhook] if self._webhook else []
        self._follow = self._following(settings)
        self._rules = OffenceRules(float(chosen.grace), automatic=chosen.suspend == "automatic")
        self._webhook, self._hurry, self._looked = None, True, None
        self._alarms.clear("webhook_unusable")
        if chosen.webhook.url is not None:
            try:
                self._webhook = Webhook(chosen.webhook, self._clock)
            except ValueError as exc:
                self._alarms.on("webhook_unusable", f"offences.webhook: {exc}; warnings are not sent")

    def seen(self) -> int:
        """``seq`` of the last record that need not be in the ledger any more."""
        return self._mark.seq if self._enabled else _ANY

    # --- Calls --------------------------------------------------------------------------------

    async def look(self) -> None:
        """Judge what is new in the ledger, and show what waits for people."""
        if not self._enabled:
            self._show([])
            return
        if not self._is_due():
            return
        looked = await self._with_state(self._look)
        if looked is None or len(looked.outcomes) == BATCHES:
            self._looked = None
        if looked is None:
            return
        for outcome in looked.outcomes:
            say(self._observer, outcome)
        self._show(looked.undecided)

    def _is_due(self) -> bool:
        """Whether the ledger may hold something new; to read it costs as much as to write a batch of records."""
        if self._moved is None:
            return True
        moved, now = self._moved(), time.monotonic()
        if self._looked is not None and self._looked[0] == moved and now - self._looked[1] < LOOK_EVERY:
            return False
        self._looked = moved, now
        return True

    def _look(self) -> _Looked:
        looked, more = _Looked(), True
        while more and len(looked.outcomes) < BATCHES:
            outcome, more = self._step()
            looked.outcomes.append(outcome or Outcome())
        with self._state.reading() as connection:
            looked.undecided = view.undecided(connection)
        return looked

    def _step(self) -> tuple[Outcome | None, bool]:
        """One batch; what it led to, and whether there may be more."""
        mark = self._book.mark()
        self._mark = self._book.counted()
        if self._place is None or self._place.seq < mark.seq:
            self._place = mark
        try:
            reading = self._follow(self._place, AT_ONCE)
        except (StoreUnavailable, StoreError):
            return None, False  # whoever collects records raises the alarm; they are read once it is over
        calls = tuple(counting(reading.found))
        now = self._clock()
        if not calls and not reading.anew and now - self._marked_at < MARK_EVERY:
            self._place = reading.until
            return None, len(reading.found) == AT_ONCE
        outcome = None
        if reading.until != mark:
            outcome = self._book.take(Calls(mark, reading.until, calls), self._rules, now, self._chosen.gather)
        self._place, self._marked_at = None, now
        return outcome, len(reading.found) == AT_ONCE

    def _show(self, undecided: list[view.Case]) -> None:
        """Alarms about customers, of what waits for a person."""
        due: dict[tuple[str, str], str] = {}
        for case in undecided:
            one = case.offence
            if one.stage is Stage.PROPOSED:
                due["suspension_proposed", case.customer] = (
                    f"second offence {one.id}: 'shaken customer suspend {case.customer}', "
                    f"or 'shaken offence dismiss {one.id}'"
                )
            elif case.failure is not None or self._webhook is None:
                why = case.failure or "there is no webhook"
                due["warning_undelivered", case.customer] = (
                    f"offence {one.id}: {why}; tell them, and then: shaken offence delivered {one.id}"
                )
        for name, about in self._told - due.keys():
            self._alarms.clear(name, about)
        for (name, about), text in due.items():
            self._alarms.on(name, text, about)
        self._told = set(due)

    # --- Messages -----------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Send what is due."""
        webhook = self._webhook
        while self._before:
            await self._before.pop().close()
        if webhook is None or not self._enabled:
            return
        hurry, self._hurry = self._hurry, False
        if hurry:
            await self._with_state(partial(self._book.hurry, self._clock()))
        due = await self._with_state(partial(self._book.due, self._clock(), MESSAGES_AT_ONCE))
        await asyncio.gather(*(self._send(webhook, message) for message in due or ()))

    async def _send(self, webhook: Webhook, message: Message) -> None:
        if self._claim is not None:
            claimed = await self._claimed(self._claim, message, CLAIMED)
            if claimed is None:
                await self._with_state(partial(self._book.later, message, self._clock() + ELSEWHERE))
                return
            message = message._replace(body=claimed)
        try:
            await webhook.send(message)
        except NotDelivered as exc:
            wait = delay(message.tries)
            if self._claim is not None:
                await self._claimed(self._claim, message, CLAIMED + int(wait))
            again = self._clock() + wait
            await self._with_state(partial(self._book.failed, message, clean(str(exc)), again))
            if message.tries == 0:
                text = f"offence {message.offence}: {message.kind.value} not delivered: {exc}"
                self._observer.log(Severity.WARNING, clean(text))
        else:
            await self._with_state(partial(self._book.sent, message, self._clock()))
            text = f"offence {message.offence}: {message.kind.value} delivered to the webhook"
            self._observer.log(Severity.INFO, text)

    async def _claimed(self, claim: Claim, message: Message, seconds: int) -> bytes | None:
        """What this host is to send; None where another one does, or nobody can say."""
        try:
            return await asyncio.to_thread(claim, message.id, seconds, message.body)
        except StoreUnavailable:
            return None  # alarmed: a warning that is late does less harm than one that comes twice

    # --- The thread ---------------------------------------------------------------------------

    async def _with_state(self, work: Callable[[], _Found]) -> _Found | None:
        """Do something with the state file; None where it cannot be used now, with an alarm."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, work)
        except StoreUnavailable as exc:
            if not self._signs and never_made(self._state.path, self._policy):
                return None  # a host that only verifies: nothing was ever put in force that makes the file
            self._alarms.on("state_unavailable", f"{exc}; calls are decided in the mode of store.when_unavailable")
            return None
        self._alarms.clear("state_unavailable")
        return found

    async def close(self) -> None:
        """End; what is under way is done again after the next start."""
        for webhook in (*self._before, *([self._webhook] if self._webhook else [])):
            await webhook.close()
        self._thread.shutdown()
