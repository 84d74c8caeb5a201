"""docs/commands.md: every command in it is run, and prints what stands below it."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest

from shaken_plugin import runtime
from shaken_plugin.cli import output
from shaken_plugin.config.settings import PATH_VARIABLE
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from shaken_plugin.records.collector import collect
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.spool import SpoolWriter
from tests.cli.records import Run
from tests.records.builders import record

DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"
THE_DAY = 1_795_339_800.0
"""22 November 2026, 09:30 UTC."""
ENDS_WITH_ONE = ("expiring", "missing")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A provider on that day, with a ledger of calls, and a letter in the working folder."""
    monkeypatch.setattr(time, "time", lambda: THE_DAY)
    gateway = {"id": "intl", "name": "International gateway", "addresses": ["203.0.113.7"]}
    provider = Provider.make(tmp_path / "p", Authority.new(THE_DAY), THE_DAY, policy={"gateways": [gateway]})
    runtime.apply(provider.settings, THE_DAY)
    monkeypatch.setenv(PATH_VARIABLE, str(provider.settings))
    monkeypatch.setenv("SHAKEN_BY", "anna")
    (provider.folder / "calls").mkdir()
    spool = SpoolWriter(provider.folder / "calls", 1 << 24)
    for number, times in (("13125550142", 212), ("12125550100", 17)):
        for _ in range(times):
            assert spool.write(record(orig=number, at=THE_DAY - 86_400)) is None
    collect(provider.folder / "calls", Ledger(f"sqlite:{provider.folder / 'ledger.db'}"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loa-7.pdf").write_text("Example Clinic authorises Acme")
    monkeypatch.setattr(output.console, "_width", 110)
    return tmp_path


def test_the_tour_is_what_the_commands_print(run: Run, host: Path) -> None:
    blocks = [
        block for block in re.findall(r"```\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL) if block[0] == "$"
    ]
    for block in blocks:
        printed: list[str] = []
        for line in re.findall(r"^\$ shaken (.*)$", block, re.MULTILINE):
            result = run(*shlex.split(line), code=int(line.startswith(ENDS_WITH_ONE)))
            told = result.stdout.replace(str(host), "/srv/letters")
            printed += [f"$ shaken {line}", *(text.rstrip() for text in told.splitlines())]
        assert "\n".join(printed) == block.rstrip()
