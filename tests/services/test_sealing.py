"""Private keys sealed for the store: what opens them, what does not, and that nothing of them is shown."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest

from shaken_plugin.certs.sealing import Kek, Keyring, is_plaintext, new_kek, open_, parse_kek, rewrap, seal, sealed_by
from shaken_plugin.config.keys import KeysSettings, build_keyring, read_kek
from shaken_plugin.core.material import StoredPair
from shaken_plugin.errors import CredentialError

OCTETS = bytes(range(100, 132))
OLD, NEW = Kek(OCTETS), Kek(bytes(range(32)))
SECRET = b"a private key in DER, as far as sealing knows"
RING = Keyring(OLD)


def _changed(sealed: str, part: int) -> str:
    parts = sealed.split(":")
    old = parts[part][5]
    parts[part] = f"{parts[part][:5]}{'B' if old == 'A' else 'A'}{parts[part][6:]}"
    return ":".join(parts)


# --- Both layers ----------------------------------------------------------------------------------


def test_what_was_sealed_is_opened_with_what_it_is_bound_to_alone() -> None:
    sealed = seal(RING, "main-2026", SECRET)
    assert open_(RING, "main-2026", sealed) == SECRET
    for name in ("main-2027", "main-202", "main-2026 ", "", "MAIN-2026"):
        with pytest.raises(CredentialError, match="or was sealed with another name"):
            open_(RING, name, sealed)


def test_neither_layer_can_be_taken_for_the_other_nor_from_another_key() -> None:
    one, other = seal(RING, "a", SECRET).split(":"), seal(RING, "a", SECRET).split(":")
    for mixed in ([*one[:3], other[3]], [*one[:2], other[2], one[3]], [*one[:2], one[3], one[2]]):
        with pytest.raises(CredentialError, match="cannot be opened"):
            open_(RING, "a", ":".join(mixed))


@pytest.mark.parametrize("part", [2, 3], ids=["data key", "private key"])
def test_one_changed_character_is_noticed(part: int) -> None:
    with pytest.raises(CredentialError, match="damaged"):
        open_(RING, "a", _changed(seal(RING, "a", SECRET), part))


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        "x",
        "aes256gcm-2:0123456789abcdef:AAAA:AAAA",
        "aes256gcm-1::AAAA:AAAA",
        "aes256gcm-1:0123456789abcdef:AA",
        "é",
    ],
)
def test_what_is_not_of_this_format_is_refused(sealed: str) -> None:
    with pytest.raises(CredentialError, match="a way that this release does not know"):
        open_(RING, "a", sealed)


@pytest.mark.parametrize("length", [0, 1, 2, 4, 16, 21])
def test_what_is_cut_short_is_refused(length: int) -> None:
    for part in (2, 3):
        parts = seal(RING, "a", SECRET).split(":")
        parts[part] = parts[part][:length] or "A"
        with pytest.raises(CredentialError):
            open_(RING, "a", ":".join(parts))


def test_no_two_seals_are_alike_and_none_holds_the_key() -> None:
    found = {seal(RING, "a", SECRET) for _ in range(20)}
    assert len(found) == 20
    for part in range(4):
        assert len({sealed.split(":")[part] for sealed in found}) == (1 if part < 2 else 20)
    assert not any(base64.urlsafe_b64encode(SECRET)[:-4].decode() in sealed for sealed in found)


def test_another_key_encryption_key_is_named_by_its_id() -> None:
    sealed = seal(RING, "a", SECRET)
    with pytest.raises(CredentialError, match=f"by the key-encryption key {OLD.id}, which is neither"):
        open_(Keyring(NEW), "a", sealed)
    assert sealed_by(sealed) == OLD.id != NEW.id
    forged = sealed.replace(OLD.id, NEW.id)
    with pytest.raises(CredentialError, match="cannot be opened"):
        open_(Keyring(NEW), "a", forged)


# --- Rotation -------------------------------------------------------------------------------------


def test_after_a_rotation_the_old_key_opens_nothing_not_even_with_the_data_key_it_once_opened() -> None:
    before = seal(RING, "a", SECRET)
    after = rewrap(Keyring(NEW, [OLD]), "a", before)
    assert open_(Keyring(NEW), "a", after) == SECRET
    with pytest.raises(CredentialError):
        open_(Keyring(OLD), "a", after)
    # The old data key, which whoever had the old key could have kept, opens the new content neither.
    parts, old = after.split(":"), before.split(":")
    with pytest.raises(CredentialError):
        open_(Keyring(OLD), "a", ":".join([old[0], old[1], old[2], parts[3]]))


def test_a_rotation_needs_the_old_key() -> None:
    with pytest.raises(CredentialError, match=OLD.id):
        rewrap(Keyring(NEW), "a", seal(RING, "a", SECRET))


# --- Plaintext ------------------------------------------------------------------------------------


def test_plaintext_is_for_a_lab_without_a_key_alone_and_called_so() -> None:
    lab = Keyring(plaintext=True)
    plain = seal(lab, "a", SECRET)
    assert plain.startswith("PLAINTEXT-1:")
    assert is_plaintext(plain)
    assert sealed_by(plain) is None
    assert open_(lab, "a", plain) == SECRET
    with pytest.raises(CredentialError, match=r"lies in plaintext in the store, which keys\.plaintext does not allow"):
        open_(RING, "a", plain)
    assert not is_plaintext(seal(Keyring(OLD, plaintext=True), "a", SECRET))
    assert not is_plaintext(rewrap(Keyring(OLD, plaintext=True), "a", plain))
    with pytest.raises(CredentialError, match="damaged"):
        open_(lab, "a", "PLAINTEXT-1:é")


def test_without_any_key_nothing_is_sealed() -> None:
    with pytest.raises(CredentialError, match=r"no keys\.encryption.*shaken key new-encryption"):
        seal(Keyring(), "a", SECRET)


# --- The key-encryption key -----------------------------------------------------------------------

FORMS = {
    "raw": OCTETS,
    "hex": OCTETS.hex().encode(),
    "hex in capitals, with a line end": OCTETS.hex().upper().encode() + b"\n",
    "base64": base64.b64encode(OCTETS),
    "base64 with a line end": base64.b64encode(OCTETS) + b"\r\n",
    "base64 without padding": base64.b64encode(OCTETS).rstrip(b"="),
    "base64 for URLs": base64.urlsafe_b64encode(bytes([251, *OCTETS[1:]])),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_taken_in_every_usual_form(form: str) -> None:
    expected = Kek(bytes([251, *OCTETS[1:]])) if form.endswith("URLs") else OLD
    assert parse_kek(FORMS[form]).id == expected.id


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "this has 0"),
        (OCTETS[:31], "this has 31"),
        (bytes([200, *OCTETS, 10]), "this has 34"),
        (b"correct horse battery staple 32!", "32 characters that is neither 64 hex digits nor 44 of base64"),
        (b"0123456789abcdef" * 2, "this has 24"),
        (b"g" * 64, "64 characters, which are not hex digits"),
        (b"00" * 32, "this is no random key"),
        (bytes(32), "this is no random key"),
        (b"-----BEGIN PRIVATE KEY-----\nMIGH\n", "this has 33"),
        ("ключ".encode(), "this has 8"),
    ],
)
def test_what_is_no_key_is_told_and_not_quoted(content: bytes, told: str) -> None:
    with pytest.raises(CredentialError) as refused:
        parse_kek(content)
    assert told in str(refused.value)
    assert not content.strip() or content.strip().decode("latin-1") not in str(refused.value)


def test_new_keys_are_in_order_and_never_alike() -> None:
    made = {new_kek() for _ in range(10)}
    assert len({parse_kek(text.encode()).id for text in made}) == 10
    assert all(re.fullmatch(r"[A-Za-z0-9+/]{43}=\n", text) for text in made)


@pytest.mark.parametrize("one", [OLD, RING, StoredPair("a", "main", "PLAINTEXT-1:c2VjcmV0", "", "https://a")])
def test_nothing_that_could_open_a_key_is_copied_pickled_or_shown(one: object) -> None:
    for hand_out in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not handed around"):
            hand_out(one)
    assert "c2VjcmV0" not in repr(one)
    assert OCTETS.hex() not in repr(one)
    assert not hasattr(one, "__dict__")


# --- Where it is ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.write_bytes(base64.b64encode(OCTETS))
    path.chmod(0o640)
    return path


def test_a_key_is_read_from_a_file_or_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEK", OCTETS.hex())
    assert read_kek(f"file:{file}").id == read_kek("env:KEK").id == OLD.id


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o777])
def test_a_file_that_others_get_at_is_refused_with_its_mode(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(CredentialError, match=f"mode {mode:04o} lets others at the key-encryption key; use 0600"):
        read_kek(f"file:{file}")


def test_what_cannot_be_read_is_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=r"gone: No such file"):
        read_kek(f"file:{tmp_path / 'gone'}")
    with pytest.raises(CredentialError, match="KEK_GONE is not set"):
        read_kek("env:KEK_GONE")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(CredentialError, match="is no file"):
        read_kek(f"file:{tmp_path / 'pipe'}")
    file.write_bytes(b"x" * 100_000)
    with pytest.raises(CredentialError, match="this has 768"):
        read_kek(f"file:{file}")


def _build(settings: KeysSettings, *hosts: str) -> tuple[Keyring | None, list[str]]:
    told: list[str] = []
    keyring = build_keyring(settings, frozenset(hosts), lambda place, text: told.append(f"{place}: {text}"))
    return keyring, told


def test_settings_make_a_keyring_or_say_each_place_that_is_wrong(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(range(32)))
    other.chmod(0o600)
    keyring, told = _build(KeysSettings(encryption=f"file:{other}", previous=[f"file:{file}"]))
    assert told == []
    assert keyring is not None
    assert open_(keyring, "a", seal(RING, "a", SECRET)) == SECRET
    assert sealed_by(seal(keyring, "a", SECRET)) == NEW.id
    keyring, told = _build(KeysSettings(encryption="file:/gone", previous=[f"file:{file}", "env:GONE"]))
    assert keyring is None
    assert [line.partition(": ")[0] for line in told] == ["('keys', 'encryption')", "('keys', 'previous', 1)"]


def test_plaintext_outside_a_lab_is_refused() -> None:
    keyring, told = _build(KeysSettings(plaintext=True))
    assert keyring is None
    assert told == [
        "('keys', 'plaintext'): is for a lab, and without verification.lab_hosts this is none; use keys.encryption"
    ]
    keyring, told = _build(KeysSettings(plaintext=True), "127.0.0.1:8443")
    assert (keyring is not None and keyring.plaintext, told) == (True, [])


# --- What a key is bound to -----------------------------------------------------------------------


def test_a_key_is_bound_to_everything_else_of_its_pair_and_to_nothing_twice() -> None:
    pair = StoredPair("a", "main", "sealed", "PEM\n", "https://a.example", 5.0)
    others = [
        replace(pair, name="b"),
        replace(pair, credential="second"),
        replace(pair, x5u="https://b.example"),
        replace(pair, live_from=5.0000001),
        replace(pair, chain="PEM"),
        replace(pair, chain="PEM\n\udc80"),
        replace(pair, name='a", "main', credential=""),
        replace(pair, name="a\0main"),
    ]
    assert len({one.bound for one in (pair, *others)}) == 9
    assert replace(pair, sealed="another").bound == replace(pair, live_from=5).bound == pair.bound
    sealed = seal(RING, pair.bound, SECRET)
    again = rewrap(Keyring(NEW, [OLD]), pair.bound, sealed)
    assert open_(Keyring(NEW), pair.bound, again) == SECRET
    for other in others:
        with pytest.raises(CredentialError, match="with another name, credential, x5u, live_from or chain"):
            open_(Keyring(NEW), other.bound, again)
