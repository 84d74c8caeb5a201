"""What is a host's own in its file, after the file was lost and made anew from Redis."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shaken_plugin.errors import StoreError
from shaken_plugin.stores import statefile
from shaken_plugin.stores.redis.own import Own
from shaken_plugin.stores.sqlite import put_settings, read_header, remember_state
from tests.stores.redis.conftest import ACME, Host, NewHost

THEIRS = {"country": "DE"}
"""The settings that the agent has itself."""


@pytest.fixture
def there(host: NewHost, tmp_path: Path) -> Host:
    """A host with settings in force and a state file."""
    host("here").put(ACME)
    made = host("there")
    made.replica.catch_up()
    put_settings(made.path, {"country": "US"}, {"file": "digest"})
    remember_state(made.path, statefile.ensure(tmp_path / "state.db", made.path))
    return made


def lose(host: Host) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{host.path}{suffix}").unlink(missing_ok=True)
    host.replica.catch_up()
    assert read_header(host.path).settings is None


def test_what_was_in_force_is_written_back(there: Host, tmp_path: Path) -> None:
    before = read_header(there.path)
    assert before.state_id is not None
    own = Own(there.path, tmp_path / "state.db", THEIRS)
    own.keep()
    (tmp_path / "state.db").unlink()  # with the policy's file: that nobody is suspended must not follow from it
    lose(there)
    own.keep()
    assert read_header(there.path) == before
    own.keep()
    assert read_header(there.path) == before


def test_an_agent_that_never_saw_it_writes_its_own_settings(there: Host, tmp_path: Path) -> None:
    made = read_header(there.path).state_id
    lose(there)
    Own(there.path, tmp_path / "state.db", THEIRS).keep()
    header = read_header(there.path)
    assert (header.settings, header.digests, header.state_id) == (THEIRS, {}, made)


def test_where_nothing_was_ever_in_force_nothing_is_written(there: Host, tmp_path: Path) -> None:
    (tmp_path / "state.db").unlink()
    lose(there)
    own = Own(there.path, tmp_path / "state.db", THEIRS)
    own.keep()
    assert read_header(there.path).settings is None
    there.path.write_bytes(b"")
    own.keep()
    there.path.unlink()
    own.keep()
    assert not there.path.exists()


def test_what_another_put_in_force_first_stays(there: Host, tmp_path: Path) -> None:
    own = Own(there.path, tmp_path / "state.db", THEIRS)
    own.keep()
    lose(there)
    put_settings(there.path, {"country": "FR"}, {})
    own.keep()
    assert read_header(there.path).settings == {"country": "FR"}


def test_a_file_that_cannot_be_read_is_a_named_error(there: Host, tmp_path: Path) -> None:
    with closing(sqlite3.connect(there.path)) as connection, connection:
        connection.execute("UPDATE meta SET value = 'x' WHERE key = 'settings'")
    with pytest.raises(StoreError, match=r"there\.db: cannot be read"):
        Own(there.path, tmp_path / "state.db", THEIRS).keep()
