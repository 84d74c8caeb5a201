"""``shaken key`` and ``shaken anchors``; and that no command, log, file or dump has a byte of a key."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import pickle
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shaken_plugin import runtime
from shaken_plugin.certs.credentials import key_der
from shaken_plugin.certs.sealing import Keyring, open_, sealed_by
from shaken_plugin.config.keys import read_kek
from shaken_plugin.core.material import StoredPair
from shaken_plugin.errors import CredentialError, FileProblems
from shaken_plugin.lab.pki import Authority, Issued
from shaken_plugin.lab.provider import SPC, Provider
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.switch import Switch
from shaken_plugin.telemetry import MemoryObserver
from tests.cli.conftest import Run
from tests.cli.records import WHY, RunJson
from tests.services.builders import call
from tests.stores.test_neighbours import SCHEMA_2
from tests.stores.test_sqlite import raw

X5U = "https://certificates.example.com/2026.pem"
DAY = 86_400.0
CUSTOMER = "127.0.0.2"
"""Address of the lab's contact centre."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder beside the provider's: what keys come from is no place that they leaked to."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def issued(living: Authority, present: float, source: Path) -> Issued:
    """A key and its chain, in files."""
    made = living.issue(spc=SPC, now=present)
    (source / "2026.key").write_bytes(made.key)
    (source / "2026.pem").write_bytes(made.chain)
    return made


@pytest.fixture
def kek(source: Path, run: Run, in_force: Provider, change: Callable[..., None], present: float) -> Path:
    """A key-encryption key, in force."""
    run("key", "new-encryption", source / "kek")
    change(keys={"encryption": f"file:{source / 'kek'}"})
    runtime.apply(in_force.settings, present)
    return source / "kek"


def add(source: Path, name: str = "main-2026", *more: object, x5u: str = X5U, credential: str = "main") -> list[object]:
    """The command that adds the key."""
    files = ["--key", f"file:{source / '2026.key'}", "--chain", f"file:{source / '2026.pem'}"]
    return ["key", "add", name, "--credential", credential, *files, "--x5u", x5u, *WHY, *more]


def stored(provider: Provider) -> dict[str, StoredPair]:
    with SqlitePolicy(provider.folder / "policy.db").records() as records:
        return {one.name: one for one in records.material() if isinstance(one, StoredPair)}


# --- new-encryption -------------------------------------------------------------------------------


def test_a_new_key_encryption_key_is_for_its_owner_alone_and_never_replaces_one(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    file = tmp_path / "kek"
    told = run_json("key", "new-encryption", file)
    assert told == {"ok": True, "file": str(file), "id": read_kek(f"file:{file}").id}
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert "is there already" in run("key", "new-encryption", file, code=1).stderr
    assert file.read_bytes() == content
    assert "No such file" in run("key", "new-encryption", tmp_path / "gone" / "kek", code=3).stderr
    other = run("key", "new-encryption", tmp_path / "other")
    assert read_kek(f"file:{tmp_path / 'other'}").id in other.stdout
    assert "keep a copy apart from the backups" in other.stderr


# --- add, list, remove ----------------------------------------------------------------------------


def test_a_key_is_added_sealed_told_and_taken_out_again(
    run: Run, run_json: RunJson, in_force: Provider, issued: Issued, kek: Path, source: Path
) -> None:
    told = run_json(*add(source, "main-2026", "--live-from", "2026-12-01"))
    assert (told["changes"], told["notes"]) == ([{"kind": "key", "id": "main-2026", "change": "added"}], [])
    assert (told["by"], told["why"], told["dry_run"]) == ("anna", "ticket 4711", False)
    identifier = read_kek(f"file:{kek}").id
    (row,) = run_json("key", "list")["keys"]
    times = {name: row.pop(name) for name in ("not_before", "not_after")}
    assert times["not_before"] < time.time() < times["not_after"]
    assert row == {
        "name": "main-2026",
        "credential": "main",
        "x5u": X5U,
        "live_from": 1_796_083_200.0,
        "sealed_by": identifier,
        "plaintext": False,
        "fingerprint": row["fingerprint"],
        "trouble": None,
    }
    assert re.fullmatch("[0-9a-f]{64}", row["fingerprint"])
    text = run("key", "list").stdout
    assert "main-2026" in text
    assert "2026-12-01" in text
    assert row["fingerprint"][:8] in text
    pair = stored(in_force)["main-2026"]
    assert open_(Keyring(read_kek(f"file:{kek}")), pair.bound, pair.sealed) == key_der(issued.key)
    removed = run("key", "remove", "main-2026", *WHY)
    assert "key main-2026 removed" in removed.stdout
    assert "has no key any more" not in removed.stderr  # it has one of the settings
    assert run_json("key", "list")["keys"] == []
    run(*add(source))
    # It takes over from the pair of the settings, which signs from the beginning of time.
    assert abs(stored(in_force)["main-2026"].live_from - time.time()) < 60
    run("key", "remove", "main-2026", *WHY)
    history = run_json("store", "history")["changes"]
    assert [one["what"] for one in history[-2:]] == ["key main-2026 of credential main added", "key main-2026 removed"]
    assert {one["who"] for one in history[-2:]} == {"anna"}
    run("policy", "diff")  # which would end with 1


def test_a_dry_run_changes_nothing(
    run: Run, run_json: RunJson, in_force: Provider, issued: Issued, kek: Path, source: Path
) -> None:
    assert "nothing was changed (--dry-run)" in run(*add(source, "main-2026", "--dry-run")).stdout
    assert run_json("key", "list")["keys"] == []
    run(*add(source))
    run("key", "remove", "main-2026", *WHY, "--dry-run")
    assert list(stored(in_force)) == ["main-2026"]


def test_only_certificates_of_the_chains_file_are_kept(
    run: Run, in_force: Provider, issued: Issued, kek: Path, source: Path
) -> None:
    (source / "2026.pem").write_bytes(b"our key, for convenience\n" + issued.key + issued.chain)
    run(*add(source))
    chain = stored(in_force)["main-2026"].chain
    assert "PRIVATE" not in chain
    assert chain.encode() == issued.chain


@pytest.mark.parametrize(
    ("spoil", "more", "told"),
    [
        (lambda _: None, {"credential": "second"}, "the settings have no credential second (known: main)"),
        (lambda _: None, {"x5u": "http://a.example/x"}, "verifiers refuse it"),
        (lambda f: (f / "2026.key").write_text("no key"), {}, "key main-2026: not a private key in PEM or DER"),
        (lambda f: (f / "2026.pem").write_text("no chain"), {}, "the certificate cannot sign PASSporTs"),
        (
            lambda f: (f / "2026.key").write_bytes(Authority.new(time.time()).issue(spc=SPC, now=time.time()).key),
            {},
            "the private key does not match the certificate",
        ),
    ],
    ids=["credential", "x5u", "key", "chain", "other key"],
)
def test_what_could_not_sign_is_refused(
    run: Run,
    in_force: Provider,
    issued: Issued,
    kek: Path,
    source: Path,
    spoil: Callable[[Path], object],
    more: dict[str, str],
    told: str,
) -> None:
    spoil(source)
    assert told in run(*add(source, **more), code=1).stderr
    assert stored(in_force) == {}


def test_an_expired_certificate_another_spc_and_taken_urls_and_names_are_refused(
    run: Run, in_force: Provider, issued: Issued, kek: Path, source: Path, living: Authority, present: float
) -> None:
    assert "belongs to a pair of the settings already" in run(*add(source, x5u=in_force.x5u), code=1).stderr
    run(*add(source))
    assert "there is a key main-2026 already" in run(*add(source), code=1).stderr
    assert "belongs to key main-2026 already" in run(*add(source, "again"), code=1).stderr
    for made, told in (
        (living.issue(spc="811K", now=present), "the certificate's SPC is 811K"),
        (living.issue(spc=SPC, now=present - 400 * DAY), "the certificate has expired"),
    ):
        (source / "2026.key").write_bytes(made.key)
        (source / "2026.pem").write_bytes(made.chain)
        assert told in run(*add(source, "other", x5u=f"{X5U}2"), code=1).stderr
    assert "not a name" in run(*add(source, "two words"), code=2).stderr
    assert "there is no key gone" in run("key", "remove", "gone", *WHY, code=1).stderr


def test_a_reference_that_is_none_is_not_quoted(
    run: Run, in_force: Provider, issued: Issued, kek: Path, source: Path
) -> None:
    secret = issued.key.decode()
    for wrong in (secret, f"file:{secret}", secret.splitlines()[1]):
        command = [wrong if part == f"file:{source / '2026.key'}" else part for part in add(source)]
        result = run(*command, code=2)
        assert "by reference: file:PATH or env:NAME" in result.stderr
        assert secret.splitlines()[1] not in result.output
    command = ["env:NO_SUCH_KEY" if part == f"file:{source / '2026.key'}" else part for part in add(source)]
    assert "the environment variable NO_SUCH_KEY is not set" in run(*command, code=2).stderr


def test_without_a_key_encryption_key_nothing_is_kept(
    run: Run, in_force: Provider, issued: Issued, source: Path, change: Callable[..., None]
) -> None:
    assert "the settings have no keys.encryption" in run(*add(source), code=1).stderr
    change(keys={"encryption": f"file:{source / 'gone'}"})
    assert "keys.encryption: " in run(*add(source), code=3).stderr
    change(keys={"plaintext": True})
    assert "keys.encryption: " in run(*add(source), code=3).stderr
    change(keys={"encryption": None})
    assert "keys.plaintext: is for a lab" in run(*add(source), code=3).stderr
    assert stored(in_force) == {}
    change(verification={"lab_hosts": ["127.0.0.1:8443"]})
    assert "THE PRIVATE KEY main-2026 LIES IN PLAINTEXT IN THE STORE" in run(*add(source)).stderr
    assert "PLAINTEXT" in run("key", "list").stdout
    assert "KEYS.PLAINTEXT" in run("check-config").stderr


def test_keys_that_this_host_cannot_use_are_listed_with_their_trouble(
    run: Run,
    run_json: RunJson,
    in_force: Provider,
    issued: Issued,
    kek: Path,
    source: Path,
    change: Callable[..., None],
) -> None:
    run(*add(source))
    kek.chmod(0o644)
    assert "mode 0644 lets others" in run_json("key", "list")["keys"][0]["trouble"]
    change(keys={"encryption": None})
    assert "which is neither keys.encryption nor" in run_json("key", "list")["keys"][0]["trouble"]
    with raw(in_force.folder / "policy.db") as other:
        (body,) = other.execute("SELECT body FROM material").fetchone()
        spoilt = json.dumps(json.loads(body) | {"chain": "none", "credential": "second"})
        other.execute("UPDATE material SET body = ?", (spoilt,))
    (row,) = run_json("key", "list")["keys"]
    assert (row["fingerprint"], row["trouble"]) == (None, "the settings have no credential second")
    assert "second" in run("key", "list").stdout


def test_the_last_key_of_a_credential_is_removed_with_a_word(
    run: Run, in_force: Provider, issued: Issued, kek: Path, source: Path, change: Callable[..., None]
) -> None:
    change(signing={"credentials": [{"name": "main", "spc": SPC}]})
    run(*add(source))
    assert "credential main: signs until" in run("check-config").stdout
    assert "credential main has no key any more" in run("key", "remove", "main-2026", *WHY).stderr
    assert "shaken key add NAME --credential main" in run("check-config", code=1).stderr


def test_a_store_of_the_release_before_has_no_room(
    run: Run, in_force: Provider, issued: Issued, kek: Path, source: Path, present: float
) -> None:
    path = in_force.folder / "policy.db"
    path.unlink()
    with raw(path) as other:
        other.executescript(SCHEMA_2)
    assert "run 'shaken store migrate' first" in run(*add(source), code=3).stderr
    status = run("store", "status")
    assert "schema 2 is older than 3: run 'shaken store migrate' once every switch and agent" in status.stderr
    run("store", "migrate", "--yes")
    run(*add(source))
    assert "older than" not in run("store", "status").stderr


# --- rewrap ---------------------------------------------------------------------------------------


def test_a_rotation_says_first_what_it_will_do_and_then_the_old_key_opens_nothing(
    run: Run,
    run_json: RunJson,
    in_force: Provider,
    issued: Issued,
    kek: Path,
    source: Path,
    change: Callable[..., None],
    present: float,
    living: Authority,
) -> None:
    run(*add(source))
    other = living.issue(spc=SPC, now=present)
    (source / "2026.key").write_bytes(other.key)
    (source / "2026.pem").write_bytes(other.chain)
    run(*add(source, "main-2027", x5u=f"{X5U}2"))
    worker = Switch(runtime.start(in_force.settings, present), MemoryObserver(), time.time, lambda: "")
    before = stored(in_force)
    run("key", "new-encryption", source / "new")
    old, new = (read_kek(f"file:{file}") for file in (kek, source / "new"))
    change(keys={"encryption": f"file:{source / 'new'}", "previous": [f"file:{kek}"]})
    runtime.apply(in_force.settings, present)
    worker.services, _ = runtime.reload(in_force.folder / "policy.db", present)

    dry = run("key", "rewrap", *WHY, "--dry-run").stdout
    assert f"key main-2026 sealed by {new.id} instead of {old.id}" in dry
    assert f"key main-2027 sealed by {new.id} instead of {old.id}" in dry
    assert "nothing was changed (--dry-run)" in dry
    assert stored(in_force) == before
    told = run_json("key", "rewrap", *WHY)
    assert [one["id"] for one in told["changes"]] == ["main-2026", "main-2027"]
    assert told["notes"][0].startswith(f"{old.id} opens nothing in the store any more: take it out of keys.previous")
    after = stored(in_force)
    for name, key in (("main-2026", issued.key), ("main-2027", other.key)):
        assert open_(Keyring(new), after[name].bound, after[name].sealed) == key_der(key)
        with pytest.raises(CredentialError):
            open_(Keyring(old), after[name].bound, after[name].sealed)
        forged = after[name].sealed.replace(new.id, old.id)
        with pytest.raises(CredentialError):
            open_(Keyring(old), after[name].bound, forged)
    # Nothing sealed by the old key is left anywhere in the file.
    content = b"".join(file.read_bytes() for file in in_force.folder.glob("policy.db*"))
    assert not any(pair.sealed.encode() in content for pair in before.values())
    assert old.id.encode() not in content
    change(keys={"previous": []})
    assert [row["trouble"] for row in run_json("key", "list")["keys"]] == [None, None]
    assert worker.sign(lambda: call(source=CUSTOMER)).variables["identity"]
    assert "nothing to change" in run("key", "rewrap", *WHY).stdout


def test_a_rotation_that_cannot_open_every_key_changes_none(
    run: Run, in_force: Provider, issued: Issued, kek: Path, source: Path, change: Callable[..., None]
) -> None:
    run(*add(source))
    before = stored(in_force)
    run("key", "new-encryption", source / "new")
    change(keys={"encryption": f"file:{source / 'new'}"})
    assert "nothing was changed" in run("key", "rewrap", *WHY, code=1).stderr
    change(keys={"encryption": None})
    assert "the settings have no keys.encryption" in run("key", "rewrap", *WHY, code=1).stderr
    assert stored(in_force) == before


def test_plaintext_of_a_lab_is_sealed_by_a_rotation(
    run: Run, in_force: Provider, issued: Issued, source: Path, change: Callable[..., None]
) -> None:
    change(keys={"plaintext": True}, verification={"lab_hosts": ["127.0.0.1:8443"]})
    run(*add(source))
    run("key", "new-encryption", source / "kek")
    change(keys={"encryption": f"file:{source / 'kek'}"})
    assert "instead of plaintext" in run("key", "rewrap", *WHY).stdout
    assert sealed_by(stored(in_force)["main-2026"].sealed) == read_kek(f"file:{source / 'kek'}").id


# --- anchors --------------------------------------------------------------------------------------


def test_anchors_are_added_listed_replaced_and_removed(
    run: Run,
    run_json: RunJson,
    in_force: Provider,
    source: Path,
    living: Authority,
    present: float,
    change: Callable[..., None],
) -> None:
    foreign = Authority.new(present, name="Foreign")
    file = source / "roots.pem"
    file.write_bytes(foreign.root_pem)
    told = run_json("anchors", "add", "more", "--file", f"file:{file}", *WHY)
    assert told["changes"] == [{"kind": "anchors", "id": "more", "change": "added"}]
    (row,) = run_json("anchors", "list")["anchors"]
    assert (row["name"], "Foreign" in row["subject"], row["not_after"] > time.time()) == ("more", True, True)
    assert row["fingerprint"][:8] in run("anchors", "list").stdout
    unbelieved = "this host does not believe the trust anchors of the store: verification.stored_anchors is false"
    assert told["notes"] == [f"{unbelieved} in its settings"]
    assert unbelieved in run("anchors", "list").stderr
    assert "1 trust anchor" in run("check-config").stdout
    change(verification={"stored_anchors": True})
    assert "2 trust anchors" in run("check-config").stdout
    assert unbelieved not in run("anchors", "list").stderr
    file.write_bytes(foreign.root_pem + Authority.new(present, name="Third").root_pem)
    assert "--replace puts these" in run("anchors", "add", "more", "--file", f"file:{file}", *WHY, code=1).stderr
    run("anchors", "add", "more", "--file", f"file:{file}", "--replace", *WHY)
    assert len(run_json("anchors", "list")["anchors"]) == 2
    run("anchors", "remove", "more", *WHY)
    assert run_json("anchors", "list")["anchors"] == []
    whats = [one["what"] for one in run_json("store", "history")["changes"]]
    assert whats[-3:] == ["trust anchors more added: 1", "trust anchors more replaced: 2", "trust anchors more removed"]


def test_what_is_no_root_is_refused_and_the_last_go_with_a_word(
    run: Run, in_force: Provider, source: Path, living: Authority, present: float, change: Callable[..., None]
) -> None:
    file = source / "roots.pem"
    for content in (b"nonsense", living.issue(spc=SPC, now=present).chain):
        file.write_bytes(content)
        assert "trust anchors more: " in run("anchors", "add", "more", "--file", f"file:{file}", *WHY, code=1).stderr
    file.write_bytes(living.root_pem)
    run("anchors", "add", "more", "--file", f"file:{file}", *WHY)
    change(verification={"trust_anchors": [], "stored_anchors": True})
    run("check-config")
    assert "no trust anchors are left" in run("anchors", "remove", "more", *WHY).stderr
    assert "nothing can be trusted" in run("check-config", code=1).stderr


def test_damaged_anchors_are_listed_as_such(
    run: Run, run_json: RunJson, in_force: Provider, source: Path, living: Authority
) -> None:
    (source / "roots.pem").write_bytes(living.root_pem)
    run("anchors", "add", "more", "--file", f"file:{source / 'roots.pem'}", *WHY)
    with raw(in_force.folder / "policy.db") as other:
        other.execute("""UPDATE material SET body = '{"certificates": "none"}'""")
    (row,) = run_json("anchors", "list")["anchors"]
    assert row["subject"].startswith("damaged: ")
    assert "damaged" in run("anchors", "list").stdout


@pytest.mark.parametrize("group", ["key", "anchors"])
def test_what_is_damaged_can_be_taken_out(
    run: Run, in_force: Provider, issued: Issued, kek: Path, source: Path, group: str
) -> None:
    run(*add(source, "same"))
    run(*add(source, "other", x5u=f"{X5U}2"))
    with raw(in_force.folder / "policy.db") as other:
        other.execute("UPDATE material SET body = 'damaged', kind = ?", ("key" if group == "key" else "anchors",))
    assert "its content is damaged; remove it" in run(group, "list", code=3).stderr
    for name in ("same", "other"):
        run(group, "remove", name, *WHY)
    assert "same" not in run(group, "list").stdout


# --- Nothing leaks --------------------------------------------------------------------------------


def needles(secret: bytes) -> Iterator[bytes]:
    """The ways in which octets could have been written down."""
    yield secret
    yield secret[::-1]
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield ":".join(f"{octet:02x}" for octet in secret).encode()
    yield repr(secret)[2:-1].encode()
    yield str(int.from_bytes(secret)).encode()
    for skipped in range(3):  # wherever it begins in something longer
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(skipped) + secret)
            yield text[4 : len(text) // 4 * 4 - 4]


def secrets_of(key: bytes, kek: Path) -> list[bytes]:
    """Of a private key its scalar, its DER and the lines of its PEM; and the key-encryption key."""
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    scalar = private.private_numbers().private_value.to_bytes(32)
    octets = base64.b64decode(kek.read_bytes())
    found = [needle for secret in (scalar, key_der(key), octets) for needle in needles(secret)]
    return found + [line for line in key.splitlines() if not line.startswith(b"-----") and len(line) > 40]


def test_no_byte_of_a_key_is_in_any_output_error_log_repr_export_or_file(  # noqa: PLR0915  # all that may speak
    run: Run,
    in_force: Provider,
    issued: Issued,
    kek: Path,
    source: Path,
    tmp_path: Path,
    change: Callable[..., None],
    present: float,
    caplog: pytest.LogCaptureFixture,
    living: Authority,
) -> None:
    caplog.set_level(logging.DEBUG)
    said = io.StringIO()

    def do(*command: object, code: int = 0) -> None:
        result = run(*command, code=code)
        said.write(result.output)
        if result.exception is not None:
            said.write(repr(result.exc_info))

    secret = secrets_of(issued.key, kek)
    do(*add(source))
    do(*add(source, "main-2026"), code=1)
    do(*add(source, "other", "--dry-run", x5u=f"{X5U}2"))
    do(*add(source, "other", x5u="http://a.example"), code=1)
    do("check-config")
    do("apply")
    do("key", "list")
    do("key", "list", "--json")
    do("store", "status")
    do("store", "history", "--json")
    do("policy", "diff", "--json")
    do("expiring", "--days", "3660", code=1)
    do("export")
    do("export", "--format", "csv")
    run("key", "new-encryption", source / "new")
    secret += secrets_of(issued.key, source / "new")

    # A worker that signs, fails, is dumped, and is told of keys that it cannot open.
    observer = MemoryObserver()
    services = runtime.start(in_force.settings, present)
    worker = Switch(services, observer, time.time, lambda: "00000000-0000-4000-8000-000000000000")
    assert worker.sign(lambda: call(source=CUSTOMER)).variables["identity"]
    change(keys={"encryption": f"file:{source / 'new'}"})
    do("check-config", code=1)
    do("key", "rewrap", *WHY, code=1)
    with pytest.raises(FileProblems) as refused:
        runtime.start(in_force.settings, present)
    said.write(str(refused.value))
    change(keys={"encryption": f"file:{source / 'new'}", "previous": [f"file:{kek}"]})
    do("apply")
    do("key", "rewrap", *WHY, "--dry-run", "--json")
    do("key", "rewrap", *WHY, "--json")
    assert worker.sign(lambda: call(source=CUSTOMER)).variables["identity"]
    assert observer.counts["key_unusable"] == 1
    with raw(in_force.folder / "policy.db") as other:
        for spoilt in ("aes256gcm-1:x", "", json.dumps({"sealed": "x"})):
            other.execute("UPDATE material SET body = ?", (spoilt,))
            do("key", "list", code=3)
            do("check-config")
    assert services.authentication is not None
    held = services.authentication.credentials
    said.write(repr([services, vars(worker), services.credentials, held, held.named, vars(held)]))
    for hand_out in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not handed around"):
            hand_out(services.credentials["main"])
    said.write("\n".join(text for _, text in observer.lines) + caplog.text)

    files = {file: file.read_bytes() for file in in_force.folder.rglob("*") if file.is_file()}
    # What is no leak: the pair of the settings, which is in its own file.
    everything = b"\0".join([said.getvalue().encode("utf-8", "surrogateescape"), *files.values()])
    assert len(everything) > 50_000
    assert any(file.name == "policy.db" for file in files)
    assert any("calls" in str(file) for file in files)  # the spool
    for needle in secret:
        assert needle not in everything
    # The search finds what is there: the settings' own key, in its file.
    own = secrets_of(in_force.credential.key, kek)
    assert any(needle in everything for needle in own)
