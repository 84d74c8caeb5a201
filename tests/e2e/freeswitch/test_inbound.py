"""Calls from outside: verified as received, marked once, or refused with one Reason."""

from __future__ import annotations

import re

import pytest

from shaken_plugin.authentication import SigningPair
from shaken_plugin.core.passport import Attest
from shaken_plugin.lab.demo import tampered
from shaken_plugin.lab.freeswitch import FreeSwitchServer, Way
from tests.e2e.conftest import Network, pair_of
from tests.e2e.freeswitch.conftest import Start, action, choose, said, when
from tests.e2e.freeswitch.party import Party
from tests.e2e.test_verifying import Target, cases, header

NUMBER = "+12155551212"
PASSED, FAILED, NONE = "TN-Validation-Passed", "TN-Validation-Failed", "No-TN-Validation"


@pytest.fixture(scope="module")
def target(shared: Network) -> Target:
    origin = shared.provider("origin")
    target = shared.provider("target", spc="123T", policy={})
    target.publish(origin.x5u, origin.credential.chain)
    return Target(shared, target, pair_of(origin), None)  # type: ignore[arg-type]  # no Kamailio is needed


@pytest.fixture(scope="module")
def pair(target: Target) -> SigningPair:
    return target.pair


VARIABLES = (
    "sip_verstat",
    "sip_verstat_detailed",
    "shaken_vs_attest",
    "shaken_vs_orig",
    "shaken_vs_spc",
    "shaken_vs_code",
)


@pytest.fixture(scope="module")
def switch(start: Start, target: Target, carrier: Party, way: Way) -> FreeSwitchServer:
    """Verifies what comes from outside; in some extensions before something else than a plain bridge."""
    inside = f"sofia/inside/$1@{carrier.target}"
    tell = "".join(action("set", f"sip_h_X-{name}=${{{name}}}") for name in VARIABLES)
    extensions = [
        when("variables", way.verify + tell + action("bridge", inside)),
        when("gateway", way.verify + action("bridge", "sofia/gateway/inner/$1")),
        when("twice", way.verify + way.verify + action("bridge", inside)),
        when("unverified", action("bridge", inside)),
    ]
    return start(
        target.provider,
        inside_peer=carrier.target,
        outside_peer=carrier.target,
        from_outside=way.verify,
        gateways={"inner": {}},
        dialplan={"outside": "".join(extensions)},
    )


def field(value: str, name: str = "Identity") -> bytes:
    return f"{name}: {value}\r\n".encode()


def test_a_good_call_is_marked_once(switch: FreeSwitchServer, pair: SigningPair, caller: Party, carrier: Party) -> None:
    value = header(pair).format()
    assert caller.ask(switch.outside_port, field(value)).status == 200
    invite = carrier.invite()
    assert invite.one("P-Asserted-Identity") == f"<sip:{NUMBER};verstat={PASSED}@127.0.0.2;user=phone>"
    assert invite.all("Remote-Party-ID") == []
    assert invite.identity() == [value]
    assert said(switch, "verify")[-1]["verstat"] == PASSED


def test_beside_a_gateway_too(switch: FreeSwitchServer, pair: SigningPair, caller: Party, carrier: Party) -> None:
    assert caller.ask(switch.outside_port, field(header(pair).format()) + choose("gateway")).status == 200
    invite = carrier.invite()
    assert f"verstat={PASSED}@" in invite.one("P-Asserted-Identity")
    assert invite.all("Remote-Party-ID") == []


def test_a_leg_that_comes_by_again_is_judged_once(
    switch: FreeSwitchServer, pair: SigningPair, caller: Party, carrier: Party
) -> None:
    before = len(said(switch, "verify"))
    assert caller.ask(switch.outside_port, field(header(pair).format()) + choose("twice")).status == 200
    assert len(carrier.invite().all("P-Asserted-Identity")) == 1
    assert len(said(switch, "verify")) == before + 1


def test_what_the_dialplan_learns(switch: FreeSwitchServer, pair: SigningPair, caller: Party, carrier: Party) -> None:
    def learnt(extra: bytes) -> dict[str, str]:
        carrier.forget()
        assert caller.ask(switch.outside_port, extra + choose("variables")).status == 200
        invite = carrier.invite()
        return {name: (invite.all(f"X-{name}") or [""])[0] for name in VARIABLES}

    good = dict(zip(VARIABLES, (PASSED, "passed", "A", NUMBER[1:], "709J", ""), strict=True))
    assert learnt(field(header(pair).format())) == good
    bad = learnt(field(tampered(header(pair, attest=Attest.B)).format()))
    assert (bad["sip_verstat"], bad["sip_verstat_detailed"]) == (FAILED, "signature_invalid")
    none = learnt(b"")
    assert (none["sip_verstat"], none["sip_verstat_detailed"]) == (NONE, "no_identity")


@pytest.mark.parametrize("title", ["compact", "folded", "second of two", "compact after full", "lower case", "spaces"])
def test_every_way_to_write_it_is_verified(
    switch: FreeSwitchServer, pair: SigningPair, caller: Party, carrier: Party, title: str
) -> None:
    value = header(pair).format()
    other = "e30.e30.AAAA;info=<https://a.example.com/x>;ppt=nonesuch"
    extra = {
        "compact": field(value, "y"),
        "folded": field(value.replace(";info", "\r\n ;info").replace(";alg", "\r\n\t;alg")),
        "second of two": field(other) + field(value),
        "compact after full": field(other) + field(value, "y"),
        "lower case": field(value, "identity"),
        "spaces": b"Identity :  " + value.encode() + b" \r\n",
    }[title]
    assert caller.ask(switch.outside_port, extra).status == 200
    invite = carrier.invite()
    assert f"verstat={PASSED}@" in invite.one("P-Asserted-Identity"), said(switch, "verify")[-1]
    tokens = [text.partition(";")[0].strip() for text in invite.identity()]
    expected = [*([other.partition(";")[0]] if "two" in title or "after" in title else []), value.partition(";")[0]]
    assert tokens == expected


MARK = ";verstat=TN-Validation-Passed"
FORGED = {
    "PAI": b"P-Asserted-Identity: <sip:+12155551212;verstat=TN-Validation-Passed@a.example>\r\n",
    "PAI escaped": b"P-Asserted-Identity: <sip:+12155551212%3Bverstat=TN-Validation-Passed@a.example>\r\n",
    "PAI tel": b"P-Asserted-Identity: <tel:+12155551212;verstat=TN-Validation-Passed>\r\n",
    "PAI two": (
        b'P-Asserted-Identity: "x;verstat=y" <sip:+12155551212;verstat=TN-Validation-Passed@a>,'
        b" <tel:+12155551212;VERSTAT=TN-Validation-Passed-A>\r\n"
    ),
    "PAI name": b'P-Asserted-Identity: "x;verstat=TN-Validation-Passed" <sip:+12155551212@a.example>\r\n',
    "PPI": b"P-Preferred-Identity: <sip:+12155551212;verstat=TN-Validation-Passed@a.example>\r\n",
    "RPID": b"Remote-Party-ID: <sip:+12155551212;verstat=TN-Validation-Passed@a.example>;party=calling\r\n",
    "Served": b"P-Served-User: <sip:+12155551212;verstat=TN-Validation-Passed@a.example>\r\n",
    "Diversion": b"Diversion: <sip:+12155551213;verstat=TN-Validation-Passed@a.example>\r\n",
    "History": b"History-Info: <sip:+12155551213;verstat=TN-Validation-Passed@a.example>;index=1\r\n",
    "Referred": b"Referred-By: <sip:+12155551213;verstat=TN-Validation-Passed@a.example>\r\n",
    "Reply-To": b"Reply-To: <sip:+12155551213;verstat=TN-Validation-Passed@a.example>\r\n",
}


@pytest.mark.parametrize("name", [*FORGED, "From", "From escaped", "From name"])
def test_verstat_from_outside_does_not_get_through(
    switch: FreeSwitchServer, caller: Party, carrier: Party, name: str
) -> None:
    from_value = {
        "From": f"<sip:{NUMBER}{MARK}@a.example>",
        "From escaped": f"<sip:{NUMBER}%3Bverstat%3DTN-Validation-Passed@a.example>",
        "From name": f'"x{MARK}" <sip:{NUMBER}@a.example>',
    }.get(name, f"<sip:{NUMBER}@a.example>")
    assert caller.ask(switch.outside_port, FORGED.get(name, b""), from_value=from_value).status == 200
    text = carrier.invite().text
    assert text.lower().count("verstat") == 1, text
    assert "verstat=No-TN-Validation" in ", ".join(carrier.invite().all("P-Asserted-Identity"))


@pytest.fixture(scope="module")
def strict(start: Start, target: Target, carrier: Party, way: Way) -> FreeSwitchServer:
    everything = target.network.provider(
        "strict", spc="123S", policy={}, verification={"reject": [403, 428, 436, 437, 438],
        "certificates": str(target.provider.folder / "certificates")},
    )  # fmt: skip
    return start(everything, inside_peer=carrier.target, from_outside=way.verify)


def test_every_refusal_has_its_status_phrase_and_one_reason(
    target: Target, strict: FreeSwitchServer, caller: Party, carrier: Party
) -> None:
    seen = set()
    for title, identity, status, code in cases(target):
        answer = caller.ask(strict.outside_port, field(identity) if identity else b"")
        seen.add(answer.status)
        assert answer.status == status, title
        verdict = said(strict, "verify")[-1]
        assert verdict["code"] == code, title
        if code in {"no_identity", "no_supported_ppt"}:
            assert [reason for reason in answer.all("Reason") if "STIR" in reason] == [], title
            continue
        (reason,) = answer.all("Reason")
        assert reason.startswith(f'STIR;cause={status};text="{answer.phrase}"'), title
        assert ('ppi="..' in reason) is (code != "token_malformed"), title
    assert seen == {403, 428, 436, 437, 438}
    assert carrier.invites() == []
    assert caller.ask(strict.outside_port, field(header(target.pair).format())).status == 200


def test_by_default_the_same_calls_go_on_with_their_verdict(
    target: Target, switch: FreeSwitchServer, caller: Party, carrier: Party
) -> None:
    for title, identity, _, code in cases(target):
        carrier.forget()
        assert caller.ask(switch.outside_port, field(identity) if identity else b"").status == 200, title
        verdict = said(switch, "verify")[-1]
        assert verdict["code"] == code, title
        assert verdict["verstat"] != PASSED
        assert f";verstat={verdict['verstat']}@" in carrier.invite().one("P-Asserted-Identity"), title


def test_add_asserted_and_mark_from(start: Start, target: Target, carrier: Party, caller: Party, way: Way) -> None:
    provider = target.network.provider(
        "marks", spc="123M", policy={}, verification={"add_asserted": False, "mark_from": True, "verstat_level": True,
        "certificates": str(target.provider.folder / "certificates")},
    )  # fmt: skip
    switch = start(provider, inside_peer=carrier.target, from_outside=way.verify)
    value = field(header(target.pair).format())
    assert caller.ask(switch.outside_port, value).status == 200
    invite = carrier.invite()
    assert f"<sip:{NUMBER};verstat={PASSED}-A@" in invite.one("From")
    assert invite.all("P-Asserted-Identity") == []
    carrier.forget()
    asserted = f"P-Asserted-Identity: <sip:{NUMBER}@a.example>\r\n".encode()
    assert caller.ask(switch.outside_port, value + asserted).status == 200
    invite = carrier.invite()
    assert f"<sip:{NUMBER};verstat={PASSED}-A@" in invite.one("From")
    assert invite.one("P-Asserted-Identity") == f"<sip:{NUMBER};verstat={PASSED}-A@a.example>"


def test_a_profile_that_does_not_parse_all_headers(
    start: Start, target: Target, carrier: Party, caller: Party, way: Way
) -> None:
    """What that hides: the compact name, and all of an asserted identity but its number."""
    switch = start(
        target.provider,
        inside_peer=carrier.target,
        from_outside=way.verify,
        profile={"parse-all-invite-headers": "false"},
    )
    asserted = f"P-Asserted-Identity: <sip:{NUMBER}{MARK}@a.example>\r\n".encode()
    for extra, verstat in (
        (field(header(target.pair).format()), PASSED),
        (asserted + field(header(target.pair).format()), PASSED),
        (asserted, NONE),
        (field(header(target.pair).format(), "y"), NONE),
    ):
        carrier.forget()
        assert caller.ask(switch.outside_port, extra).status == 200
        (mark,) = carrier.invite().all("P-Asserted-Identity")
        assert mark.startswith(f"<sip:{NUMBER};verstat={verstat}@"), mark
        assert carrier.invite().text.count("verstat") == 1


def test_the_mark_is_not_told_to_the_outside(
    switch: FreeSwitchServer, pair: SigningPair, caller: Party, carrier: Party
) -> None:
    """A later INVITE towards the caller has nothing of what came from there, or was added for the inside."""
    caller.call(switch.outside_port, field(header(pair).format()))
    carrier.wait(lambda message: message.method == "ACK")
    uuid = re.findall(r"New Channel sofia/outside\S+ \[([-0-9a-f]+)\]", switch.log_text())[-1]
    switch.api(f"uuid_hold {uuid}")
    (again,) = caller.wait(lambda message: message.method == "INVITE")
    assert again.identity() == again.all("P-Asserted-Identity") == []
    assert "verstat" not in again.text
    switch.api("hupall")
