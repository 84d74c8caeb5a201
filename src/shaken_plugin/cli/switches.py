"""``shaken check-config --freeswitch``: findings about a switch, for people and for programs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from shaken_plugin.cli.output import Exit, console, errors, fail, print_json
from shaken_plugin.setup.freeswitch import layout_of
from shaken_plugin.setup.machine import Machine
from shaken_plugin.switchcheck import Report, Severity, check_freeswitch, read_environment


def report_freeswitch(
    folder: Path, modules: Path | None, environment_file: Path | None, user: str | None, *, as_json: bool
) -> None:
    """Check a FreeSWITCH; ends with exit code 1 if there are problems, 3 if there is none."""
    machine = Machine()
    layout = layout_of(machine, folder.absolute())
    if layout is None:
        fail(f"there is no freeswitch.xml in {folder}, nor in its etc/freeswitch or conf")
    if modules is not None:
        layout = replace(layout, modules=(modules.absolute(),))
    try:
        environment = read_environment(machine, environment_file)
    except OSError as exc:
        fail(f"{environment_file}: {exc.strerror}")
    if user is not None:
        environment = replace(environment, user=user)
    report = check_freeswitch(machine, layout, environment)
    problems, warnings = report.of(Severity.PROBLEM), report.of(Severity.WARNING)
    if as_json:
        print_json(
            {
                "ok": not problems,
                "problems": [finding.as_json() for finding in problems],
                "warnings": [finding.as_json() for finding in warnings],
                "configuration": str(layout.configuration),
                "environment": environment.source,
                "python": report.python,
                "over_socket": report.over_socket,
                "not_checked": report.not_checked,
            }
        )
    else:
        for finding in problems:
            errors.print(_visible(str(finding)), style="red", markup=False)
        for finding in warnings:
            errors.print(f"warning: {_visible(str(finding))}", style="yellow", markup=False)
        _summary(report, layout.configuration, len(problems), len(warnings))
    if problems:
        sys.exit(Exit.NO)


def _visible(text: str) -> str:
    """Text of a configuration as it may stand on a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _summary(report: Report, configuration: Path, problems: int, warnings: int) -> None:
    counts = (f"{count} {name}{'s' if count != 1 else ''}" for count, name in
              ((problems, "problem"), (warnings, "warning")))  # fmt: skip
    console.print(f"{_visible(str(configuration))}: {', '.join(counts)}; nothing was changed", markup=False)
    console.print(f"environment: {_visible(report.environment.source)}", markup=False)
    if report.over_socket:
        console.print("our functions are reached over the event socket; mod_python3 was not looked at", markup=False)
    elif report.python:
        console.print(f"mod_python3 links Python {report.python}", markup=False)
    if report.not_checked:
        console.print(f"not checked: {report.not_checked}", markup=False)
