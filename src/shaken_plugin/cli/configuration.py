"""``shaken check-config``, ``apply`` and ``schema``: files into force, or every mistake in them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from shaken_plugin import runtime
from shaken_plugin.cli.output import (
    EXISTING_FILE,
    Exit,
    console,
    errors,
    fail,
    json_option,
    print_json,
    settings_option,
    when,
)
from shaken_plugin.cli.records.session import user_name, waits
from shaken_plugin.cli.switches import report_freeswitch
from shaken_plugin.config.policyentries import PolicyFile
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import parse_settings, read_text
from shaken_plugin.errors import FileProblems, Problem, StoreError, StoreUnavailable
from shaken_plugin.ports import Author
from shaken_plugin.records.schema import schema as record_schema
from shaken_plugin.runtime.force import PUT_IN_FORCE
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite import InForce


def _report(checked: runtime.Checked, now: float, *, as_json: bool, extra: dict[str, object] | None = None) -> None:
    """Print what was found; ends with exit code 1 if there are problems."""
    warnings = list(checked.services.warnings) if checked.services else []
    if as_json:
        print_json(
            {
                "ok": not checked.problems,
                "problems": [problem._asdict() for problem in checked.problems],
                "warnings": warnings,
                **(extra or {}),
            }
        )
    else:
        _print_problems(checked.problems)
        for warning in warnings:
            errors.print(f"warning: {warning}", style="yellow", markup=False)
    if checked.problems:
        sys.exit(Exit.NO)
    if not as_json:
        _summary(checked, now)


def _print_problems(problems: list[Problem]) -> None:
    for problem in problems:
        errors.print(str(problem), style="red", markup=False)
    if problems:
        count = len(problems)
        errors.print(f"{count} mistake{'s' if count > 1 else ''}; nothing was changed.", markup=False)


def _summary(checked: runtime.Checked, now: float) -> None:
    services, settings = checked.services, checked.settings
    assert services is not None
    assert settings is not None
    console.print(f"signing: {settings.signing.mode}", markup=False)
    for credential in services.credentials.values():
        console.print(f"  credential {credential.name}: signs until {when(credential.lasts_until(now))}", markup=False)
    anchors = f", {services.verification.anchors.count} trust anchors" if services.verification else ""
    listed = "" if settings.verification.trust_list is None else f", trust list {settings.verification.trust_list}"
    console.print(f"verification: {settings.verification.mode}{anchors}{listed}", markup=False)
    if checked.policy is not None:
        policy = checked.policy
        console.print(
            f"policy: {len(policy.customers)} customers, {len(policy.trunks)} trunks, {len(policy.gateways)} "
            f"gateways, {len(policy.rights)} rights to numbers",
            markup=False,
        )


def _must_be_readable(settings_file: Path) -> None:
    """End the command where there is nothing to check: that is no mistake in the file."""
    try:
        read_text(settings_file)
    except FileProblems as exc:
        fail(exc)


@click.command("check-config")
@settings_option
@click.option(
    "--freeswitch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Check a FreeSWITCH instead: its configuration folder, or the prefix it was built for.",
)
@click.option(
    "--modules",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --freeswitch: its folder of modules, where it lies in no usual place.",
)
@click.option(
    "--environment",
    type=EXISTING_FILE,
    help="With --freeswitch: its environment, NAME=value a line or /proc/PID/environ; default: that of its unit.",
)
@click.option("--user", metavar="NAME", help="With --freeswitch: whom it runs as; default: as its unit says.")
@json_option
def check_config(
    settings_file: Path,
    freeswitch: Path | None,
    modules: Path | None,
    environment: Path | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Check the settings file, the policy file, keys and certificates; change nothing.

    Every mistake is reported as file:line:column: path: what is wrong. With --freeswitch: what in
    a FreeSWITCH's configuration and environment would keep calls from being signed or verified.
    """
    if freeswitch is not None:
        report_freeswitch(freeswitch, modules, environment, user, as_json=as_json)
        return
    if (modules, environment, user) != (None, None, None):
        raise click.UsageError("--modules, --environment and --user go with --freeswitch")
    _must_be_readable(settings_file)
    now = time.time()
    checked = runtime.check(settings_file, now)
    _check_fleet(checked, settings_file)
    _report(checked, now, as_json=as_json)


def _check_fleet(checked: runtime.Checked, settings_file: Path) -> None:
    """Report a password for Redis that is not there: a switch has no need of it, nor may it read it."""
    redis = None if checked.settings is None else checked.settings.store.redis
    if redis is None:
        return
    from shaken_plugin.runtime.fleet import access  # noqa: PLC0415  # its client takes long to load

    try:
        access(redis)
    except StoreError as exc:
        document = parse_settings(settings_file)[1]
        document.problem(("store", "redis"), str(exc))
        checked.problems += document.problems


@click.command("apply")
@settings_option
@click.option("--overwrite", is_flag=True, help="Also undo what was changed in the store by other means since.")
@click.option(
    "--by",
    default=user_name,
    show_default="$SHAKEN_BY, $SUDO_USER or your login",
    metavar="NAME",
    help="Who makes the change.",
)
@click.option(
    "-m", "--why", default=PUT_IN_FORCE, show_default=True, metavar="TEXT", help="Why; it stays with the change."
)
@json_option
@waits
def apply_(settings_file: Path, overwrite: bool, by: str, why: str, as_json: bool) -> None:
    """Check everything, then put settings and policy in force in the local store; in a fleet, the policy for all hosts.

    Records decide calls at once. Settings are taken by a running Kamailio with
    'kamcmd app_python.reload'; no worker reads the files. A store that was changed by other commands
    since is left alone, unless the file says the same or --overwrite is given. Suspended and
    terminated customers stay so, whatever the file says.
    """
    _must_be_readable(settings_file)
    now = time.time()
    try:
        checked, version = runtime.apply(settings_file, now, overwrite=overwrite, who=by, why=why, share=_share)
    except FileProblems as exc:
        _report(runtime.Checked(problems=exc.problems), now, as_json=as_json)
        return
    except (StoreError, StoreUnavailable) as exc:
        fail(str(exc))
    _report(checked, now, as_json=as_json, extra={"policy_version": version})
    if not as_json:
        console.print(f"in force: policy version {version}", style="bold", markup=False)
        console.print("running switches take new settings with: kamcmd app_python.reload", markup=False)


def _share(settings: Settings, policy: Policy, author: Author, origin: str, overwrite: bool) -> InForce:
    from shaken_plugin.runtime.fleet import share  # noqa: PLC0415  # its client takes long to load

    return share(settings, policy, author, origin, overwrite)


@click.command("schema")
@click.argument("file", type=click.Choice(["settings", "policy", "calls"]), default="settings")
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: it is JSON in any case.")
def schema(file: str) -> None:
    """Print the JSON Schema of the settings or the policy file, for editors, or of the records of calls."""
    if file == "calls":
        print_json(record_schema())
        return
    model = Settings if file == "settings" else PolicyFile
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()})
