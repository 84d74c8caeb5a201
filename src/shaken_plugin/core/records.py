"""The records an attestation level is decided from: customers, trunks, gateways, rights.

Times are POSIX seconds. Records are facts; what follows from them is decided in `attestation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from shaken_plugin.core.passport import Attest


class CustomerState(Enum):
    """Where a customer stands in know-your-customer."""

    PENDING = "pending"
    VERIFIED = "verified"
    SUSPENDED = "suspended"
    TERMINATED = "terminated"


class Basis(Enum):
    """What a right to use a number rests on."""

    ASSIGNED = "assigned"
    PORTED = "ported"
    RESPORG = "resporg"
    LETTER = "letter"
    CUSTOMER_WORD = "customer_word"


BASIS_TEXT: Final = {
    Basis.ASSIGNED: "assigned by us",
    Basis.PORTED: "ported in",
    Basis.RESPORG: "toll-free, RespOrg",
    Basis.LETTER: "letter of authorisation",
    Basis.CUSTOMER_WORD: "the customer's own word",
}
"""The bases as people read them."""


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


@dataclass(frozen=True, slots=True)
class Trunk:
    """One way a customer's calls reach us."""

    id: str
    customer: Customer
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """A declared point where calls of unknown origin enter (level C)."""

    id: str
    name: str
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class NumberRight:
    """A customer's right to use a number or range.

    ``first`` and ``last`` are canonical numbers of equal length, equal for a single number.
    ``document`` names the evidence, for a letter the letter itself. ``valid_from`` and
    ``valid_until`` bound it; ``valid_until`` is the first second at which it no longer holds.
    """

    customer: str
    first: str
    last: str
    basis: Basis
    document: str | None = None
    use_case: str | None = None
    valid_from: float | None = None
    valid_until: float | None = None

    @property
    def label(self) -> str:
        """The record as a trace names it."""
        numbers = self.first if self.first == self.last else f"{self.first}-{self.last}"
        document = f" {self.document}" if self.document else ""
        return f"{numbers} ({BASIS_TEXT[self.basis]}{document})"


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What the store knows about one call.

    ``source`` is the trunk or gateway the call came over, None where it is unknown.
    ``rights`` are all that cover the number asked for, whoever's they are: the calling number, or
    the one that sends the call on. ``version`` identifies the policy that these facts were read
    from. ``holders`` are the customers of those rights, each once.
    """

    source: Trunk | Gateway | None
    rights: tuple[NumberRight, ...]
    version: int
    holders: tuple[Customer, ...] = ()

    def holder(self, right: NumberRight) -> Customer | None:
        """Whose right it is."""
        return next((holder for holder in self.holders if holder.id == right.customer), None)
