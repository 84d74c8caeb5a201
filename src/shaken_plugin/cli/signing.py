"""``shaken sign``: an Identity header, decided from records or as told."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from shaken_plugin.authentication import Signing, SigningPair, identity_header
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.cli.explaining import print_decision
from shaken_plugin.cli.inputs import as_uri, read_input, read_party, read_request, read_services
from shaken_plugin.cli.output import (
    EXISTING_FILE,
    Exit,
    at_option,
    errors,
    fail,
    json_option,
    print_json,
    settings_option,
)
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.errors import CredentialError, SkipReason


@click.command()
@click.argument("source", required=False)
@settings_option
@click.option("--source", "address", help="IP address the message came from, to decide from records.")
@click.option("--user", help="Account that the switch authenticated.")
@click.option("--diverted-from", help="Number that sends the message on to where it goes now: sign a div.")
@click.option("--attest", type=click.Choice(["A", "B", "C"]), help="This level, without asking the records.")
@click.option("--from", "caller", help="Calling number, with --attest.")
@click.option("--to", "called", help="Called number, with --attest.")
@click.option("--origid", help="origid (a UUID), with --attest; default: a random one.")
@click.option("--iat", type=int, help="iat in POSIX seconds, with --attest; default: the time.")
@click.option("--credential", help="Name of the credential in the settings, with --attest; default: the first.")
@click.option("--key", type=EXISTING_FILE, help="Private key instead of a credential.")
@click.option("--chain", type=EXISTING_FILE, help="Its certificate chain.")
@click.option("--x5u", help="URL of the chain.")
@click.option(
    "--force-invalid", is_flag=True,
    help="With --attest: sign outside the certificate's validity and scope, and any origid. For tests of verifiers.",
)  # fmt: skip
@at_option
@json_option
def sign(source: str | None, settings_file: Path, at: float | None, as_json: bool, **options: Any) -> None:
    """Sign a call and print the Identity header.

    SOURCE is a file with a SIP request ('-' is standard input); its level is decided from the
    records in force, as the switch would, for the given --source or --user. Without SOURCE,
    --attest, --from and --to say what to sign.
    """
    now = time.time() if at is None else at
    if source is None and options["diverted_from"]:
        raise click.UsageError("--diverted-from goes with a message that has Identity headers")
    if source is None:
        _sign_claims(settings_file, now, as_json=as_json, **options)
        return
    if options["attest"] or options["force_invalid"]:
        raise click.UsageError("--attest and --force-invalid go with --from and --to, not with a message")
    services = read_services(settings_file, now)
    if services.authentication is None:
        fail("signing is off in the settings")
    request = read_request(read_input(source))
    message = CallMessage.from_request(request, source=options["address"], user=options["user"])
    if options["diverted_from"]:
        read_party(options["diverted_from"], services.plan)
        message = replace(message, diverting=f"<{as_uri(options['diverted_from'])}>")
    signing = services.authentication.sign(message, now, str(uuid.uuid4()))
    _print_signing(signing, as_json=as_json)
    if signing.skip is SkipReason.STORE_UNAVAILABLE:
        sys.exit(Exit.MISSING)
    sys.exit(Exit.YES if signing.identity else Exit.NO)


def _print_signing(signing: Signing, *, as_json: bool) -> None:
    decision = signing.decision
    if as_json:
        print_json(
            {
                "identity": signing.identity,
                "ppt": signing.ppt if signing.identity else None,
                "date": signing.date,
                "skip": signing.skip.code if signing.skip else None,
                "refuse": signing.refuse,
                "level": decision.level.value if decision else None,
                "trace": [step._asdict() for step in decision.trace] if decision else [],
                "missing": list(decision.missing) if decision else [],
            }
        )
        return
    if signing.identity:
        if signing.date:
            click.echo(f"Date: {signing.date}")
        click.echo(f"Identity: {signing.identity}")
    if signing.skip:
        errors.print(f"not signed: {signing.skip.code}: {signing.skip.value}", style="yellow", markup=False)
    if decision is not None and not signing.identity:
        print_decision(decision)


def _sign_claims(settings_file: Path, now: float, *, as_json: bool, **options: Any) -> None:
    if not (options["attest"] and options["caller"] and options["called"]):
        raise click.UsageError("give a SIP message, or --attest, --from and --to")
    pair, plan = _pair(settings_file, now, options)
    orig, dest = read_party(options["caller"], plan), read_party(options["called"], plan)
    iat = int(now) if options["iat"] is None else options["iat"]
    origid = options["origid"] or str(uuid.uuid4())
    if not options["force_invalid"]:
        if not _is_uuid(origid):
            raise click.BadParameter(f"{origid!r} is not a UUID (RFC 8588 §5)", param_hint="--origid")
        if (skip := pair.refuses(orig, iat, now)) is not None:
            fail(f"not signed: {skip.code}: {skip.value} (--force-invalid signs it all the same)", Exit.NO)
    claims = shaken_claims(attest=Attest(options["attest"]), orig=orig, dest=dest, iat=iat, origid=origid)
    value = identity_header(pair, claims).format()
    if as_json:
        print_json({"identity": value, "claims": claims})
    else:
        click.echo(value)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _pair(settings_file: Path, now: float, options: dict[str, Any]) -> tuple[SigningPair, DialPlan]:
    given = [options[name] for name in ("key", "chain", "x5u")]
    if any(given):
        if not all(given):
            raise click.UsageError("--key, --chain and --x5u go together")
        try:
            pair = load_pair(
                key=options["key"].read_bytes(),
                chain=options["chain"].read_bytes(),
                x5u=options["x5u"],
                live_from=0,
                spc=None,
            )
        except CredentialError as exc:
            fail(str(exc), Exit.NO)
        return pair, dial_plan("US")
    services = read_services(settings_file, now)
    name = options["credential"] or next(iter(services.credentials), "")
    credential = services.credentials.get(name)
    if credential is None:
        fail(f"the settings have no credential {name}", Exit.NO)
    current = credential.current(now)
    if current is None and options["force_invalid"]:
        current = credential.pairs[0]
    if current is None:
        fail(f"no certificate of credential {name} is valid at this time", Exit.NO)
    return current, services.plan
