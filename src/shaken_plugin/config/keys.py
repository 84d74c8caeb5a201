"""The settings of private keys that lie in the store, and the key-encryption keys they name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from shaken_plugin.certs.sealing import Kek, Keyring, parse_kek
from shaken_plugin.config.fields import Reference
from shaken_plugin.config.models import Section, Switch, present
from shaken_plugin.config.yamlfile import Path
from shaken_plugin.errors import CredentialError

_MOST: Final = 1_024
"""Octets of a file that are looked at."""

Report = Callable[[Path, str], None]
"""Takes the place in the settings and the text of something that cannot be used."""


class KeysSettings(Section):
    """Private keys in the store, put there by 'shaken key add'."""

    encryption: Reference | None = None
    """The key-encryption key by reference, file:PATH or env:NAME: 32 octets, raw, in hex or in base64. It seals the
    private keys in the store; 'shaken key new-encryption' makes one. Others must not be able to read the file."""
    previous: list[Reference] = []
    """Key-encryption keys of before, which still open: for the time until 'shaken key rewrap'."""
    plaintext: Switch = False
    """Without a key-encryption key: let private keys lie in the store as they are. For a lab alone; it needs
    verification.lab_hosts, and every start says so."""


def read_kek(reference: str) -> Kek:
    """The key-encryption key that a reference leads to.

    Raises:
        CredentialError: there is none, or others could read it. The text names the place, and quotes nothing.
    """
    kind, _, rest = reference.partition(":")
    if kind == "env":
        if rest not in os.environ:
            raise CredentialError(f"the environment variable {rest} is not set")
        content = os.environb[rest.encode("ascii")]
    else:
        content = _read(rest)
    return parse_kek(content)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", opener=_opener) as file:  # Path.open has no opener
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise CredentialError(f"{path}: is no file")
            if state.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise CredentialError(
                    f"{path}: mode {stat.S_IMODE(state.st_mode):04o} lets others at the key-encryption key; "
                    "use 0600, or 0640 with the group of the switch"
                )
            return file.read(_MOST)
    except OSError as exc:
        raise CredentialError(f"{path}: {exc.strerror}") from exc


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would be waited for


def build_keyring(settings: KeysSettings | None, lab_hosts: frozenset[str] | None, report: Report) -> Keyring | None:
    """The key-encryption keys of settings, also of those with gaps.

    Args:
        settings: as read.
        lab_hosts: those of the verification; None where mistakes leave them unknown.
        report: told of everything that cannot be used; then there is no keyring.
    """
    if settings is None:
        return None
    troubles: list[str] = []

    def load(reference: str, *place: str | int) -> Kek | None:
        try:
            return read_kek(reference)
        except CredentialError as exc:
            troubles.append(str(exc))
            report(("keys", *place), str(exc))
            return None

    kek = load(settings.encryption, "encryption") if settings.encryption else None
    previous = [load(reference, "previous", index) for index, reference in present(settings.previous)]
    if settings.plaintext and lab_hosts is not None and not lab_hosts:
        text = "is for a lab, and without verification.lab_hosts this is none; use keys.encryption"
        troubles.append(text)
        report(("keys", "plaintext"), text)
    if troubles:
        return None
    return Keyring(kek, [one for one in previous if one is not None], plaintext=bool(settings.plaintext))
