"""What changes while a real Kamailio runs: policy, settings, keys, and a store that fails."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from shaken_plugin import runtime
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.errors import FileProblems
from shaken_plugin.lab.provider import CERTIFICATE_HOST, Provider, dump, sample_policy
from tests.e2e.conftest import Network, logged
from tests.e2e.phone import Phone


def edit(provider: Provider, change: Any) -> None:
    """Change the settings file of a provider."""
    data = yaml.safe_load(provider.settings.read_text("utf-8"))
    change(data)
    dump(provider.settings, data)


def test_a_policy_change_decides_the_next_call_in_every_worker_without_reload(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    signer = network.kamailio(provider, outside_peer=called.uri, workers=4)
    run = network.call("uac_call", signer.inside_port, calls=20, rate=100)
    assert run.counts.successful == 20, run.errors
    policy = sample_policy(time.time())
    policy["rights"] = []
    dump(provider.folder / "policy.yaml", policy)
    runtime.apply(provider.settings, time.time())
    network.call("uac_call", signer.inside_port, calls=20, rate=100)
    counters = signer.counters()
    assert (counters["signed_a"], counters["signed_b"]) == (20, 20)


def test_a_policy_with_a_mistake_leaves_the_old_one_in_force(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    signer = network.kamailio(provider, outside_peer=called.uri)
    policy = sample_policy(time.time())
    policy["customers"][0]["state"] = "verifed"
    dump(provider.folder / "policy.yaml", policy)
    with pytest.raises(FileProblems, match="did you mean verified"):
        runtime.apply(provider.settings, time.time())
    signer.rpc("app_python.reload")
    run = network.call("uac_call", signer.inside_port)
    assert logged(signer, run, "sign")["level"] == "A"


def test_settings_are_taken_at_a_reload_by_every_worker(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    signer = network.kamailio(provider, outside_peer=called.uri, workers=3)
    network.call("uac_call", signer.inside_port)
    edit(provider, lambda data: data["signing"].update(quote_ppt=False, existing_identity="add"))
    runtime.apply(provider.settings, time.time())
    for name in ("shaken.yaml", "policy.yaml"):
        (provider.folder / name).unlink()  # a worker parses no YAML
    signer.rpc("app_python.reload")
    # A worker that finds another one reloading goes on with the old script for that one call.
    network.call("uac_call", signer.inside_port, calls=10, rate=20)
    run = network.call("uac_call", signer.inside_port, calls=30, rate=100)
    assert (run.counts.successful, run.counts.failed) == (30, 0), run.errors
    tokens = [invite.header("Identity")[0] for invite in called.invites()]
    assert tokens[0].endswith('ppt="shaken"')
    assert all(token.endswith("ppt=shaken") for token in tokens[-30:])
    assert "settings reloaded, policy version 2" in signer.log_text()


def test_a_reload_that_cannot_be_used_keeps_the_old_settings(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    signer = network.kamailio(provider, outside_peer=called.uri)
    (provider.folder / "signing.key").unlink()
    signer.rpc("app_python.reload")
    run = network.call("uac_call", signer.inside_port, calls=10, rate=50)
    assert (run.counts.successful, run.counts.failed) == (10, 0), run.errors
    assert signer.counters()["signed_a"] == 10
    assert "reload refused, the old settings stay" in signer.log_text()
    assert "signing.credentials[0].pairs[0].key" in signer.log_text()


def test_a_new_pair_goes_live_on_all_workers_at_the_stated_time(network: Network) -> None:
    origin = network.provider("origin")
    target = network.provider("target", spc="123T", policy={})
    target.publish(origin.x5u, origin.credential.chain)
    called = network.called()
    verifier = network.kamailio(target, inside_peer=called.uri)
    signer = network.kamailio(origin, outside_peer=f"sip:127.0.0.1:{verifier.outside_port}", workers=4)

    issued = network.authority.issue(spc="709J", now=time.time())
    (origin.folder / "next.key").write_bytes(issued.key)
    (origin.folder / "next.pem").write_bytes(issued.chain)
    new_url = f"https://{CERTIFICATE_HOST}/709J-next.pem"
    target.publish(new_url, issued.chain)
    live_from = int(time.time()) + 3
    pair = {
        "key": "file:next.key",
        "chain": "file:next.pem",
        "x5u": new_url,
        "live_from": datetime.fromtimestamp(live_from, UTC).isoformat(),
    }
    edit(origin, lambda data: data["signing"]["credentials"][0]["pairs"].append(pair))
    runtime.apply(origin.settings, time.time())
    signer.rpc("app_python.reload")
    run = network.call("uac_call", signer.inside_port, calls=120, rate=20)
    assert (run.counts.successful, run.counts.failed) == (120, 0), run.errors

    used: dict[str, list[int]] = {origin.x5u: [], new_url: []}
    for invite in called.invites():
        header = IdentityHeader.parse(invite.header("Identity")[0])
        assert header.info is not None
        used[header.info].append(Passport.parse(header.digest).claims["iat"])
        assert "verstat=TN-Validation-Passed" in invite.header("P-Asserted-Identity")[0]
    assert len(used[origin.x5u]) + len(used[new_url]) == 120
    assert used[origin.x5u]
    assert max(used[origin.x5u]) < live_from <= min(used[new_url])


def test_a_certificate_that_ends_is_warned_about_before_and_signs_nothing_after(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    now = time.time()
    issued = network.authority.issue(
        spc="709J", now=now, lifetime=timedelta(hours=1, seconds=15), age=timedelta(hours=1)
    )
    (provider.folder / "signing.key").write_bytes(issued.key)
    (provider.folder / "chain.pem").write_bytes(issued.chain)
    signer = network.kamailio(provider, outside_peer=called.uri)
    run = network.call("uac_call", signer.inside_port)
    assert logged(signer, run, "sign")["level"] == "A"
    assert signer.counters()["credential_expiring"] == 1
    assert "no certificate is valid beyond 0.0 hours" in signer.log_text()
    time.sleep(max(0.0, now + 16.5 - time.time()))
    run = network.call("uac_call", signer.inside_port)
    assert run.counts.successful == 1, run.errors
    assert logged(signer, run, "sign")["skip"] == "credential_not_valid"
    assert called.invites()[-1].header("Identity") == []


def break_store(provider: Provider) -> None:
    """Destroy the store under the feet of its readers, so that none can answer from its cache."""
    runtime.apply(provider.settings, time.time())  # every reader must look again
    for name in ("policy.db", "policy.db-wal"):
        path = provider.folder / name
        if path.exists():
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(b"not a database " * 1000)


def mend_store(provider: Provider) -> None:
    """Put a good store in its place."""
    for path in provider.folder.glob("policy.db*"):
        path.unlink()
    runtime.apply(provider.settings, time.time())


@pytest.mark.parametrize(
    ("mode", "known", "strange"),
    [("last_known", "A", "unsigned"), ("unsigned", "unsigned", "unsigned"), ("refuse", "refused", "refused")],
)
def test_a_destroyed_store_leaves_calls_in_the_declared_mode_until_it_is_mended(
    network: Network, mode: str, known: str, strange: str
) -> None:
    called = network.called()
    provider = network.provider("origin", store={"path": "policy.db", "when_unavailable": mode})
    signer = network.kamailio(provider, outside_peer=called.uri, workers=1)
    caller = Phone()

    def outcome(number: str = "+12155551212", **parts: Any) -> str:
        answer = caller.ask(caller.invite(number=number, **parts), signer.inside_port)
        assert answer is not None
        if answer[0] == 500:  # our fault, not the caller's
            return "refused"
        assert answer[0] == 200
        values = called.invites()[-1].header("Identity")
        return str(Passport.parse(IdentityHeader.parse(values[0]).digest).claims["attest"]) if values else "unsigned"

    assert outcome() == "A"
    break_store(provider)
    assert outcome() == known
    assert outcome("+12155551213") == strange
    assert outcome(to="911") in {"unsigned", "A"}
    assert signer.counters()["unsigned_store_unavailable"] >= 1
    mend_store(provider)
    assert outcome() == "A"
    assert outcome("+12155551213") == "A"
    caller.close()
