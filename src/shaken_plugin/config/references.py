"""What settings refer to, loaded: keys, certificate chains, trust anchors.

Works on settings with gaps, too (`settings.sound_settings`), so that one round tells everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import NamedTuple, TypeVar

from cryptography import x509

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.cache import ListedAnchors
from shaken_plugin.certs.credentials import check_x5u, expiry_warning, load_certificate, load_signer, misfits
from shaken_plugin.certs.sealing import Keyring, is_plaintext
from shaken_plugin.certs.stored import JoinedAnchors, OwnCredential, StoredCredentials
from shaken_plugin.config.keys import Report, build_keyring
from shaken_plugin.config.models import present
from shaken_plugin.config.sections import CredentialSettings, PairSettings, Settings
from shaken_plugin.config.settings import credentials_in, pairs_in, resolve
from shaken_plugin.config.yamlfile import Path
from shaken_plugin.core.certificates import PathValidator, TrustAnchors, parse_anchor_file
from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.errors import CredentialError, ShakenError, StoreUnavailable, VerificationFailure
from shaken_plugin.ports import MaterialSource
from shaken_plugin.stores.sqlite.material import MaterialFile

_Loaded = TypeVar("_Loaded")


class Found(NamedTuple):
    """The keys and trust anchors of the store, as they were found."""

    material: tuple[Material, ...] = ()
    why: str = ""
    """Why it could not be read, for people: `` (…)``."""
    looked: bool = True
    """Whether it was looked into at all."""


def look_into(settings: Settings) -> Found:
    """What the store has now; nothing where it cannot be read, for instance because it is not made yet."""
    store = MaterialFile(FilePath(settings.store.path))
    try:
        return Found(store.material())
    except StoreUnavailable as exc:
        return Found(why=f" ({exc})")
    finally:
        store.close()  # it must not cross a fork


def keyring_of(settings: Settings, report: Report) -> Keyring | None:
    """The key-encryption keys of settings; None where something about them was reported."""
    return build_keyring(settings.keys, _lab_hosts(settings), report)


def build_credentials(
    settings: Settings, keyring: Keyring, store: MaterialSource, found: Found, report: Report
) -> StoredCredentials:
    """All credentials, each pair of settings and store checked: key and certificate match, SPC, validity.

    Args:
        settings: as read, also with gaps.
        keyring: opens the pairs of the store.
        store: is asked again whenever the policy version changes.
        found: what the store has now.
        report: told of everything that cannot be used.
    """
    lab_hosts = _lab_hosts(settings)
    pairs: dict[str, list[SigningPair]] = {}
    places: dict[str, tuple[Path, CredentialSettings]] = {}
    for place, entry in credentials_in(settings):
        if entry.name is not None:
            places.setdefault(entry.name, (place, entry))
    for place, entry, pair in pairs_in(settings):
        loaded = _load_pair(pair, entry.spc, place, lab_hosts, report)
        if loaded is not None:
            pairs.setdefault(entry.name, []).append(loaded)
    own = {name: OwnCredential(entry.spc, tuple(pairs.get(name, ()))) for name, (_, entry) in places.items()}
    credentials = StoredCredentials(own, keyring, lab_hosts or frozenset(), store)
    for trouble in credentials.take(found.material):
        report(places[trouble.credential][0], trouble.text)
    stored = {one.credential for one in found.material if isinstance(one, StoredPair)}
    for name, (place, entry) in places.items():
        if found.looked and entry.pairs == [] and name not in stored:
            report(
                (*place, "pairs"),
                f"there are none, and none in the store{found.why}; 'shaken key add NAME --credential {name}' "
                "puts one there",
            )
    return credentials


def credential_warnings(credentials: StoredCredentials, found: Found, now: float) -> Iterator[str]:
    """What is to be said of credentials that can be used."""
    for name, credential in credentials.named.items():
        for pair in credential.pairs:
            if now > pair.certificate.not_after:
                yield f"credential {name}: the certificate at {pair.x5u} has expired and signs nothing"
        if text := expiry_warning(credential, now):
            yield text
    for one in found.material:
        if isinstance(one, StoredPair) and one.credential not in credentials.named:
            yield f"key {one.name} of the store is not used here: the settings have no credential {one.credential}"
        if isinstance(one, StoredPair) and is_plaintext(one.sealed):
            yield f"THE PRIVATE KEY {one.name} LIES IN PLAINTEXT IN THE STORE: whoever reads the store can sign as you"


def _lab_hosts(settings: Settings) -> frozenset[str] | None:
    """The hosts that may have any URL, None where mistakes leave them unknown."""
    hosts = settings.verification.lab_hosts if settings.verification else []
    return None if hosts is None or None in hosts else frozenset(hosts)


def _load_pair(
    pair: PairSettings, spc: str | None, place: Path, lab_hosts: frozenset[str] | None, report: Report
) -> SigningPair | None:
    """A pair, or None with everything reported that is wrong with it."""
    signer = _load(pair.key, (*place, "key"), load_signer, report)
    certificate = _load(pair.chain, (*place, "chain"), load_certificate, report)
    sound = True
    if pair.x5u is not None and lab_hosts is not None:
        try:
            check_x5u(pair.x5u, lab_hosts)
        except CredentialError as exc:
            report((*place, "x5u"), str(exc))
            sound = False
    if signer is None or certificate is None:
        return None
    for text in misfits(signer, certificate, pair.live_from, spc):
        report(place, text)
        sound = False
    return SigningPair(signer[0], certificate, pair.x5u, pair.live_from) if sound else None


def _load(reference: str | None, place: Path, load: Callable[[bytes], _Loaded], report: Report) -> _Loaded | None:
    """What a reference leads to, or None with what is wrong about it reported."""
    if reference is None:
        return None
    try:
        return load(resolve(reference))
    except (ValueError, ShakenError) as exc:
        detail = exc.detail if isinstance(exc, VerificationFailure) else str(exc)
        report(place, detail)
        return None


def build_anchors(settings: Settings, store: MaterialSource, found: Found, report: Report) -> JoinedAnchors | None:
    """The trust anchors of all configured files, of the trust list that the agent keeps, and if wanted of the store.

    None where anything about them was reported. Other arguments as for `build_credentials`.
    """
    verification = settings.verification
    places: list[tuple[Path, str]] = [
        (("verification", "trust_anchors", index), file) for index, file in present(verification.trust_anchors)
    ]
    name = verification.trust_list
    chosen = (settings.trust_lists or {}).get(name) if name else None
    if name and chosen is not None:
        of_list: Path = ("trust_lists", name)
        places += [((*of_list, "anchors", index), file) for index, file in present(chosen.anchors)]
        _check_signers((*of_list, "signers"), chosen.signers, report)
        _check_signers((*of_list, "crl", "signers"), chosen.crl.signers if chosen.crl else None, report)
    certificates: list[x509.Certificate] = []
    sound = True
    for place, reference in places:
        loaded = _load(reference, place, _anchors, report)
        certificates += loaded or ()
        sound = sound and loaded is not None
    named = verification.trust_anchors != [] or name is not None
    believed = verification.stored_anchors and any(isinstance(one, StoredAnchors) for one in found.material)
    if not named and not believed and (found.looked or not verification.stored_anchors):
        text = "without any, or a trust_list, nothing can be trusted (or set mode: off); " + (
            f"the store has none either{found.why}, 'shaken anchors add' puts them there"
            if verification.stored_anchors
            else "the store's are not believed, for verification.stored_anchors is false"
        )
        report(("verification", "trust_anchors"), text)
        sound = False
    if not sound:
        return None
    listed = name if chosen is not None and chosen.url is not None else None

    def join(stored: Sequence[x509.Certificate]) -> PathValidator | None:
        together = [*certificates, *stored]
        if listed is not None and verification.cache:
            return ListedAnchors(FilePath(verification.cache), listed, together)
        return TrustAnchors(together) if together else None

    try:
        if not verification.stored_anchors:
            return JoinedAnchors(join, _Empty())
        return JoinedAnchors(join, store, found.material)
    except VerificationFailure as failure:
        report(("verification", "trust_anchors"), f"trust anchors of the store: {failure.detail}")
        return None


def anchor_warnings(settings: Settings, found: Found) -> Iterator[str]:
    """What is to be said of trust anchors of the store that are not believed."""
    for one in found.material:
        if isinstance(one, StoredAnchors) and not settings.verification.stored_anchors:
            yield f"trust anchors {one.name} of the store are not believed here: verification.stored_anchors is false"


def _check_signers(place: Path, references: Sequence[str] | None, report: Report) -> None:
    """Those who sign lists are used by the agent alone; a file that cannot be read is told here, too."""
    for index, reference in present(references):
        _load(reference, (*place, index), parse_anchor_file, report)


def _anchors(document: bytes) -> tuple[x509.Certificate, ...]:
    found = parse_anchor_file(document)
    TrustAnchors(found)
    return found


class _Empty:
    """A store whose content is not wanted."""

    def version(self) -> int:
        return 0

    def material(self) -> tuple[Material, ...]:
        return ()


class _Unread:
    """A store that was not looked into: settings with mistakes say not for sure where it is."""

    def version(self) -> int:
        raise StoreUnavailable("not looked into")

    def material(self) -> tuple[Material, ...]:
        raise StoreUnavailable("not looked into")


def check_references(settings: Settings, report: Report) -> None:
    """Report what sound parts of settings with mistakes refer to and cannot be used."""
    keyring = keyring_of(settings, report) or Keyring()
    unread, found = _Unread(), Found(looked=False)
    if settings.signing and settings.signing.mode != "off":
        build_credentials(settings, keyring, unread, found, report)
    if settings.verification and settings.verification.mode != "off":
        build_anchors(settings, unread, found, report)
