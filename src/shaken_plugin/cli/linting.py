"""``shaken lint-cert``: what is wrong with certificates, before a verifier says so."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.text import Text

from shaken_plugin.certs.credentials import load_signer
from shaken_plugin.cli.downloading import download
from shaken_plugin.cli.inputs import read_settings
from shaken_plugin.cli.output import (
    EXISTING_FILE,
    Exit,
    at_option,
    console,
    fail,
    json_option,
    print_json,
    table,
    visible,
    when,
)
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import resolve
from shaken_plugin.core.certificates import parse_anchor_file
from shaken_plugin.core.crl import MAX_LENGTH as MAX_CRL_LENGTH
from shaken_plugin.errors import CredentialError, VerificationFailure
from shaken_plugin.lint import Expectations, Finding, Report, Severity, Source, examine
from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.document import MAX_LENGTH, Document
from shaken_plugin.lint.revocation import Crl
from shaken_plugin.ports import Signer

_STYLES: Final = {Severity.ERROR: "red", Severity.WARN: "yellow", Severity.NOTICE: "cyan"}
_PLURALS: Final = {Severity.ERROR: "errors", Severity.WARN: "warnings", Severity.NOTICE: "notices"}


@click.command("lint-cert")
@click.argument("sources", nargs=-1, metavar="[FILE|URL]...")
@click.option("--anchors", type=EXISTING_FILE, help="Roots (PEM) that the chain must reach.")
@click.option(
    "--settings",
    "settings_file",
    type=EXISTING_FILE,
    help="Take roots, signers of revocation lists, lab hosts and agent.ca_bundle from this settings file; "
    "without it none is read, that of $SHAKEN_SETTINGS neither.",
)
@click.option(
    "--key", type=EXISTING_FILE, help="Private key that the signer's certificate must match; a call is tried with it."
)
@click.option("--spc", help="Service Provider Code that the signer's certificate must carry.")
@click.option(
    "--margin",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Warn this long before the end; default: a third of the certificate's life.",
)
@click.option(
    "--lab-host",
    "lab_hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Host whose URLs may have another port and a private address; may be given more than once.",
)
@click.option("--crl", type=EXISTING_FILE, help="Revocation list (PEM or DER) that must not name the certificates.")
@click.option("--crl-signer", type=EXISTING_FILE, help="Certificate (PEM) that the revocation list is signed by.")
@at_option
@json_option
def lint_cert(
    sources: tuple[str, ...],
    anchors: Path | None,
    settings_file: Path | None,
    key: Path | None,
    spc: str | None,
    margin: float | None,
    lab_hosts: tuple[str, ...],
    crl: Path | None,
    crl_signer: Path | None,
    at: float | None,
    as_json: bool,
) -> None:
    """Say what is wrong with certificates, their chain and the repository that publishes them.

    Each source is a file (PEM, signer first, or DER) or an http or https URL, which is asked once;
    '-', the default, is standard input. Several sources are also compared with each other.

    Exit code 0 if there is no error; warnings and notices do not count. 1 with an error, also where
    a URL gives no answer. 3 if a file cannot be read. All checks: docs/reference.md.
    """
    settings = None if settings_file is None else read_settings(settings_file)[0]
    hosts = frozenset(lab_hosts) | frozenset(settings.verification.lab_hosts if settings else ())
    now = time.time() if at is None else at
    signer, public_key = (None, None) if key is None else _key(key)
    expected = Expectations(
        now=now,
        margin=None if margin is None else margin * 86_400,
        anchors=_anchors(anchors, settings),
        public_key=public_key,
        spc=spc,
        signer=signer,
        crl=None if crl is None else _crl(crl, crl_signer, settings, now),
    )
    bundle = None if settings is None else settings.agent.ca_bundle
    reports = examine([_source(name, hosts, bundle) for name in sources or ("-",)], expected)
    if as_json:
        print_json(_data(reports))
    else:
        for report in reports:
            _print(report)
        _summary(reports, expected)
    sys.exit(Exit.NO if _total(reports, Severity.ERROR) else Exit.YES)


def _source(name: str, lab_hosts: frozenset[str], ca_bundle: str | None) -> Source:
    if re.match(r"(?i)[a-z][a-z0-9+.-]*://", name):
        exchange = download(name, lab_hosts, ca_bundle=ca_bundle)
        return Source(name, exchange.body, exchange)
    return Source(name, _read(name))


def _read(name: str, most: int = MAX_LENGTH) -> bytes:
    """What a file or standard input holds, up to one octet past what is looked at."""
    try:
        if name == "-":
            return sys.stdin.buffer.read(most + 1)
        with Path(name).open("rb") as file:
            return file.read(most + 1)
    except OSError as exc:
        fail(f"{name}: {exc.strerror}")


def _anchors(file: Path | None, settings: Settings | None) -> tuple[Certificate, ...] | None:
    """The configured roots; None where none are named. Ends the command where they cannot be read."""
    if file is not None:
        documents = {str(file): _read(str(file))}
    elif settings is not None:
        chosen = settings.trust_list
        if chosen is not None and chosen.url is not None:
            return None  # the agent knows them all
        documents = _referenced(settings.verification.trust_anchors + (chosen.anchors if chosen else []))
    else:
        return None
    found: list[Certificate] = []
    for name, data in documents.items():
        document = Document.parse(data)
        if not document.certificates or len(document.readable) < len(document.certificates) or document.problems:
            fail(f"{name}: not a PEM file of root certificates")
        found += document.readable
    return tuple(found)


def _key(file: Path) -> tuple[Signer, bytes]:
    """A private key, and the SubjectPublicKeyInfo of its public half; ends the command where it is none."""
    try:
        signer, public = load_signer(file.read_bytes())
    except (CredentialError, OSError) as exc:
        fail(f"{file}: {exc}")
    return signer, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _crl(file: Path, signer: Path | None, settings: Settings | None, now: float) -> Crl:
    """The revocation list, as far as it can be used; ends the command where nobody is named who signs it."""
    chosen = None if settings is None else settings.trust_list
    if signer is not None:
        documents = {str(signer): _read(str(signer))}
    elif chosen is not None and chosen.crl.signers:
        documents = _referenced(chosen.crl.signers)
    else:
        raise click.UsageError("--crl needs --crl-signer, or --settings with crl.signers in the trust list")
    signers: list[x509.Certificate] = []
    for name, data in documents.items():
        try:
            signers += parse_anchor_file(data)
        except VerificationFailure as exc:
            fail(f"{name}: {exc.detail}")
    return Crl.parse(str(file), _read(str(file), MAX_CRL_LENGTH), signers, now)


def _referenced(references: Sequence[str]) -> dict[str, bytes]:
    """What settings refer to, by reference; ends the command where it cannot be read."""
    try:
        return {reference: resolve(reference) for reference in references}
    except ValueError as exc:
        fail(str(exc))


def _total(reports: Sequence[Report], severity: Severity) -> int:
    return sum(report.count(severity) for report in reports)


def _data(reports: Sequence[Report]) -> dict[str, Any]:
    return {
        "ok": not _total(reports, Severity.ERROR),
        **{name: _total(reports, severity) for severity, name in _PLURALS.items()},
        "sources": [
            {
                "source": report.source,
                "certificates": [_certificate_data(certificate) for certificate in report.certificates],
                "findings": [_finding_data(finding) for finding in report.findings],
            }
            for report in reports
        ],
    }


def _certificate_data(certificate: Certificate | None) -> dict[str, Any] | None:
    if certificate is None:
        return None
    return {
        "kind": certificate.kind,
        "subject": str(certificate.subject),
        "issuer": str(certificate.issuer),
        "serial": f"{certificate.serial:x}",
        "spc": certificate.spc,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
    }


def _finding_data(finding: Finding) -> dict[str, Any]:
    return {**finding._asdict(), "severity": finding.severity.value}


def _print(report: Report) -> None:
    console.print(visible(report.source), style="bold")
    for index, certificate in enumerate(report.certificates):
        console.print(visible(f"  {index + 1}  {_described(certificate)}"))
    rows = table("", "#", "lint", "finding")
    rows.columns[2].no_wrap = True
    for finding in report.findings:
        rows.add_row(
            Text(f"  {finding.severity.value}", _STYLES[finding.severity]),
            "" if finding.certificate is None else str(finding.certificate + 1),
            finding.lint,
            visible(f"{finding.text}; {finding.remedy} [{finding.citation}]"),
        )
    if report.findings:
        console.print(rows, soft_wrap=False)


def _described(certificate: Certificate | None) -> str:
    if certificate is None:
        return "cannot be read"
    spc = f", SPC {certificate.spc}" if certificate.spc else ""
    return f"{certificate.kind}{spc}, {certificate.subject}, until {when(certificate.not_after)}"


def _summary(reports: Sequence[Report], expected: Expectations) -> None:
    counts = {name: _total(reports, severity) for severity, name in _PLURALS.items()}
    told = ", ".join(f"{count} {name.removesuffix('s') if count == 1 else name}" for name, count in counts.items())
    console.print(told, style="red" if counts["errors"] else "green", markup=False)
    asked = {"--anchors": expected.anchors, "--key": expected.public_key, "--spc": expected.spc,
             "--crl": expected.crl}  # fmt: skip
    if missing := [option for option, value in asked.items() if value is None]:
        console.print(f"not checked without {', '.join(missing)}: whether they fit", markup=False)
