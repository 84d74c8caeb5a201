"""Another caller ID, in a real Kamailio: each side of a dialog sees one caller, from the first message to the last."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.core.call import NAMING
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.lab.servers import LOOPBACK, free_port, share
from shaken_plugin.lab.sipp import Answerer, Traced
from shaken_plugin.runtime import apply
from tests.agent.host import until
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.party import RINGS, Message, Party
from tests.e2e.test_changes import edit

UNOWNED, OTHER = "+19175550199", "+12155551299"
CALLER_HEADERS = ("From", "P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID", *NAMING)
SUBSTITUTE = {"unauthorised": "substitute", "substitute": OTHER}


def claims(value: str) -> dict[str, Any]:
    return dict(Passport.parse(IdentityHeader.parse(value).digest).claims)


def users(messages: Iterable[Traced], name: str) -> set[str]:
    """Whom a header names in these messages."""
    return {
        user for message in messages for value in message.header(name) for user in re.findall(r"sip:([^@;>]*)@", value)
    }


@pytest.mark.parametrize(
    ("kemi", "tcp", "verified"),
    [(False, False, True), (True, False, False), (False, True, False)],
    ids=["native, verified behind it", "KEMI", "native, TCP"],
)
def test_each_side_sees_one_caller_until_the_end(network: Network, kemi: bool, tcp: bool, verified: bool) -> None:
    """Set-up, ACK, a re-INVITE from either side, and the end; the signature is of what arrives."""
    called = network.called("uas_dialog", arguments=("-t", "t1") if tcp else ())
    origin = network.provider("origin", signing=SUBSTITUTE)
    onward, defines = called.uri, {}
    if verified:
        target = network.provider("target", spc="123T", policy={})
        target.publish(origin.x5u, origin.credential.chain)
        onward = f"sip:{LOOPBACK}:{network.kamailio(target, inside_peer=called.uri).outside_port}"
    if tcp:
        onward, defines = f"{onward};transport=tcp", {"OUTSIDE_LISTEN_TCP": f"tcp:{LOOPBACK}:{free_port()}"}
    signer = network.kamailio(origin, outside_peer=onward, kemi=kemi, defines=defines)
    run = network.call("uac_dialog", signer.inside_port, keys={"from": UNOWNED})
    assert (run.counts.successful, run.counts.failed) == (1, 0), run.errors

    invite = called.invites()[0]
    (identity,) = invite.header("Identity")
    assert claims(identity)["orig"] == {"tn": OTHER[1:]}
    (asserted,) = invite.header("P-Asserted-Identity")
    assert asserted.startswith(f"<sip:{OTHER}{';verstat=TN-Validation-Passed' if verified else ''}@")

    there = [message for message in called.messages() if not message.sent]
    assert {line.partition(" ")[0] for line in (m.first_line for m in there)} == {"INVITE", "ACK", "SIP/2.0"}
    for name in CALLER_HEADERS:
        assert not [value for message in there for value in message.header(name) if UNOWNED[1:] in value]
    from_caller = [message for message in there if not message.first_line.startswith("SIP/2.0")]
    assert len([message for message in from_caller if message.first_line.startswith("INVITE")]) == 2
    assert users(from_caller, "From") == {OTHER}
    back = [message for message in there if message.first_line.startswith("SIP/2.0")]
    assert users(back, "To") == {OTHER}

    here = [message for message in run.messages if not message.sent]
    answers = [message for message in here if message.first_line.startswith("SIP/2.0")]
    assert len(answers) >= 4
    assert users(answers, "From") == {UNOWNED}
    requests = [message for message in here if not message.first_line.startswith("SIP/2.0")]
    assert {message.first_line.partition(" ")[0] for message in requests} == {"INVITE", "ACK", "BYE"}
    assert users(requests, "To") == {UNOWNED}
    # By their tags dialogs are known: they are the same on both sides.
    tags = [{re.findall(r"tag=([^;]+)", m.header("From")[0])[0] for m in side} for side in (answers, from_caller)]
    assert tags[0] == tags[1]
    assert len(tags[0]) == 1
    assert signer.counters()["substituted"] == 1
    assert not [name for name in signer.counters() if name.startswith(("fault_", "substitution_without_"))]


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("    record_route();\n", "substitution_without_record_route"),
        ("route(SUBSTITUTED); ", "substitution_without_dialog"),
        ('python_exec("shaken_dialog");', "substitution_without_dialog"),
    ],
)
def test_what_a_configuration_leaves_out_is_said(network: Network, tmp_path: Path, left_out: str, said: str) -> None:
    shipped = share("kamailio", "kamailio-native.cfg").read_text()
    assert shipped.count(left_out) == 1
    config = tmp_path / "kamailio.cfg"
    config.write_text(shipped.replace(left_out, ""))
    called = network.called("uas_dialog")
    signer = network.kamailio(network.provider("origin", signing=SUBSTITUTE), outside_peer=called.uri, config=config)
    network.call("uac_dialog", signer.inside_port, keys={"from": UNOWNED})
    assert [name for name in signer.counters() if name.startswith("substitution_without_")] == [said]


def cancelled(invite: bytes) -> bytes:
    """The CANCEL of an INVITE (RFC 3261 §9.1)."""
    head = invite.partition(b"\r\n\r\n")[0].split(b"\r\n")
    kept = [line for line in head[1:] if re.match(rb"(?i)(via|from|to|call-id|max-forwards):", line)]
    lines = [head[0].replace(b"INVITE", b"CANCEL", 1), *kept, b"CSeq: 1 CANCEL", b"Content-Length: 0"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_a_call_that_is_given_up_while_it_rings(network: Network) -> None:
    def behave(_request: Message) -> Any:
        return (RINGS, (0.5, b"487 Request Terminated"))

    with Party(behave=behave) as called, Party("127.0.0.2") as caller:
        signer = network.kamailio(
            network.provider("origin", signing=SUBSTITUTE), outside_peer=f"sip:{called.target}", workers=1
        )
        request = caller.request(number=UNOWNED)
        caller.send(request, signer.inside_port)
        caller.wait(lambda message: message.first_line.startswith("SIP/2.0 180"))
        caller.send(cancelled(request), signer.inside_port)
        caller.wait(lambda message: message.first_line.startswith("SIP/2.0 487"))
        called.wait(lambda message: message.method == "ACK")
        assert {message.method for message in called.received} == {"INVITE", "CANCEL", "ACK"}
        assert all(OTHER in message.one("From") for message in called.received)
        assert all(UNOWNED in message.one("From") for message in caller.received)


def test_a_call_that_fails_over_and_is_answered_with_a_failure(network: Network) -> None:
    first, second = network.called("uas_unavailable"), network.called("uas_unavailable")
    signer = network.kamailio(
        network.provider("origin", signing=SUBSTITUTE), outside_peer=first.uri, outside_peer_2=second.uri
    )
    with Party("127.0.0.2") as caller:
        call = caller.call(signer.inside_port, number=UNOWNED)
        assert call.final.status == 500  # a proxy makes that of a 503 (RFC 3261 §16.7)
        assert all(UNOWNED in answer.one("From") for answer in call.answers())
    until(lambda: len(came(first)) == len(came(second)) == 2)
    for peer in (first, second):
        (invite,) = peer.invites()
        assert len(invite.header("Record-Route")) == invite.header("Record-Route")[0].count(";shaken=") == 1
        received = came(peer)
        assert [message.first_line.partition(" ")[0] for message in received] == ["INVITE", "ACK"]
        assert users(received, "From") == {OTHER}
        assert len(invite.header("From")) == len(invite.header("Identity")) == 1
        assert claims(invite.header("Identity")[0])["orig"] == {"tn": OTHER[1:]}


def came(peer: Answerer) -> list[Traced]:
    return [message for message in peer.messages() if not message.sent]


def test_where_observed_nothing_changes_on_the_wire(network: Network) -> None:
    settings = {**SUBSTITUTE, "mode": "observe"}
    shown = (
        f"P-Asserted-Identity: <sip:{UNOWNED}@h>, <tel:{UNOWNED}>\r\nRemote-Party-ID: <sip:{UNOWNED}@h>\r\n"
        f"Diversion: <sip:{UNOWNED}@h>\r\n"
    )
    with Party() as called, Party("127.0.0.2") as caller:
        signer = network.kamailio(network.provider("origin", signing=settings), outside_peer=f"sip:{called.target}")
        request = Message(caller.request(shown.encode(), number=UNOWNED))
        assert caller.call(signer.inside_port, raw=request.raw).final.status == 200
        arrived = called.invite()
    for name in (*CALLER_HEADERS, "Identity", "Date"):
        assert arrived.all(name) == request.all(name), name
    assert ";shaken=" not in arrived.text
    assert signer.counters()["substituted"] == 1  # as it would have been


def test_a_native_script_asks_for_it_once_the_settings_sign(network: Network) -> None:
    """Where they do not, later requests are not looked at."""
    provider = network.provider("origin", signing={**SUBSTITUTE, "mode": "observe"})
    with Party() as called, Party("127.0.0.2") as caller:
        signer = network.kamailio(provider, outside_peer=f"sip:{called.target}", workers=1)
        caller.call(signer.inside_port, number=UNOWNED).bye()
        assert "value: 1" in signer.rpc("pv.shvGet", "shaken_off")
        edit(provider, lambda data: data["signing"].update(mode="active"))
        apply(provider.settings, time.time())
        signer.rpc("app_python.reload")
        caller.call(signer.inside_port, number=UNOWNED).bye()
        assert "value: 0" in signer.rpc("pv.shvGet", "shaken_off")
    signed = [message for message in called.received if OTHER in message.one("From")]
    assert [message.method for message in signed] == ["INVITE", "ACK", "BYE"]


@pytest.mark.parametrize("places", [["asserted"], ["from"]])
def test_places_by_setting(network: Network, places: list[str]) -> None:
    called = network.called()
    choices = {**SUBSTITUTE, "substitute_in": places, "substitute_host": "sip.example.net"}
    signer = network.kamailio(network.provider("origin", signing=choices), outside_peer=called.uri)
    network.call("uac_call", signer.inside_port, keys={"from": UNOWNED, "pai_user": UNOWNED})
    (invite,) = called.invites()
    written = f"<sip:{OTHER}@sip.example.net;user=phone>"
    assert invite.header("P-Asserted-Identity") == ([written] if places == ["asserted"] else [])
    assert (UNOWNED in invite.header("From")[0]) == (places == ["asserted"])
    assert (written in invite.header("From")[0]) == (places == ["from"])
    assert claims(invite.header("Identity")[0])["orig"] == {"tn": OTHER[1:]}
