"""``shaken verify``: one call, verified as the switch would."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from shaken_plugin import runtime
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.cli.inputs import as_uri, identity_values, is_message, read_input, read_request, read_settings
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
    visible,
)
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.yamlfile import Document
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.certificates import TrustAnchors, parse_anchor_file
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import (
    IdentityResult,
    ResourcePriority,
    Result,
    RichCallData,
    Verdict,
    VerificationRules,
    VerstatProfile,
)
from shaken_plugin.errors import FileProblems, VerificationFailure
from shaken_plugin.verification import VerificationService, Waiting


@click.command()
@click.argument("source", default="-")
@settings_option
@click.option(
    "--anchors",
    type=EXISTING_FILE,
    help="Trust anchors (PEM) instead of settings.",
)
@click.option(
    "--certificate",
    type=EXISTING_FILE,
    help="Certificate chain for every x5u.",
)
@click.option("--country", default="US", show_default=True, help="Dial plan, with --anchors.")
@click.option("--from", "caller", help="Calling number, where SOURCE is an Identity header alone.")
@click.option("--to", "called", help="Called number, where SOURCE is an Identity header alone.")
@at_option
@json_option
def verify(
    source: str,
    settings_file: Path,
    anchors: Path | None,
    certificate: Path | None,
    country: str,
    caller: str | None,
    called: str | None,
    at: float | None,
    as_json: bool,
) -> None:
    """Verify the Identity headers of a SIP message, or one header with --from and --to.

    SOURCE is a file; '-' is standard input. Exit code 0 only if the call passes.
    """
    now = time.time() if at is None else at
    message = _call_to_verify(read_input(source), caller, called)
    documents = None if certificate is None else _for_every_x5u(message, certificate.read_bytes())
    if anchors is None:
        settings, document = read_settings(settings_file)
        verdict = _as_the_switch(settings, document, documents, message, now)
        profile, level = settings.verification.verstat, settings.verification.verstat_level
    else:
        roots = _anchors_of(anchors)
        service = VerificationService(VerificationRules(_plan(country)), roots, CertificateMemory(documents or {}))
        profile, level = VerstatProfile.ATIS1000082, False
        verdict = service.verify(message, now)
    verstat = verdict.verstat(profile, level=level)
    if as_json:
        print_json(_verdict_data(verdict, verstat))
    else:
        _print_verdict(verdict, verstat)
    sys.exit(Exit.YES if verdict.result is Result.PASSED else Exit.NO)


def _call_to_verify(data: bytes, caller: str | None, called: str | None) -> CallMessage:
    if is_message(data):
        return CallMessage.from_request(read_request(data))
    if caller is None or called is None:
        raise click.UsageError("an Identity header alone needs --from and --to")

    return CallMessage(
        method="INVITE",
        request_uri=as_uri(called),
        to=f"<{as_uri(called)}>",
        callers={CallerHeader.FROM: (f"<{as_uri(caller)}>",)},
        identity=tuple(identity_values(data)),
    )


def _as_the_switch(
    settings: Settings, document: Document, documents: Mapping[str, bytes] | None, message: CallMessage, now: float
) -> Verdict:
    """What the switch would find with these settings; the agent is asked for what is not at hand."""
    if settings.verification.mode == "off":
        fail("verification is off in the settings; give --anchors")
    service, fetcher, _ = runtime.build_verifier(settings, document.problem, [], None)
    if service is None:
        fail(FileProblems(document.problems))
    if documents is not None:
        rules = runtime.verification_rules(settings.verification, runtime.settings_plan(settings))
        service, fetcher = VerificationService(rules, service.anchors, CertificateMemory(documents)), None
    outcome = service.begin(message, now)
    if isinstance(outcome, Waiting) and fetcher is not None:
        fetcher.fetch(outcome.missing, settings.verification.wait)
        return service.verify(message, now)
    return outcome.verdict if isinstance(outcome, Waiting) else outcome


def _anchors_of(file: Path) -> TrustAnchors:
    try:
        return TrustAnchors(parse_anchor_file(file.read_bytes()))
    except (VerificationFailure, ValueError) as exc:
        fail(f"{file}: {exc}")


def _plan(country: str) -> DialPlan:
    try:
        return dial_plan(country)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--country") from exc


def _for_every_x5u(message: CallMessage, chain: bytes) -> dict[str, bytes]:
    """The chain as the document of every URL that the call names."""
    documents: dict[str, bytes] = {}
    for value in message.identity:
        with suppress(VerificationFailure):
            if info := IdentityHeader.parse(value).info:
                documents[info] = chain
    return documents


def _result_data(result: IdentityResult) -> dict[str, Any]:
    return {
        "index": result.index,
        "depth": result.depth,
        "passed": result.passed,
        "ignored": result.ignored,
        "code": result.failure.code if result.failure else None,
        "meaning": result.failure.value.meaning if result.failure else None,
        "section": result.failure.value.section if result.failure else None,
        "detail": result.detail,
        "ppt": result.ppt,
        "attest": result.attest.value if result.attest else None,
        "orig": str(result.orig) if result.orig else None,
        "div": str(result.div) if result.div else None,
        "origid": result.origid,
        "iat": result.iat,
        "x5u": result.x5u,
        "spc": result.spc,
    }


def _verdict_data(verdict: Verdict, verstat: str) -> dict[str, Any]:
    failure = verdict.failure
    return {
        "result": verdict.result.value,
        "verstat": verstat,
        "code": failure.code if failure else None,
        "status": failure.value.status if failure else None,
        "phrase": failure.value.phrase if failure else None,
        "diversions": [str(party) for party in verdict.diversions],
        "rich": _rich_data(verdict.rich),
        "priority": _priority_data(verdict.priority),
        "identities": [_result_data(result) for result in verdict.results],
    }


def _rich_data(rich: RichCallData | None) -> dict[str, Any] | None:
    return None if rich is None else {"shown": rich.shown.value, **asdict(rich), "withheld": dict(rich.withheld)}


def _priority_data(priority: ResourcePriority | None) -> dict[str, Any] | None:
    if priority is None:
        return None
    code = priority.failure.code if priority.failure else None
    return {"code": code, "auth": list(priority.auth), "sph": priority.sph}


def _findings(verdict: Verdict) -> Iterator[str]:
    """What was learned beside the number, a line each."""
    if verdict.diversions:
        yield f"diverted from {', '.join(map(str, verdict.diversions))}"
    if (rich := verdict.rich) is not None:
        for name, value in _SHOWN.items():
            if (text := getattr(rich, name)) is not None:
                yield f"{value}: {text}"
        for name, why in rich.withheld:
            yield f"{name} must not be shown: {why}"
    if (priority := verdict.priority) is not None:
        code = priority.failure.code if priority.failure else None
        yield f"priority not signed: {code}" if code else f"priority signed: {', '.join(priority.auth)}"


_SHOWN = {"nam": "name", "apn": "number to show", "crn": "reason", "jcd": "jCard", "iss": "third party"}


def _print_verdict(verdict: Verdict, verstat: str) -> None:
    style = {Result.PASSED: "bold green", Result.FAILED: "bold red", Result.NONE: "bold yellow"}[verdict.result]
    console.print(f"{verdict.result.value}: {verstat}", style=style, markup=False)
    if verdict.failure is not None:
        value = verdict.failure.value
        text = f"  {verdict.failure.code}: {value.meaning} [{value.status} {value.phrase}; {value.section}]"
        console.print(text, markup=False)
    rows = table("#", "ppt", "outcome", "attest", "orig", "signer", "detail")
    for result in verdict.results:
        outcome = "passed" if result.passed else "ignored" if result.ignored else "failed"
        code = f" {result.failure.code}" if result.failure else ""
        cells = (
            f"{result.index + 1}{'.opt' * result.depth}",
            result.ppt or "",
            outcome + code,
            result.attest.value if result.attest else "",
            result.orig or "",
            result.spc or "",
            result.detail,
        )
        rows.add_row(*map(visible, cells))
    if verdict.results:
        console.print(rows)
    for line in _findings(verdict):
        console.print(visible(f"  {line}"))
