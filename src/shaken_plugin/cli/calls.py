"""``shaken calls``: the records of calls, searched; and moved into the ledger where no agent does it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin import runtime
from shaken_plugin.cli.inputs import read_party, read_settings
from shaken_plugin.cli.masking import masked
from shaken_plugin.cli.output import (
    Exit,
    Moment,
    console,
    fail,
    json_option,
    settings_option,
    table,
    visible,
    when,
)
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.records.collector import collect
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.search import Found, Wanted, search
from shaken_plugin.runtime.ledger import open_ledger

_LEVELS: Final = ("A", "B", "C", "div", "unsigned", "refuse")
_VERDICTS: Final = ("passed", "failed", "none")


@click.command()
@settings_option
@click.option("--number", help="Either party's number; with * at the end all that begin so.")
@click.option("--from-number", help="The caller's number, likewise.")
@click.option("--to-number", help="The called number, likewise.")
@click.option("--since", type=Moment(), help="Calls from this time on.")
@click.option("--until", type=Moment(), help="Calls before this time.")
@click.option("--customer", help="Calls of this customer.")
@click.option("--call-id", help="The call with this Call-ID.")
@click.option("--level", type=click.Choice(_LEVELS), help="Calls to outside that got this level.")
@click.option("--verdict", type=click.Choice(_VERDICTS), help="Calls from outside with this verdict.")
@click.option("--refused", is_flag=True, help="Calls that were refused.")
@click.option("--unauthorised", is_flag=True, help="Calls with a number that the customer has no right to.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, the latest.")
@click.option("--full-numbers", is_flag=True, help="Show numbers in full instead of masked.")
@click.option("--jsonl", is_flag=True, help="Print one line of JSON for each record.")
@click.option(
    "--collect", "move", is_flag=True, help="First move what switches wrote into the ledger, as the agent does."
)
@json_option
def calls(
    settings_file: Path,
    number: str | None,
    from_number: str | None,
    to_number: str | None,
    since: float | None,
    until: float | None,
    customer: str | None,
    call_id: str | None,
    level: str | None,
    verdict: str | None,
    refused: bool,
    unauthorised: bool,
    limit: int,
    full_numbers: bool,
    jsonl: bool,
    move: bool,
    as_json: bool,
) -> None:
    """Search the records of calls, the latest first.

    Exit code 0 if there are any, 1 if not.
    """
    settings, _ = read_settings(settings_file)
    plan = runtime.settings_plan(settings)
    wanted = Wanted(
        number=_number(number, plan),
        from_number=_number(from_number, plan),
        to_number=_number(to_number, plan),
        since=since,
        until=until,
        customer=customer,
        call_id=call_id,
        level=level,
        verdict=verdict,
        refused=refused,
        unauthorised=unauthorised,
    )
    try:
        with closing(open_ledger(settings)) as ledger:
            if move:
                _move(settings, ledger, as_json=as_json or jsonl)
                if wanted == Wanted():
                    return
            with closing(search(ledger, wanted, limit)) as found:
                rows = _shown(found, full_numbers=full_numbers)
                some = _print_lines(rows) if jsonl else _print_json(rows) if as_json else _print(rows)
    except (StoreUnavailable, StoreError) as exc:
        fail(str(exc))
    sys.exit(Exit.YES if some else Exit.NO)


def _number(text: str | None, plan: DialPlan) -> str | None:
    """A number as typed, in the form of the records."""
    if text is None or not text.endswith("*"):
        return None if text is None else str(read_party(text, plan))
    if not re.fullmatch(r"\+[0-9]+\*", text):
        # Without + it might be meant in this country, where it begins otherwise.
        raise click.BadParameter(f"{text}: in front of * stand + and digits, from the country code on")
    return text.removeprefix("+")


def _move(settings: Settings, ledger: Ledger, *, as_json: bool) -> None:
    counts = collect(Path(settings.records.folder), ledger)
    if as_json:
        click.echo(json.dumps(asdict(counts)), err=True)
        return
    console.print(f"{counts.collected} records moved into {ledger.name}, {counts.removed} files removed", markup=False)
    if counts.known:
        console.print(f"{counts.known} were there already: their file was copied back")
    if counts.torn or counts.damaged:
        console.print(f"{counts.torn} lines were torn, {counts.damaged} no records: see the table damaged")
    for trouble in counts.troubles:
        console.print(trouble, style="yellow", markup=False)


def _shown(found: Iterable[Found], *, full_numbers: bool) -> Iterable[dict[str, Any]]:
    for one in found:
        record = one.record if full_numbers else masked(one.record)
        yield {"seq": one.seq, "id": one.id, **record}


def _print_lines(rows: Iterable[dict[str, Any]]) -> bool:
    some = False
    for row in rows:
        click.echo(json.dumps(row))
        some = True
    return some


def _print_json(rows: Iterable[dict[str, Any]]) -> bool:
    """One document, written as it is read: there may be millions of records."""
    some = False
    for row in rows:
        click.echo(("," if some else "[") + "\n" + json.dumps(row), nl=False)
        some = True
    click.echo("\n]" if some else "[]")
    return some


def _print(rows: Iterable[dict[str, Any]]) -> bool:
    made = table("time", "", "from", "to", "customer", "outcome", "why", "Call-ID")
    for row in rows:
        outcome = row.get("level") or row.get("result")
        if row.get("refused") or row.get("rejected"):
            outcome = f"{outcome} (refused)" if not row.get("observe") else f"{outcome} (observed)"
        why = row.get("refusal") or row.get("skip") or row.get("code")
        if why is None and row.get("missing"):
            why = row["missing"][0]
        names = (row.get("orig"), row.get("dest"), row.get("customer") or row.get("gateway"), outcome, why)
        made.add_row(when(row["at"]), row["kind"], *(visible(value or "") for value in (*names, row.get("call_id"))))
    if made.row_count:
        console.print(made)
    else:
        console.print("no such call in the ledger")
    return made.row_count > 0
