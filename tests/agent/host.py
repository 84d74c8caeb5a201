"""One host for tests: a folder, settings, the daemon as a process, and what a worker has."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from shaken_plugin.certs.agent_client import AgentClient
from shaken_plugin.certs.cache import CertificateCache
from tests.agent.prepared import Prepared, scripted_agent
from tests.agent.scripted import downloads

ROOT = Path(__file__).parents[2]
BASE = "https://certificates.example.com"


def until(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    """Wait for something; what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


class Host:
    """See the module."""

    def __init__(self, folder: Path, anchors: bytes, chain: bytes) -> None:
        self.folder = folder
        self.cache_file = folder / "cache" / "certificates.sqlite"
        self.cache_file.parent.mkdir()
        (folder / "anchors.pem").write_bytes(anchors)
        (folder / "chain.pem").write_bytes(chain)
        self.settings: dict[str, Any] = {
            "store": {"path": "policy.db"},
            "signing": {"mode": "off"},
            "verification": {"trust_anchors": ["file:anchors.pem"], "cache": str(self.cache_file)},
            "agent": {"socket": "agent.sock", "listen": "127.0.0.1:0"},
            "records": {"folder": "calls", "ledger": "sqlite:ledger.db"},
        }
        self.cache = CertificateCache(self.cache_file)
        self.client = AgentClient(folder / "agent.sock", self.cache.lend)
        self.process: Prepared | subprocess.Popen[str] | None = None
        self.logs: list[Path] = []

    def change(self, settings: Mapping[str, Any]) -> None:
        """Settings that differ, section by section."""
        for name, section in settings.items():
            self.settings[name] = {**self.settings.get(name, {}), **section}
        (self.folder / "shaken.yaml").write_text(yaml.safe_dump(self.settings))

    def launch(self, before: Callable[[], None] | None = None) -> Prepared | subprocess.Popen[str]:
        """Start the daemon, without waiting for it; as a program of its own where something is to be done before."""
        self.change({})
        log = self.folder / f"agent-{len(self.logs)}.log"
        log.touch()
        self.logs.append(log)
        if before is None:
            self.process = scripted_agent(self.folder, log)
            return self.process
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.agent.scripted", "shaken.yaml", "."],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=before,  # noqa: PLW1509  # limits of the process alone
            )
        return self.process

    def start(self, before: Callable[[], None] | None = None) -> Prepared | subprocess.Popen[str]:
        """Start the daemon and wait until it answers."""
        process = self.launch(before)
        until(lambda: "/health" in self.log() or process.poll() is not None)
        assert process.poll() is None, self.log()
        return process

    def log(self) -> str:
        """What the last daemon wrote."""
        return self.logs[-1].read_text()

    def stop(self) -> int:
        """End the daemon; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP server."""
        port = int(self.log().partition("http://127.0.0.1:")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def alarms(self) -> set[str]:
        return {alarm["name"] for alarm in json.loads(self.get("/health")[1]).get("alarms", [])}

    def downloads(self) -> list[str]:
        return downloads(self.folder)

    def knows(self, url: str) -> bool:
        """Whether a worker could verify with it now."""
        return self.cache.version(url, time.time()) is not None
