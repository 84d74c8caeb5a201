"""``shaken explain`` on a call that was made: what was decided, and whether it would be decided so now."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any, NoReturn

from rich.text import Text

from shaken_plugin import runtime
from shaken_plugin.cli.inputs import read_party
from shaken_plugin.cli.masking import masked
from shaken_plugin.cli.output import Exit, console, fail, print_json, table, visible, when
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.attestation import Decision
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.search import Found, Wanted, by_call_id, nearest
from shaken_plugin.runtime.ledger import open_ledger

Decide = Callable[[dict[str, Any]], Decision]
"""Decides a recorded call anew, by the records that are in force now."""


def explain_recorded(
    settings: Settings,
    wanted: tuple[str | None, str | None, str | None],
    at: float | None,
    decide: Decide,
    *,
    full_numbers: bool,
    as_json: bool,
) -> NoReturn:
    """Explain a recorded call, and end: 0 if it was signed or passed, 1 if not.

    Args:
        settings: name the ledger.
        wanted: Call-ID, or calling and called number.
        at: POSIX seconds; the nearest record is taken, within an hour. By a Call-ID alone it is the latest.
        decide: see there.
        full_numbers: show numbers in full instead of masked.
        as_json: for programs.
    """
    try:
        with closing(open_ledger(settings)) as ledger:
            found, count = _find(settings, ledger, wanted, at)
    except (StoreUnavailable, StoreError) as exc:
        fail(str(exc))
    if found is None:
        fail("no such call in the ledger", Exit.NO)
    record = found.record
    now = decide(record) if record["kind"] == "sign" and record.get("level") else None
    alike = None if now is None else _alike(record, now)
    shown, told = record, _as_json(now)
    if not full_numbers:
        shown, told = masked(record), told and masked(told)
    if as_json:
        print_json({"seq": found.seq, "id": found.id, "recorded": shown, "alike_now": alike, "now": told})
    else:
        _print(shown, count)
        if told is not None:
            _print_now(shown, told, alike=alike)
    good = record.get("attest") or record.get("ppt") if record["kind"] == "sign" else record.get("result") == "passed"
    sys.exit(Exit.YES if good else Exit.NO)


def _find(
    settings: Settings, ledger: Ledger, wanted: tuple[str | None, str | None, str | None], at: float | None
) -> tuple[Found | None, int]:
    call_id, caller, called = wanted
    if call_id is not None:
        all_of_it = by_call_id(ledger, call_id, limit=50)
        if at is not None:
            return min(all_of_it, key=lambda one: abs(one.record["at"] - at), default=None), len(all_of_it)
        # The decision rather than a verdict about the same call on its way back.
        return min(all_of_it, key=lambda one: one.record["kind"] != "sign", default=None), len(all_of_it)
    assert at is not None
    plan = runtime.settings_plan(settings)
    numbers = [None if text is None else str(read_party(text, plan)) for text in (caller, called)]
    return nearest(ledger, Wanted(from_number=numbers[0], to_number=numbers[1]), at), 1


def _alike(record: dict[str, Any], now: Decision) -> bool:
    then = [(step.get("rule"), step.get("held")) for step in record.get("trace", ())]
    return record["level"] == now.level.value and then == [(step.rule, step.held) for step in now.trace]


def _as_json(now: Decision | None) -> dict[str, Any] | None:
    if now is None:
        return None
    return {
        "level": now.level.value,
        "policy_version": now.policy_version,
        "trace": [step._asdict() for step in now.trace],
        "missing": list(now.missing),
    }


def _print(record: dict[str, Any], count: int) -> None:
    outcome = f"level {record['level']}" if record.get("level") else f"{record.get('result') or 'not decided'}"
    why = record.get("refusal") or record.get("skip") or record.get("code")
    console.print(visible(outcome + (f" ({why})" if why else "")), style="bold")
    more = f", one of {count} records of it" if count > 1 else ""
    console.print(
        visible(f"{record['kind']} on {record['node']}, {when(record['at'])}, Call-ID {record.get('call_id')}{more}")
    )
    rest = table("", "")
    for name, value in record.items():
        if name not in {"v", "kind", "at", "node", "call_id", "level", "result", "trace", "rules", "missing"}:
            rest.add_row(name.replace("_", " "), visible(", ".join(value) if isinstance(value, list) else value))
    rest.show_header = False
    console.print(rest)
    if record.get("trace"):
        rows = table("", "rule", "finding", "record")
        for step in record["trace"]:
            mark = Text("+", style="green") if step.get("held") else Text("-", style="yellow")
            rows.add_row(mark, *(visible(step.get(name, "")) for name in ("rule", "finding", "record")))
        console.print(rows)
    for missing in record.get("missing", ()):
        console.print(visible(f"for a better level: {missing}"))


def _print_now(record: dict[str, Any], now: dict[str, Any], *, alike: bool | None) -> None:
    """What would become of the call now."""
    if alike:
        text = f"it would be decided alike now, by policy version {now['policy_version']}"
    else:
        text = f"now it would be level {now['level']}, by policy version {now['policy_version']}"
        then = {(step.get("rule"), step.get("held")) for step in record.get("trace", ())}
        different = [step["finding"] for step in now["trace"] if (step["rule"], step["held"]) not in then]
        text += f": {'; '.join(different)}" if different else ""
    console.print(visible(text))
