"""Keys and trust anchors: what every policy store must do alike with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.errors import ConflictError, StoreError
from shaken_plugin.ports import Author
from shaken_plugin.stores import material as kept
from tests.contract.backends import WRITERS, Backend

AUTHOR = Author("alice", "a new year", 1_795_000_000.0)
KEY = StoredPair("main-2026", "main", "aes256gcm-1:x", "PEM\n", "https://a.example/1.pem", 5.5)
NEXT = StoredPair("main-2027", "main", "aes256gcm-1:y", "PEM\n", "https://a.example/2.pem")
ROOTS = StoredAnchors("us", "-----BEGIN CERTIFICATE-----\n")
ACME = Customer("acme", "Acme", CustomerState.VERIFIED)


@pytest.fixture(params=WRITERS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return WRITERS[request.param](tmp_path)


def put(backend: Backend, *material: Material) -> None:
    with backend.writer.change(AUTHOR, "keys") as draft:
        for one in material:
            draft.put_material(one)


def material(backend: Backend, version: int | None = None) -> tuple[Material, ...]:
    with backend.writer.records(version) as records:
        return records.material()


def version(backend: Backend) -> int:
    with backend.writer.records() as records:
        return records.version


def test_a_store_has_none_at_first(backend: Backend) -> None:
    assert material(backend) == ()


def test_they_are_there_by_kind_and_name_and_the_version_tells_of_the_change(backend: Backend) -> None:
    before = version(backend)
    put(backend, NEXT, KEY, ROOTS)
    assert material(backend) == (ROOTS, KEY, NEXT)
    assert version(backend) == before + 1
    assert backend.store.facts(None, None, None).version == before + 1
    (change,) = backend.writer.changes(before)
    assert (change.who, change.why, change.what) == ("alice", "a new year", "keys")


def test_one_takes_the_place_of_the_one_with_its_name(backend: Backend) -> None:
    put(backend, KEY, NEXT)
    other = StoredPair("main-2026", "second", "aes256gcm-1:z", "PEM 2\n", KEY.x5u, 7.0)
    put(backend, other)
    assert material(backend) == (other, NEXT)


def test_a_draft_reads_as_it_will_be(backend: Backend) -> None:
    with backend.writer.change(AUTHOR, "keys") as draft:
        draft.put_material(KEY)
        assert draft.material() == (KEY,)
        draft.remove_material(StoredPair, "main-2026")
        assert draft.material() == ()


def test_what_is_removed_is_gone_from_every_version(backend: Backend) -> None:
    put(backend, KEY, ROOTS)
    there = version(backend)
    with backend.writer.change(AUTHOR, "key removed") as draft:
        draft.remove_material(StoredPair, "main-2026")
    assert material(backend) == (ROOTS,)
    assert material(backend, there) == ()
    assert version(backend) == there + 1


def test_nothing_is_there_at_a_version_that_is_not_in_force(backend: Backend) -> None:
    put(backend, KEY)
    with backend.writer.change(AUTHOR, "customer") as draft:
        draft.put(ACME)
    assert material(backend) == (KEY,)
    assert material(backend, version(backend) - 1) == ()


def test_what_changes_nothing_makes_no_version(backend: Backend) -> None:
    put(backend, KEY)
    before = version(backend)
    put(backend, KEY)
    with backend.writer.change(AUTHOR, "to and fro") as draft:
        draft.put_material(StoredPair("main-2026", "main", "other", "PEM\n", KEY.x5u))
        draft.put_material(NEXT)
        draft.remove_material(StoredPair, "main-2026")
        draft.remove_material(StoredPair, "main-2027")
        draft.put_material(KEY)
    assert version(backend) == before
    assert material(backend) == (KEY,)


def test_an_exception_leaves_everything_as_it_was(backend: Backend) -> None:
    put(backend, KEY)
    before = version(backend)
    with pytest.raises(ConflictError), backend.writer.change(AUTHOR, "keys") as draft:  # noqa: PT012  # what came before
        draft.remove_material(StoredPair, "main-2026")
        draft.put_material(ROOTS)
        draft.remove_material(StoredPair, "main-2026")
    assert (material(backend), version(backend)) == ((KEY,), before)


def test_a_key_and_anchors_may_have_the_same_name(backend: Backend) -> None:
    put(backend, KEY, StoredAnchors(KEY.name, "PEM"))
    with backend.writer.change(AUTHOR, "anchors removed") as draft:
        draft.remove_material(StoredAnchors, KEY.name)
    assert material(backend) == (KEY,)


@pytest.mark.parametrize("kind", [StoredPair, StoredAnchors])
def test_what_is_not_there_cannot_be_removed(backend: Backend, kind: type[Material]) -> None:
    with (
        pytest.raises(ConflictError, match=r"there is no (key|anchors) gone"),
        backend.writer.change(AUTHOR, "removed") as draft,
    ):
        draft.remove_material(kind, "gone")


def test_every_key_needs_a_url_of_its_own(backend: Backend) -> None:
    # RFC 8224 §7.4.
    put(backend, KEY)
    with (
        pytest.raises(ConflictError, match=r"key other: the URL https://a\.example/1\.pem belongs to key main-2026"),
        backend.writer.change(AUTHOR, "key") as draft,
    ):
        draft.put_material(StoredPair("other", "main", "x", "PEM\n", KEY.x5u))
    assert material(backend) == (KEY,)


def test_there_are_bounds(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ConflictError, match=r"anchors big: has [0-9]+ octets, at most 524288"),
        backend.writer.change(AUTHOR, "anchors") as draft,
    ):
        draft.put_material(StoredAnchors("big", "x" * kept.MAX_BODY))
    monkeypatch.setattr("shaken_plugin.stores.drafts.MAX_KEPT", 2)
    put(backend, KEY, ROOTS)
    put(backend, KEY, ROOTS)
    with (
        pytest.raises(ConflictError, match="there are 2 keys and trust anchors already"),
        backend.writer.change(AUTHOR, "key") as draft,
    ):
        draft.put_material(NEXT)


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), float("-inf")])
def test_a_moment_that_is_none_is_refused(backend: Backend, moment: float) -> None:
    with (
        pytest.raises(ConflictError, match=r"key main-2026: live_from is no moment"),
        backend.writer.change(AUTHOR, "key") as draft,
    ):
        draft.put_material(replace(KEY, live_from=moment))
    assert material(backend) == ()


@pytest.mark.parametrize("moment", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1", "true", '"5.5"', "null"])
def test_a_body_with_a_moment_that_is_none_is_damaged(moment: str) -> None:
    sound = kept.encode(KEY)
    assert kept.decode(("key", KEY.name), sound) == KEY
    forged = sound.replace("5.5", moment, 1)
    assert forged != sound
    with pytest.raises(StoreError, match="key main-2026: its content is damaged"):
        kept.decode(("key", KEY.name), forged)
