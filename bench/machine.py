"""What a benchmark ran on, and of which code: no names of hosts, no paths."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from cryptography.hazmat.backends.openssl import backend

LIBRARIES: Final = ("shaken-plugin", "cryptography", "PyJWT")
PACKAGES: Final = ("kamailio", "kamailio-secsipid-modules", "libsecsipid1", "sip-tester", "redis-server")
"""Debian packages of the peers."""


def describe() -> dict[str, str]:
    """Names of facts and their values, in the order for people; what is not there is left out."""
    cores = len(os.sched_getaffinity(0))
    facts = {
        "processor": _in_file("/proc/cpuinfo", r"^model name\s*: (.+)$"),
        "cores": str(cores),
        "memory": _memory(),
        "load before": f"{os.getloadavg()[0]:.2f} of {cores}",
        "system": _in_file("/etc/os-release", r'^PRETTY_NAME="(.+)"$'),
        "kernel": platform.release(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "OpenSSL of cryptography": backend.openssl_version_text(),
        "OpenSSL of the system": _said("openssl", "version").partition("  ")[0].partition(" (")[0],
        "SQLite": sqlite3.sqlite_version,
    }
    facts |= {name: _library(name) for name in LIBRARIES}
    facts["commit"] = _said("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    facts |= {name: _said("dpkg-query", "-W", "-f", "${Version}", name) for name in PACKAGES}
    return {name: value for name, value in facts.items() if value}


def _memory() -> str:
    found = _in_file("/proc/meminfo", r"^MemTotal:\s+(\d+) kB$")
    return f"{int(found) / 1024**2:.1f} GiB" if found else ""


def _in_file(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text("utf-8", "replace"), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""


def _library(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _said(*command: str) -> str:
    """The first line a program prints, empty where it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""
