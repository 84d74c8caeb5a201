"""A provider whose certificates are valid in the present: commands ask the clock themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from shaken_plugin import runtime
from shaken_plugin.cli import main
from shaken_plugin.cli.records import session
from shaken_plugin.config.settings import PATH_VARIABLE
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.ports import PolicyWriter
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.sqlite import SqlitePolicy
from tests.cli.records import make_centre

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def present() -> float:
    return time.time()


@pytest.fixture(scope="session")
def living(present: float) -> Authority:
    """An authority of the present."""
    return Authority.new(present)


@pytest.fixture
def provider(tmp_path: Path, living: Authority, present: float, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """Settings and policy in a folder, named by the environment, nothing in force yet."""
    made = Provider.make(tmp_path / "provider", living, present)
    monkeypatch.setenv(PATH_VARIABLE, str(made.settings))
    return made


@pytest.fixture
def in_force(provider: Provider, present: float) -> Provider:
    """The same, put in force."""
    runtime.apply(provider.settings, present)
    provider.publish(provider.x5u, provider.credential.chain)
    return provider


@pytest.fixture
def run() -> Run:
    """Runs the command as a user does; standard output and error apart."""

    def invoke(*arguments: object, code: int = 0, stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Runs the command with ``--json`` and gives what it printed, which must be JSON and nothing else."""

    def invoke(*arguments: object, code: int = 0, stdin: str | bytes | None = None) -> Any:
        return json.loads(run(*arguments, "--json", code=code, stdin=stdin).stdout)

    return invoke


@pytest.fixture
def change(provider: Provider) -> Callable[..., None]:
    """Changes settings; a section given is put over the one that is there."""

    def apply(**sections: Any) -> None:
        data = yaml.safe_load(provider.settings.read_text())
        for name, value in sections.items():
            data[name] = {**data.get(name, {}), **value} if isinstance(value, dict) else value
        dump(provider.settings, data)

    return apply


@pytest.fixture
def in_memory(provider: Provider, run: Run, monkeypatch: pytest.MonkeyPatch) -> PolicyWriter:
    """A contact centre's records in a store in memory."""
    store = MemoryPolicy()
    monkeypatch.setattr(session, "open_store", lambda _settings: store)
    make_centre(run)
    return store


@pytest.fixture(params=["memory", "sqlite"])
def centre(request: pytest.FixtureRequest, provider: Provider, run: Run) -> PolicyWriter:
    """The same, and in the provider's own store."""
    if request.param == "memory":
        store: PolicyWriter = request.getfixturevalue("in_memory")
        return store
    make_centre(run)
    return SqlitePolicy(provider.folder / "policy.db")


def invite(caller: str = "+12155551212", called: str = "+12025550143", *headers: str) -> str:
    """A SIP request."""
    lines = [
        f"INVITE sip:{called}@example.net;user=phone SIP/2.0",
        "Via: SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK1",
        f"From: <sip:{caller}@example.com;user=phone>;tag=1",
        f"To: <sip:{called}@example.net;user=phone>",
        "Call-ID: call-1@example.com",
        "CSeq: 1 INVITE",
        *headers,
        "Content-Length: 0",
    ]
    return "\r\n".join(lines) + "\r\n\r\n"
