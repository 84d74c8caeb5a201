"""What was written to the file past us is undone by putting the policy file in force with ``--overwrite``."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from shaken_plugin.core.records import Basis, Customer, CustomerState, DoNotOriginate, Route, Trunk, Withheld
from shaken_plugin.stores.policy import Policy
from shaken_plugin.stores.sqlite import SqliteStore, replace_policy
from shaken_plugin.stores.sqlite.upkeep import status
from tests.records import number_right, reached
from tests.stores.test_sqlite import raw

ACME, BETA = Customer("acme", "Acme", CustomerState.VERIFIED), Customer("beta", "Beta", CustomerState.PENDING)
POLICY = Policy(
    (ACME, BETA),
    (reached(Trunk("a", ACME), "192.0.2.0/24", users=["alice"]), reached(Trunk("b", BETA), "198.51.100.0/24")),
    rights=(
        number_right("acme", "12155551200", "12155551299", Basis.ASSIGNED, id="range"),
        number_right("acme", "12155551212", "12155551212", Basis.ASSIGNED, id="one"),
        number_right("beta", "16105551212", "16105551212", Basis.CUSTOMER_WORD, id="word"),
    ),
    withheld=((DoNotOriginate("d", Withheld.UNUSED), "18005550100", "18005550199"),),
    routes=(Route("uk", ("44",)),),
)
QUESTIONS = [
    (source, user, number, called, None)
    for source in ("192.0.2.7", "198.51.100.7", "203.0.113.7")
    for user in (None, "alice", "mallory")
    for number in ("12155551212", "12155551250", "16105551212", "16105551250", "18005550150", "19995551212")
    for called in ("442079460000", "33123456789")
]

TAMPERING = [
    "UPDATE link SET id = 'a' WHERE id = 'b'",
    "DELETE FROM link",
    "INSERT INTO link VALUES ('user/mallory', 'trunk', 'a')",
    "INSERT INTO link VALUES ('user/mallory', 'trunk', 'nobody')",
    "UPDATE record SET body = replace(body, 'pending', 'verified')",
    "UPDATE record SET body = replace(body, 'customer_word', 'assigned')",
    "UPDATE record SET body = '{' WHERE id = 'beta'",
    'UPDATE record SET body = replace(body, \'"id":"b"\', \'"id":"a"\')',
    "UPDATE record SET until = 1 WHERE kind = 'do_not_originate'",
    "DELETE FROM record WHERE kind = 'customer'",
    "INSERT INTO record SELECT kind, id, 99, NULL, replace(body, 'pending', 'verified') FROM record",
    "INSERT INTO record SELECT kind, id, 0, NULL, replace(body, 'pending', 'verified') FROM record",
    "INSERT INTO record VALUES ('nonsense', 'x', 1, NULL, '{}')",
    "INSERT INTO number SELECT key - 12155551212 + 19995551212, owner, span, 1, NULL FROM number WHERE span = 0",
    "INSERT INTO number SELECT key - 12155551212 + 19995551212, owner, span, 99, NULL FROM number WHERE span = 0",
    "UPDATE number SET until = 1",
    "DELETE FROM number",
    "UPDATE number SET owner = 2 WHERE span != 0",
    "DELETE FROM span",
    "UPDATE span SET last = last + 1",
    "UPDATE span SET first = 'x'",
    "DELETE FROM shape",
    "UPDATE owner SET id = 'range' WHERE id = 'word'; UPDATE owner SET id = 'z' WHERE id = 'word'",
]


@pytest.mark.parametrize("tampering", TAMPERING)
def test_whatever_was_written_to_the_file_is_undone(tmp_path: Path, tampering: str) -> None:
    path = tmp_path / "policy.db"
    replace_policy(path, POLICY, None, {})
    store = SqliteStore(path)
    before = [store.facts(*question) for question in QUESTIONS]
    with raw(path) as other:
        other.execute("BEGIN")
        for statement in tampering.split(";"):
            with suppress(sqlite3.IntegrityError):  # two of a name cannot be
                other.execute(statement)
        other.execute("COMMIT")
    version = replace_policy(path, POLICY, None, {}, mend=True).version
    assert version == 2
    for asked in (store, SqliteStore(path)):
        for question, expected in zip(QUESTIONS, before, strict=True):
            found = asked.facts(*question)
            assert found.version == version
            assert (found.source, found.rights, found.holders) == (expected.source, expected.rights, expected.holders)
            assert (found.withheld, found.route) == (expected.withheld, expected.route)
    assert replace_policy(path, POLICY, None, {}).version == version
    assert (status(path).numbers, status(path).ranges) == (2, 2)
