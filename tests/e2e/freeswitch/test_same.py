"""The same calls through a Kamailio and a FreeSWITCH with the same settings: the same decisions and claims."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from shaken_plugin.authentication import identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab.demo import events, tampered
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import KamailioServer
from tests.e2e.conftest import Network, pair_of
from tests.e2e.freeswitch.conftest import Start, claims
from tests.e2e.freeswitch.party import Message, Party
from tests.e2e.test_verifying import Target, cases, header

SUBSTITUTE = "+12155551299"
CUSTOMER, GATEWAY, STRANGER, PENDING, SUSPENDED = (f"127.0.0.{number}" for number in (2, 3, 4, 5, 6))


@dataclass(frozen=True)
class Case:
    """A call, with what is special about it."""

    address: str = CUSTOMER
    number: str = "+12155551212"
    extra: str = ""
    parts: dict[str, Any] = field(default_factory=dict)


def asserted(number: str) -> str:
    return f"P-Asserted-Identity: <sip:{number}@127.0.0.2>\r\n"


SIGNING = {
    "own number": Case(),
    "letter": Case(number="+13125550142"),
    "expired letter": Case(number="+14155550177"),
    "nobody's number": Case(number="+19175550100"),
    "national format": Case(number="2155551212"),
    "no plus": Case(number="12155551212"),
    "foreign number": Case(number="+442079460123"),
    "name": Case(parts={"from_value": "<sip:alice@127.0.0.2>"}),
    "gateway": Case(GATEWAY, "+442079460123"),
    "gateway with a customer's number": Case(GATEWAY),
    "stranger": Case(STRANGER),
    "pending": Case(PENDING),
    "suspended": Case(SUSPENDED),
    "emergency": Case(parts={"to": "911"}),
    "emergency of the suspended": Case(SUSPENDED, parts={"to": "911"}),
    "callback of the suspended": Case(SUSPENDED, extra="Priority: psap-callback\r\n"),
    "anonymous": Case(parts={"from_value": '"Anonymous" <sip:anonymous@anonymous.invalid>'}),
    "asserted": Case(number="+19175550100", extra=asserted("+12155551213")),
    "asserted beside a name": Case(number="alice", extra=asserted("+12155551213")),
    "anonymous and asserted": Case(
        extra=asserted("+12155551213") + "Privacy: id\r\n",
        parts={"from_value": '"Anonymous" <sip:anonymous@anonymous.invalid>'},
    ),
    "foreign called": Case(parts={"to": "+442079460123"}),
    "national called": Case(parts={"to": "2025550143"}),
    "escaped": Case(number="%2B12155551212"),
    "fresh Date": Case(extra="Date: {now}\r\n"),
    "stale Date": Case(extra="Date: Sat, 13 Nov 2010 23:29:00 GMT\r\n"),
    "another's Identity": Case(extra="Identity: {foreign}\r\n"),
    "own Identity": Case(extra="Identity: {own}\r\n"),
    "broken Identity": Case(extra="Identity: nonsense\r\n"),
}


@dataclass
class Both:
    """The two switches with one policy, one set of keys, one called party."""

    provider: Provider
    kamailio: KamailioServer
    freeswitch: FreeSwitchServer
    carrier: Party

    def play(self, case: Case, *, outside: bool = False) -> Iterator[tuple[dict[str, Any], list[Message], int]]:
        """What each logged, what arrived, and the answer."""
        extra = case.extra
        for server in (self.kamailio, self.freeswitch):
            self.carrier.forget()
            port = server.outside_port if outside else server.inside_port
            with Party(case.address) as caller:
                call = caller.call(port, extra.encode(), number=case.number, **case.parts)
                if server is self.freeswitch and call.final.status < 300:
                    call.bye()
                name = "verify" if outside else "sign"
                found = [event for event in events(server.log_text(), call.call_id) if event["event"] == name]
                yield found[-1], self.carrier.invites(), call.final.status


@pytest.fixture(scope="module")
def both(shared: Network, start: Start, carrier: Party, way: Way) -> Both:
    return behind(shared.provider("origin", verification={"replay": "off"}), shared, start, carrier, way)


@pytest.fixture(scope="module")
def strict(shared: Network, start: Start, carrier: Party, way: Way) -> Both:
    """With every choice of the policy that changes a call or ends it."""
    signing = {
        "unknown_source": "refuse",
        "pending_customer": "refuse",
        "unauthorised": "substitute",
        "substitute": SUBSTITUTE,
        "answers": {"suspended": {"status": 480, "phrase": "Call Accounts"}},
    }
    return behind(shared.provider("strict", signing=signing), shared, start, carrier, way)


def behind(provider: Provider, shared: Network, start: Start, carrier: Party, way: Way) -> Both:
    provider.publish(provider.x5u, provider.credential.chain)
    uri = f"sip:{carrier.target}"
    return Both(
        provider,
        shared.kamailio(provider, inside_peer=uri, outside_peer=uri),
        start(
            provider, inside_peer=carrier.target, outside_peer=carrier.target, from_inside=way.sign,
            from_outside=way.verify,
        ),
        carrier,
    )  # fmt: skip


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from call to call; one may come a second after the other."""
    kept = {name: value for name, value in event.items() if name not in {"call_id", "iat"}}
    if "detail" in kept:
        kept["detail"] = re.sub(r"\d+ s\b", "… s", kept["detail"])
    return of_any_host(kept)


def of_any_host(event: dict[str, Any]) -> dict[str, Any]:
    """A caller without number is named by host, too, and a B2BUA is another host."""
    return event | {"orig": event["orig"].partition("@")[0]} if "orig" in event else event


def said_in(values: list[str]) -> list[dict[str, Any]]:
    """The claims, without the time, and without the host of a caller without number."""
    found = []
    for value in values:
        if value.count(".") < 2 or "info=" not in value:
            continue
        content = claims(value)
        del content["iat"]
        if "uri" in content["orig"]:
            content["orig"] = {"uri": content["orig"]["uri"].partition("@")[0]}
        found.append(content)
    return found


@pytest.mark.parametrize("title", SIGNING)
def test_signing(both: Both, shared: Network, title: str) -> None:
    case = SIGNING[title]
    made = shaken_claims(
        attest=Attest.B,
        orig=TelephoneNumber("12155551212"),
        dest=TelephoneNumber("12025550143"),
        iat=int(time.time()),
        origid="00000000-0000-4000-8000-000000000000",
    )
    foreign = pair_of(Provider.make(shared.folder / "foreign", shared.authority, time.time(), spc="555F"))
    extra = case.extra.format(
        now=format_date(time.time()),
        foreign=identity_header(foreign, made).format(),
        own=identity_header(pair_of(both.provider), made).format(),
    )
    kamailio, freeswitch = both.play(Case(case.address, case.number, extra, case.parts))
    events_of = [comparable(event) for event, _, _ in (kamailio, freeswitch)]
    assert events_of[1] == events_of[0]
    assert freeswitch[2] == kamailio[2]
    assert len(freeswitch[1]) == len(kamailio[1])
    for ours, theirs in zip(freeswitch[1], kamailio[1], strict=True):
        assert said_in(ours.identity()) == said_in(theirs.identity())


STRICT = {
    **{
        title: SIGNING[title]
        for title in ("own number", "expired letter", "gateway", "stranger", "pending", "suspended")
    },
    "nobody's number": Case(number="+19175550199"),
    "nobody's number asserted": Case(extra=asserted("+19175550199")),
    "anonymous and nobody's number asserted": Case(
        extra=asserted("+19175550199") + "Privacy: id\r\n",
        parts={"from_value": '"Anonymous" <sip:anonymous@anonymous.invalid>'},
    ),
    "no number of any plan": Case(number="+10005551212"),
    "emergency with nobody's number": Case(number="+19175550199", parts={"to": "911"}),
    "emergency of a stranger": Case(STRANGER, parts={"to": "911"}),
}


def test_refusals_and_substitution(strict: Both) -> None:
    seen = set()
    for title, case in STRICT.items():
        kamailio, freeswitch = strict.play(case)
        assert comparable(freeswitch[0]) == comparable(kamailio[0]), title
        assert freeswitch[2] == kamailio[2], title
        assert len(freeswitch[1]) == len(kamailio[1]), title
        for ours, theirs in zip(freeswitch[1], kamailio[1], strict=True):
            assert said_in(ours.identity()) == said_in(theirs.identity()), title
            if not title.startswith("anonymous"):  # FreeSWITCH makes From of what is asserted, substituted or not
                assert user(ours.one("From")) == user(theirs.one("From")), title
            if "substituted_for" in kamailio[0]:
                asserted_by = [
                    [user(value) for value in invite.all("P-Asserted-Identity")] for invite in (ours, theirs)
                ]
                assert asserted_by == [[SUBSTITUTE], [SUBSTITUTE]], title
        seen.add(kamailio[0].get("refusal") or ("substituted_for" in kamailio[0] and "substituted"))
    assert {"unknown_source", "pending", "suspended", "do_not_originate", "substituted"} <= seen


def user(value: str) -> str:
    """The user part of an address."""
    return value.partition("sip:")[2].partition("@")[0]


def test_a_date_that_is_none(both: Both) -> None:
    """FreeSWITCH drops it; so the call leaves with one of ours, where a proxy would have to leave it unsigned."""
    kamailio, freeswitch = both.play(Case(extra="Date: yesterday\r\n"))
    assert kamailio[0]["skip"] == "date_invalid"
    (invite,) = freeswitch[1]
    assert invite.one("Date") == format_date(claims(invite.identity()[0])["iat"])


def test_verification_verdicts(both: Both, shared: Network) -> None:
    target = Target(shared, both.provider, pair_of(both.provider), None)  # type: ignore[arg-type]  # no Kamailio is needed
    seen = set()
    good = [
        ("good", header(target.pair).format()),
        ("good of B", header(target.pair, attest=Attest.B).format()),
        ("good of C", header(target.pair, attest=Attest.C).format()),
        ("raised", tampered(header(target.pair, attest=Attest.C)).format()),
    ]
    table = [*good, *((title, identity) for title, identity, _, _ in cases(target))]
    for title, identity in table:
        for more in ("", asserted("+12155551212"), asserted("+12155551299")):
            extra = more + (f"Identity: {identity}\r\n" if identity else "")
            kamailio, freeswitch = both.play(Case(extra=extra), outside=True)
            assert comparable(freeswitch[0]) == comparable(kamailio[0]), title
            marks = [
                invites[0].one("P-Asserted-Identity").replace(";user=phone", "")
                for _, invites, _ in (kamailio, freeswitch)
            ]
            assert marks[1] == marks[0], title
            seen.add((freeswitch[0].get("verstat"), freeswitch[0].get("code")))
    assert len(seen) >= 12, seen
