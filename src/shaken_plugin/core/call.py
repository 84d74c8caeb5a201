"""One call attempt as both services see it: the headers that matter, and where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
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

    # By identity, as they are compared: the hash that Enum has is a call of Python at each look into a mapping.
    __hash__ = object.__hash__


_IN_ORDER: Final = tuple(CallerHeader)

NAMING: Final = ("Diversion", "History-Info", "P-Charge-Info", "P-Served-User", "Referred-By", "Reply-To")
"""Headers that name other parties, of which some telephones and gateways show one."""

_ASSERTED, _FROM = CallerHeader.ASSERTED, CallerHeader.FROM  # a member of an Enum is looked for at length each time

MAX_ASSERTED: Final = 8
"""Most caller identities of one header that are looked at; RFC 3325 §9.1 allows two."""

ANONYMOUS_HOST: Final = "anonymous.invalid"
"""RFC 3323 §4.1.1.3; nobody is authoritative for it (RFC 8224 §11)."""


SHORT: Final = 256
"""Longest header line, or URI, that what was read in it is remembered of, characters."""


class Caller(NamedTuple):
    """A caller identity and where in the message it stands."""

    party: Party
    header: CallerHeader


CallerLine = tuple[str, str, str, str]
"""Display name, the rest as far as the number goes, its digits, and what stands behind it but for From's tag."""


class Target(NamedTuple):
    """What the Request-URI and To of a call say."""

    uri: Party | None
    """The called party in the Request-URI, None where it names nobody."""
    to: Party | None
    """The one in To, likewise."""
    to_tag: str | None
    """The called party's half of the dialog's identity (RFC 3261 §12), None outside a dialog."""
    emergency: bool
    """Whether one of them reaches an emergency service."""
    usual: Party | None = None
    """Who is called where all of this is as it nearly always is: the same party in both, no dialog, no emergency."""


@dataclass(slots=True)  # not frozen: each call makes one, and setting it up would cost three times as much
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
    unmarked: bool = field(default=False, compare=False)
    """Whether whoever read the headers saw that none of ``callers`` and ``naming`` can hold a verstat; not so any more
    where one of these is changed."""
    _target: tuple[DialPlan, Target] | None = field(default=None, init=False, repr=False, compare=False)
    """What `target` found."""

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
        return self.method == "INVITE" and _tag(self.to) is None

    @property
    def to_tag(self) -> str:
        """The called party's half of the dialog's identity (RFC 3261 §12), empty outside a dialog."""
        return _tag(self.to) or ""

    @property
    def from_tag(self) -> str:
        """The caller's half of the dialog's identity (RFC 3261 §12), empty where there is none."""
        return _tag(self.callers.get(CallerHeader.FROM, ("",))[0]) or ""

    def target(self, plan: DialPlan) -> Target:
        """What the Request-URI and To say, read once."""
        if self._target is not None and self._target[0] is plan:
            return self._target[1]
        found = _usual_target(self.request_uri, self.to, plan)
        if found is None:
            is_short = len(self.request_uri) <= SHORT and len(self.to) <= SHORT
            found = (_any_targets if is_short else _any_target)(self.request_uri, self.to, plan)
        self._target = plan, found
        return found

    def callers_in(self, header: CallerHeader, plan: DialPlan) -> Iterator[Caller]:
        """The caller identities of one header, in order; values that name nobody are left out."""
        count = 0
        for line in self.callers.get(header, ()):
            for party in _parties_in(line, header is CallerHeader.FROM, plan):
                count += 1
                if count > MAX_ASSERTED:
                    return
                if party is not None:
                    yield Caller(party, header)

    def only_caller(self, plan: DialPlan) -> TelephoneNumber | None:
        """The number that P-Asserted-Identity names, or From where that is not there; None where it is not just one.

        Nor is one whose country is not known.
        """
        header = CallerHeader.ASSERTED if self.callers.get(CallerHeader.ASSERTED) else CallerHeader.FROM
        lines = self.callers.get(header, ())
        parties = _parties_in(lines[0], header is CallerHeader.FROM, plan) if len(lines) == 1 else ()
        party = parties[0] if len(parties) == 1 else None
        return party if isinstance(party, TelephoneNumber) and party.is_e164 else None

    def only_line(self, plan: DialPlan) -> CallerLine | None:
        """The line of `only_caller` taken apart, where it is as nearly all are; None of any other."""
        callers = self.callers
        lines = callers.get(_ASSERTED) or callers.get(_FROM, ())
        if len(lines) != 1 or (plain := _CALLING.fullmatch(lines[0])) is None:
            return None
        name, uri, digits, rest, phone, tag = plain.groups()
        if not (plan.numeric_users or phone) or (tag is not None and _ASSERTED in callers):
            return None
        return name, uri, digits, rest

    def caller_lines(self) -> tuple[tuple[CallerHeader, tuple[str, ...]], ...]:
        """All that `callers_in` depends on: calls with the same here have the same callers.

        They are the header lines, From's without its tag, which is another in every call.
        """
        callers = self.callers
        if (written := callers.get(_FROM)) is not None:
            callers = {**callers, _FROM: tuple(map(without_tag, written))}
        return tuple(callers.items())

    def caller(self, headers: Iterable[CallerHeader], plan: DialPlan) -> Caller | None:
        """Who calls: the first telephone number of these headers, in their order, else their first URI.

        A URI must not hide a number behind it from the records: that is what a telephone shows.
        """
        first: Caller | None = None
        for header in headers:
            for caller in self.callers_in(header, plan):
                if isinstance(caller.party, TelephoneNumber):
                    return caller
                first = first or caller
        return first

    def caller_numbers(self, plan: DialPlan) -> dict[TelephoneNumber, CallerHeader]:
        """All telephone numbers that a header gives as the caller's, each with the first that does."""
        found: dict[TelephoneNumber, CallerHeader] = {}
        for header in _IN_ORDER:
            for caller in self.callers_in(header, plan) if header in self.callers else ():
                if isinstance(caller.party, TelephoneNumber):
                    found.setdefault(caller.party, header)
        return found

    def called(self, plan: DialPlan) -> Party | None:
        """The called party in To, None where it names nobody."""
        return self.target(plan).to

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
        return self.target(plan).uri


# --- Reading header lines. What was read is remembered, as far as lines are short: it is the same in the next call.

_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_BEFORE_TAG: Final = ">;tag="


def without_tag(line: str) -> str:
    """A From value that ends in a tag and nothing else without it; any other value as it is.

    It names the same caller: a token (RFC 3261 §25.1) behind a closed address changes nothing before it.
    """
    before, found, tag = line.rpartition(_BEFORE_TAG)
    if not found or len(line) > SHORT or not ((tag.isalnum() and tag.isascii()) or _TOKEN.fullmatch(tag)):
        return line
    return f"{before}>"


def _parties_in(line: str, single: bool, plan: DialPlan) -> tuple[Party | None, ...]:
    """Whom each value of a caller's header line names, None for one that names nobody."""
    if len(line) > SHORT:
        return _parties(line, single, plan)
    return _parties_of_lines(without_tag(line) if single else line, single, plan)


def _parties(line: str, single: bool, plan: DialPlan) -> tuple[Party | None, ...]:
    # RFC 3325 §9.1: PAssertedID-value *(COMMA PAssertedID-value); From has one value,
    # in which a comma may be part of an unquoted display name.
    values = (line,) if single else split_list(line)[: MAX_ASSERTED + 1]
    return tuple(_named(value, plan) for value in values)


_parties_of_lines = lru_cache(4_096)(_parties)


def _usual_target(request_uri: str, to: str, plan: DialPlan) -> Target | None:
    """`_any_target` of a call whose Request-URI and To name the same number in the usual form; None of any other."""
    uri, called = _NUMBER_URI.fullmatch(request_uri), _NUMBER_ALONE.fullmatch(to)
    if uri is None or called is None or uri[1] != called[1] or not (plan.numeric_users or (uri[2] and called[2])):
        return None
    number = TelephoneNumber(uri[1])
    return None if plan.is_emergency(number) else Target(number, number, None, False, number)


def _any_target(request_uri: str, to: str, plan: DialPlan) -> Target:
    emergency = _to_emergency(request_uri, to, plan)
    uri, called, tag = _requested(request_uri, plan), _named(to, plan), _tag(to)
    return Target(uri, called, tag, emergency, called if uri == called and tag is None and not emergency else None)


_any_targets = lru_cache(1_024)(_any_target)


_TAGGED: Final = re.compile(
    r"""(?:"[^"\\\x00-\x1f\x7f]*" ?|[A-Za-z0-9 ]*)<[^<>\x00-\x20\x7f]*>;tag=([A-Za-z0-9.!%*_+`'~-]+)"""
)
"""A From or To as nearly all are; what `NameAddr` makes of one is a tag and nothing else."""


def _tag(address: str) -> str | None:
    if "tag" not in address and "tag" not in address.lower():
        return None
    if len(address) <= SHORT and (plain := _TAGGED.fullmatch(address)) is not None:
        return plain[1]
    try:
        return NameAddr.parse(address).param("tag")
    except SipSyntaxError:
        return None


_NUMBER: Final = r"sips?:[+]([0-9]{1,15})@[A-Za-z0-9._-]{1,255}(?::[0-9]{1,5})?(;user=phone)?"
_NUMBER_URI: Final = re.compile(_NUMBER)
_NUMBER_ALONE: Final = re.compile(rf'(?:"[A-Za-z0-9 ._-]*" ?)?<{_NUMBER}>')
"""A number with its country as nearly all have it; what is read in it at length is the number."""
_CALLING: Final = re.compile(
    r"""((?:"[A-Za-z0-9 ._-]*" ?)?)(<sips?:[+]([0-9]{1,15}))(@[A-Za-z0-9._-]{1,255}(?::[0-9]{1,5})?(;user=phone)?>)"""
    r"""(;tag=[A-Za-z0-9.!%*_+`'~-]+)?"""
)
"""The same of who calls, in From with a tag behind it; apart where verstat goes."""


def _plain(found: re.Match[str] | None, plan: DialPlan) -> TelephoneNumber | None:
    return None if found is None or not (plan.numeric_users or found[2]) else TelephoneNumber(found[1])


def _requested(request_uri: str, plan: DialPlan) -> Party | None:
    """Whom a Request-URI names, None where it is nobody."""
    if (plain := _plain(_NUMBER_URI.fullmatch(request_uri), plan)) is not None:
        return plain
    try:
        return canonical_party(Uri.parse(request_uri), plan)
    except (SipSyntaxError, NumberError):
        return None


def _named(value: str, plan: DialPlan) -> Party | None:
    """Whom a name-addr or URI names, None where it is nobody."""
    if (plain := _plain(_NUMBER_ALONE.fullmatch(value), plan)) is not None:
        return plain
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
    if is_callback(priority):
        return True
    # Of nearly all calls it is known at once that they are none.
    return _usual_target(request_uri, to, plan) is None and _to_emergency(request_uri, to, plan)


def is_callback(priority: str) -> bool:
    """Whether a Priority header is that of a callback from a public-safety answering point (RFC 7090 §5)."""
    return bool(priority) and priority.strip().lower() == "psap-callback"


def _to_emergency(request_uri: str, to: str, plan: DialPlan) -> bool:
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
