"""What settings refer to, loaded: keys, certificate chains, trust anchors.

Works on settings with gaps, too (`settings.sound_settings`), so that one round tells everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import TypeVar

from cryptography import x509

from shaken_plugin.authentication import Credential, SigningPair
from shaken_plugin.certs.cache import ListedAnchors
from shaken_plugin.certs.credentials import check_x5u, expiry_warning, load_certificate, load_signer, misfits
from shaken_plugin.config.models import present
from shaken_plugin.config.sections import PairSettings, Settings
from shaken_plugin.config.settings import pairs_in, resolve
from shaken_plugin.config.yamlfile import Path
from shaken_plugin.core.certificates import TrustAnchors, parse_anchor_file
from shaken_plugin.errors import CredentialError, ShakenError, VerificationFailure

_Loaded = TypeVar("_Loaded")

Report = Callable[[Path, str], None]
"""Takes the place in the settings and the text of something that cannot be used."""


def build_credentials(settings: Settings, now: float, report: Report, warnings: list[str]) -> dict[str, Credential]:
    """All credentials, each pair checked: key and certificate match, SPC, validity."""
    lab_hosts = _lab_hosts(settings)
    found: dict[str, list[SigningPair]] = {}
    for place, entry, pair in pairs_in(settings):
        pairs = found.setdefault(entry.name, [])
        if (loaded := _load_pair(pair, entry.spc, place, lab_hosts, report)) is None:
            continue
        pairs.append(loaded)
        if now > loaded.certificate.not_after:
            warnings.append(f"credential {entry.name}: the certificate at {pair.x5u} has expired and signs nothing")
    credentials = {name: Credential(name, tuple(pairs)) for name, pairs in found.items()}
    warnings += [text for credential in credentials.values() if (text := expiry_warning(credential, now))]
    return credentials


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


def build_anchors(settings: Settings, report: Report) -> TrustAnchors | ListedAnchors | None:
    """The trust anchors of all configured files, and of the trust list that the agent keeps.

    None where anything about them was reported.
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
        found = _load(reference, place, _anchors, report)
        certificates += found or ()
        sound = sound and found is not None
    if not sound:
        return None
    if name and chosen is not None and chosen.url is not None and verification.cache:
        return ListedAnchors(FilePath(verification.cache), name, certificates)
    return TrustAnchors(certificates) if certificates else None


def _check_signers(place: Path, references: Sequence[str] | None, report: Report) -> None:
    """Those who sign lists are used by the agent alone; a file that cannot be read is told here, too."""
    for index, reference in present(references):
        _load(reference, (*place, index), parse_anchor_file, report)


def _anchors(document: bytes) -> tuple[x509.Certificate, ...]:
    found = parse_anchor_file(document)
    TrustAnchors(found)
    return found


def check_references(settings: Settings, now: float, report: Report) -> None:
    """Report what sound parts of settings with mistakes refer to and cannot be used."""
    if settings.signing and settings.signing.mode != "off":
        build_credentials(settings, now, report, [])
    if settings.verification and settings.verification.mode != "off":
        build_anchors(settings, report)
