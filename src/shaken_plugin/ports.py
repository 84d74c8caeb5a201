"""What the services need from outside, as Protocols. Implementations live further down.

Every Protocol has a shipped, tested stand-in: `stores.memory`, `certs.memory`, `telemetry`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

from shaken_plugin.core.limits import Bound, Request, Verdict
from shaken_plugin.core.material import Material
from shaken_plugin.core.records import CustomerState, DoNotOriginate, PolicyFacts, Record, Right


class Signer(Protocol):
    """A private key that signs and does nothing else. It is never handed out."""

    def sign(self, data: bytes) -> bytes:
        """The ES256 signature of ``data``: R‖S, 64 octets (RFC 7518 §3.4).

        Raises:
            SigningError: the key cannot be used now.
        """


class PolicyStore(Protocol):
    """The records that attestation is decided from."""

    def facts(
        self,
        source: str | None,
        user: str | None,
        number: str | None,
        called: str | None = None,
        route: str | None = None,
    ) -> PolicyFacts:
        """What is known of a call.

        Args:
            source: IP address the call came from.
            user: account that the switch authenticated; it wins over the address.
            number: the canonical calling number, None where the caller is no number.
            called: the canonical called number; the route with the longest prefix of it is the call's.
            route: the route's id as the switch names it; one that the store has wins over ``called``.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """

    def stamp(self) -> Hashable | None:
        """A value that changes with everything that `facts` may answer, much cheaper than to ask. Never raises.

        It changes as well with an answer that is given for want of the present one: so an answer may be kept only
        where the stamp is the same before and after the question. None where nobody can tell now: then nothing
        that was answered before may be relied on.
        """


MAX_SAID: Final = 500
"""Characters that who and why may have: they are kept for good, and shown in every history."""


def check_said(name: str, text: str) -> str:
    """What a person said of themselves or of their reason, as it may be kept.

    Raises:
        ValueError: it is blank, too long, or has characters that a terminal might act on.
    """
    if not text.strip():
        raise ValueError(f"{name} is blank: who changes something is named, with a reason")
    if len(text) > MAX_SAID:
        raise ValueError(f"{name} has {len(text)} characters; {MAX_SAID} are the most that are kept of it")
    if not text.isprintable():
        raise ValueError(f"{name} has control characters or line ends: one line of plain text is kept")
    return text


def sayable(text: str) -> str:
    """Any text, of a file's name for instance, as `check_said` lets it pass."""
    shown = "".join(char if char.isprintable() else "?" for char in text).strip() or "?"
    return shown if len(shown) <= MAX_SAID else f"…{shown[1 - MAX_SAID :]}"


class _Author(NamedTuple):
    who: str
    why: str
    at: float


class Author(_Author):
    """Who changes the policy, and why; ``at`` in POSIX seconds.

    Raises:
        ValueError: who or why is none (see `check_said`).
    """

    __slots__ = ()

    def __new__(cls, who: str, why: str, at: float) -> Self:
        """Nobody changes anything without a name and a reason."""
        return super().__new__(cls, check_said("who", who), check_said("why", why), at)


class Change(NamedTuple):
    """One version of the policy."""

    version: int
    at: float
    who: str
    why: str
    what: str
    """What was changed, for people: ``customer acme, 3 numbers of LOA-1``."""


class Span(NamedTuple):
    """Numbers from ``first`` to ``last``, canonical, of equal length; equal for a single number."""

    first: str
    last: str


NumbersOf = type[Right] | type[DoNotOriginate]
"""Records that have numbers."""

R = TypeVar("R", bound=Record)


class PolicyRecords(Protocol):
    """A policy as it was at one version, for tools. Iterators give records by id, spans by number."""

    version: int

    def get(self, kind: type[R], identifier: str) -> R | None:
        """One record."""

    def all(self, kind: type[R]) -> Iterator[R]:
        """All of a type."""

    def numbers(self, kind: NumbersOf, identifier: str) -> Iterator[Span]:
        """The numbers of a right or do-not-originate entry, as they were added.

        Sorted by value; not to be changed while they are read.
        """

    def count(self, kind: NumbersOf, identifier: str) -> int:
        """How many spans those are."""

    def covering(self, kind: type[R], number: str) -> Iterator[tuple[R, Span]]:
        """The rights or do-not-originate entries that cover a number, narrowest first."""

    def material(self) -> tuple[Material, ...]:
        """Keys and trust anchors, by kind and name; at any version but the one in force there are none."""


class PolicyDraft(PolicyRecords, Protocol):
    """A policy that is being changed; it reads as it will be."""

    def put(self, record: Record) -> None:
        """Add a record, or put it in the place of the one with its id. Numbers stay.

        Of a trunk's customer only the id is kept.

        Raises:
            ConflictError: an address or account belongs to another trunk or gateway, a destination to
                another route, a record that it refers to (customer, route) is not there.
        """

    def remove(self, kind: type[Record], identifier: str) -> None:
        """Take a record out, with its numbers; a customer with its trunks.

        Raises:
            ConflictError: there is none, or others refer to it (a right to its customer).
        """

    def add_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """Add numbers; those that are there already stay once.

        Returns:
            How many are new.

        Raises:
            ConflictError: there is no such record.
            NumberError: a span is none: 4 to 15 digits without a leading 0, of equal length, in order.
        """

    def remove_numbers(self, kind: NumbersOf, identifier: str, spans: Iterable[Span]) -> int:
        """Take out spans that were added as such.

        Returns:
            How many were there.

        Raises:
            ConflictError: there is no such record.
        """

    def put_material(self, material: Material) -> None:
        """Add a key or trust anchors, or put them in the place of those with their name.

        Raises:
            ConflictError: another key has its URL; it is too large, or there are too many.
            StoreError: the store is of an older schema, which has no room for them.
        """

    def remove_material(self, kind: type[Material], name: str) -> None:
        """Take a key or trust anchors out; nothing of them stays.

        Raises:
            ConflictError: there are none.
            StoreError: as for `put_material`.
        """


class MaterialSource(Protocol):
    """The keys and trust anchors in force, for whoever signs and verifies."""

    def version(self) -> Hashable:
        """Which policy version is in force: while it stays equal, so do they.

        Raises:
            StoreUnavailable: it cannot be read now.
        """

    def material(self) -> tuple[Material, ...]:
        """All of them, by kind and name.

        Raises:
            StoreUnavailable: likewise, or they are damaged.
        """


class PolicyWriter(Protocol):
    """A store whose policy can be changed and looked back at."""

    def change(self, author: Author, what: str) -> AbstractContextManager[PolicyDraft]:
        """One transaction, and one new version. An exception inside leaves everything as it was.

        Nothing changed makes no new version.

        Raises:
            StoreError: the store cannot be written now; another change is under way too long.
        """

    def records(self, version: int | None = None) -> AbstractContextManager[PolicyRecords]:
        """The policy at a version, by default the one in force.

        Raises:
            StoreError: there never was such a version.
        """

    def changes(self, since: int = 0, until: int | None = None) -> Iterator[Change]:
        """The changes behind ``since``, up to and including ``until``, oldest first."""

    def changes_of(self, *named: tuple[type[Record], str]) -> Iterator[Change]:
        """The changes of any of these records or of their numbers, newest first, however long ago.

        Args:
            named: kind and id of each, in force or removed.
        """

    def version_at(self, moment: float) -> int:
        """The version that was in force at a time (POSIX seconds); 0 before the first."""


class Standing(NamedTuple):
    """What a customer was put under by a person or by offences, beside the policy."""

    customer: str
    state: CustomerState
    """SUSPENDED or TERMINATED."""
    at: float
    who: str
    why: str


class StandingSource(Protocol):
    """The standing of customers, in the runtime state."""

    def of(self, customer: str) -> Standing | None:
        """A customer's, None where nothing is against them.

        Raises:
            StoreUnavailable: it cannot be read now.
        """

    def stamp(self) -> Hashable | None:
        """See `PolicyStore.stamp`."""


class CertificateSource(Protocol):
    """Where certificate documents lie ready. Nothing is downloaded by asking."""

    def version(self, url: str, now: float) -> Hashable | None:
        """A value that changes with what is known of this URL.

        None where nothing is known, or what is known has grown too old at ``now`` (POSIX seconds)
        to be used: then whoever may download should be asked. A download that failed a short
        while ago is known, too: `read` raises its failure.
        """

    def read(self, url: str) -> bytes:
        """The document.

        Raises:
            VerificationFailure: CERTIFICATE_UNAVAILABLE, with what went wrong.
        """


class RevocationSource(Protocol):
    """What the certificate revocation lists say, taken from lists whose signature was checked."""

    def revoked(self, issuer: bytes, serial: int) -> bool:
        """Whether a list names this certificate. Never raises: what hinders it is `trouble`.

        Args:
            issuer: the issuer's name as `core.names.canonical_name` makes it.
            serial: the certificate's serial number.
        """

    def trouble(self, now: float) -> str | None:
        """Why the lists cannot be relied on at ``now`` (none yet, out of date, unreadable), or None."""


class ReplayMemory(Protocol):
    """Remembers which PASSporT came with which call, for all workers of a host."""

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """Whether the token came with no other call before, and from now on with this one.

        Retransmissions and forks of one call are the same call.

        Args:
            token: names the PASSporTs, at most 32 octets.
            call: names the call, likewise.
            until: POSIX seconds after which the token is stale anyway and may be forgotten.
            now: POSIX seconds.

        Raises:
            StoreUnavailable: nothing can be remembered now.
        """


class CallLimiter(Protocol):
    """Counts the calls of customers: over all switches of a host, or over all hosts."""

    def admit(self, request: Request) -> Verdict:
        """Count a call, unless that would be over a bound.

        Raises:
            StoreUnavailable: nobody counts now.
        """

    def ahead(self, customer: str, bounds: tuple[Bound, ...], level: str) -> str:
        """The name (`core.limits.Request`) of a call that was admitted before it came; empty where there is none.

        It is to be `call_key`'s ``invite`` of a new call with a slot whose leaving will be told; no other gets it.
        Never raises, never waits.
        """

    def trouble(self) -> str:
        """Why concurrent calls of this process cannot be counted, as far as that is known; empty where they can."""

    def followed(self, call: str, owner: str = "") -> None:
        """A call that was admitted has left, and goes on until its end is told. Never raises, never waits.

        Args:
            call: its key.
            owner: of whom its end will be known, if not of this process (`stores.presence.leg_owner`).
        """

    def ended(self, call: str) -> None:
        """A call has ended, or has failed; its slot is free. Likewise."""

    def referred(self, call: str, to: str) -> None:
        """A call is to be sent on (`core.limits.Tally.refer`). Likewise."""


class CertificateFetcher(Protocol):
    """Whoever may download: the agent of this host."""

    def alive(self) -> bool:
        """Whether it answers just now."""

    def fetch(self, urls: Sequence[str], timeout: float) -> None:
        """Have documents fetched into the `CertificateSource`; returns when they are there, or not.

        Never raises: afterwards the source is asked again, and says what is known.

        Args:
            urls: certificate URLs that passed `core.x5u.check`.
            timeout: seconds to wait at most.
        """


class RecordSink(Protocol):
    """Takes the records of calls."""

    def write(self, record: Any) -> str | None:
        """Keep the record of one signing or verification; returns before the call leaves.

        Never raises: the call goes on, with or without its record.

        Args:
            record: a `records.call.CallRecord`.

        Returns:
            What went wrong, None where it was written.
        """


class Severity(Enum):
    """How loud a log line is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    __hash__ = object.__hash__  # by identity, as they are compared; see `core.call.CallerHeader`


class Observer(Protocol):
    """Where log lines and counts go: the switch's own log and counters."""

    def log(self, severity: Severity, text: str) -> None:
        """One line, already free of control characters."""

    def count(self, name: str) -> None:
        """One more of ``name``, for instance ``signed_a``."""
