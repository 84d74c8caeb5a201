"""The signing side of a real Kamailio: branches, failover, Date, existing headers, observe mode."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.authentication import identity_header
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Attest, Passport, shaken_claims
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab.servers import share
from tests.e2e.conftest import Network, logged, pair_of
from tests.e2e.phone import Phone


def claims(value: str) -> dict[str, Any]:
    return dict(Passport.parse(IdentityHeader.parse(value).digest).claims)


@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_a_failover_branch_carries_exactly_one_identity(network: Network, kemi: bool) -> None:
    first, second = network.called("uas_unavailable"), network.called()
    signer = network.kamailio(network.provider("origin"), outside_peer=first.uri, outside_peer_2=second.uri, kemi=kemi)
    run = network.call("uac_call", signer.inside_port, calls=5)
    assert (run.counts.successful, run.counts.failed) == (5, 0), run.errors
    tokens = [[invite.header("Identity") for invite in peer.invites()] for peer in (first, second)]
    assert [len(values) for peer in tokens for values in peer] == [1] * 10
    assert sorted(tokens[0]) == sorted(tokens[1])  # within 30 s: the same token
    assert signer.counters()["signed_a"] == 5
    assert "branch_without_identity" not in signer.counters()


def test_usual_calls_get_their_headers_without_a_way_into_python(network: Network, tmp_path: Path) -> None:
    called, config = network.called(), tmp_path / "kamailio.cfg"
    shipped = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
    assert shipped.count('python_exec("shaken_branch");') == 1
    config.write_text(shipped.replace('python_exec("shaken_branch");', "return;"))
    signer = network.kamailio(network.provider("origin"), outside_peer=called.uri, config=config, workers=1)
    # The decision is made at the first call and remembered at the second.
    network.call("uac_call", signer.inside_port, calls=6)
    found = [(len(invite.header("Identity")), len(invite.header("Date"))) for invite in called.invites()]
    assert (found[0], found[-3:]) == ((0, 0), [(1, 1)] * 3)
    assert claims(called.invites()[-1].header("Identity")[0])["attest"] == "A"


def test_a_failover_long_after_signing_is_signed_anew(network: Network) -> None:
    first, second = network.called("uas_unavailable_late"), network.called()
    signer = network.kamailio(
        network.provider("origin", signing={"resign_after": 1}), outside_peer=first.uri, outside_peer_2=second.uri
    )
    run = network.call("uac_call", signer.inside_port)
    assert (run.counts.successful, run.counts.failed) == (1, 0), run.errors
    (early,), (late,) = ([invite.header("Identity") for invite in peer.invites()] for peer in (first, second))
    assert len(early) == len(late) == 1
    assert claims(late[0])["iat"] >= claims(early[0])["iat"] + 2
    (invite,) = second.invites()
    assert len(invite.header("Date")) == 1
    assert invite.header("Date") == [format_date(claims(late[0])["iat"])]


def test_a_failover_long_after_signing_replaces_the_date_that_the_caller_sent(network: Network) -> None:
    # With the old Date the token would be the old one, byte for byte; past the window there were none.
    first, second = network.called("uas_unavailable_late"), network.called()
    signer = network.kamailio(
        network.provider("origin", signing={"resign_after": 1}), outside_peer=first.uri, outside_peer_2=second.uri
    )
    caller = Phone()
    time.sleep(-time.time() % 1)  # the age of a signature is in whole seconds: not where one ends
    date = format_date(time.time())
    answer = caller.ask(caller.invite(f"Date: {date}\r\n".encode()), signer.inside_port, seconds=10)
    caller.close()
    assert answer is not None
    assert answer[0] == 200
    (early,), (late,) = first.invites(), second.invites()
    assert early.header("Date") == [date]
    assert len(late.header("Identity")) == len(late.header("Date")) == 1
    assert claims(late.header("Identity")[0])["iat"] >= claims(early.header("Identity")[0])["iat"] + 2
    assert late.header("Date") == [format_date(claims(late.header("Identity")[0])["iat"])]


def test_a_customers_verstat_goes_no_further(network: Network) -> None:
    called = network.called()
    signer = network.kamailio(network.provider("origin"), outside_peer=called.uri)
    lines = [
        "P-Asserted-Identity: <tel:+12155551212;verstat=TN-Validation-Passed>",
        "Diversion: <sip:+12155551213;verstat=TN-Validation-Passed@a.example>",
        *["Remote-Party-ID: <sip:+12155551212@a.example>"] * 33,
        "Remote-Party-ID: <sip:+12155551212;verstat=TN-Validation-Passed@a.example>",
    ]
    caller = Phone()
    assert caller.ask(caller.invite("".join(f"{line}\r\n" for line in lines).encode()), signer.inside_port)
    caller.close()
    (invite,) = called.invites()
    assert len(invite.header("Identity")) == 1
    assert "verstat" not in invite.text


def test_a_failure_route_that_forgets_the_branch_route_is_warned_about(network: Network) -> None:
    config = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
    before, after = config.split("failure_route[NEXT_PEER]")
    file = network.folder / "forgetful.cfg"
    after = after.replace("route(RELAY);", 't_on_reply("REPLY"); t_relay();')
    file.write_text(f"{before}failure_route[NEXT_PEER]{after}")
    first, second = network.called("uas_unavailable"), network.called()
    signer = network.kamailio(
        network.provider("origin"), outside_peer=first.uri, outside_peer_2=second.uri, config=file
    )
    network.call("uac_call", signer.inside_port)
    assert second.invites()[0].header("Identity") == []
    assert signer.counters()["branch_without_identity"] >= 1
    assert "arm the branch route (t_on_branch) before every t_relay" in signer.log_text()


@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_retransmissions_in_and_out_carry_one_identity(network: Network, kemi: bool) -> None:
    silent, caller = Phone("127.0.0.1"), Phone()
    signer = network.kamailio(network.provider("origin"), outside_peer=f"sip:127.0.0.1:{silent.port}", kemi=kemi)
    invite = caller.invite()
    for _ in range(3):  # the caller retransmits; the silent peer makes Kamailio retransmit
        caller.send(invite, signer.inside_port)
        time.sleep(0.2)
    received = []
    while (data := silent.receive(1.2)) is not None:
        received.append(data.decode())
    caller.close()
    silent.close()
    assert len(received) >= 2
    assert {message.count("\r\nIdentity: ") for message in received} == {1}
    assert len({message.split("Identity: ")[1].split("\r\n")[0] for message in received}) == 1
    assert signer.counters()["signed_a"] == 1


@pytest.fixture
def identity(network: Network) -> str:
    """A header that some other provider made."""
    foreign = network.provider("foreign", spc="555F")
    made = shaken_claims(
        attest=Attest.B,
        orig=TelephoneNumber("12155551212"),
        dest=TelephoneNumber("12025550143"),
        iat=int(time.time()),
        origid="00000000-0000-4000-8000-000000000000",
    )
    return identity_header(pair_of(foreign), made).format()


@pytest.mark.parametrize(("mode", "ours"), [("skip", 0), ("add", 1), ("replace_ours", 0)])
def test_another_signers_identity_is_never_removed(network: Network, identity: str, mode: str, ours: int) -> None:
    called = network.called()
    provider = network.provider("origin", signing={"existing_identity": mode})
    signer = network.kamailio(provider, outside_peer=called.uri)
    run = network.call("uac_identity", signer.inside_port, keys={"identity": identity})
    assert run.counts.successful == 1, run.errors
    values = called.invites()[0].header("Identity")
    assert identity in values
    assert len(values) == 1 + ours
    own = identity_header(pair_of(provider), claims(identity)).format()
    run = network.call("uac_identity", signer.inside_port, keys={"identity": own})
    values = called.invites()[1].header("Identity")
    assert (own in values) is (mode != "replace_ours")
    assert len(values) == 1 + ours


@pytest.mark.parametrize(
    ("age", "setting", "signs", "replaces"),
    [(5, "leave", True, False), (90, "leave", False, False), (90, "replace", True, True), (-90, "leave", False, False)],
)
def test_date_fresh_stale_and_replaced(network: Network, age: int, setting: str, signs: bool, replaces: bool) -> None:
    called = network.called()
    signer = network.kamailio(network.provider("origin", signing={"stale_date": setting}), outside_peer=called.uri)
    date = format_date(time.time() - age)
    caller = Phone()
    answer = caller.ask(caller.invite(f"Date: {date}\r\n".encode()), signer.inside_port)
    caller.close()
    assert answer is not None
    assert answer[0] == 200
    (invite,) = called.invites()
    assert len(invite.header("Identity")) == signs
    assert (invite.header("Date") != [date]) is replaces
    assert len(invite.header("Date")) == 1
    if signs:
        assert invite.header("Date") == [format_date(claims(invite.header("Identity")[0])["iat"])]
    else:
        assert '"skip":"date_stale"' in signer.log_text()


def test_observe_mode_leaves_every_byte_that_the_proxy_itself_leaves(network: Network) -> None:
    """The same calls with the plugin observing and with the plugin switched off look alike."""
    seen = {}
    for mode in ("off", "observe"):
        provider = network.provider(
            f"origin-{mode}", signing={"mode": mode, "unknown_source": "refuse"}, verification={"mode": mode}
        )
        called = network.called()
        # One worker takes messages in their order: of a 180 and a 200 sent at one moment, two may take the 200 first,
        # and then a proxy does not forward the 180.
        proxy = network.kamailio(provider, inside_peer=called.uri, outside_peer=called.uri, workers=1)
        runs = [
            network.call("uac_call", proxy.inside_port, address=source, keys={"from": FORGED})
            for source in ("127.0.0.2", "127.0.0.4", "127.0.0.6")
        ]
        runs.append(network.call("uac_identity", proxy.outside_port, keys={"identity": "nonsense", "from": FORGED}))
        assert [run.counts.successful for run in runs] == [1] * 4
        replies = [message.text for run in runs for message in run.messages if not message.sent]
        # A set, because whoever is late is sent a message once more.
        seen[mode] = {same(text) for text in [*replies, *(one.text for one in called.messages() if not one.sent)]}
        assert any(FORGED in text for text in seen[mode])
        if mode == "observe":
            counters = proxy.counters()
            assert counters["signed_a"] == 1
            assert counters["refused"] == 2
            assert counters["failure_token_malformed"] == 1
    assert seen["observe"] == seen["off"]


FORGED = "+12155551212;verstat=TN-Validation-Passed"


def same(text: str) -> str:
    """A message without what differs from run to run: ports, tags, branches, Call-IDs."""
    for varying in (r"127\.0\.0\.\d+:\d+", r"tag=[-\w]+", r"branch=[-.\w]+", r"^Call-ID: .*$"):
        text = re.sub(varying, "…", text, flags=re.MULTILINE)
    return text


def test_no_emergency_call_is_refused_whatever_the_settings(network: Network) -> None:
    called = network.called()
    provider = network.provider(
        "origin",
        signing={"unknown_source": "refuse", "pending_customer": "refuse"},
        verification={"reject": [403, 428, 436, 437, 438]},
        on_fault="refuse",
        store={"path": "policy.db", "when_unavailable": "refuse"},
    )
    proxy = network.kamailio(provider, inside_peer=called.uri, outside_peer=called.uri)
    emergency: list[dict[str, Any]] = [
        {"to": "911"},
        {"to": "933"},
        {"to": "112"},
        {"ruri": "urn:service:sos", "to_value": "<urn:service:sos>"},
        {"ruri": "sip:psap@127.0.0.1", "to_value": "<urn:service:sos.ambulance>"},
        {"extra": b"Priority: psap-callback\r\n"},
    ]
    ordinary: dict[str, Any] = {}
    bad: dict[str, Any] = {"extra": b"Identity: nonsense\r\n"}
    for source in ("127.0.0.4", "127.0.0.5", "127.0.0.6"):
        caller = Phone(source)

        def status(port: int, parts: dict[str, Any], caller: Phone = caller) -> int | None:
            answer = caller.ask(caller.invite(**parts), port)
            return answer[0] if answer else None

        assert status(proxy.inside_port, ordinary) == 403
        assert [status(proxy.inside_port, parts) for parts in emergency] == [200] * 6
        assert status(proxy.outside_port, ordinary) == 428
        assert status(proxy.outside_port, bad) == 438
        for parts in emergency:
            with_bad = {**parts, "extra": parts.get("extra", b"") + b"Identity: nonsense\r\n"}
            assert status(proxy.outside_port, parts) == 200
            assert status(proxy.outside_port, with_bad) == 200
        caller.close()
    assert proxy.counters()["emergency"] == 3 * 18


def test_what_the_log_says_is_masked_unless_asked(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin", log={"trace": True})
    signer = network.kamailio(provider, outside_peer=called.uri)
    run = network.call("uac_call", signer.inside_port)
    line = logged(signer, run, "sign")
    assert line["orig"] == "1215*****12"
    assert "12155551212" not in signer.log_text()
    assert run.counts.successful == 1, run.errors


# --- Calls that are sent on --------------------------------------------------------------------

OWN, OUTSIDE, FORWARDED = "12155551212", "14155550188", "17185550111"
DIVERT = f'$ru = "sip:+{FORWARDED}@127.0.0.1;user=phone"; python_exec("shaken_divert", "$ou");'
UNCONDITIONAL = ('python_exec("shaken_verify", "FROM_OUTSIDE");', DIVERT)
ON_FAILURE = ('python_exec("shaken_verify", "FROM_OUTSIDE");', 't_on_failure("FORWARD");')
FORWARD = f"failure_route[FORWARD] {{ {DIVERT} $du = OUTSIDE_PEER; route(RELAY); }}\n"


@pytest.mark.parametrize("when", ["unconditional", "on failure"])
def test_a_call_that_is_sent_on_carries_the_original_and_a_div_that_is_believed(network: Network, when: str) -> None:
    """Another provider's call to our customer; the script sends it on to a number elsewhere."""
    foreign, origin = network.provider("foreign", spc="555F"), network.provider("origin")
    target = network.provider("target", spc="123T", policy={})
    for provider in (foreign, origin):
        target.publish(provider.x5u, provider.credential.chain)
    origin.publish(foreign.x5u, foreign.credential.chain)
    answering, busy = network.called(), network.called("uas_unavailable")
    verifier = network.kamailio(target, inside_peer=answering.uri)
    onward = f"sip:127.0.0.1:{verifier.outside_port}"
    mark, added = UNCONDITIONAL if when == "unconditional" else ON_FAILURE
    config = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
    assert config.count(mark) == 1
    file = network.folder / "forwarding.cfg"
    file.write_text(config.replace(mark, f"{mark} {added}") + FORWARD)
    proxy = network.kamailio(
        origin, inside_peer=onward if when == "unconditional" else busy.uri, outside_peer=onward, config=file
    )
    made = shaken_claims(
        attest=Attest.A,
        orig=TelephoneNumber(OUTSIDE),
        dest=TelephoneNumber(OWN),
        iat=int(time.time()),
        origid="00000000-0000-4000-8000-000000000000",
    )
    original = identity_header(pair_of(foreign), made).format()
    caller = Phone("127.0.0.4")
    invite = caller.invite(f"Identity: {original}\r\n".encode(), number=f"+{OUTSIDE}", to=f"+{OWN}")
    answer = caller.ask(invite, proxy.outside_port)
    caller.close()
    assert answer is not None
    assert answer[0] == 200
    (arrived,) = answering.invites()
    kept, div = arrived.header("Identity")
    assert kept == original
    assert claims(div) == {
        "dest": {"tn": [FORWARDED]},
        "div": {"tn": OWN},
        "iat": made["iat"],
        "orig": {"tn": OUTSIDE},
    }
    assert "TN-Validation-Passed" in arrived.header("P-Asserted-Identity")[0]
    assert '"result":"passed"' in verifier.log_text()
    assert f'"div":["{OWN}"]' in verifier.log_text()
    assert proxy.counters()["signed_div"] == 1
    if when == "on failure":
        assert [invite.header("Identity") for invite in busy.invites()] == [[original]]
