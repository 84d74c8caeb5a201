"""``shaken explain``: what level a call would get, and why."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.text import Text

from shaken_plugin import runtime
from shaken_plugin.cli.inputs import read_party, read_settings
from shaken_plugin.cli.output import (
    EXISTING_FILE,
    Exit,
    at_option,
    console,
    fail,
    json_option,
    print_json,
    settings_option,
    table,
)
from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.settings import Settings
from shaken_plugin.core.attestation import CallFacts, Decision, Level, Step, decide
from shaken_plugin.core.call import is_anonymous, is_emergency
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import FileProblems, SkipReason, StoreUnavailable
from shaken_plugin.ports import PolicyStore
from shaken_plugin.stores.memory import MemoryStore
from shaken_plugin.stores.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class _WhatIf:
    caller: str
    called: str
    source: str | None
    user: str | None


@click.command()
@settings_option
@click.option(
    "--policy",
    type=EXISTING_FILE,
    help="A policy file instead of the one in force.",
)
@click.option("--from", "caller", required=True, help="Calling number or URI.")
@click.option("--to", "called", required=True, help="Called number or URI.")
@click.option("--source", help="IP address the call comes from.")
@click.option("--user", help="Account that the switch authenticated.")
@at_option
@json_option
def explain(
    settings_file: Path,
    policy: Path | None,
    caller: str,
    called: str,
    source: str | None,
    user: str | None,
    at: float | None,
    as_json: bool,
) -> None:
    """What level would this call get, and why?

    Exit code 0 if it would be signed, 1 if not.
    """
    now = time.time() if at is None else at
    settings = read_settings(settings_file)
    try:
        store: PolicyStore = SqliteStore(Path(settings.store.path)) if policy is None else _policy_store(policy)
        decision = _decide(settings, store, _WhatIf(caller, called, source, user), now)
    except StoreUnavailable as exc:
        fail(f"the policy in force cannot be read: {exc}")
    except FileProblems as exc:
        fail(str(exc), Exit.NO)
    if as_json:
        print_json(
            {
                "level": decision.level.value,
                "policy_version": decision.policy_version,
                "at": now,
                "trace": [step._asdict() for step in decision.trace],
                "missing": list(decision.missing),
            }
        )
    else:
        print_decision(decision)
    sys.exit(Exit.YES if decision.level.attest else Exit.NO)


def _policy_store(path: Path) -> MemoryStore:
    policy, document = parse_policy(path)
    if policy is None:
        raise FileProblems(document.problems)
    return MemoryStore(policy)


def _decide(settings: Settings, store: PolicyStore, call: _WhatIf, now: float) -> Decision:
    plan = runtime.settings_plan(settings)
    orig, dest = read_party(call.caller, plan), read_party(call.called, plan)
    number = orig.digits if isinstance(orig, TelephoneNumber) else None
    request_uri = f"tel:{dest.digits}" if isinstance(dest, TelephoneNumber) else dest.uri
    emergency = is_emergency(request_uri, "", "", plan)
    facts = store.facts(call.source, call.user, number)
    decision = decide(CallFacts(orig, dest, emergency), facts, runtime.attestation_policy(settings, plan), now)
    if decision.level.attest is not None and is_anonymous(orig):
        # Not a matter of records, so no rule: the switch does not sign it all the same.
        step = Step("anonymous", False, None, SkipReason.CALLER_ANONYMOUS.value, "a caller ID that is not withheld")
        decision = replace(decision, level=Level.UNSIGNED, trace=(*decision.trace, step))
    return decision


def print_decision(decision: Decision) -> None:
    """A decision for people: level, trace, and what is missing for a better one."""
    style = {Level.A: "bold green", Level.B: "bold yellow", Level.C: "bold yellow"}.get(decision.level, "bold red")
    console.print(f"level {decision.level.value}", style=style, markup=False)
    rows = table("", "rule", "finding", "record")
    for step in decision.trace:
        mark = Text("+", style="green") if step.held else Text("-", style="yellow")
        rows.add_row(mark, step.rule, Text(step.finding), Text(step.record or ""))
    console.print(rows)
    for missing in decision.missing:
        console.print(f"for a better level: {missing}", markup=False)
