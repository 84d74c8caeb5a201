"""``shaken lab``: certificates for tests, and the demonstration."""

from __future__ import annotations

import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import click

from shaken_plugin.certs.directory import file_name
from shaken_plugin.cli.output import Exit, console, fail, json_option, print_json
from shaken_plugin.core.certificates import SigningCertificate
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.lab.pki import AGE, Authority, Defect, KeyKind
from shaken_plugin.lab.provider import CERTIFICATE_HOST
from shaken_plugin.lab.servers import LabError


@click.group()
def lab() -> None:
    """A test PKI and a demonstration. Never trust its root outside a lab."""


@lab.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("lab-pki"), show_default=True)
@click.option("--spc", help="Service Provider Code for the certificate, for instance 709J.")
@click.option("--number", "numbers", multiple=True, help="A number for the certificate, digits only; may be repeated.")
@click.option(
    "--range",
    "ranges",
    multiple=True,
    type=(str, int),
    metavar="FIRST COUNT",
    help="A range of numbers; may be repeated.",
)
@click.option("--name", help="Name of the files; default: the SPC.")
@click.option("--x5u", help=f"URL of the chain; default: https://{CERTIFICATE_HOST}/NAME.pem.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="Days it is valid from now.")
@click.option(
    "--issuer-key", type=click.Choice([kind.value for kind in KeyKind]), default="p256", show_default=True,
    help="Keys of a new root and intermediate.",
)  # fmt: skip
@click.option("--defect", type=click.Choice([defect.value for defect in Defect]), help="What shall be wrong with it.")
@json_option
def pki(
    out: Path,
    spc: str | None,
    numbers: tuple[str, ...],
    ranges: tuple[tuple[str, int], ...],
    name: str | None,
    x5u: str | None,
    days: int,
    issuer_key: str,
    defect: str | None,
    as_json: bool,
) -> None:
    """Make a root, an intermediate and a signing certificate; in a folder that has them, one more.

    The root is in anchors.pem, the key in NAME.key, the chain in NAME.pem and, where a verifier
    looks it up, in certificates/.
    """
    if not (spc or numbers or ranges):
        raise click.UsageError("give --spc, --number or --range")
    now = time.time()
    out.mkdir(parents=True, exist_ok=True)
    authority_file = out / "authority.pem"
    try:
        if authority_file.exists():
            authority = Authority.load(authority_file.read_bytes())
        else:
            authority = Authority.new(now, kind=KeyKind(issuer_key))
            authority_file.touch(0o600)
            authority_file.write_bytes(authority.dump())
        issued = authority.issue(
            now=now,
            spc=spc,
            numbers=numbers,
            ranges=ranges,
            lifetime=AGE + timedelta(days=days),
            defect=Defect(defect) if defect else None,
        )
        if not defect:
            SigningCertificate.load(issued.certificate)
    except ValueError as exc:
        fail(str(exc), Exit.NO)
    except VerificationFailure as exc:
        fail(f"such a certificate could not sign: {exc.detail}", Exit.NO)
    name = name or spc or (numbers or [ranges[0][0]])[0]
    url = x5u or f"https://{CERTIFICATE_HOST}/{name}.pem"
    files = {
        "anchors": out / "anchors.pem",
        "key": out / f"{name}.key",
        "chain": out / f"{name}.pem",
        "published": out / "certificates" / file_name(url),
    }
    files["published"].parent.mkdir(exist_ok=True)
    files["anchors"].write_bytes(authority.root_pem)
    files["key"].touch(0o600)
    files["key"].write_bytes(issued.key)
    files["chain"].write_bytes(issued.chain)
    files["published"].write_bytes(issued.chain)
    described = {label: str(path) for label, path in files.items()} | {"x5u": url}
    if as_json:
        print_json(described)
    else:
        for label, value in described.items():
            console.print(f"{label:<10} {value}", markup=False)


@lab.command()
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep all files in this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def demo(keep: Path | None, as_json: bool) -> None:
    """Play calls through two real Kamailios and show what happens to each."""
    from shaken_plugin.lab.demo import run_demo  # noqa: PLC0415  # starts nothing until it is asked for

    try:
        good = run_demo(keep, as_json=as_json)
    except LabError as exc:
        fail(str(exc))
    sys.exit(Exit.YES if good else Exit.NO)


@lab.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def repository(folder: Path, as_json: bool) -> None:
    """Serve the files of a folder on loopback, well or badly, until interrupted; private keys are left out.

    The files are read at the start, and the ports are others at every start.

    Its TLS certificates lead to FOLDER/tls-ca.pem. Each port is like its name; how a path behaves is
    told at run time on the plain one: PUT /-/behaviours, GET /-/requests.
    """
    from shaken_plugin.lab.repository import Behaviour, Repository  # noqa: PLC0415  # likewise

    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    files = {name: content for name, content in files.items() if b"PRIVATE KEY" not in content}
    with Repository(folder) as server:
        for name, content in files.items():
            server.set(f"/{name}", Behaviour(body=content))
        described = server.urls() | {"ca": str(server.ca_file)}
        if as_json:
            print_json(described)
        else:
            for label, value in described.items():
                console.print(f"{label:<10} {value}", markup=False)
        sys.stdout.flush()
        signal.sigwait(ends)
