"""What settings refer to, loaded: keys, certificate chains, trust anchors.

Works on settings with gaps, too (`settings.sound_settings`), so that one round tells everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cryptography import x509

from shaken_plugin.authentication import Credential, SigningPair
from shaken_plugin.certs.credentials import check_x5u, expiry_warning, load_certificate, load_signer, misfits
from shaken_plugin.config.models import present
from shaken_plugin.config.settings import PairSettings, Settings, VerificationSettings, pairs_in, resolve
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


def build_anchors(settings: VerificationSettings, report: Report) -> TrustAnchors | None:
    """The trust anchors of all configured files; None where anything about them was reported."""
    certificates: list[x509.Certificate] = []
    sound = True
    for index, reference in present(settings.trust_anchors):
        found = _load(reference, ("verification", "trust_anchors", index), _anchors, report)
        certificates += found or ()
        sound = sound and found is not None
    return TrustAnchors(certificates) if sound and certificates else None


def _anchors(document: bytes) -> tuple[x509.Certificate, ...]:
    found = parse_anchor_file(document)
    TrustAnchors(found)
    return found


def check_references(settings: Settings, now: float, report: Report) -> None:
    """Report what sound parts of settings with mistakes refer to and cannot be used."""
    if settings.signing and settings.signing.mode != "off":
        build_credentials(settings, now, report, [])
    if settings.verification and settings.verification.mode != "off":
        build_anchors(settings.verification, report)
