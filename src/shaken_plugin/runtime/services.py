"""Settings put together into services.

Everything built before a fork is safe to use after it: stores connect lazily, per process and
thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shaken_plugin.authentication import (
    AuthenticationService,
    Credential,
    Limiter,
    SigningRules,
    StoreDown,
)
from shaken_plugin.certs.agent_client import AgentClient
from shaken_plugin.certs.cache import CertificateCache, RevocationCache
from shaken_plugin.certs.chained import ChainedSources, DependingSource
from shaken_plugin.certs.directory import CertificateDirectory
from shaken_plugin.config.dialplans import dial_plan, numbering
from shaken_plugin.config.keys import Report
from shaken_plugin.config.references import (
    anchor_warnings,
    build_anchors,
    build_credentials,
    credential_warnings,
    keyring_of,
    look_into,
)
from shaken_plugin.config.sections import Settings, VerificationSettings
from shaken_plugin.core.attestation import AttestationPolicy, Level
from shaken_plugin.core.crl import RevocationMode
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import ReplayMode, VerificationRules
from shaken_plugin.ports import (
    CallLimiter,
    CertificateFetcher,
    CertificateSource,
    PolicyStore,
    RecordSink,
    ReplayMemory,
    RevocationSource,
)
from shaken_plugin.records.spool import SpoolWriter
from shaken_plugin.sqlitefile import LOOK_EVERY
from shaken_plugin.stores.agent_line import line_to
from shaken_plugin.stores.freshness import Copy
from shaken_plugin.stores.last_known import LastKnown, LastStanding
from shaken_plugin.stores.limiter import AgentLimiter, FleetReplay
from shaken_plugin.stores.replay import ReplayFile
from shaken_plugin.stores.sqlite import SqliteStore
from shaken_plugin.stores.sqlite.material import MaterialFile
from shaken_plugin.stores.sqlite.sharing import DecidesAlone
from shaken_plugin.stores.standing import StandingFile, WithStanding
from shaken_plugin.verification import VerificationService

_ORIGID_NAMESPACE: Final = uuid.UUID("b1d5bb0e-6a2c-4d0c-9f49-b0a9a3d1a3a1")
"""Our own name space (RFC 4122 §4.3), for origids of installations that configure none."""


Inline = Callable[[Settings], tuple[CertificateSource, CertificateFetcher]]
"""For a switch whose calls are threads: where the process keeps what it downloads itself, and what downloads."""


@dataclass(frozen=True, slots=True)
class Services:
    """What one process needs to sign and verify. A part that is switched off is None."""

    settings: Settings
    plan: DialPlan
    authentication: AuthenticationService | None
    verification: VerificationService | None
    credentials: Mapping[str, Credential]
    warnings: tuple[str, ...] = ()
    fetcher: CertificateFetcher | None = None
    """The agent of this host, or without one, where that is allowed, the process itself. With neither a
    certificate that is not at hand is "not yet"."""
    revocation: RevocationSource | None = None
    """The revocation lists that the agent keeps, where settings want them."""
    records: RecordSink | None = None
    """Takes the record of each call, where settings want them."""
    limiter: CallLimiter | None = None
    """Has the calls of customers counted; None where settings want no limits, or there is no agent to count."""
    copy: Copy | None = None
    """In a fleet, what knows how old this host's copy of the policy is."""


def build(settings: Settings, now: float, report: Report, inline: Inline | None = None) -> Services:
    """The services for settings whose form is right.

    Args:
        settings: as read.
        now: POSIX seconds.
        report: told of everything that cannot be used; then the services must not be used.
        inline: where there is no agent, this process downloads by it (see `runtime.inline`).
    """
    plan = settings_plan(settings)
    warnings: list[str] = []
    authentication = None
    credentials: Mapping[str, Credential] = {}
    limiter = call_limiter(settings)
    copy = fleet_copy(settings)
    store = MaterialFile(Path(settings.store.path))
    found = look_into(settings)
    keyring = keyring_of(settings, report)
    if settings.keys.plaintext:
        warnings.append("KEYS.PLAINTEXT: private keys may lie in the store as they are; for a lab alone")
    if settings.signing.mode != "off" and keyring is not None:
        ours = build_credentials(settings, keyring, store, found, report)
        warnings += credential_warnings(ours, found, now)
        credentials = ours.named
        if credentials:
            policy = local_store(settings, copy)
            limits = _limits(settings, plan, limiter)
            rules = _signing_rules(settings, plan)
            authentication = AuthenticationService(rules, policy, ours, limits, look_every=LOOK_EVERY)
    answers = line_to(Path(settings.agent.socket)).answers
    verifier = build_verifier(settings, report, warnings, replay_memory(settings), inline, answers)
    chosen = settings.records
    records = SpoolWriter(Path(chosen.folder), chosen.rotate_bytes) if chosen.enabled else None
    return Services(
        settings,
        plan,
        authentication,
        verifier[0],
        credentials,
        tuple(warnings),
        *verifier[1:],
        records=records,
        limiter=limiter,
        copy=copy,
    )


def replay_memory(settings: Settings) -> ReplayMemory:
    """Which PASSporT came with which call: to this host, in a fleet to any."""
    chosen = settings.verification
    # A PASSporT may come as much too early as too late.
    lifetime = chosen.freshness + max(chosen.freshness, chosen.inner_freshness or 0)
    local = ReplayFile(Path(chosen.replay_memory), lifetime)
    return local if settings.store.redis is None else FleetReplay(local, line_to(Path(settings.agent.socket)))


def call_limiter(settings: Settings) -> CallLimiter | None:
    """Who counts calls: the agent of this host; without one nobody answers, which is said for each call with limits."""
    if settings.limits.mode == "off" or settings.signing.mode == "off":
        return None
    return AgentLimiter.at(Path(settings.agent.socket), Path(settings.store.path).parent)


def _limits(settings: Settings, plan: DialPlan, counts: CallLimiter | None) -> Limiter | None:
    if counts is None:
        return None
    chosen = settings.limits
    return Limiter(counts, plan, chosen.mode == "enforce", chosen.when_unavailable == "refuse")


def build_verifier(
    settings: Settings,
    report: Report,
    warnings: list[str],
    replays: ReplayMemory | None,
    inline: Inline | None = None,
    answers: Callable[[], bool] = lambda: True,
) -> tuple[VerificationService | None, CertificateFetcher | None, RevocationSource | None]:
    """The verifying half of `build`, which needs no private key; all None where it is off or was reported.

    Args:
        settings: as read.
        report: as for `build`.
        warnings: are added to.
        replays: remembers PASSporTs; None for tools, which must not make a call a replay.
        inline: as for `build`.
        answers: as for `AgentClient`; a tool that runs for a person waits all the same.
    """
    if settings.verification.mode == "off":
        return None, None, None
    store = MaterialFile(Path(settings.store.path))
    found = look_into(settings)
    anchors = build_anchors(settings, store, found, report)
    if anchors is None:
        return None, None, None
    warnings += anchor_warnings(settings, found)
    source, fetcher = _certificates(settings, inline, answers)
    revocation = _revocation(settings, warnings)
    service = VerificationService(
        verification_rules(settings.verification, settings_plan(settings)),
        anchors,
        DependingSource(source, anchors),
        revocation,
        RevocationMode(settings.verification.revocation) if revocation else RevocationMode.OFF,
        replays,
        ReplayMode(settings.verification.replay),
    )
    return service, fetcher, revocation


def _certificates(
    settings: Settings, inline: Inline | None, answers: Callable[[], bool]
) -> tuple[CertificateSource, CertificateFetcher | None]:
    """Where certificates lie, the operator's own folder first; and who fetches what is missing."""
    chosen = settings.verification
    folder, path = CertificateDirectory(Path(chosen.certificates)), Path(chosen.cache)
    if not settings.agent.enabled:
        if inline is None or chosen.wait <= 0:
            return ChainedSources(folder, CertificateCache(path)), None
        kept, fetcher = inline(settings)
        return ChainedSources(folder, CertificateCache(path), kept), fetcher
    socket = Path(settings.agent.socket)
    cache = CertificateCache(path, AgentClient(socket).tell)
    return ChainedSources(folder, cache), AgentClient(socket, cache.lend, cache.blind, answers)


def _revocation(settings: Settings, warnings: list[str]) -> RevocationSource | None:
    name, chosen = settings.verification.trust_list, settings.trust_list
    if settings.verification.revocation == "off":
        return None
    if name is None or chosen is None:
        return None  # said in the report at the start
    if not chosen.crl.signers:
        warnings.append("revocation is not checked: the trust list names no signers of revocation lists (crl.signers)")
        return None
    return RevocationCache(Path(settings.verification.cache), name, chosen.crl.urls)


def verification_rules(settings: VerificationSettings, plan: DialPlan) -> VerificationRules:
    """The operator's choices about verification."""
    return VerificationRules(
        plan,
        settings.freshness,
        frozenset(settings.lab_hosts),
        profile=settings.profile,
        inner_freshness=settings.inner_freshness,
        media_keys=settings.mky,
    )


def fleet_copy(settings: Settings) -> Copy | None:
    """The copy of a fleet's policy that this host decides from; None for a host on its own."""
    if settings.store.redis is None:
        return None
    path, chosen = Path(settings.store.path), settings.store
    goes_on = chosen.when_unavailable is StoreDown.LAST_KNOWN
    return Copy(SqliteStore(path), path, float(chosen.max_age), goes_on=goes_on, own=DecidesAlone(path))


def local_store(settings: Settings, copy: Copy | None = None) -> PolicyStore:
    """What calls are decided from: the policy in force, with the standing of customers.

    Args:
        settings: as read.
        copy: the one of `fleet_copy`, for whoever wants to know of its age.
    """
    path = Path(settings.store.path)
    policy: PolicyStore = copy or fleet_copy(settings) or SqliteStore(path)
    standing = StandingFile(Path(settings.store.state), path)
    if settings.store.when_unavailable is StoreDown.LAST_KNOWN:
        # Each remembers for itself: a suspension is obeyed while the policy cannot be read.
        return WithStanding(LastKnown(policy), LastStanding(standing))
    return WithStanding(policy, standing)


def settings_plan(settings: Settings) -> DialPlan:
    """The dial plan that settings describe."""
    return dial_plan(settings.country, settings.emergency_numbers, numeric_users=settings.numeric_users)


def attestation_policy(settings: Settings, plan: DialPlan) -> AttestationPolicy:
    """The operator's choices about attestation."""
    signing = settings.signing
    return AttestationPolicy(
        unknown_source=Level(signing.unknown_source),
        pending_customer=Level(signing.pending_customer),
        sign_international=signing.sign_international,
        leave_alone=tuple(signing.leave_alone),
        home_country_code=plan.country_code,
        unauthorised=signing.unauthorised,
        substitute=signing.substitute,
        require_approval=signing.require_approval,
        invalid_numbers=signing.invalid_numbers,
        numbering=numbering(plan),
    )


def _signing_rules(settings: Settings, plan: DialPlan) -> SigningRules:
    signing = settings.signing
    default = signing.credentials[0]
    namespace = signing.origid.namespace
    return SigningRules(
        plan=plan,
        attestation=attestation_policy(settings, plan),
        origid_namespace=(
            uuid.UUID(namespace) if namespace else uuid.uuid5(_ORIGID_NAMESPACE, default.spc or default.name)
        ),
        default_credential=default.name,
        sources=tuple(signing.sources),
        existing=signing.existing_identity,
        diversion=signing.diversion,
        stale_date=signing.stale_date,
        store_down=settings.store.when_unavailable,
        origid=signing.origid.per,
        freshness=signing.freshness,
        quote_ppt=signing.quote_ppt,
        mky=signing.mky,
    )
