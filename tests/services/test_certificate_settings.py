"""Settings about certificates put together: folder, cache, agent, trust lists, revocation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin import runtime
from shaken_plugin.certs.cache import CacheWriter, StoredDocument, TrustListRow
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.cli import main
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.yamlfile import render
from shaken_plugin.errors import FailureCode
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider, dump
from tests.conftest import NOW
from tests.services.builders import call, identity_of

X5U = "https://certificates.example.com/709J.pem"
LISTED = {"url": "https://authority.example.com/list", "signers": ["file:anchors.pem"]}


def build(folder: Path, **sections: Any) -> tuple[runtime.Services, list[str]]:
    problems: list[str] = []
    data = {
        "signing": {"mode": "off"},
        **sections,
        "verification": {
            "cache": str(folder / "certificates.sqlite"),
            "certificates": str(folder / "certificates"),
            **sections.get("verification", {}),
        },
    }
    text = json.dumps(data).replace("file:", f"file:{folder}/")
    settings = Settings.model_validate(json.loads(text))
    services = runtime.build(settings, NOW, lambda place, told: problems.append(f"{render(place)}: {told}"))
    return services, problems


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Path:
    (tmp_path / "anchors.pem").write_bytes(authority.root_pem)
    return tmp_path


def test_a_trust_list_that_the_agent_keeps_is_what_calls_are_verified_by(folder: Path, authority: Authority) -> None:
    verification = {"trust_list": "us"}
    services, problems = build(folder, verification=verification, trust_lists={"us": LISTED})
    assert problems == []
    assert services.verification is not None
    issued = authority.issue(spc="709J", now=NOW)
    pair = load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0.0, spc=None)
    message = call(identity=(identity_of(pair),))
    writer = CacheWriter(folder / "certificates.sqlite")
    writer.put([StoredDocument(X5U, issued.chain, NOW, NOW + 100, NOW + 200)])
    verdict = services.verification.verify(message, NOW)
    assert verdict.failure is FailureCode.TRUST_LIST_UNAVAILABLE
    der = authority.root.public_bytes(Encoding.DER)
    writer.put_trust_list(TrustListRow("us", 1, NOW + 100, NOW + 100, (der,)))
    assert services.verification.verify(message, NOW + 2).failure is None
    other = Authority.new(NOW).root.public_bytes(Encoding.DER)
    writer.put_trust_list(TrustListRow("us", 2, NOW + 100, NOW + 100, (other,)))
    assert services.verification.verify(message, NOW + 4).failure is FailureCode.CERTIFICATE_UNTRUSTED
    assert services.warnings == (
        "revocation is not checked: the trust list names no signers of revocation lists (crl.signers)",
    )


@pytest.mark.alone
def test_revocation_and_agent_are_there_when_settings_want_them(folder: Path) -> None:
    lists = {"us": {**LISTED, "crl": {"urls": ["http://a.example.com/crl"], "signers": ["file:anchors.pem"]}}}
    services, problems = build(folder, verification={"trust_list": "us", "revocation": "hard"}, trust_lists=lists)
    assert problems == []
    assert services.revocation is not None
    assert "not be read" not in (services.revocation.trouble(NOW) or "")
    assert services.revocation.trouble(NOW) is not None
    assert services.fetcher is not None
    begin = time.monotonic()
    services.fetcher.fetch(["https://a.example.com/"], 2.0)
    assert time.monotonic() - begin < 0.5
    off = {"trust_list": "us", "revocation": "off"}
    services, _ = build(folder, verification=off, trust_lists=lists, agent={"enabled": False})
    assert (services.revocation, services.fetcher) == (None, None)


def test_files_of_a_trust_list_are_checked_where_they_stand(folder: Path) -> None:
    lists = {
        "us": {
            "url": "https://authority.example.com/list",
            "anchors": ["file:gone.pem", "file:anchors.pem"],
            "signers": ["file:anchors.pem", "file:gone2.pem"],
            "crl": {"urls": ["http://a.example.com/crl"], "signers": ["file:gone3.pem"]},
        }
    }
    _, problems = build(folder, verification={"trust_list": "us"}, trust_lists=lists)
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        "trust_lists.us.anchors[0]",
        "trust_lists.us.crl.signers[0]",
        "trust_lists.us.signers[1]",
    ]


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"verification": {"trust_list": "us"}}, "there is no us in trust_lists"),
        ({"verification": {}}, "without any, or a trust_list, nothing can be trusted"),
        ({"trust_lists": {"us": {}}}, "neither anchors nor a url"),
        ({"trust_lists": {"us": {"url": "https://a.example.com/"}}}, "without any the list cannot be checked"),
        ({"trust_lists": {"us": {**LISTED, "unsigned": True}}}, "a list that has signers is signed"),
        ({"trust_lists": {"us": {**LISTED, "crl": {"urls": ["http://a/"]}}}}, "no revocation list can be checked"),
        ({"trust_lists": {"us ca": LISTED}}, "not a name"),
        (
            {"verification": {"trust_list": "us", "revocation": "hard"}, "trust_lists": {"us": LISTED}},
            "hard needs crl.urls",
        ),
        ({"agent": {"listen": "0.0.0.0:9464"}}, "not an address of this machine alone"),
        ({"agent": {"listen": "agent.example.com:9464"}}, "not an address of this machine alone"),
        ({"agent": {"listen": "9464"}}, "not HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, sections: dict[str, Any], told: str) -> None:
    data = {"signing": {"mode": "off"}, "verification": {"trust_anchors": ["file:a.pem"]}, "policy": None, **sections}
    dump(tmp_path / "shaken.yaml", data)
    result = CliRunner().invoke(main, ["check-config", "--settings", str(tmp_path / "shaken.yaml")])
    assert result.exit_code == 1
    assert told in result.output


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1"])
def test_loopback_is_loopback(listen: str) -> None:
    sections = {"signing": {"mode": "off"}, "verification": {"mode": "off"}, "agent": {"listen": listen}}
    assert Settings.model_validate(sections).agent.listen == listen


def test_an_agent_that_cannot_start_says_why(tmp_path: Path, authority: Authority) -> None:
    provider = Provider.make(tmp_path / "provider", authority, NOW, agent={"socket": "gone/agent.sock"})
    result = CliRunner().invoke(main, ["agent", "--settings", str(provider.settings)])
    assert result.exit_code == 3
    assert "the agent needs a folder to write to for its socket" in result.output
    result = CliRunner().invoke(main, ["agent", "--settings", str(tmp_path / "gone.yaml"), "status"])
    assert result.exit_code == 3
