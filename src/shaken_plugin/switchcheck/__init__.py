"""``shaken check-config --freeswitch``: what in a FreeSWITCH's configuration would break ours.

`preprocessor` and `tree` read the configuration as FreeSWITCH does, every line with its place;
`modules`, `calls` and `host` look for trouble; `Check` names all that can be found.
"""

from __future__ import annotations

from dataclasses import dataclass

from shaken_plugin.setup.freeswitch import Layout
from shaken_plugin.setup.machine import Machine
from shaken_plugin.switchcheck.calls import check_calls, use_of
from shaken_plugin.switchcheck.environment import Environment, read_environment
from shaken_plugin.switchcheck.findings import Check, Finding, Severity
from shaken_plugin.switchcheck.host import check_path, check_settings, check_start, not_checked
from shaken_plugin.switchcheck.modules import check_loading, check_module
from shaken_plugin.switchcheck.preprocessor import preprocess
from shaken_plugin.switchcheck.tree import parse

__all__ = ["Check", "Environment", "Finding", "Report", "Severity", "check_freeswitch", "read_environment"]


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, and what it was found from."""

    findings: list[Finding]
    environment: Environment
    python: str | None
    """The version of Python that mod_python3 links, None where that is not known."""
    not_checked: str | None
    """What could not be looked at, for people."""
    over_socket: bool
    """Whether our functions are reached over the event socket alone, without mod_python3."""

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of a severity, in the order they were found."""
        return [finding for finding in self.findings if finding.severity is severity]


def check_freeswitch(machine: Machine, layout: Layout, environment: Environment) -> Report:
    """Look for everything that would break signing and verifying. Nothing is changed or started.

    Args:
        machine: has the folders that the environment names.
        layout: where the configuration, the modules and the scripts are.
        environment: that of the FreeSWITCH process.
    """
    given = {
        "conf_dir": str(layout.configuration),
        "script_dir": str(layout.script_folder),
        "mod_dir": str(layout.module_folder or ""),
        "base_dir": str(layout.configuration.parent),
    }
    text = preprocess(layout.configuration / "freeswitch.xml", given)
    root = parse(text)
    use = use_of(root, text)
    findings = list(text.findings)
    version: str | None = None
    if use.needs_python:
        findings += check_loading(root, text, layout.configuration)
        version, found = check_module(layout.module_folder, layout.modules)
        findings += found
    findings += check_calls(root, text, use)
    findings += check_start(environment)
    if use.needs_python:
        findings += check_path(machine, environment, layout, version)
        findings += check_settings(machine, environment)
    missing = not_checked(machine, environment) if use.needs_python else None
    return Report(findings, environment, version, missing, over_socket=not use.needs_python)
