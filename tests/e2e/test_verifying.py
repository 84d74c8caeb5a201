"""The verifying side of a real Kamailio: marks, refusals, Reason headers, foreign verstat."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.directory import file_name
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab.demo import tampered
from shaken_plugin.lab.pki import Defect
from shaken_plugin.lab.provider import CERTIFICATE_HOST, Provider
from shaken_plugin.lab.servers import KamailioServer, free_port, share
from shaken_plugin.lab.sipp import Answerer
from tests.e2e.conftest import Network, logged, pair_of
from tests.e2e.phone import Phone


def header(pair: SigningPair, *, dest: str = "12025550143", age: int = 0, attest: Attest = Attest.A) -> IdentityHeader:
    claims = shaken_claims(
        attest=attest,
        orig=TelephoneNumber("12155551212"),
        dest=TelephoneNumber(dest),
        iat=int(time.time()) - age,
        origid="00000000-0000-4000-8000-000000000000",
    )
    return identity_header(pair, claims)


@dataclass
class Target:
    network: Network
    provider: Provider
    pair: SigningPair
    called: Answerer

    def with_defect(self, defect: Defect) -> SigningPair:
        """A pair of another signer whose certificate has a defect."""
        issued = self.network.authority.issue(spc="666X", now=time.time(), defect=defect)
        url = f"https://{CERTIFICATE_HOST}/{defect.value}.pem"
        self.provider.publish(url, issued.chain)
        signer = load_pair(
            key=self.provider.credential.key, chain=self.provider.credential.chain, x5u=url, live_from=0, spc=None
        )
        if defect in {Defect.NO_TNAUTHLIST, Defect.NO_DIGITAL_SIGNATURE}:
            return signer  # our own loader would refuse the pair; any key serves, the chain fails first
        return load_pair(key=issued.key, chain=issued.chain, x5u=url, live_from=0, spc=None)


@pytest.fixture(scope="module")
def target(shared: Network) -> Target:
    origin = shared.provider("origin")
    target = shared.provider("target", spc="123T", policy={})
    target.publish(origin.x5u, origin.credential.chain)
    return Target(shared, target, pair_of(origin), shared.called())


@pytest.fixture(scope="module")
def strict(target: Target) -> KamailioServer:
    """A verifier that refuses every failure."""
    everything = target.network.provider(
        "strict", spc="123S", policy={}, verification={"reject": [403, 428, 436, 437, 438],
        "certificates": str(target.provider.folder / "certificates")},
    )  # fmt: skip
    return target.network.kamailio(everything, inside_peer=target.called.uri, kemi=True)


def cases(target: Target) -> Iterator[tuple[str, str | None, int, str]]:
    """What is sent, and the status and code it must get."""
    pair = target.pair
    yield "no Identity", None, 428, "no_identity"
    yield "other type", "e30.e30.AAAA;info=<https://a.example.com/x>;ppt=nonesuch", 428, "no_supported_ppt"
    yield "nonsense", "nonsense", 438, "token_malformed"
    yield "tampered", tampered(header(pair, attest=Attest.B)).format(), 438, "signature_invalid"
    yield "stale", header(pair, age=120).format(), 403, "iat_stale"
    yield "future", header(pair, age=-120).format(), 403, "iat_in_future"
    yield "cut and paste", header(pair, dest="12025550199").format(), 438, "dest_mismatch"
    unknown = SigningPair(pair.signer, pair.certificate, "https://unknown.example.com/x.pem", 0)
    # A folder where a document should be: something that can never be read.
    (target.provider.folder / "certificates" / file_name(unknown.x5u)).mkdir(exist_ok=True)
    yield "certificate cannot be had", header(unknown).format(), 436, "certificate_unavailable"
    forbidden = SigningPair(pair.signer, pair.certificate, "http://10.0.0.1/x.pem", 0)
    yield "forbidden URL", header(forbidden).format(), 436, "info_not_allowed"
    untrusted = target.with_defect(Defect.UNTRUSTED)
    yield "untrusted", header(untrusted).format(), 437, "certificate_untrusted"
    yield "expired", header(target.with_defect(Defect.EXPIRED)).format(), 437, "certificate_expired"
    yield "no TNAuthList", header(target.with_defect(Defect.NO_TNAUTHLIST)).format(), 437, "certificate_no_tnauthlist"


def test_every_refusal_has_its_status_phrase_and_one_reason(target: Target, strict: KamailioServer) -> None:
    for title, identity, status, code in cases(target):
        name, keys = ("uac_refused", {"identity": identity}) if identity else ("uac_call", {})
        if identity is None:
            caller = Phone()
            answer = caller.ask(caller.invite(), strict.outside_port)
            caller.close()
            assert answer is not None
            assert answer[0] == status, title
            continue
        run = target.network.call(name, strict.outside_port, keys=keys)
        assert run.counts.successful == 1, (title, run.errors)
        answer_message = [message for message in run.messages if not message.sent][-1]
        assert answer_message.first_line.split()[1] == str(status), title
        verdict = logged(strict, run, "verify")
        assert verdict["code"] == code, title
        reasons = answer_message.header("Reason")
        if code == "no_supported_ppt":
            assert reasons == [], title
            continue
        phrase = answer_message.first_line.split(" ", 2)[2]
        (reason,) = reasons
        assert reason.startswith(f'STIR;cause={status};text="{phrase}"'), title
        assert ('ppi="..' in reason) is (code != "token_malformed"), title
    assert strict.counters()["rejected"] == 12


def test_by_default_the_same_calls_go_on_with_their_verdict(target: Target) -> None:
    verifier = target.network.kamailio(target.provider, inside_peer=target.called.uri)
    for title, identity, _, code in cases(target):
        if identity is None:
            run = target.network.call("uac_call", verifier.outside_port)
        else:
            run = target.network.call("uac_identity", verifier.outside_port, keys={"identity": identity})
        assert (run.counts.successful, run.counts.failed) == (1, 0), title
        verdict = logged(verifier, run, "verify")
        assert verdict["code"] == code, title
        (asserted,) = target.called.invites()[-1].header("P-Asserted-Identity")
        assert f";verstat={verdict['verstat']}@" in asserted, title
        assert verdict["verstat"] != "TN-Validation-Passed", title
        received = [message for message in run.messages if not message.sent]
        ringing = next(message for message in received if message.first_line.startswith("SIP/2.0 180"))
        # RFC 9410: where the call goes on, the Reason travels in a later response, never in 100.
        expected = 0 if code in {"no_identity", "no_supported_ppt"} else 1
        assert len(ringing.header("Reason")) == expected, title
        trying = [message for message in received if message.first_line.startswith("SIP/2.0 100")]
        assert not [message for message in trying if message.header("Reason")], title


def test_a_good_call_passes_the_strict_verifier(target: Target, strict: KamailioServer) -> None:
    value = header(target.pair).format()
    run = target.network.call("uac_identity", strict.outside_port, keys={"identity": value})
    assert (run.counts.successful, run.counts.failed) == (1, 0), run.errors
    invite = target.called.invites()[-1]
    assert invite.header("Identity") == [value]
    assert invite.header("P-Asserted-Identity") == [
        "<sip:+12155551212;verstat=TN-Validation-Passed@127.0.0.2;user=phone>"
    ]
    assert not [message for message in run.messages if message.header("Reason")]


def test_verstat_from_outside_is_stripped_everywhere(target: Target) -> None:
    verifier = target.network.kamailio(target.provider, inside_peer=target.called.uri)
    forged = "sip:+12155551212;verstat=TN-Validation-Passed@a.example"
    lines = (
        f'P-Asserted-Identity: "x;verstat=y" <{forged}>, <tel:+12155551212;VERSTAT=TN-Validation-Passed-A>\r\n'
        f"P-Preferred-Identity: <{forged}>\r\nRemote-Party-ID: <{forged}>;party=calling\r\n"
    )
    caller = Phone()
    answer = caller.ask(caller.invite(lines.encode(), from_value=f"<{forged}>"), verifier.outside_port)
    assert answer is not None
    assert answer[0] == 200
    invite = target.called.invites()[-1]
    asserted = ", ".join(invite.header("P-Asserted-Identity"))
    assert asserted.lower().count("verstat") == 1
    assert "verstat=No-TN-Validation" in asserted
    for name in ("From", "P-Preferred-Identity", "Remote-Party-ID"):
        (value,) = invite.header(name)
        assert "verstat" not in value
        assert "sip:+12155551212@a.example" in value
    # the From of the reply must still be the caller's own dialog: its tag is untouched
    assert f"tag={invite.header('From')[0].split('tag=')[1]}" in answer[1]
    caller.close()


@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_reports_about_our_own_passport_do_not_reach_the_caller(network: Network, kemi: bool) -> None:
    foreign = 'STIR;cause=436;text="Bad Identity Info";ppi="..AAAA"'
    called = network.called("uas_reports", reason=f'SIP;cause=480, STIR;cause=438;text="a, b", {foreign}')
    signer = network.kamailio(network.provider("origin"), outside_peer=called.uri, kemi=kemi)
    caller = Phone()
    request = caller.invite()
    caller.send(request, signer.inside_port)
    seen: dict[int, list[str]] = {}
    while len(seen) < 2 and (data := caller.receive(5)) is not None:
        text = data.decode()
        status = int(text[8:11])
        if status > 100:
            seen[status] = [line[8:] for line in text.split("\r\n") if line.startswith("Reason: ")]
    caller.close()
    assert seen == {183: ["SIP;cause=480", foreign], 480: ["SIP;cause=480", foreign]}
    assert signer.counters()["reported_by_verifier"] == 2


@pytest.mark.parametrize("kemi", [False, True], ids=["native", "KEMI"])
def test_a_replayed_passport_is_seen_by_all_workers_and_a_retransmission_is_none(network: Network, kemi: bool) -> None:
    origin = network.provider("origin")
    target = network.provider("target", spc="123T", policy={}, verification={"replay": "enforce", "reject": [438]})
    target.publish(origin.x5u, origin.credential.chain)
    called = network.called()
    verifier = network.kamailio(target, inside_peer=called.uri, workers=4, kemi=kemi)
    identity = f"Identity: {header(pair_of(origin)).format()}\r\n".encode()
    caller = Phone()
    invite = caller.invite(identity)
    for _ in range(3):
        caller.send(invite, verifier.outside_port)
    answers = [caller.ask(invite, verifier.outside_port)]
    caller.send(invite, verifier.outside_port)
    answers += [caller.ask(caller.invite(identity), verifier.outside_port) for _ in range(8)]
    caller.close()
    assert [answer[0] if answer else None for answer in answers] == [200] + [438] * 8
    assert len(called.invites()) == 1
    counters = verifier.counters()
    assert (counters["verified_passed"], counters["replayed"], counters["failure_replayed"]) == (1, 8, 8)


def test_every_outcome_is_a_metric_for_prometheus(network: Network) -> None:
    provider = network.provider("target", spc="123T", policy={})
    called = network.called()
    port = free_port()
    document = (Path(__file__).parents[2] / "kamailio" / "README.md").read_text("utf-8")
    lines = re.search(r"```\n(listen=tcp:[^\n]*9090.*?)```", document, re.DOTALL)
    assert lines is not None
    listen, rest = lines[1].replace("9090", str(port)).split("\n", 1)
    config = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
    config = config.replace("listen=OUTSIDE_LISTEN", f"listen=OUTSIDE_LISTEN\n{listen}\ntcp_accept_no_cl=yes")
    file = network.folder / "metrics.cfg"
    file.write_text(config.replace("request_route {", f"{rest}\nrequest_route {{", 1))
    verifier = network.kamailio(provider, inside_peer=called.uri, config=file)
    caller = Phone()
    for extra in (b"Identity: nonsense\r\n", b""):
        assert caller.ask(caller.invite(extra), verifier.outside_port)
    caller.close()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    for event, count in (("failure_token_malformed", 1), ("verified_failed", 1), ("verified_none", 1)):
        assert f'kamailio_shaken_events{{event="{event}"}} {count} ' in metrics, metrics
