"""``shaken expiring``: everything that will change by itself."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin import runtime
from shaken_plugin.authentication import Credential
from shaken_plugin.cli.output import Exit, at_option, console, errors, json_option, print_json, settings_option, table
from shaken_plugin.cli.records.levels import Deciding
from shaken_plugin.cli.records.session import Opened, reading
from shaken_plugin.cli.records.spans import numbers_data
from shaken_plugin.cli.records.values import day
from shaken_plugin.core.attestation import Level
from shaken_plugin.core.records import Customer, Right, Substitution
from shaken_plugin.ports import PolicyRecords

_DAY: Final = 86_400
_ASKED: Final = 100_000
"""Numbers and ranges of one right that are decided about, now and then: half a minute of work."""
_RANK: Final = {level.value: rank for rank, level in enumerate(Level)}


@dataclass(slots=True)
class Item:
    """Something that will change by itself."""

    at: float
    kind: str
    """right_ends, right_begins, substitution_ends, substitution_begins, review_due, credential_ends, pair_live."""
    id: str
    what: str
    customer: str | None = None
    owner: str | None = None
    document: str | None = None
    numbers: dict[str, Any] | None = None
    levels: list[dict[str, Any]] = field(default_factory=list)
    """``now``, ``then``, how many ranges, and the first number."""
    attention: bool = False
    """Something gets worse, or somebody has to do something."""


@click.command()
@click.option("--days", type=click.IntRange(0, 3660), default=30, show_default=True, help="How far to look ahead.")
@at_option
@settings_option
@json_option
def expiring(days: int, at: float | None, settings_file: Path, as_json: bool) -> None:
    """What will change by itself: letters and other rights, substitutions, reviews, credentials.

    Exit code 1 if something will get worse or needs somebody: a level falls, signing ends, a review is due or
    overdue. 0 if nothing will change, or only for the better. Prints nothing for people where nothing will
    change and no terminal reads it, so that cron writes no letter.
    """
    now = time.time() if at is None else at
    until = now + days * _DAY
    notes: list[str] = []
    with reading(settings_file) as (session, records):
        deciding = Deciding.of(session, records)
        found = [*_rights(records, deciding, now, until, notes), *_substitutions(records, now, until)]
        found += [*_reviews(records, until, now), *_credentials(session, now, until, notes)]
    found.sort(key=lambda item: (item.at, item.kind, item.id))
    if as_json:
        items = [asdict(item) for item in found]
        print_json({"from": now, "until": until, "items": items, "notes": notes})
    else:
        _print(found, days)
        for note in notes:
            errors.print(note, style="yellow", markup=False)
    sys.exit(Exit.NO if any(item.attention for item in found) else Exit.YES)


def _rights(records: PolicyRecords, deciding: Deciding, now: float, until: float, notes: list[str]) -> Iterator[Item]:
    for right in records.all(Right):
        for moment, what in ((right.valid_from, "begins"), (right.valid_until, "ends")):
            if moment is None or right.suspended or not now < moment <= until:
                continue
            levels = _levels(records, deciding, right, now, moment, notes)
            yield Item(
                moment,
                f"right_{what}",
                right.id,
                f"right {right.id} {what}",
                right.customer,
                right.owner,
                right.document,
                numbers_data(records, Right, right.id),
                levels,
                any(_RANK[each["then"]] > _RANK[each["now"]] for each in levels),
            )


def _levels(
    records: PolicyRecords, deciding: Deciding, right: Right, now: float, then: float, notes: list[str]
) -> list[dict[str, Any]]:
    """What calls with its numbers get, now and then."""
    customer = records.get(Customer, right.customer)
    if customer is None:
        return []
    found: dict[tuple[str, str], dict[str, Any]] = {}
    sources = [source for _, source in deciding.sources(customer)]
    known: dict[Any, list[tuple[str, str]]] = {}
    if (count := records.count(Right, right.id)) > _ASKED:
        notes.append(f"of right {right.id} only the first {_ASKED:,} of {count:,} numbers and ranges were looked at")
    for span in itertools.islice(records.numbers(Right, right.id), _ASKED):
        alike = deciding.alike(span.first)
        if alike not in known:  # of millions of numbers most have the same records
            decided = [[deciding.decide(source, span.first, at) for at in (now, then)] for source in sources]
            known[alike] = [(before.level.value, after.level.value) for before, after in decided]
        for levels in known[alike]:
            group = found.setdefault(
                levels, {"now": levels[0], "then": levels[1], "ranges": 0, "first": f"+{span.first}"}
            )
            group["ranges"] += 1
    return list(found.values())


def _substitutions(records: PolicyRecords, now: float, until: float) -> Iterator[Item]:
    for rule in records.all(Substitution):
        for moment, what in ((rule.valid_from, "begins"), (rule.valid_until, "ends")):
            if moment is not None and now < moment <= until:
                text = f"substitution {rule.id} (by +{rule.number}) {what}"
                yield Item(moment, f"substitution_{what}", rule.id, text, rule.customer, attention=what == "ends")


def _reviews(records: PolicyRecords, until: float, now: float) -> Iterator[Item]:
    """Those that are due, and those that are overdue."""
    for customer in records.all(Customer):
        if customer.review_at is not None and customer.review_at <= until:
            word = "was due" if customer.review_at <= now else "is due"
            text = f"review of customer {customer.id} {word}"
            yield Item(customer.review_at, "review_due", customer.id, text, customer.id, attention=True)


def _credentials(session: Opened, now: float, until: float, notes: list[str]) -> Iterator[Item]:
    for credential in _signing(session, now, notes):
        end = credential.lasts_until(now)
        if end <= until:
            word = "signs nothing now" if end <= now else "signs nothing any more"
            yield Item(end, "credential_ends", credential.name, f"credential {credential.name} {word}", attention=True)
        for pair in credential.pairs:
            if now < pair.live_from <= until:
                text = f"a pair of credential {credential.name} goes live"
                yield Item(pair.live_from, "pair_live", credential.name, text)


def _signing(session: Opened, now: float, notes: list[str]) -> list[Credential]:
    """The credentials of the settings; those that cannot be read are noted."""
    verification = session.settings.verification.model_copy(update={"mode": "off"})
    settings = session.settings.model_copy(update={"verification": verification})
    mistakes: list[str] = []
    services = runtime.build(settings, now, lambda _place, text: mistakes.append(f"credentials not looked at: {text}"))
    notes += mistakes
    return [] if mistakes else list(services.credentials.values())


def _print(found: list[Item], days: int) -> None:
    if not found:
        if console.is_terminal:
            console.print(f"nothing will change by itself within {days} days", markup=False)
        return
    made = table("when", "what", "customer", "whose numbers", "numbers", "level")
    for item in found:
        levels = ", ".join(
            f"{each['now']} → {each['then']}" + (f" ({each['first']} …)" if len(item.levels) > 1 else "")
            for each in item.levels
        )
        document = f" ({item.document})" if item.document not in {None, item.id} else ""
        cells = (day(item.at), item.what + document, item.customer or "", item.owner or "", _examples(item), levels)
        made.add_row(*cells, style="red" if item.attention else None)
    console.print(made)


def _examples(item: Item) -> str:
    if item.numbers is None:
        return ""
    first = ", ".join(item.numbers["first"][:2])
    count = item.numbers["count"]
    return first if item.numbers["ranges"] <= 2 else f"{first} … ({count or item.numbers['ranges']:,})"
