"""The sections of a policy file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shaken_plugin.config.fields import LastMoment, Moment, UuidText
from shaken_plugin.config.models import Label, Name, Said, Section, Switch
from shaken_plugin.config.policyvalues import (
    Address,
    Day,
    FilePath,
    Minute,
    Number,
    Numbers,
    Offset,
    Prefix,
    Sha256,
    UserName,
)
from shaken_plugin.core.passport import Attest
from shaken_plugin.core.records import Basis, CustomerKind, CustomerState, PendingLevel, Unauthorised, Withheld


class RulesEntry(Section):
    """What differs from the settings here; what is left out is inherited.

    The most specific that says something wins: settings, route, customer, trunk, right that covers the
    number. Of ceilings the lowest wins, wherever it stands.
    """

    unauthorised: Unauthorised | None = None
    """What becomes of a caller ID without any right: downgrade (it gets B), refuse or substitute."""
    substitute: Number | None = None
    """The number that takes its place, in E.164 with +."""
    offences: Switch | None = None
    """Whether such a caller ID counts as an offence."""
    ceiling: Attest | None = None
    """Highest level these calls may get."""
    pending: PendingLevel | None = None
    """Level while know-your-customer is not complete: B, C, unsigned or refuse."""
    sign: Switch | None = None
    """false leaves these calls unsigned."""


class KycEntry(Section):
    """The know-your-customer file: who the customer is by law, and how to reach them."""

    legal_name: Label | None = None
    """Name in the company register."""
    registration: Label | None = None
    """Company register or tax number."""
    address: Label | None = None
    """Postal address."""
    country: Label | None = None
    """Country of the registration."""
    contact: Label | None = None
    """Person to talk to."""
    email: Label | None = None
    """Their e-mail address."""
    telephone: Label | None = None
    """Their number."""
    website: Label | None = None
    """The customer's website."""
    reviewed_by: Label | None = None
    """Who looked at the evidence last."""
    reviewed_at: Moment | None = None
    """When that was."""
    document: Label | None = None
    """Where the evidence is filed."""


class CarrierEntry(Section):
    """What a wholesale carrier is registered as with the FCC."""

    form_499: Label | None = None
    """Form 499 Filer ID."""
    rmd: Label | None = None
    """Number in the Robocall Mitigation Database."""
    rmd_checked_at: Moment | None = None
    """When that was looked up last."""


class RateEntry(Section):
    """Bounds on calls; what is left out is unbounded."""

    calls_per_second: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    """New calls a second."""
    concurrent: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """Calls at a time."""


class LevelLimitsEntry(Section):
    """Bounds on the calls of one level."""

    A: RateEntry | None = None
    """Of calls that get A."""
    B: RateEntry | None = None
    """Of calls that get B."""
    C: RateEntry | None = None
    """Of calls that get C."""


class LimitsEntry(RateEntry):
    """Bounds on a customer's calls, in all and by level."""

    by_level: LevelLimitsEntry = LevelLimitsEntry()
    """Further bounds on the calls of a level."""
    suspended: Switch = False
    """true puts them out of force."""


class TrunkEntry(Section):
    """One way a customer's calls reach us."""

    id: Name
    """Unique name of the trunk."""
    addresses: list[Address] = []
    """Source addresses or networks; the narrowest that matches wins."""
    users: list[UserName] = []
    """Accounts that the switch authenticates; an account wins over an address."""
    credential: Name | None = None
    """Credential that signs this trunk's calls, instead of the customer's."""
    rules: RulesEntry = RulesEntry()
    """What differs for calls over this trunk."""


class StandingEntry(Section):
    """What a customer was put under beside the policy, by a person or for offences, as `shaken export` found it.

    A host that knows of nothing later takes it over; 'shaken customer reinstate' takes it back.
    """

    state: Literal["suspended", "terminated"]
    """suspended or terminated."""
    at: Moment
    """When."""
    who: Said
    """Who decided it."""
    why: Said
    """The reason."""


class CustomerEntry(Section):
    """Who is accountable for calls."""

    id: Name
    """Unique name of the customer."""
    name: Label
    """The customer's name for people."""
    state: CustomerState
    """Know-your-customer: pending, verified, suspended or terminated."""
    kind: CustomerKind = CustomerKind.END_USER
    """end_user, contact_centre, reseller, wholesale (A only with carrier data) or gateway (C at most)."""
    ceiling: Attest | None = None
    """Highest level this customer's calls may get."""
    credential: Name | None = None
    """Credential that signs for them, instead of the default."""
    origid: UuidText | None = None
    """A fixed origid instead of the derived one."""
    kyc: KycEntry = KycEntry()
    """The know-your-customer file."""
    carrier: CarrierEntry | None = None
    """Registrations of a wholesale carrier; without Form 499 Filer ID and RMD number it gets B at most."""
    limits: LimitsEntry = LimitsEntry()
    """Bounds on their calls."""
    review_at: Moment | None = None
    """Day on which the file is to be looked at again."""
    rules: RulesEntry = RulesEntry()
    """What differs for this customer's calls."""
    standing: StandingEntry | None = None
    """What was decided of them beside the policy: written by `shaken export`."""
    trunks: list[TrunkEntry] = []
    """How their calls reach us."""


class GatewayEntry(Section):
    """A declared point at which calls of unknown origin enter; they get C."""

    id: Name
    """Unique name of the gateway."""
    name: Label
    """The gateway's name for people."""
    addresses: Annotated[list[Address], Field(min_length=1)]
    """Source addresses or networks."""
    credential: Name | None = None
    """Credential that signs its calls, instead of the default."""


class RightEntry(Section):
    """A customer's right to use numbers."""

    id: Name | None = None
    """Unique name of the right; left out, it is made of customer, basis, document and use case."""
    customer: Name
    """Who may use the numbers."""
    owner: Label | None = None
    """Whose numbers they are, where they are not the customer's own."""
    basis: Basis
    """assigned, ported, resporg, letter, delegate, or customer_word (which never gives A)."""
    document: Label | None = None
    """Reference of the evidence; a letter of authorisation needs one."""
    sha256: Sha256 | None = None
    """SHA-256 of the document's file."""
    path: FilePath | None = None
    """Where that file is kept."""
    use_case: Label | None = None
    """What the numbers are used for."""
    valid_from: Moment | None = None
    """First day or moment at which it holds."""
    valid_until: LastMoment | None = None
    """Last day, or the moment at which it no longer holds."""
    approved_by: Label | None = None
    """Who approved it."""
    approved_at: Moment | None = None
    """When that was."""
    suspended: Switch = False
    """true puts it out of force."""
    rules: RulesEntry = RulesEntry()
    """What differs for calls from these numbers."""
    numbers: list[Numbers]
    """Numbers and ranges in E.164 with +; may be empty."""


class WithheldEntry(Section):
    """Numbers that must not originate calls, or (allocated) the exception to what the numbering plan says."""

    id: Name | None = None
    """Unique name of the entry; left out, it is made of reason and note."""
    reason: Withheld
    """invalid, unallocated, unused, inbound_only; allocated makes an exception."""
    note: Label | None = None
    """For people."""
    suspended: Switch = False
    """true puts it out of force."""
    numbers: list[Numbers]
    """Numbers and ranges in E.164 with +; may be empty."""


class RouteEntry(Section):
    """Where calls leave to: by called number, longest prefix first, or as the switch names it."""

    id: Name
    """Unique name of the route."""
    destinations: list[Prefix] = []
    """Beginnings of called numbers, in E.164 with +."""
    rules: RulesEntry = RulesEntry()
    """What differs for calls on this route."""


class WindowEntry(Section):
    """Days and hours of local time; an end before its beginning goes past midnight."""

    days: list[Day] = []
    """mon, tue, wed, thu, fri, sat, sun; all where it is left out."""
    begins: Minute | None = None
    """First minute, such as 08:00; left out: 00:00."""
    ends: Minute | None = None
    """The minute behind the last, such as 18:00; left out: 24:00."""
    utc_offset: Offset | None = None
    """Offset of the local time from UTC, such as -05:00; left out: UTC."""


class SubstitutionEntry(Section):
    """An explicit rule: calls of a customer go on with another caller ID."""

    id: Name
    """Unique name of the rule; rules are asked in the order of these names."""
    customer: Name
    """Whose calls."""
    number: Number
    """The caller ID that they get, in E.164 with +; its right decides the level."""
    routes: list[Name] = []
    """Only on these routes."""
    callers: list[Prefix] = []
    """Only callers whose number begins so."""
    window: WindowEntry | None = None
    """Only at these times."""
    valid_from: Moment | None = None
    """First day or moment at which it holds."""
    valid_until: LastMoment | None = None
    """Last day, or the moment at which it no longer holds."""
    note: Label | None = None
    """For people."""


class PolicyFile(Section):
    """The records attestation levels are decided from."""

    customers: list[CustomerEntry] = []
    """Customers with their trunks."""
    gateways: list[GatewayEntry] = []
    """Gateways."""
    routes: list[RouteEntry] = []
    """Routes that have rules of their own."""
    rights: list[RightEntry] = []
    """Who may use which numbers."""
    do_not_originate: list[WithheldEntry] = []
    """Numbers that must not originate calls."""
    substitutions: list[SubstitutionEntry] = []
    """Calls that go on with another caller ID."""
