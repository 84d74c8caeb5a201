"""One call attempt as both services see it: the headers that matter, and where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from shaken_plugin.core.sip import NameAddr, Request, Uri, split_list, unescape
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, UriIdentity, canonical_party
from shaken_plugin.errors import NumberError, SipSyntaxError


class CallerHeader(Enum):
    """Headers a caller's identity can be taken from."""

    ASSERTED = "P-Asserted-Identity"
    FROM = "From"
    PREFERRED = "P-Preferred-Identity"
    REMOTE_PARTY = "Remote-Party-ID"


NAMING: Final = ("Diversion", "History-Info", "P-Charge-Info", "P-Served-User", "Referred-By", "Reply-To")
"""Headers that name other parties, of which some telephones and gateways show one."""

MAX_ASSERTED: Final = 8
"""Most caller identities of one header that are looked at; RFC 3325 §9.1 allows two."""

ANONYMOUS_HOST: Final = "anonymous.invalid"
"""RFC 3323 §4.1.1.3; nobody is authoritative for it (RFC 8224 §11)."""


class Caller(NamedTuple):
    """A caller identity and where in the message it stands."""

    party: Party
    header: CallerHeader
    value: NameAddr


@dataclass(frozen=True, slots=True)
class CallMessage:
    """The parts of a SIP request that signing and verifying need.

    ``callers`` holds raw header values as received, one entry a header line. ``identity``
    likewise. ``source`` is the IP address the request came from; ``user`` the account that the
    switch authenticated, never a name the request merely claims. ``sdp`` is the body where it
    is SDP, needed only for its fingerprints. ``resource_priority`` holds the lines of that header.
    ``diverting`` is the To value (or a URI) of the INVITE as it came to us, of a call that we now
    send on to somebody else, empty where we do not: then ``request_uri`` names the new target.
    """

    method: str
    request_uri: str
    to: str
    callers: dict[CallerHeader, tuple[str, ...]]
    call_id: str = ""
    date: str | None = None
    identity: tuple[str, ...] = ()
    priority: str = ""
    naming: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The values of those headers of `NAMING` that are there."""
    resource_priority: tuple[str, ...] = ()
    sdp: str = ""
    replaces: str = ""
    """The Replaces header: the call in whose place this one comes (RFC 3891)."""
    leg: str = ""
    """The switch's own name of the leg that the call came with, where it has one."""
    counted: str = ""
    """What this very INVITE was counted as before, where it was (`core.limits.call_key`)."""
    slot: str = ""
    """The slot of the call that the switch itself sends on as this one (`core.limits`)."""
    source: str | None = None
    user: str | None = None
    diverting: str = ""
    route: str = ""
    """The route that the call takes, where the switch names it."""
    unreadable: tuple[str, ...] = field(default=())
    """Names of headers whose bytes are not UTF-8."""

    @classmethod
    def from_request(cls, request: Request, *, source: str | None = None, user: str | None = None) -> CallMessage:
        """The call of a whole request, for tools and tests."""
        return cls(
            method=request.method,
            request_uri=request.uri,
            to=request.first("to") or "",
            callers={header: values for header in CallerHeader if (values := request.all(header.value.lower()))},
            call_id=request.first("call-id") or "",
            date=request.first("date"),
            identity=request.all("identity"),
            priority=request.first("priority") or "",
            naming={name: values for name in NAMING if (values := request.all(name.lower()))},
            resource_priority=request.all("resource-priority"),
            sdp=request.body,
            replaces=request.first("replaces") or "",
            source=source,
            user=user,
        )

    @property
    def is_initial_invite(self) -> bool:
        """Whether this begins a call: an INVITE outside a dialog (RFC 3261 §12.2: no To tag)."""
        if self.method != "INVITE":
            return False
        try:
            return NameAddr.parse(self.to).param("tag") is None
        except SipSyntaxError:
            return True

    @property
    def to_tag(self) -> str:
        """The called party's half of the dialog's identity (RFC 3261 §12), empty outside a dialog."""
        return _tag(self.to)

    @property
    def from_tag(self) -> str:
        """The caller's half of the dialog's identity (RFC 3261 §12), empty where there is none."""
        return _tag(self.callers.get(CallerHeader.FROM, ("",))[0])

    def callers_in(self, header: CallerHeader, plan: DialPlan) -> Iterator[Caller]:
        """The caller identities of one header, in order; values that name nobody are left out."""
        count = 0
        for line in self.callers.get(header, ()):
            # RFC 3325 §9.1: PAssertedID-value *(COMMA PAssertedID-value); From has one value,
            # in which a comma may be part of an unquoted display name.
            for value in (line,) if header is CallerHeader.FROM else split_list(line):
                count += 1
                if count > MAX_ASSERTED:
                    return
                try:
                    address = NameAddr.parse(value)
                    yield Caller(canonical_party(Uri.parse(address.uri), plan), header, address)
                except (SipSyntaxError, NumberError):
                    continue

    def caller(self, headers: Iterable[CallerHeader], plan: DialPlan) -> Caller | None:
        """Who calls: the first telephone number of these headers, in their order, else their first URI.

        A URI must not hide a number behind it from the records: that is what a telephone shows.
        """
        named = [caller for header in headers for caller in self.callers_in(header, plan)]
        numbers = (caller for caller in named if isinstance(caller.party, TelephoneNumber))
        return next(numbers, named[0] if named else None)

    def caller_numbers(self, plan: DialPlan) -> dict[TelephoneNumber, CallerHeader]:
        """All telephone numbers that a header gives as the caller's, each with the first that does."""
        found: dict[TelephoneNumber, CallerHeader] = {}
        for header in CallerHeader:
            for caller in self.callers_in(header, plan):
                if isinstance(caller.party, TelephoneNumber):
                    found.setdefault(caller.party, header)
        return found

    def called(self, plan: DialPlan) -> Party | None:
        """The called party in To, None where it names nobody."""
        return _named(self.to, plan)

    def diversion(self, plan: DialPlan) -> tuple[TelephoneNumber, Party] | None:
        """The number that sends the call on and its new target, None where no number does.

        The new target is the Request-URI (RFC 8946 §4.2), for a proxy leaves To as it was; To
        where the Request-URI names nobody, or still the diverting number.
        """
        diverting = _named(self.diverting, plan)
        if not isinstance(diverting, TelephoneNumber):
            return None
        for target in (self.request_party(plan), self.called(plan)):
            if target is not None and target != diverting:
                return diverting, target
        return None

    def request_party(self, plan: DialPlan) -> Party | None:
        """The called party in the Request-URI, None where it names nobody."""
        try:
            return canonical_party(Uri.parse(self.request_uri), plan)
        except (SipSyntaxError, NumberError):
            return None


def _tag(address: str) -> str:
    try:
        return NameAddr.parse(address).param("tag") or ""
    except SipSyntaxError:
        return ""


def _named(value: str, plan: DialPlan) -> Party | None:
    """Whom a name-addr or URI names, None where it is nobody."""
    try:
        return canonical_party(Uri.parse(NameAddr.parse(value).uri), plan)
    except (SipSyntaxError, NumberError):
        return None


def is_anonymous(party: Party) -> bool:
    """Whether the identity is the anonymous URI of RFC 3323."""
    return isinstance(party, UriIdentity) and party.uri.rpartition("@")[2].rpartition(":")[2] == ANONYMOUS_HOST


def is_emergency(request_uri: str, to: str, priority: str, plan: DialPlan) -> bool:
    """Whether a call goes to, or comes back from, an emergency service.

    True for the emergency numbers of the dial plan in the Request-URI or To, for
    ``urn:service:sos`` and its sub-services (RFC 5031 §4.2), and for a callback from a
    public-safety answering point, ``Priority: psap-callback`` (RFC 7090 §5). Such calls are
    never refused, limited, substituted or delayed.
    """
    if priority.strip().lower() == "psap-callback":
        return True
    return any(_reaches_emergency(text, plan) for text in _uris(request_uri, to))


def _uris(request_uri: str, to: str) -> Iterable[str]:
    yield request_uri
    try:
        yield NameAddr.parse(to).uri
    except SipSyntaxError:
        return


_SOS = re.compile(r"\s*urn:service:sos(?![a-z0-9_-])", re.IGNORECASE)
_DIALLED = re.compile(r"\s*(?:tel:|sips?:(?=[^@]*@))([^@;:?]*)", re.IGNORECASE)


def _reaches_emergency(text: str, plan: DialPlan) -> bool:
    # Leniently: a URI that is otherwise broken, or a user part that the settings take for a name
    # everywhere else (numeric_users), must not make an emergency call an ordinary one.
    if _SOS.match(text):
        return True
    dialled = _DIALLED.match(text)
    if dialled is None:
        return False
    try:
        return plan.is_emergency(plan.canonical(unescape(dialled.group(1))))
    except NumberError:
        return False
