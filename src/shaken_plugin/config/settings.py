"""Reading the settings file: its sections put together, absolute paths, what no field shows alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from shaken_plugin.config import yamlfile
from shaken_plugin.config.models import present, salvage, validate
from shaken_plugin.config.sections import (
    CredentialSettings,
    PairSettings,
    Settings,
    TrustListSettings,
    VerificationSettings,
)
from shaken_plugin.errors import FileProblems, Problem

DEFAULT_PATH: Final = "/etc/shaken/shaken.yaml"
PATH_VARIABLE: Final = "SHAKEN_SETTINGS"
"""Environment variable that names the settings file, for the switch and the command line."""


def settings_path() -> Path:
    """The settings file to use where none is named."""
    return Path(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        FileProblems: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise FileProblems([Problem(str(path), 1, 1, "", f"not UTF-8 text (byte {exc.start})")]) from exc
    except OSError as exc:
        raise FileProblems([Problem(str(path), 1, 1, "", f"cannot be read: {exc.strerror}")]) from exc


def parse_settings(path: Path) -> tuple[Settings | None, yamlfile.Document]:
    """A settings file: the settings, or None, and the document with all its problems.

    Relative paths become absolute, from the folder of the file.

    Raises:
        FileProblems: the file cannot be read.
    """
    document = yamlfile.parse(read_text(path), str(path))
    if not isinstance(document.data, dict):
        if not document.problems:
            document.problem((), "the file has no settings in it")
        return None, document
    _make_absolute(document.data, path.absolute().parent)
    settings = validate(Settings, document)
    _check_links(settings or sound_settings(document), document)
    document.problems.sort(key=lambda problem: (problem.line, problem.column))
    return (None if document.problems else settings), document


def _make_absolute(data: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute: what ``file:`` points to, and the plain paths."""
    _absolute_references(data, folder)
    data.setdefault("policy", "policy.yaml")
    verification, offences = data.get("verification"), data.get("offences")
    store = data.get("store")
    fleet = store.get("redis") if isinstance(store, dict) else None
    for section, name in (
        (data, "policy"),
        (store, "path"),
        (store, "state"),
        (fleet, "ca"),
        (fleet, "certificate"),
        (fleet, "key"),
        (data.get("agent"), "socket"),
        (data.get("agent"), "ca_bundle"),
        (verification, "certificates"),
        (verification, "cache"),
        (verification, "replay_memory"),
        (data.get("records"), "folder"),
        (offences.get("webhook") if isinstance(offences, dict) else None, "ca_bundle"),
    ):
        if isinstance(section, dict) and isinstance(section.get(name), str):
            section[name] = str(folder / section[name])
    records = data.get("records")
    ledger = records.get("ledger") if isinstance(records, dict) else None
    if isinstance(records, dict) and isinstance(ledger, str) and ledger.startswith("sqlite:") and ledger != "sqlite:":
        records["ledger"] = f"sqlite:{folder / ledger.removeprefix('sqlite:')}"


def _absolute_references(data: Any, folder: Path) -> None:
    places = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(places):
        if isinstance(value, str) and value.startswith("file:") and value != "file:":
            data[key] = f"file:{folder / value.removeprefix('file:')}"
        else:
            _absolute_references(value, folder)


def _check_links(settings: Settings, document: yamlfile.Document) -> None:
    """What no field shows alone, of settings that may have other mistakes."""
    signing, verification = settings.signing, settings.verification
    if signing and signing.mode != "off" and signing.credentials == []:
        document.problem(("signing", "credentials"), "at least one is needed to sign (or set mode: off)")
    if verification and verification.mode != "off":
        _check_trust(settings, verification, document)
    for name, trust_list in (settings.trust_lists or {}).items():
        if trust_list is not None:
            _check_trust_list(("trust_lists", name), trust_list, document)
    agent = settings.agent
    if agent and not agent.listen_anywhere:
        addresses = {("agent", "listen"): agent.listen, ("agent", "esl", "listen"): agent.esl and agent.esl.listen}
        for where, address in addresses.items():
            if address and not _is_loopback(address):
                document.problem(where, "not an address of this machine alone (or set listen_anywhere: true)")
    names = (((*place, "name"), credential.name) for place, credential in credentials_in(settings))
    _must_differ(names, document, "")
    # RFC 8224 §7.4: a new credential needs a new "info" URL, or verifiers that cached the old
    # document refuse the new signatures.
    urls = (((*place, "x5u"), pair.x5u) for place, _, pair in pairs_in(settings))
    _must_differ(urls, document, "; every pair needs its own URL")


def _check_trust(settings: Settings, verification: VerificationSettings, document: yamlfile.Document) -> None:
    name = verification.trust_list
    if name is not None and settings.trust_lists is not None and name not in settings.trust_lists:
        document.problem(("verification", "trust_list"), f"there is no {name} in trust_lists")
    if verification.revocation == "hard":
        chosen = (settings.trust_lists or {}).get(name) if name else None
        if name is None or (chosen is not None and chosen.crl is not None and chosen.crl.urls == []):
            text = "hard needs crl.urls in the trust list that is chosen"
            document.problem(("verification", "revocation"), text)


def _check_trust_list(place: yamlfile.Path, trust_list: TrustListSettings, document: yamlfile.Document) -> None:
    if trust_list.anchors == [] and trust_list.url is None:
        document.problem(place, "neither anchors nor a url: nothing can be trusted by it")
    if trust_list.url is not None and trust_list.signers == [] and not trust_list.unsigned:
        text = "signers: without any the list cannot be checked (or set unsigned: true)"
        document.problem((*place, "url"), text)
    if trust_list.signers and trust_list.unsigned:
        document.problem((*place, "unsigned"), "a list that has signers is signed")
    crl = trust_list.crl
    if crl and (crl.urls or crl.from_certificates) and crl.signers == []:
        document.problem((*place, "crl"), "signers: without any no revocation list can be checked")


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _must_differ(values: Iterable[tuple[yamlfile.Path, str]], document: yamlfile.Document, why: str) -> None:
    first: dict[str, yamlfile.Path] = {}
    for place, value in values:
        if value is not None and (other := first.setdefault(value, place)) is not place:
            document.problem(place, f"stands twice, first in line {document.places[other][0]}{why}")


def sound_settings(document: yamlfile.Document) -> Settings:
    """Of settings with mistakes what has none; see `models.salvage`.

    Lets all else be checked in the same pass.
    """
    return salvage(Settings, document.data if isinstance(document.data, dict) else {})  # type: ignore[no-any-return]  # Settings, with gaps


def credentials_in(settings: Settings) -> Iterator[tuple[yamlfile.Path, CredentialSettings]]:
    """The credentials of settings, also of `sound_settings`, each with its place."""
    for index, credential in present(settings.signing.credentials if settings.signing else None):
        yield ("signing", "credentials", index), credential


def pairs_in(settings: Settings) -> Iterator[tuple[yamlfile.Path, CredentialSettings, PairSettings]]:
    """The pairs of all credentials, likewise."""
    for place, credential in credentials_in(settings):
        for index, pair in present(credential.pairs):
            yield (*place, "pairs", index), credential, pair


def policy_file(document: yamlfile.Document) -> Path | None:
    """The policy file that settings name, also where other settings are wrong."""
    data = document.data if isinstance(document.data, dict) else {}
    name = data.get("policy")
    return Path(name) if isinstance(name, str) else None


def resolve(reference: str) -> bytes:
    """What a ``file:`` or ``env:`` reference points to.

    Raises:
        ValueError: it points to nothing. The text names the place, never the content.
    """
    kind, _, rest = reference.partition(":")
    if kind == "env":
        if rest not in os.environ:
            raise ValueError(f"the environment variable {rest} is not set")
        return os.environ[rest].encode("utf-8", "surrogateescape")
    try:
        return Path(rest).read_bytes()
    except OSError as exc:
        raise ValueError(f"{rest}: {exc.strerror}") from exc
