"""The section store.redis: every field arrives, and every mistake is told."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.config.fleet import RedisSettings
from tests.config.test_settings import MINIMAL, file, good, read

__all__ = ["file"]  # a fixture

SENTINEL: dict[str, Any] = {
    "servers": ["10.0.0.5:26379", "[2001:db8::1]:26379", "redis-3.example.com:26379"],
    "mode": "sentinel",
    "master": "shaken",
    "username": "shaken",
    "password": "file:redis-password",
    "sentinel_username": "watch",
    "sentinel_password": "env:SENTINEL_PASSWORD",
    "tls": True,
    "ca": "ca.pem",
    "certificate": "host.pem",
    "key": "host.key",
    "database": 3,
    "fleet": "main-2",
    "replicas": 1,
    "timeout": 0.5,
    "host": "kamailio-1",
}


def redis(file: Path, data: dict[str, Any]) -> RedisSettings:
    found = good(file, MINIMAL | {"store": {"redis": data}}).store.redis
    assert found is not None
    return found


def test_every_setting_arrives(file: Path) -> None:
    found = redis(file, SENTINEL)
    folder = file.parent
    assert found.model_dump() == SENTINEL | {
        "password": f"file:{folder}/redis-password",
        "ca": f"{folder}/ca.pem",
        "certificate": f"{folder}/host.pem",
        "key": f"{folder}/host.key",
    }
    assert SENTINEL.keys() == RedisSettings.model_fields.keys()
    places = (("10.0.0.5", 26379), ("2001:db8::1", 26379), ("redis-3.example.com", 26379))
    assert (found.addresses, found.host_name) == (places, "kamailio-1")


def test_without_the_section_a_host_is_on_its_own(file: Path) -> None:
    settings = good(file, MINIMAL)
    assert (settings.store.redis, settings.store.max_age) == (None, 300)


def test_little_is_needed(file: Path) -> None:
    found = redis(file, {"servers": ["redis:6379"]})
    assert (found.mode, found.fleet, found.timeout, found.tls) == ("single", "main", 1.0, False)
    assert found.host_name == platform.node()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"servers": []}, "at least 1 item"),
        ({"servers": ["redis"]}, "servers[0]: not HOST:PORT"),
        ({"servers": ["a b:1"]}, "servers[0]: not HOST:PORT"),
        ({"servers": ["redis:0"]}, "a port is 1 to 65535"),
        ({"servers": ["redis:65536"]}, "a port is 1 to 65535"),
        ({"servers": ["a:1", "b:1"]}, "one, or mode: sentinel or cluster"),
        ({"mode": "sentinel"}, "master: the Sentinels' name"),
        ({"mode": "cluster", "master": "x"}, "master: the Sentinels' name"),
        ({"mode": "cluster", "database": 1}, "a Cluster has 0 alone"),
        ({"mode": "ring"}, "not one of single, sentinel or cluster"),
        ({"sentinel_username": "x"}, "belong to mode: sentinel"),
        ({"sentinel_password": "env:X"}, "belong to mode: sentinel"),
        ({"username": "x"}, "needs a password"),
        ({"password": "hunter2"}, "by reference: file:PATH or env:NAME"),
        ({"certificate": "x", "tls": "true"}, "certificate and key belong together"),
        ({"ca": "x"}, "need tls: true"),
        ({"fleet": "Main"}, "small letters, digits and dashes"),
        ({"fleet": "a{b}"}, "small letters, digits and dashes"),
        ({"replicas": -1}, "greater than or equal to 0"),
        ({"timeout": 0}, "greater than or equal to 0.05"),
        ({"host": "a/b"}, "not a name"),
        ({"databse": 1}, "unknown setting (did you mean database?)"),
    ],
)
def test_a_mistake_is_told_in_its_place(file: Path, changed: dict[str, Any], why: str) -> None:
    settings, problems = read(file, MINIMAL | {"store": {"redis": {"servers": ["redis:6379"]} | changed}})
    assert settings is None
    (problem,) = problems
    assert "store.redis" in str(problem)
    assert why in str(problem)
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("age", [1, 604_801, "x"])
def test_the_age_of_a_copy_has_bounds(file: Path, age: object) -> None:
    settings, problems = read(file, MINIMAL | {"store": {"max_age": age}})
    assert settings is None
    assert "store.max_age" in str(problems[0])
