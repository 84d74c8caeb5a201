"""Keys and trust anchors of the store that this host cannot use are alarms, before a start is refused for them."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.agent import material as checks
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.material import MaterialCheck
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.certs.sealing import Keyring
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.lab.pki import Authority
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.telemetry import MemoryObserver
from tests.agent.host import Host, until
from tests.conftest import NOW
from tests.services.builders import SPC
from tests.services.test_stored_keys import AUTHOR, OCTETS, OTHER, stored
from tests.stores.test_sqlite import raw


class Bench:
    """A host's check, with a clock that stands where it is put."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, NOW
        self.kek = folder / "kek"
        self.kek.write_bytes(OCTETS)
        self.kek.chmod(0o600)
        self.observer, metrics = MemoryObserver(), Metrics()
        self.alarms = Alarms(self.observer, metrics.alarms, lambda: self.now)
        self.path = folder / "policy.db"
        self.check = MaterialCheck(self.settings(), self.alarms, lambda: self.now)

    def settings(self, **sections: Any) -> Settings:
        data: dict[str, Any] = {
            "store": {"path": str(self.path)},
            "keys": {"encryption": f"file:{self.kek}"},
            "signing": {"credentials": [{"name": "main", "spc": SPC}]},
            "verification": {"stored_anchors": True},
        }
        for name, section in sections.items():
            data[name] = {**data[name], **section}
        return Settings.model_validate(data)

    def put(self, *material: Material) -> None:
        with SqlitePolicy(self.path).change(AUTHOR, "keys") as draft:
            for one in material:
                draft.put_material(one)

    def look(self, times: int = 1, *, later: float = 0.0) -> dict[tuple[str, str], str]:
        """The alarms after so many looks."""
        self.now += later
        for _ in range(times):
            asyncio.run(self.check.look())
            self.now += checks.EVERY
        return {(alarm.name, alarm.about): alarm.text for alarm in self.alarms.now()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_key_that_this_host_cannot_open_is_an_alarm_until_it_can(bench: Bench, authority: Authority) -> None:
    good = stored(authority.issue(spc=SPC, now=NOW))
    bench.put(good)
    assert bench.look() == {}
    bench.put(stored(authority.issue(spc=SPC, now=NOW), ring=Keyring(OTHER)))
    ((place, text),) = bench.look().items()
    assert place == ("key_unusable", "next")
    assert f"sealed by the key-encryption key {OTHER.id}" in text
    bench.put(replace(good, x5u="https://elsewhere.example/a.pem"))
    assert "was sealed with another name" in bench.look()[place]
    bench.put(good)
    assert bench.look() == {}
    assert "alarm key_unusable next: over" in [line for _, line in bench.observer.lines]


def test_a_key_encryption_key_that_went_or_changed_hands_is_found_within_a_minute(
    bench: Bench, authority: Authority
) -> None:
    bench.put(stored(authority.issue(spc=SPC, now=NOW)))
    assert bench.look() == {}
    bench.kek.chmod(0o644)
    assert bench.look() == {}
    ((place, text),) = bench.look(later=checks.ANEW).items()
    assert place == ("key_unusable", "")
    assert text.startswith("keys.encryption: ")
    assert "mode 0644 lets others at the key-encryption key" in text
    bench.kek.chmod(0o600)
    assert bench.look(later=checks.ANEW) == {}


def test_new_settings_are_looked_at_at_once(bench: Bench, authority: Authority) -> None:
    bench.put(stored(authority.issue(spc=SPC, now=NOW)))
    bench.check.configure(bench.settings(keys={"encryption": None}))
    assert list(bench.look()) == [("key_unusable", "next")]
    # What this host does not sign with is no trouble.
    bench.check.configure(bench.settings(keys={"encryption": None}, signing={"credentials": [{"name": "second"}]}))
    assert bench.look() == {}
    bench.check.configure(bench.settings(keys={"encryption": None}, signing={"mode": "off"}))
    assert bench.look() == {}


def test_anchors_that_cannot_be_used_are_an_alarm_where_they_are_believed(bench: Bench, authority: Authority) -> None:
    good = StoredAnchors("us", authority.root_pem.decode())
    bench.put(good, StoredAnchors("more", "no certificate"))
    ((place, text),) = bench.look().items()
    assert place == ("anchors_unusable", "more")
    assert text.startswith("trust anchors more of the store: ")
    bench.check.configure(bench.settings(verification={"stored_anchors": False}))
    assert bench.look() == {}
    bench.check.configure(bench.settings(verification={"mode": "off"}))
    assert bench.look() == {}


def test_a_store_that_is_not_there_yet_is_no_trouble_and_one_that_cannot_be_read_is(
    bench: Bench, authority: Authority
) -> None:
    assert bench.look(2) == {}
    bench.path.touch()
    assert bench.look(2) == {}
    bench.put(stored(authority.issue(spc=SPC, now=NOW), ring=Keyring(OTHER)))
    assert list(bench.look()) == [("key_unusable", "next")]
    with raw(bench.path) as other:
        other.execute("UPDATE material SET body = 'damaged'")
    bench.check.configure(bench.settings())
    # A lock that somebody holds for a moment is nothing.
    assert list(bench.look()) == [("key_unusable", "next")]
    found = bench.look()
    assert list(found) == [("key_unusable", ""), ("key_unusable", "next")]
    assert "key next: its content is damaged; remove it, and add it again" in found["key_unusable", ""]
    with SqlitePolicy(bench.path).change(AUTHOR, "removed") as draft:
        draft.remove_material(StoredPair, "next")
    assert bench.look() == {}


def test_the_daemon_looks_and_takes_new_settings(host: Host) -> None:
    with SqlitePolicy(host.folder / "policy.db").change(AUTHOR, "anchors") as draft:
        draft.put_material(StoredAnchors("more", "no certificate"))
    host.change({"verification": {"stored_anchors": True}})
    process = host.start()
    until(lambda: "anchors_unusable" in host.alarms())
    host.change({"verification": {"stored_anchors": False}})
    process.send_signal(signal.SIGHUP)
    until(lambda: "anchors_unusable" not in host.alarms())
