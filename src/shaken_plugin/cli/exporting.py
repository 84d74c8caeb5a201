"""``shaken export``: the store as a policy file, or its numbers as CSV."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click

from shaken_plugin.cli.importing import FORMATS
from shaken_plugin.cli.outfile import appearing
from shaken_plugin.cli.output import Moment, errors, json_option, print_json, settings_option
from shaken_plugin.cli.records.levels import standings
from shaken_plugin.cli.records.session import find, opened, telling
from shaken_plugin.core.records import Customer
from shaken_plugin.exchange.columns import TABLES
from shaken_plugin.exchange.csvwriting import write_numbers
from shaken_plugin.exchange.yamlfiles import write_policy
from shaken_plugin.stores.standing import StandingInMemory


@click.command("export")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), default="-", help="File, or - (default)."
)
@click.option("--format", "form", type=FORMATS, default="yaml", help="A policy file, or a table of the numbers.")
@click.option("--what", type=click.Choice(list(TABLES)), help="With csv: rights (default), or the dno list.")
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; may be given again.")
@click.option("--at", type=Moment(), help="The policy as it was at this time; default: now.")
@click.option("--version", type=click.IntRange(min=0), help="The policy as it was in this version.")
@click.option("--without-numbers", is_flag=True, help="With yaml: records alone; numbers by the million are for csv.")
@settings_option
@json_option
def export(
    output: str,
    form: str,
    what: str | None,
    customers: tuple[str, ...],
    at: float | None,
    version: int | None,
    without_numbers: bool,
    settings_file: Path,
    as_json: bool,
) -> None:
    """Write what the store says: a policy file that 'apply' and 'import' read back exactly, or numbers as CSV.

    What customers were put under beside the policy, by a person or for offences, is written as their standing:
    another host takes it over, this one knows it already.
    """
    if form == "yaml" and what is not None:
        raise click.UsageError("--what goes with --format csv")
    if form == "csv" and without_numbers:
        raise click.UsageError("--without-numbers goes with --format yaml")
    if None not in (at, version):
        raise click.UsageError("--at and --version say the same: give one of them")
    if customers and what == "dno":
        raise click.UsageError("the do-not-originate list is nobody's: leave --customer out")
    session = opened(settings_file)
    store = session.store
    with telling():
        # How customers stand is known of now alone.
        standing = StandingInMemory(*standings(session).values()) if at is None and version is None else None
        if at is not None:
            version = store.version_at(at)
        with store.records(version) as records:
            for customer in customers:
                find(records, Customer, customer)
            with _written(output) as file:
                if form == "csv":
                    write_numbers(records, TABLES[what or "rights"], file, customers=customers)
                else:
                    numbers = not without_numbers
                    write_policy(records, file.write, customers=customers, standing=standing, numbers=numbers)
            version = records.version
    if as_json and output != "-":
        print_json({"ok": True, "policy_version": version, "file": output})
    elif not as_json:
        errors.print(f"policy version {version}", markup=False)


@contextmanager
def _written(output: str) -> Iterator[TextIO]:
    if output != "-":
        with appearing(Path(output)) as file:
            yield file
        return
    text = io.TextIOWrapper(sys.stdout.buffer, "utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()
