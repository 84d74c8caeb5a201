"""``shaken explain``: what level a call would get, and why."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from shaken_plugin import runtime
from shaken_plugin.authentication import Signing, Way
from shaken_plugin.cli.inputs import as_uri, build_services, read_party, read_settings
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
from shaken_plugin.cli.recorded import explain_recorded
from shaken_plugin.config.policyfile import parse_policy
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.yamlfile import Document
from shaken_plugin.core.attestation import CallFacts, Decision, Level, Step
from shaken_plugin.core.call import CallMessage, is_emergency
from shaken_plugin.core.passport import base_claims, passport_header, signing_input
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber
from shaken_plugin.errors import FileProblems, SkipReason, StoreUnavailable
from shaken_plugin.ports import PolicyStore
from shaken_plugin.stores.memory import MemoryStore


@dataclass(frozen=True, slots=True)
class _WhatIf:
    caller: str
    called: str
    source: str | None
    user: str | None
    diverted_from: str | None
    route: str | None
    routed_by: str | None = None
    """The digits by which the route is found; by default those of ``called``."""
    emergency: bool = False
    """Whatever is called: a call back from an emergency service."""


@click.command()
@settings_option
@click.option(
    "--policy",
    type=EXISTING_FILE,
    help="A policy file instead of the one in force.",
)
@click.option("--from", "caller", help="Calling number or URI.")
@click.option("--to", "called", help="Called number or URI.")
@click.option("--source", help="IP address the call comes from.")
@click.option("--user", help="Account that the switch authenticated.")
@click.option("--route", help="Route that the switch would name; by default found by --to.")
@click.option("--diverted-from", help="Number that the call was for, signed, before it was sent on to --to.")
@click.option("--call-id", help="Explain the recorded call with this Call-ID.")
@click.option("--recorded", is_flag=True, help="Explain the recorded call from --from to --to that is nearest to --at.")
@click.option("--full-numbers", is_flag=True, help="Show the numbers of a recorded call in full instead of masked.")
@at_option
@json_option
def explain(
    settings_file: Path,
    policy: Path | None,
    caller: str | None,
    called: str | None,
    source: str | None,
    user: str | None,
    route: str | None,
    diverted_from: str | None,
    call_id: str | None,
    recorded: bool,
    full_numbers: bool,
    at: float | None,
    as_json: bool,
) -> None:
    """What level would this call get, and why? Or: what did a recorded call get, and would it now?

    Exit code 0 if it would be signed (or was), 1 if not.
    """
    now = time.time() if at is None else at
    settings, document = read_settings(settings_file)
    try:
        store: PolicyStore = runtime.local_store(settings) if policy is None else _policy_store(policy)
        if call_id is not None or (recorded and at is not None and (caller or called)):
            explain_recorded(
                settings,
                (call_id, caller, called),
                at,
                lambda one: _anew(settings, store, one),
                full_numbers=full_numbers,
                as_json=as_json,
            )
        if caller is None or called is None or recorded:
            raise click.UsageError("--from and --to, or --call-id, or --recorded with --at and --from or --to")
        call = _WhatIf(caller, called, source, user, diverted_from, route)
        decision = _decide(settings, store, call, now)
        by_records = decision.level
        if decision.level.signs:
            decision = _as_the_switch(decision, settings, document, store, call, now)
    except StoreUnavailable as exc:
        fail(f"the policy in force cannot be read: {exc}")
    except FileProblems as exc:
        fail(exc, Exit.NO)
    if as_json:
        print_json(
            {
                "level": decision.level.value,
                "level_by_records": by_records.value,
                "policy_version": decision.policy_version,
                "at": now,
                "refusal": decision.refusal,
                "unauthorised": decision.unauthorised,
                "offence": decision.offence,
                "substitute": decision.substitute,
                "trace": [step._asdict() for step in decision.trace],
                "missing": list(decision.missing),
            }
        )
    else:
        print_decision(decision, by_records)
    sys.exit(Exit.YES if decision.level.signs else Exit.NO)


def _policy_store(path: Path) -> MemoryStore:
    policy, document = parse_policy(path)
    if policy is None:
        raise FileProblems(document.problems)
    return MemoryStore(policy)


def _decide(settings: Settings, store: PolicyStore, call: _WhatIf, now: float) -> Decision:
    plan = runtime.settings_plan(settings)
    orig, dest = read_party(call.caller, plan), read_party(call.called, plan)
    diverting = _diverting(call, dest, plan)
    request_uri = f"tel:{dest.digits}" if isinstance(dest, TelephoneNumber) else dest.uri
    emergency = call.emergency or is_emergency(request_uri, "", "", plan)
    to = dest.digits if isinstance(dest, TelephoneNumber) and dest.is_e164 else None
    way = Way(call.source, call.user, call.routed_by or to, call.route)
    policy, facts = runtime.attestation_policy(settings, plan), CallFacts(orig, dest, emergency)
    if diverting is not None:
        return way.divert(store, facts, diverting, policy, now, goes_on=True)[0]
    return way.decide(store, facts, policy, now)


def _anew(settings: Settings, store: PolicyStore, record: dict[str, Any]) -> Decision:
    """A recorded call, as it came, decided by what is in force now."""
    call = _WhatIf(
        _typed(record.get("substituted_for") or record.get("orig") or "sip:nobody@anonymous.invalid"),
        _typed(record.get("dest") or "sip:nobody@anonymous.invalid"),
        record.get("source"),
        record.get("user"),
        None,
        record.get("route"),
        record.get("routed_by"),
        emergency=bool(record.get("emergency")),
    )
    if (diverting := record.get("diverting")) is not None:
        call = replace(call, diverted_from=_typed(diverting))
    return _decide(settings, store, call, time.time())


def _typed(party: str) -> str:
    """A party of a record as a person would type it: the country code is there already."""
    return f"+{party}" if len(party) > 6 and party.isdigit() else party


def _diverting(call: _WhatIf, dest: Party, plan: DialPlan) -> TelephoneNumber | None:
    if call.diverted_from is None:
        return None
    diverting = read_party(call.diverted_from, plan)
    if not isinstance(diverting, TelephoneNumber) or diverting == dest:
        raise click.BadParameter("not a telephone number other than --to", param_hint="--diverted-from")
    return diverting


_BEYOND_RECORDS: Final = {
    SkipReason.SIGNING_OFF: ("mode", "signing.mode: active"),
    SkipReason.CALLER_ANONYMOUS: ("anonymous", "a caller ID that is not withheld"),
    SkipReason.NO_CREDENTIAL: ("credential", "that credential in the settings"),
    SkipReason.CREDENTIAL_NOT_VALID: ("credential", "a certificate that is live and valid"),
    SkipReason.CREDENTIAL_SCOPE: ("scope", "a certificate that covers the number it speaks for"),
    SkipReason.SIGNER_FAILED: ("signature", "a private key that can be used"),
}
"""Why the switch signs nothing although the records allow it: name of the step, what is missing."""


def _as_the_switch(
    decision: Decision, settings: Settings, document: Document, store: PolicyStore, call: _WhatIf, now: float
) -> Decision:
    """The decision with final steps for what is no matter of records: the switch itself is asked."""
    if settings.signing.mode == "off":
        signing = Signing(SkipReason.SIGNING_OFF)
    else:
        # Without the verifying half: its mistakes are none of this question.
        verification = settings.verification.model_copy(update={"mode": "off"})
        services = build_services(settings.model_copy(update={"verification": verification}), document, now)
        assert services.authentication is not None
        services.authentication.store = store
        services.authentication.limiter = None  # a question is no call
        message = CallMessage(
            method="INVITE",
            request_uri=as_uri(call.called),
            to=f"<{as_uri(call.called)}>",
            callers={settings.signing.sources[0]: (f"<{as_uri(call.caller)}>",)},
            source=call.source,
            user=call.user,
            route=call.route or "",
        )
        if call.diverted_from is not None:
            came = _as_it_came(call, services.plan, now)
            message = replace(message, identity=(came,), diverting=f"<{as_uri(call.diverted_from)}>")
        signing = services.authentication.sign(message, now, str(uuid.uuid4()))
    record = f"credential {signing.credential.name}" if signing.credential else None
    covered = "the caller" if call.diverted_from is None else "the diverting number"
    steps = []
    if signing.skip in {None, SkipReason.CREDENTIAL_SCOPE, SkipReason.SIGNER_FAILED}:
        steps.append(Step("credential", True, record, "a certificate is live and valid", None))
    if signing.skip in {None, SkipReason.SIGNER_FAILED}:
        steps.append(Step("scope", True, record, f"the certificate covers {covered}", None))
    if signing.skip is None:
        return replace(decision, trace=(*decision.trace, *steps))
    rule, missing = _BEYOND_RECORDS.get(signing.skip, (signing.skip.code, None))
    steps.append(Step(rule, False, record, signing.skip.value, missing))
    return replace(decision, level=Level.UNSIGNED, trace=(*decision.trace, *steps))


_SOMEWHERE: Final = "https://certificates.invalid/"


def _as_it_came(call: _WhatIf, plan: DialPlan, now: float) -> str:
    """An Identity header for the diverting number; without a signature, which signers do not look at."""
    assert call.diverted_from is not None
    claims = base_claims(read_party(call.caller, plan), read_party(call.diverted_from, plan), int(now))
    return f"{signing_input(passport_header(_SOMEWHERE, 'shaken'), claims).decode()}.;info=<{_SOMEWHERE}>"


def print_decision(decision: Decision, by_records: Level | None = None) -> None:
    """A decision for people: level, trace, and what is missing for a better one.

    Args:
        decision: what becomes of the call.
        by_records: the level that the records alone give.
    """
    style = {Level.A: "bold green", Level.B: "bold yellow", Level.C: "bold yellow", Level.DIV: "bold green"}.get(
        decision.level, "bold red"
    )
    but = f" (by the records: {by_records.value})" if by_records not in {None, decision.level} else ""
    console.print(f"level {decision.level.value}{but}", style=style, markup=False)
    if decision.refusal is not None:
        console.print(f"refused: {decision.refusal.value}", markup=False)
    if decision.substitute is not None:
        console.print(f"with the caller ID +{decision.substitute} in place of its own", markup=False)
    if decision.unauthorised:
        console.print(
            f"unauthorised caller ID, {'' if decision.offence else 'not '}counted as an offence", markup=False
        )
    rows = table("", "rule", "finding", "record")
    for step in decision.trace:
        mark = Text("+", style="green") if step.held else Text("-", style="yellow")
        rows.add_row(mark, step.rule, Text(step.finding), Text(step.record or ""))
    console.print(rows)
    for missing in decision.missing:
        console.print(f"for a better level: {missing}", markup=False)
