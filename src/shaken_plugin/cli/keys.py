"""``shaken key``: private keys in the store, sealed by a key-encryption key, and the rotation of that."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from shaken_plugin.certs.credentials import key_der, load_certificate, load_pair
from shaken_plugin.certs.sealing import Keyring, is_plaintext, new_kek, parse_kek, rewrap, seal, sealed_by
from shaken_plugin.certs.stored import open_pair
from shaken_plugin.cli.material import Edit, Name, Reference, changing, fingerprint, pem, refuse
from shaken_plugin.cli.output import (
    Exit,
    Moment,
    console,
    errors,
    fail,
    json_option,
    print_json,
    settings_option,
    table,
    when,
)
from shaken_plugin.cli.records.session import Intent, intends, reading
from shaken_plugin.config.references import keyring_of
from shaken_plugin.config.sections import CredentialSettings, Settings
from shaken_plugin.config.settings import pairs_in
from shaken_plugin.core.certificates import parse_chain
from shaken_plugin.core.material import StoredPair
from shaken_plugin.errors import CredentialError, VerificationFailure

_Given = dict[str, Any]


@click.group("key")
def key() -> None:
    """Private keys in the store: every switch of the store signs with them, and none is ever shown."""


def _keyring(settings: Settings) -> Keyring:
    """The key-encryption keys of the settings; ends the command where they cannot be used."""
    mistakes: list[str] = []
    keyring = keyring_of(settings, lambda place, text: mistakes.append(f"{'.'.join(map(str, place))}: {text}"))
    if keyring is None:
        fail("\n".join(mistakes))
    return keyring


def _credential(settings: Settings, name: str) -> CredentialSettings:
    found = {entry.name: entry for entry in settings.signing.credentials}
    if name not in found:
        fail(f"the settings have no credential {name} (known: {', '.join(found) or 'none at all'})", Exit.NO)
    return found[name]


# --- add ----------------------------------------------------------------------------------------


@key.command("add")
@click.argument("name", type=Name())
@click.option("--credential", required=True, metavar="NAME", help="The credential of the settings that signs with it.")
@click.option("--key", required=True, type=Reference(), metavar="REF", help="The private key: file:PATH or env:NAME.")
@click.option("--chain", required=True, type=Reference(), metavar="REF", help="Its certificate chain, signer first.")
@click.option("--x5u", required=True, metavar="URL", help="Where the chain is published; every key needs its own.")
@click.option("--live-from", type=Moment(), help="When it starts to sign; default: now.")
@intends
def add(intent: Intent, name: str, **given: Any) -> None:
    """Put a private key with its certificate chain into the store, sealed.

    They are checked as a whole first: that they belong together, that the chain can sign, its SPC, its URL.
    """
    with changing(intent, f"key {name} of credential {given['credential']} added") as edit:
        if edit.find(StoredPair, name) is not None:
            refuse(f"there is a key {name} already; a new key needs a name of its own, as it needs a URL of its own")
        try:
            edit.draft.put_material(_sealed(edit, name, given, intent.author.at))
        except (CredentialError, VerificationFailure) as exc:
            refuse(f"key {name}: {exc}")
        edit.done.append(("key", name, "added"))


def _sealed(edit: Edit, name: str, given: _Given, now: float) -> StoredPair:
    """What the store gets.

    Raises:
        CredentialError, VerificationFailure: it could not sign.
    """
    settings = edit.session.settings
    entry, keyring = _credential(settings, given["credential"]), _keyring(settings)
    x5u, live_from = given["x5u"], now if given["live_from"] is None else float(given["live_from"])
    if now > (end := load_certificate(given["chain"]).not_after):
        raise CredentialError(f"the certificate has expired ({when(end)})")
    load_pair(
        key=given["key"],
        chain=given["chain"],
        x5u=x5u,
        live_from=live_from,
        spc=entry.spc,
        lab_hosts=frozenset(settings.verification.lab_hosts),
    )
    if any(x5u == other.x5u for _, _, other in pairs_in(settings)):
        raise CredentialError(f"the URL {x5u} belongs to a pair of the settings already; every pair needs its own")
    unsealed = StoredPair(name, entry.name, "", pem(parse_chain(given["chain"])), x5u, live_from)
    pair = replace(unsealed, sealed=seal(keyring, unsealed.bound, key_der(given["key"])))
    if is_plaintext(pair.sealed):
        edit.notes.append(f"THE PRIVATE KEY {name} LIES IN PLAINTEXT IN THE STORE (keys.plaintext): for a lab alone")
    return pair


# --- list ---------------------------------------------------------------------------------------


@key.command("list")
@settings_option
@json_option
def list_(settings_file: Path, as_json: bool) -> None:
    """The private keys in the store: whose, since when, until when, sealed by which key-encryption key.

    "trouble" is what keeps this host from signing with one.
    """
    with reading(settings_file) as (session, records):
        stored = [one for one in records.material() if isinstance(one, StoredPair)]
        rows = [_row(session.settings, one) for one in stored]
    if as_json:
        print_json({"keys": rows})
        return
    shown = table("name", "credential", "live from", "valid until", "fingerprint", "sealed by", "trouble")
    for row in rows:
        times = [when(row["live_from"]), when(row["not_after"])]
        digest = (row["fingerprint"] or "")[:16]
        sealed = "PLAINTEXT" if row["plaintext"] else row["sealed_by"] or ""
        shown.add_row(row["name"], row["credential"], *times, digest, sealed, row["trouble"] or "")
    console.print(shown)


def _row(settings: Settings, stored: StoredPair) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": stored.name,
        "credential": stored.credential,
        "x5u": stored.x5u,
        "live_from": stored.live_from,
        "sealed_by": sealed_by(stored.sealed),
        "plaintext": is_plaintext(stored.sealed),
        "not_before": None,
        "not_after": None,
        "fingerprint": None,
        "trouble": _trouble(settings, stored),
    }
    try:
        certificate = load_certificate(stored.chain.encode("ascii", "replace"))
    except CredentialError:
        return row  # it is the trouble
    times = {"not_before": certificate.not_before, "not_after": certificate.not_after}
    return row | times | {"fingerprint": fingerprint(certificate.certificate)}


def _trouble(settings: Settings, stored: StoredPair) -> str | None:
    """What keeps this host from using it."""
    entries = {entry.name: entry for entry in settings.signing.credentials}
    if stored.credential not in entries:
        return f"the settings have no credential {stored.credential}"
    mistakes: list[str] = []
    keyring = keyring_of(settings, lambda place, text: mistakes.append(f"{'.'.join(map(str, place))}: {text}"))
    if keyring is None:
        return "; ".join(mistakes)
    try:
        open_pair(keyring, stored, entries[stored.credential].spc, frozenset(settings.verification.lab_hosts))
    except CredentialError as exc:
        return str(exc)
    return None


# --- remove -------------------------------------------------------------------------------------


@key.command("remove")
@click.argument("name", type=Name())
@intends
def remove(intent: Intent, name: str) -> None:
    """Take a private key out of the store; no switch signs with it any more.

    Copies of the store from before still have it, sealed.
    """
    with changing(intent, f"key {name} removed") as edit:
        gone = edit.find(StoredPair, name)
        edit.draft.remove_material(StoredPair, name)
        edit.done.append(("key", name, "removed"))
        left = [one for one in edit.readable() if isinstance(one, StoredPair)]
        own = {entry.name for _, entry, _ in pairs_in(edit.session.settings)}
        if isinstance(gone, StoredPair) and gone.credential not in {one.credential for one in left} | own:
            edit.notes.append(
                f"credential {gone.credential} has no key any more: its calls go unsigned, and no switch starts "
                "until there is one"
            )


# --- rewrap -------------------------------------------------------------------------------------


@key.command("rewrap")
@intends
def rewrap_(intent: Intent) -> None:
    """Seal every private key anew by keys.encryption: the rotation of the key-encryption key.

    First put the new one into keys.encryption and the old one into keys.previous of every host, run 'shaken apply'
    and reload the switches there; then this, once; then take the old one out again.
    """
    with changing(intent, "private keys sealed anew") as edit:
        keyring = _keyring(edit.session.settings)
        if keyring.kek is None:
            refuse("the settings have no keys.encryption; 'shaken key new-encryption FILE' makes a key for it")
        before: set[str] = set()
        for one in edit.draft.material():
            if not isinstance(one, StoredPair) or sealed_by(one.sealed) == keyring.kek.id:
                continue
            old = sealed_by(one.sealed) or "plaintext"
            try:
                sealed = rewrap(keyring, one.bound, one.sealed)
            except CredentialError as exc:
                refuse(f"key {one.name}: {exc}; nothing was changed")
            edit.draft.put_material(replace(one, sealed=sealed))
            edit.done.append(("key", one.name, f"sealed by {keyring.kek.id} instead of {old}"))
            before.add(old)
        if edit.done and not intent.dry_run:
            edit.notes.append(
                f"{', '.join(sorted(before))} opens nothing in the store any more: take it out of keys.previous on "
                "every host. It still opens backups and other copies from before"
            )


# --- new-encryption -----------------------------------------------------------------------------


@key.command("new-encryption")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def new_encryption(file: Path, as_json: bool) -> None:
    """Make a key-encryption key, in a file that only you can read; never over one that is there.

    Every switch and agent must be able to read it: give the file their group, and mode 0640.
    """
    content = new_kek()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as written:
            os.fchmod(descriptor, 0o600)
            written.write(content)
            written.flush()
            os.fsync(descriptor)
    except FileExistsError:
        fail(f"{file}: is there already; whatever it sealed would be lost with it", Exit.NO)
    except OSError as exc:
        fail(f"{file}: cannot be written: {exc.strerror}")
    kek = parse_kek(content.encode("ascii"))
    if as_json:
        print_json({"ok": True, "file": str(file), "id": kek.id})
        return
    console.print(f"{file}: key-encryption key {kek.id}", style="bold", markup=False)
    errors.print("keep a copy apart from the backups of the store: without it nobody opens them", markup=False)
