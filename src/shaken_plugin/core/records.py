"""The records an attestation level is decided from: customers, how their calls reach us, rights to numbers.

Times are POSIX seconds, numbers canonical digits. Records are facts; what follows from them is decided in
`attestation`. Each record but the look-up results at the end is stored and versioned as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from shaken_plugin.core.passport import Attest

Network = IPv4Network | IPv6Network


class CustomerState(Enum):
    """Where a customer stands in know-your-customer."""

    PENDING = "pending"
    VERIFIED = "verified"
    SUSPENDED = "suspended"
    TERMINATED = "terminated"

    __hash__ = object.__hash__  # by identity, as they are compared: Enum's own is a call of Python


class CustomerKind(Enum):
    """What kind of business a customer is."""

    END_USER = "end_user"
    CONTACT_CENTRE = "contact_centre"
    RESELLER = "reseller"
    WHOLESALE = "wholesale"
    GATEWAY = "gateway"


class Basis(Enum):
    """What a right to use a number rests on."""

    ASSIGNED = "assigned"
    PORTED = "ported"
    RESPORG = "resporg"
    LETTER = "letter"
    DELEGATE = "delegate"
    CUSTOMER_WORD = "customer_word"

    __hash__ = object.__hash__  # by identity, as they are compared: Enum's own is a call of Python


BASIS_TEXT: Final = {
    Basis.ASSIGNED: "assigned by us",
    Basis.PORTED: "ported in",
    Basis.RESPORG: "toll-free, RespOrg",
    Basis.LETTER: "letter of authorisation",
    Basis.DELEGATE: "delegate certificate",
    Basis.CUSTOMER_WORD: "the customer's own word",
}
"""The bases as people read them."""


class Unauthorised(Enum):
    """What happens to a call with a caller ID for which its customer has no right of any kind."""

    DOWNGRADE = "downgrade"
    """It gets B: we know the customer, not the right (ATIS-1000074 §5.2.3)."""
    REFUSE = "refuse"
    SUBSTITUTE = "substitute"
    """It goes on with another caller ID (`Overrides.substitute`)."""


class PendingLevel(Enum):
    """What a customer's calls get while know-your-customer is not complete; never A."""

    B = "B"
    C = "C"
    UNSIGNED = "unsigned"
    REFUSE = "refuse"


def _canonical(number: str | None) -> None:
    if number is not None and re.fullmatch("[0-9]{1,15}", number) is None:
        raise ValueError(f"{number!r} is not a canonical number: 1 to 15 digits, without +")


@dataclass(frozen=True, slots=True)
class Overrides:
    """Choices that differ from the settings for a route, customer, trunk or right; None says nothing.

    The most specific that says something wins: settings, route, customer, trunk, right that covers the
    number. Of ceilings the lowest wins, wherever it stands.
    """

    unauthorised: Unauthorised | None = None
    substitute: str | None = None
    """The number that takes the place of an unauthorised one."""
    offences: bool | None = None
    """Whether an unauthorised caller ID counts as an offence."""
    ceiling: Attest | None = None
    """Highest level these calls may get."""
    pending: PendingLevel | None = None
    """Level while know-your-customer is not complete."""
    sign: bool | None = None
    """False leaves these calls unsigned."""

    def __post_init__(self) -> None:
        _canonical(self.substitute)


@dataclass(frozen=True, slots=True)
class KnowYourCustomer:
    """The know-your-customer file: who the customer is by law, and how to reach them."""

    legal_name: str | None = None
    registration: str | None = None
    """Company register or tax number."""
    address: str | None = None
    country: str | None = None
    contact: str | None = None
    email: str | None = None
    telephone: str | None = None
    website: str | None = None
    reviewed_by: str | None = None
    """Who looked at the evidence last."""
    reviewed_at: float | None = None
    document: str | None = None
    """Where the evidence is filed."""


@dataclass(frozen=True, slots=True)
class CarrierStatus:
    """What a wholesale carrier is registered as with the FCC."""

    form_499: str | None = None
    """Form 499 Filer ID."""
    rmd: str | None = None
    """Number in the Robocall Mitigation Database."""
    rmd_checked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """Bounds on calls; None for no bound."""

    calls_per_second: float | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a customer's calls, in all and by level."""

    total: Rate = Rate()
    by_level: tuple[tuple[Attest, Rate], ...] = ()
    suspended: bool = False
    """Put out of force by a person."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is accountable for calls, and how well we know them."""

    id: str
    name: str
    state: CustomerState
    ceiling: Attest | None = None
    """Highest level this customer's calls may get; None for no limit."""
    credential: str | None = None
    """Name of the credential that signs for them; None for the default."""
    origid: str | None = None
    """A fixed origid (UUID) instead of the derived one."""
    kind: CustomerKind = CustomerKind.END_USER
    kyc: KnowYourCustomer = KnowYourCustomer()
    carrier: CarrierStatus | None = None
    """Of a wholesale carrier."""
    limits: Limits = Limits()
    review_at: float | None = None
    """When the file is to be looked at again."""
    rules: Overrides = Overrides()


@dataclass(frozen=True, slots=True)
class Trunk:
    """One way a customer's calls reach us.

    ``addresses`` are unique over all trunks and gateways, the narrowest that matches wins; ``users`` are the
    accounts that the switch authenticates, unique too, and win over addresses.
    """

    id: str
    customer: Customer
    credential: str | None = None
    addresses: tuple[Network, ...] = ()
    users: tuple[str, ...] = ()
    rules: Overrides = Overrides()


@dataclass(frozen=True, slots=True)
class Gateway:
    """A declared point where calls of unknown origin enter (level C)."""

    id: str
    name: str
    credential: str | None = None
    addresses: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Right:
    """A customer's right to use numbers; the numbers themselves are kept apart, for there may be millions.

    ``document`` names the evidence, for a letter the letter itself; ``sha256`` (hexadecimal) and ``path`` are those
    of its file. ``valid_from`` and ``valid_until`` bound it; ``valid_until`` is the first second at which it
    no longer holds.
    """

    id: str
    customer: str
    """Who may use the numbers."""
    basis: Basis
    document: str | None = None
    use_case: str | None = None
    valid_from: float | None = None
    valid_until: float | None = None
    owner: str | None = None
    """Whose numbers they are, by name, where they are not the customer's own: a contact centre's client."""
    sha256: str | None = None
    path: str | None = None
    approved_by: str | None = None
    approved_at: float | None = None
    suspended: bool = False
    """Put out of force by a person, with the reason in the history."""
    rules: Overrides = Overrides()


class Withheld(Enum):
    """Why a number must not originate calls."""

    INVALID = "invalid"
    UNALLOCATED = "unallocated"
    UNUSED = "unused"
    INBOUND_ONLY = "inbound_only"
    ALLOCATED = "allocated"
    """The opposite: an exception, for numbers that the metadata of the numbering plan does not know yet."""


@dataclass(frozen=True, slots=True)
class DoNotOriginate:
    """An entry of the do-not-originate list; its numbers are kept apart like those of a `Right`."""

    id: str
    reason: Withheld
    note: str | None = None
    suspended: bool = False
    """Put out of force by a person: it refuses nothing, and excepts nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where calls leave to: by called number (longest prefix), or as the switch names it."""

    id: str
    destinations: tuple[str, ...] = ()
    """Canonical number prefixes."""
    rules: Overrides = Overrides()


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Days and hours of local time. ``days`` 0 is Monday; an end before its beginning goes past midnight."""

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    begins: int = 0
    """Minute of the day."""
    ends: int = 1440
    utc_offset: int = 0
    """Minutes east of UTC."""


@dataclass(frozen=True, slots=True)
class Substitution:
    """An explicit rule: calls of a customer go on with another caller ID.

    ``routes`` and ``callers`` (number prefixes) narrow it, empty for all; rules are asked in the order of their ids.
    """

    id: str
    customer: str
    number: str
    """The caller ID that they get; its right decides the level."""
    routes: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    window: TimeWindow | None = None
    valid_from: float | None = None
    valid_until: float | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        _canonical(self.number)


Record = Customer | Trunk | Gateway | Right | DoNotOriginate | Route | Substitution
"""What a store keeps, each with an id that is unique within its type."""


# --- What a look-up gives ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NumberRight:
    """A right and the span of numbers of it that covers the one asked for.

    ``first`` and ``last`` are canonical numbers of equal length, equal for a single number.
    """

    right: Right
    first: str
    last: str

    @property
    def label(self) -> str:
        """The record as a trace names it."""
        numbers = self.first if self.first == self.last else f"{self.first}-{self.last}"
        owner = f" of {self.right.owner}" if self.right.owner else ""
        document = f" {self.right.document}" if self.right.document else ""
        return f"{numbers}{owner} ({BASIS_TEXT[self.right.basis]}{document})"


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What the store knows about one call.

    ``source`` is the trunk or gateway the call came over, None where it is unknown. ``rights`` are
    all that cover the number asked for, whoever's they are: the calling number, or the one that
    sends the call on. ``version`` identifies the policy that these facts were read from.
    ``holders`` are the customers of those rights, each once. ``withheld`` are the entries of the
    do-not-originate list that cover the number, ``substitutions`` those of the source's customer.
    """

    source: Trunk | Gateway | None
    rights: tuple[NumberRight, ...]
    version: int
    holders: tuple[Customer, ...] = ()
    withheld: tuple[DoNotOriginate, ...] = ()
    route: Route | None = None
    substitutions: tuple[Substitution, ...] = field(default=())
    route_digits: int | None = field(default=None, compare=False)
    """How many digits of the called number at most decide its route; None where that is not known."""

    def holder(self, right: NumberRight) -> Customer | None:
        """Whose right it is."""
        return next((holder for holder in self.holders if holder.id == right.right.customer), None)
