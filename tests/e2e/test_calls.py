"""Whole calls through real Kamailios: the demonstration's scenes, natively and in KEMI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shaken_plugin.lab.demo import Stage, picture, stage
from shaken_plugin.lab.servers import KamailioServer, share
from tests.e2e.conftest import Network, logged

SCENES = 9


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage"), time.time()) as up:
        assert len(up.scenes) == SCENES
        yield up


@pytest.mark.parametrize("index", range(SCENES))
def test_every_scene_of_the_demonstration_comes_out_as_it_must(played: Stage, index: int) -> None:
    seen = played.play(index)
    assert (seen.signed.get("level"), seen.verified.get("verstat"), seen.verified.get("code")) == (
        seen.scene.level,
        seen.scene.verstat,
        seen.scene.code,
    )
    assert seen.as_expected
    assert seen.call.counts.failed == 0
    assert seen.arrived is not None
    expected = 0 if seen.scene.level == "unsigned" else 1
    assert len(seen.arrived.header("Identity")) == expected
    (asserted,) = seen.arrived.header("P-Asserted-Identity") or [""]
    assert f";verstat={seen.scene.verstat}@" in asserted
    assert picture(index, seen, played)


@pytest.mark.parametrize("signer_kemi", [False, True], ids=["native signer", "KEMI signer"])
@pytest.mark.parametrize("verifier_kemi", [False, True], ids=["native verifier", "KEMI verifier"])
def test_both_ways_to_load_do_the_same(network: Network, signer_kemi: bool, verifier_kemi: bool) -> None:
    origin = network.provider("origin")
    target = network.provider("target", spc="123T", policy={})
    target.publish(origin.x5u, origin.credential.chain)
    called = network.called()
    verifier = network.kamailio(target, inside_peer=called.uri, kemi=verifier_kemi)
    signer = network.kamailio(origin, outside_peer=f"sip:127.0.0.1:{verifier.outside_port}", kemi=signer_kemi)
    run = network.call("uac_call", signer.inside_port)
    assert (run.counts.successful, run.counts.failed) == (1, 0), run.errors
    assert logged(signer, run, "sign")["level"] == "A"
    assert logged(verifier, run, "verify")["verstat"] == "TN-Validation-Passed"
    (invite,) = called.invites()
    assert invite.header("P-Asserted-Identity") == [
        "<sip:+12155551212;verstat=TN-Validation-Passed@127.0.0.2;user=phone>"
    ]
    refused = network.call("uac_refused", signer.inside_port, address="127.0.0.6", keys={"identity": "none"})
    assert [m.first_line for m in refused.messages if not m.sent][-1] == "SIP/2.0 403 Customer Suspended"
    assert signer.counters()["refused"] == 1
    assert len(called.invites()) == 1


def test_a_kamailio_of_the_lab_runs_in_a_folder_with_a_long_name(network: Network) -> None:
    """Its control socket is not there: the name of one has room for 104 characters."""
    provider = network.provider("o" * 120)
    assert "kamailio" in network.kamailio(provider).rpc("core.version")


def test_the_account_that_the_script_authenticated_decides(network: Network) -> None:
    config = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
    config = config.replace('python_exec("shaken_sign")', 'python_exec("shaken_sign", "$hdr(X-Account)")', 1)
    config = config.replace(
        "        $du = OUTSIDE_PEER;",
        '        xlog("L_INFO", "xavp $xavp(shaken_as=>level)\\n");\n        $du = OUTSIDE_PEER;',
    )
    file = network.folder / "account.cfg"
    file.write_text(config.replace('loadmodule "ctl.so"', 'loadmodule "xlog.so"\nloadmodule "ctl.so"'))
    policy = {
        "customers": [{"id": "c", "name": "C", "state": "verified", "trunks": [{"id": "t", "users": ["alice"]}]}],
        "rights": [{"customer": "c", "basis": "ported", "numbers": ["+12155551212"]}],
    }
    called = network.called()
    signer = network.kamailio(network.provider("origin", policy=policy), outside_peer=called.uri, config=file)
    scenario = share("sipp_scenarios", "uac_call.xml").read_text("utf-8")
    levels = []
    for account in ("alice", "mallory", None):
        with_account = network.folder / f"{account}.xml"
        header = f"X-Account: {account}\n" if account else ""
        with_account.write_text(scenario.replace("Max-Forwards: 70\nFrom", f"Max-Forwards: 70\n{header}From", 1))
        run = network.call("uac_call", signer.inside_port, file=with_account)
        levels.append(logged(signer, run, "sign")["level"])
    assert levels == ["A", "unsigned", "unsigned"]
    assert "xavp A" in signer.log_text()  # and the script can read the result


def test_a_wrong_setting_stops_the_start_with_a_clear_message(network: Network) -> None:
    provider = network.provider("origin", signing={"freshnes": "60"}, verification={"trust_anchors": []})
    server = KamailioServer(
        "broken",
        network.folder / "broken",
        provider.settings,
        inside_peer="sip:127.0.0.1:9",
        outside_peer="sip:127.0.0.1:9",
    )
    with pytest.raises(Exception, match="ended at once"):
        server.__enter__()
    log = server.log_text()
    assert "signing.freshnes: unknown setting (did you mean freshness?)" in log
    assert "verification.trust_anchors: without any, or a trust_list, nothing can be trusted" in log
    assert not server.running()


def test_a_policy_with_a_mistake_stops_the_start_too(network: Network) -> None:
    policy = {"rights": [{"customer": "nobody", "basis": "assigned", "numbers": ["+12155551212"]}]}
    provider = network.provider("origin", policy=policy)
    server = KamailioServer(
        "broken",
        network.folder / "broken",
        provider.settings,
        inside_peer="sip:127.0.0.1:9",
        outside_peer="sip:127.0.0.1:9",
    )
    with pytest.raises(Exception, match="ended at once"):
        server.__enter__()
    assert "policy.yaml:2:13: rights[0].customer: there is no customer nobody" in server.log_text()


def test_a_store_that_cannot_be_written_prevents_no_start(network: Network) -> None:
    provider = network.provider("origin", store={"path": "missing/folder/policy.db"})
    called = network.called()
    signer = network.kamailio(provider, outside_peer=called.uri)
    run = network.call("uac_call", signer.inside_port)
    assert run.counts.successful == 1, run.errors
    assert logged(signer, run, "sign")["skip"] == "store_unavailable"
    assert called.invites()[-1].header("Identity") == []
    assert "policy not put in force" in signer.log_text()
    assert Path(provider.folder / "missing").exists() is False
