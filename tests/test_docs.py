"""The documents say what the code does."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import files
from pathlib import Path

import pytest
import yaml

from shaken_plugin.cli import COMMANDS
from shaken_plugin.config import yamlfile
from shaken_plugin.config.fields import moment
from shaken_plugin.config.models import validate
from shaken_plugin.config.policyentries import PolicyFile
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import PATH_VARIABLE
from shaken_plugin.core.attestation import RULES, Refusal
from shaken_plugin.core.records import Basis, Overrides
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.servers import share
from shaken_plugin.probe.canaries import CANARIES
from shaken_plugin.probe.findings import Kind

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TOP = [path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name != "dist"] + [ROOT / ".ci"]
"""What is the project's own in its folder."""
DOCUMENTS = (
    sorted(ROOT.glob("*.md"))
    + sorted(ROOT.glob("docs/*.md"))
    + sorted(ROOT.glob("*switch/*.md"))
    + sorted(ROOT.glob("kamailio/*.md"))
)


def test_the_reference_is_what_the_code_says() -> None:
    made = subprocess.run(
        [sys.executable, "tools/reference.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    written = (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert made.rstrip() == written.rstrip(), "run: python tools/reference.py --write"


def test_the_rules_of_attestation_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "attestation.md").read_text("utf-8")
    rows = re.findall(r"^\| ([0-9]+) \| `([a-z_]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    made = [
        (str(number), rule.name, rule.question, rule.effect, rule.records, rule.missing)
        for number, rule in enumerate(RULES, 1)
    ]
    assert rows == made, "run: python tools/reference.py --write"
    assert all(f"`{refusal.value}`" in text for refusal in Refusal)
    assert all(f"`{field.name}`" in text for field in fields(Overrides))
    assert all(f"`{basis.value}`" in text for basis in Basis)


def test_the_examples_in_the_readme_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    settings, policy, waiting = (yamlfile.parse(block, "README.md") for block in blocks)
    assert validate(Settings, settings) is not None, settings.problems
    assert validate(PolicyFile, policy) is not None, policy.problems
    waiting.data["signing"] = {"mode": "off"}
    assert validate(Settings, waiting) is not None, waiting.problems


def test_the_settings_in_the_document_of_fleets_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "fleet.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        settings = yamlfile.parse(block, "fleet.md")
        settings.data["signing"] = settings.data["verification"] = {"mode": "off"}
        assert validate(Settings, settings) is not None, settings.problems


def test_the_explanation_in_the_readme_is_what_the_command_prints(tmp_path: Path) -> None:
    block = re.search(r"```\n\$ shaken (explain .*?)\n(.*?)```", README, re.DOTALL)
    assert block is not None
    arguments = block[1].split()
    now = float(moment(arguments[arguments.index("--at") + 1]))  # type: ignore[arg-type]  # text becomes a number
    authority = Authority.new(now)
    issued = authority.issue(spc="709J", now=now)
    (tmp_path / "keys").mkdir()
    contents = {"keys/709J.key": issued.key, "keys/709J.pem": issued.chain, "anchors.pem": authority.root_pem}
    settings, policy, _ = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    for name, content in (contents | {"shaken.yaml": settings.encode(), "policy.yaml": policy.encode()}).items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", "from shaken_plugin.cli import main; main()", *arguments, "--policy", "policy.yaml"],
        cwd=tmp_path,
        env=os.environ | {PATH_VARIABLE: "shaken.yaml", "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.rstrip() for line in done.stdout.splitlines()] == block[2].splitlines()


def test_every_command_in_the_readme_exists_and_every_command_is_there() -> None:
    named = set(re.findall(r"`shaken ([a-z-]+)", README))
    assert named == set(COMMANDS)


def test_the_document_of_the_probe_names_every_canary_and_every_finding() -> None:
    text = (ROOT / "docs" / "probe.md").read_text("utf-8")
    assert [canary.name for canary in CANARIES if f"`{canary.name}`" not in text] == []
    assert [kind.title for kind in Kind if kind.title not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_the_lines_to_add_stand_in_the_native_example() -> None:
    config = (ROOT / "kamailio" / "kamailio-native.cfg").read_text("utf-8")
    for function in ("shaken_sign", "shaken_verify", "shaken_branch", "shaken_reply"):
        assert f'python_exec("{function}")' in config
        assert f'python_exec("{function}")' in README
    for text in (config, README):
        assert 'python_exec("shaken_divert", "$ou")' in text
    tree = ast.parse((ROOT / "kamailio" / "kemi_routing.py").read_text("utf-8"))
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    armed = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {"shaken_sign", "shaken_verify"} <= called
    assert {"shaken_branch", "shaken_reply"} <= armed


@pytest.mark.parametrize("scenario", sorted((ROOT / "sipp_scenarios").glob("*.xml")), ids=lambda path: path.stem)
def test_every_scenario_says_what_it_does(scenario: Path) -> None:
    text = scenario.read_text("utf-8")
    comment = text[text.index("<!--") : text.index("-->")]
    assert "Call flow" in comment
    assert f"sipp -sf {scenario.name}" in comment
    assert "Aim it at" in comment or "Use it" in comment
    if scenario.name.startswith("uac"):
        assert "Verdict" in comment


def test_the_wheel_carries_scripts_and_scenarios() -> None:
    """What a user gets is what stands in the repository."""
    assert files("shaken-plugin")
    for folder in ("freeswitch", "kamailio", "sipp_scenarios", "systemd"):
        shipped, source = (
            {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if _is_kept(path)}
            for top in (share(folder), ROOT / folder)
        )
        assert shipped == source


def _is_kept(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"


def test_the_package_speaks_of_itself_alone() -> None:
    """No absolute path of a machine, no host of a registry."""
    bad = re.compile(r"/(?:work|root|home/[a-z]+)/|pypi\.org|deb\.debian\.org")
    found = []
    for path in (path for top in TOP for path in ([top] if top.is_file() else top.rglob("*"))):
        if not path.is_file() or path.suffix in {".json", ".pem", ".der", ".pyc"} or path == Path(__file__):
            continue
        text = path.read_text("utf-8", "replace")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in bad.finditer(text)]
    assert found == []


def test_yaml_of_the_lab_is_what_a_person_would_write() -> None:
    from shaken_plugin.lab.provider import sample_policy

    policy = sample_policy(1_795_000_000)
    document = yamlfile.parse(yaml.safe_dump(policy), "policy.yaml")
    assert validate(PolicyFile, document) is not None
    assert document.problems == []
