"""``shaken agent``: the daemon in the foreground, and how it is."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from shaken_plugin.agent import wiring
from shaken_plugin.agent.daemon import Agent
from shaken_plugin.agent.parts import Calls, Parts
from shaken_plugin.agent.server import SocketTaken
from shaken_plugin.cli.output import Exit, console, errors, fail, json_option, print_json, settings_option, table, when
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import parse_settings, sound_settings
from shaken_plugin.errors import FileProblems, StoreError
from shaken_plugin.ports import Observer
from shaken_plugin.runtime.inline import download_inline
from shaken_plugin.stores.redis.hosts import HostStatus
from shaken_plugin.switch import process
from shaken_plugin.telemetry import StreamObserver

_READ_AT_MOST = 1_000_000


def load(path: Path) -> Settings:
    """The settings.

    Raises:
        FileProblems: every mistake in the file.
    """
    settings, document = parse_settings(path)
    if settings is None:
        raise FileProblems(document.problems)
    return settings


@click.group("agent", invoke_without_command=True)
@settings_option
@click.pass_context
def agent(context: click.Context, settings_file: Path) -> None:
    """Run the daemon that downloads for all SIP workers of this host, in the foreground.

    It fetches certificates, the trust list and revocation lists, and keeps them fresh in the file
    that the workers read. SIGHUP takes new settings, SIGTERM ends it. Metrics and health are on
    the address of agent.listen.
    """
    context.obj = settings_file
    if context.invoked_subcommand is None:
        run(settings_file, replace(wiring.parts(), calls=partial(calls, settings_file)))


def calls(settings_file: Path, settings: Settings, observer: Observer) -> Calls | None:
    """What serves calls over an event socket, where that is wanted."""
    address = settings.agent.esl.listen
    if address is None:
        return None
    from shaken_plugin.adapters.freeswitch.esl.server import EventSocket  # noqa: PLC0415  # few agents need a switch

    return EventSocket(address, lambda: process.load(lambda: observer, settings_file, download_inline), observer)


def run(settings_file: Path, given: Parts) -> None:
    """Run the daemon until it is told to end; mistakes and what stands in its way end the command."""

    async def whole() -> None:
        await Agent(load(settings_file), lambda: load(settings_file), given, StreamObserver()).run()

    try:
        asyncio.run(whole())
    except FileProblems as exc:
        fail(str(exc))
    except (SocketTaken, StoreError) as exc:
        fail(str(exc))
    except OSError as exc:
        fail(f"agent.listen: {exc.strerror or exc}")


@agent.command("status")
@json_option
@click.pass_obj
def status(settings_file: Path, as_json: bool) -> None:
    """Say how the running agent is: 0 well, 1 with an alarm or stalled, 3 not to be reached."""
    try:
        settings = sound_settings(parse_settings(settings_file)[1])  # the agent runs on, whatever stands there now
    except FileProblems as exc:
        fail(exc)
    listen = settings.agent.listen if settings.agent else None
    if listen is None or listen.endswith(":0"):
        fail("agent.listen names no port that could be asked; the agent's log says which one it took")
    health = _health(listen)
    if as_json:
        print_json(health)
    else:
        _print(health)
    sys.exit(Exit.YES if health.get("status") == "ok" else Exit.NO)


def _health(listen: str) -> dict[str, Any]:
    host, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=5)
    try:
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read(_READ_AT_MOST))
    except (OSError, http.client.HTTPException, ValueError) as exc:
        fail(f"no agent answers on {listen}: {exc}")
    finally:
        connection.close()
    if not isinstance(health, dict):
        fail(f"what answers on {listen} is no agent")
    return health


def _print(health: dict[str, Any]) -> None:
    well = health.get("status") == "ok"
    text = f"{health.get('status')}: {health.get('documents', 0)} certificate URLs, pid {health.get('pid')}"
    console.print(text, style="green" if well else "red", markup=False)
    with suppress(ValidationError):  # of an agent of another release
        _print_host(HostStatus.model_validate(health.get("host")))
    lists = table("list", "url", "ends in")
    for row in health.get("lists", []):
        ends = row["ends_in_seconds"]
        lists.add_row(
            f"{row['kind']} {row['name']}", row["url"], "none yet" if ends is None else f"{ends / 3600:.1f} h"
        )
    if lists.row_count:
        console.print(lists)
    for alarm in health.get("alarms", []):
        errors.print(f"alarm {alarm['name']} {alarm['about']}: {alarm['text']}", style="red", markup=False)


def _print_host(status: HostStatus) -> None:
    shown = table("", "")
    facts: dict[str, object] = {
        "host": status.host,
        "agent": status.agent,
        "policy version": status.version,
        "schema of the file": status.file_schema,
        "calls per second": status.calls_per_second,
        **status.parts,
    }
    if status.redis_schema is not None:
        copy = "not known to be whole" if status.age is None else f"known to be whole {status.age:.1f} s ago"
        redis = "not asked, see the alarms" if status.breaker_open else "answers"
        facts |= {"fleet's policy version": status.head, "copy": copy, "Redis": redis}
    for name, value in facts.items():
        shown.add_row(name, "-" if value is None else str(value))
    console.print(shown)
    if status.errors:
        errors_shown = table("last alarms", "", "")
        for said in status.errors:
            errors_shown.add_row(when(said.at), f"{said.name} {said.about}", said.text)
        console.print(errors_shown)
