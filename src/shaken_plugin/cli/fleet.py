"""``shaken fleet``: every host that decides by the same policy, and how it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from shaken_plugin.cli.inputs import read_settings
from shaken_plugin.cli.moving import join, move, restore
from shaken_plugin.cli.output import Exit, console, errors, json_option, print_json, settings_option, table, when
from shaken_plugin.cli.records.session import telling
from shaken_plugin.runtime.fleet import fleet_log
from shaken_plugin.stores.redis.hosts import Host, HostStatus, HostTable
from shaken_plugin.stores.redis.log import FleetLog


@click.group("fleet", invoke_without_command=True)
@settings_option
@json_option
@click.pass_context
def fleet(context: click.Context, settings_file: Path, as_json: bool) -> None:
    """Show every host of the fleet: release, policy version, age of its copy, calls, last errors.

    Exit codes: 0 all are well, 1 one lags or is silent, 3 Redis cannot be had.
    """
    context.obj = settings_file
    if context.invoked_subcommand is not None:
        return
    log = _log(settings_file)
    with telling():
        head, hosts = log.head().version, HostTable(log).read().found
    lagging = [host for host in hosts if host.lag(head) is not None]
    if as_json:
        print_json({"fleet": log.fleet, "policy_version": head, "hosts": [_plain(host, head) for host in hosts]})
    else:
        console.print(f"{log.name}: policy version {head}, {len(hosts)} hosts", style="bold", markup=False)
        if hosts:
            console.print(_table(hosts))
        for host in lagging:
            errors.print(f"host {host.name} {host.lag(head)}", style="red", markup=False)
    if lagging:
        sys.exit(Exit.NO)


@fleet.command("forget")
@click.argument("host")
@json_option
@click.pass_obj
def forget(settings_file: Path, host: str, as_json: bool) -> None:
    """Forget a host that is gone for good; one that is not reports again within seconds."""
    with telling():
        was_there = HostTable(_log(settings_file)).forget(host)
    if as_json:
        print_json({"ok": was_there, "host": host})
    else:
        console.print(f"{host}: forgotten" if was_there else f"there is no host {host}", markup=False)
    if not was_there:
        sys.exit(Exit.NO)


for command in (move, join, restore):
    fleet.add_command(command)


def _log(settings_file: Path) -> FleetLog:
    with telling():
        return fleet_log(read_settings(settings_file)[0])


def _plain(host: Host, head: int) -> dict[str, Any]:
    said = {} if host.status is None else host.status.model_dump(mode="json")
    return said | {"host": host.name, "silent": host.silent, "trouble": host.lag(head)}


_COLUMNS = "host", "agent", "schema", "policy", "copy", "calls/s", "more", "seen", "last error"


def _table(hosts: tuple[Host, ...]) -> Table:
    shown = table(*_COLUMNS)
    for host in hosts:
        status = host.status or HostStatus(host=host.name)
        shown.add_row(*row(status)[:-1], f"{host.silent:.0f} s ago", last_error(status))
    return shown


def row(status: HostStatus) -> list[str]:
    """A host as its table shows it."""
    return [
        status.host,
        status.agent,
        _or(status.file_schema) + ("" if status.redis_schema is None else f", Redis {status.redis_schema}"),
        _or(status.version),
        "not known" if status.age is None else f"{status.age:.0f} s old",
        _or(status.calls_per_second),
        "; ".join(f"{name} {value}" for name, value in status.parts.items()),
        last_error(status),
    ]


def last_error(status: HostStatus) -> str:
    """The newest alarm in one line."""
    if not status.errors:
        return ""
    said = status.errors[0]
    return f"{when(said.at)} {said.name} {said.about}".strip()


def _or(value: object) -> str:
    return "-" if value is None else str(value)
