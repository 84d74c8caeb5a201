"""Records from the sections of a policy file. Where a file has mistakes sections have gaps, and records too."""

from __future__ import annotations

from shaken_plugin.config.models import present
from shaken_plugin.config.policyentries import (
    CarrierEntry,
    CustomerEntry,
    KycEntry,
    LimitsEntry,
    RateEntry,
    RightEntry,
    RulesEntry,
    SubstitutionEntry,
    WindowEntry,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import (
    CarrierStatus,
    Customer,
    KnowYourCustomer,
    Limits,
    Overrides,
    Rate,
    Right,
    Substitution,
    TimeWindow,
)


def overrides(entry: RulesEntry | None) -> Overrides:
    """What an entry says differently."""
    return Overrides() if entry is None else Overrides(**dict(entry))


def customer(entry: CustomerEntry) -> Customer:
    """A customer, without its trunks."""
    kyc: KycEntry | None = entry.kyc
    carrier: CarrierEntry | None = entry.carrier
    return Customer(
        id=entry.id,
        name=entry.name,
        state=entry.state,
        ceiling=entry.ceiling,
        credential=entry.credential,
        origid=entry.origid,
        kind=entry.kind,
        kyc=KnowYourCustomer() if kyc is None else KnowYourCustomer(**dict(kyc)),
        carrier=None if carrier is None else CarrierStatus(**dict(carrier)),
        limits=_limits(entry.limits),
        review_at=entry.review_at,
        rules=overrides(entry.rules),
    )


def _limits(entry: LimitsEntry | None) -> Limits:
    if entry is None:
        return Limits()
    levels = [] if entry.by_level is None else list(entry.by_level)
    by_level = tuple((Attest(level), _rate(rate)) for level, rate in levels if rate is not None)
    return Limits(_rate(entry), by_level, entry.suspended)


def _rate(entry: RateEntry) -> Rate:
    return Rate(entry.calls_per_second, entry.concurrent)


def right(identifier: str, entry: RightEntry) -> Right:
    """A right, without its numbers."""
    return Right(
        id=identifier,
        customer=entry.customer,
        basis=entry.basis,
        document=entry.document,
        use_case=entry.use_case,
        valid_from=entry.valid_from,
        valid_until=entry.valid_until,
        owner=entry.owner,
        sha256=entry.sha256,
        path=entry.path,
        approved_by=entry.approved_by,
        approved_at=entry.approved_at,
        suspended=entry.suspended,
        rules=overrides(entry.rules),
    )


def substitution(entry: SubstitutionEntry) -> Substitution:
    """A substitution."""
    return Substitution(
        id=entry.id,
        customer=entry.customer,
        number=entry.number,
        routes=tuple(route for _, route in present(entry.routes)),
        callers=tuple(prefix for _, prefix in present(entry.callers)),
        window=None if entry.window is None else _window(entry.window),
        valid_from=entry.valid_from,
        valid_until=entry.valid_until,
        note=entry.note,
    )


def _window(entry: WindowEntry) -> TimeWindow:
    always = TimeWindow()
    return TimeWindow(
        tuple(sorted({day for _, day in present(entry.days)})) or always.days,
        always.begins if entry.begins is None else entry.begins,
        always.ends if entry.ends is None else entry.ends,
        always.utc_offset if entry.utc_offset is None else entry.utc_offset,
    )
