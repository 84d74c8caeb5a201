"""Telling mistakes: all at once, each with line and column, and never a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from shaken_plugin.config import sections as sections_module
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import parse_settings, policy_file, resolve, sound_settings
from shaken_plugin.errors import FileProblems
from tests.config.jsonschema import every_schema, mistakes
from tests.config.test_settings import CREDENTIAL, FULL, MINIMAL, MISTAKES, PAIR, at, dumped, merged, read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shaken.yaml"


# --- Line and column ----------------------------------------------------------------------------

WRONG = """\
countri: US
signing:
  mode: active
  freshnes: 60
  credentials:
    - name: main
      pairs:
        - key: file:k.pem
          chan: file:c.pem
          x5u: https://certificates.example.com/a.pem
  origid:
    pre: trunk
  unknown_source: C
verification:
  trust_anchors: [file:roots.pem, roots2.pem]
  rejekt: []
log: {trace: perhaps}
zebra: red
zebra: blue
"""


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    settings, problems = read(file, WRONG)
    assert settings is None
    assert [str(problem).removeprefix(f"{file}:") for problem in problems] == [
        "1:1: countri: unknown setting (did you mean country?)",
        "4:3: signing.freshnes: unknown setting (did you mean freshness?)",
        "8:11: signing.credentials[0].pairs[0]: chain is missing",
        "9:11: signing.credentials[0].pairs[0].chan: unknown setting (did you mean chain?)",
        "12:5: signing.origid.pre: unknown setting (did you mean per?)",
        "13:19: signing.unknown_source: not one of unsigned or refuse",
        "15:35: verification.trust_anchors[1]: a key or certificate is given by reference: file:PATH or env:NAME",
        "16:3: verification.rejekt: unknown setting (did you mean reject?)",
        "17:14: log.trace: neither true nor false",
        f"18:1: zebra: unknown setting (known here: {', '.join(Settings.model_fields)})",
        "19:1: zebra: stands twice, first in line 18",
    ]


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "just text\n", "- a list\n", "null\n"], ids=["empty", "comment", "text", "list", "null"]
)
def test_a_file_without_settings_is_told_so(file: Path, text: str) -> None:
    settings, (problem,) = read(file, text)
    assert settings is None
    assert str(problem) == f"{file}:1:1: the file has no settings in it"


def test_what_is_not_yaml_is_the_only_problem(file: Path) -> None:
    settings, (problem,) = read(file, "signing:\n  mode: [active\nlog: {}\n")
    assert settings is None
    assert problem.message.startswith("not YAML")
    assert problem.line >= 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"country: \xff\n", "not UTF-8 text (byte 9)"), (None, "cannot be read: No such file or directory")],
)
def test_a_file_that_cannot_be_read_is_told_by_name(file: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FileProblems) as refused:
        parse_settings(file)
    assert str(refused.value) == f"{file}:1:1: {message}"


@pytest.mark.parametrize(("path", "value", "_message"), MISTAKES, ids=[f"{row[0]}={row[1]!r:.20}" for row in MISTAKES])
def test_a_mistake_stands_in_the_line_of_its_value(file: Path, path: str, value: Any, _message: str) -> None:
    text = yaml.safe_dump(merged(MINIMAL, at(path.partition("[")[0], value)), sort_keys=False)
    _, (problem,) = read(file, text)
    line = text.splitlines()[problem.line - 1]
    name = path.partition("[")[0].rpartition(".")[2]
    if "[" in path or isinstance(value, dict):
        assert line.lstrip().startswith("- ")
    else:
        assert line.lstrip().startswith(f"{name}:")
        assert problem.column > len(name)


# --- Secrets ------------------------------------------------------------------------------------

SECRET = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSECRETSECRETSECRET"
PEM = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("name", ["key", "chain", "x5u", "kye", "live_from"])
@pytest.mark.parametrize(
    "value", [PEM, PEM.replace("\n", " "), SECRET, f"file:{PEM}", f"env:{PEM}", f"env:{PEM.replace(chr(10), '')}",
              f"file:{PEM.replace(chr(10), '')}"],
    ids=["PEM", "PEM in one line", "base64", "file:PEM", "env:PEM", "env:PEM in one line", "file:PEM in one line"],
)  # fmt: skip
def test_a_secret_in_the_file_is_refused_and_not_echoed(file: Path, name: str, value: str) -> None:
    pair = PAIR | {name: value}
    settings, problems = read(file, merged(MINIMAL, at("signing.credentials", [CREDENTIAL | {"pairs": [pair]}])))
    if name == "x5u" and value == SECRET:
        assert settings is not None  # any text may be a URL here; certs.credentials refuses it
        return
    assert settings is None
    assert problems
    assert "SECRET" not in str(FileProblems(problems))
    assert "SECRET" not in repr(problems)


@pytest.mark.parametrize(
    "text",
    [
        f"signing:\n  credentials:\n  - name: main\n    pairs:\n    - key: {PEM}",
        f"signing:\n  credentials:\n  - name: main\n    pairs:\n    - key: '{PEM}",
        f"signing:\n  mode: [{SECRET}\n",
    ],
    ids=["block forgotten", "quote forgotten", "bracket forgotten"],
)
def test_a_secret_in_broken_yaml_is_not_echoed(file: Path, text: str) -> None:
    _, problems = read(file, text)
    assert problems
    assert "SECRET" not in repr(problems)


def test_the_library_s_own_message_does_not_echo_values_either() -> None:
    data = merged(MINIMAL, at("signing.credentials", [CREDENTIAL | {"pairs": [PAIR | {"key": SECRET}]}]))
    with pytest.raises(ValueError, match="by reference") as refused:
        Settings.model_validate(data)
    assert "SECRET" not in str(refused.value)


# --- References ---------------------------------------------------------------------------------


def test_references_give_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "k").write_bytes(b"\x30\xff")
    monkeypatch.setenv("SHAKEN_TEST", "täxt")
    assert resolve(f"file:{tmp_path}/k") == b"\x30\xff"
    assert resolve("env:SHAKEN_TEST") == "täxt".encode()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("env:SHAKEN_NOT_SET", "the environment variable SHAKEN_NOT_SET is not set"),
        ("file:/nonexistent/k.pem", "/nonexistent/k.pem: No such file or directory"),
        ("file:/proc", "/proc: Is a directory"),
        ("file:/\x00", "null"),
    ],
)
def test_a_reference_to_nothing_names_the_place(monkeypatch: pytest.MonkeyPatch, reference: str, message: str) -> None:
    monkeypatch.delenv("SHAKEN_NOT_SET", raising=False)
    with pytest.raises(ValueError, match=message):
        resolve(reference)


# --- What is sound ------------------------------------------------------------------------------


def test_of_settings_with_mistakes_everything_that_is_right_is_kept_in_its_place(file: Path) -> None:
    pairs = [PAIR | {"key": "k.pem"}, PAIR | {"live_from": "2026-12-01"}]
    data = merged(MINIMAL, at("signing", {"freshness": 0, "credentials": ["x", CREDENTIAL | {"pairs": pairs}]}))
    file.write_text(dumped(merged(data, at("verification", {"mode": "x", "trust_anchors": ["a", "file:/b"]}))))
    _, document = parse_settings(file)
    count = len(document.problems)
    sound: Any = sound_settings(document)
    assert sound.signing.freshness is None
    assert sound.signing.mode == "active"
    assert sound.signing.credentials[0] is None
    wrong, right = sound.signing.credentials[1].pairs
    assert (wrong.key, wrong.chain, wrong.live_from) == (None, f"file:{file.parent}/c.pem", 0.0)
    assert right.live_from == 1_796_083_200
    assert (sound.verification.mode, sound.verification.trust_anchors) == (None, [None, "file:/b"])
    assert len(document.problems) == count


@pytest.mark.parametrize("text", ["text", "- a\n", "signing: text\nverification: 7\n", "log: {trace: x}\n"])
def test_where_nothing_is_sound_there_are_gaps(file: Path, text: str) -> None:
    file.write_text(text)
    _, document = parse_settings(file)
    sound: Any = sound_settings(document)
    assert (sound.signing, sound.verification, sound.country) == (None, None, "US")


TWICE = """\
signing:
  freshness: 0
  credentials:
    - name: main
      spc: wrong
      pairs: [{key: file:k, chain: file:c, x5u: https://certificates.example.com/a.pem}]
    - name: main
      pairs:
        - {key: file:k, chain: file:c, x5u: https://certificates.example.com/b.pem, live_from: soon}
        - {key: file:k, chain: file:c, x5u: https://certificates.example.com/a.pem}
verification: {trust_anchors: [], freshness: 0}
"""


def test_what_stands_twice_is_told_in_its_own_line_beside_other_mistakes(file: Path) -> None:
    _, problems = read(file, TWICE)
    assert [str(problem).removeprefix(f"{file}:") for problem in problems] == [
        "2:14: signing.freshness: input should be greater than or equal to 1",
        "5:12: signing.credentials[0].spc: not a Service Provider Code: digits and capital letters",
        "7:13: signing.credentials[1].name: stands twice, first in line 4",
        "9:96: signing.credentials[1].pairs[0].live_from: not a time such as 2026-12-31 or 2026-12-31T08:00:00-05:00",
        "10:45: signing.credentials[1].pairs[1].x5u: stands twice, first in line 6; every pair needs its own URL",
        "11:46: verification.freshness: input should be greater than or equal to 1",
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [("log: {trace: x}\n", "policy.yaml"), ("policy: p.yaml\nx: y\n", "p.yaml"), ("policy: [a]\n", None)],
)
def test_the_policy_file_is_known_despite_mistakes(file: Path, text: str, name: str | None) -> None:
    file.write_text(text)
    _, document = parse_settings(file)
    assert policy_file(document) == (file.parent / name if name else None)


def test_a_file_that_is_no_mapping_names_no_policy_file(file: Path) -> None:
    file.write_text("text")
    assert policy_file(parse_settings(file)[1]) is None


# --- JSON Schema --------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [FULL, MINIMAL], ids=["full", "minimal"])
def test_the_json_schema_accepts_what_the_reader_accepts(data: dict[str, Any]) -> None:
    assert list(mistakes(Settings.model_json_schema(), data)) == []


NOT_IN_SCHEMA = {"country", "signing.origid.namespace"}
"""Fields whose values only the reader can judge."""


@pytest.mark.parametrize(("path", "value", "_message"), MISTAKES, ids=[f"{row[0]}={row[1]!r:.20}" for row in MISTAKES])
def test_the_json_schema_refuses_what_the_reader_refuses(path: str, value: Any, _message: str) -> None:
    data = merged(MINIMAL, at(path.partition("[")[0], value))
    found = list(mistakes(Settings.model_json_schema(), data))
    assert bool(found) != (path in NOT_IN_SCHEMA)


def test_every_setting_is_described_for_editors_and_the_manual() -> None:
    schema = Settings.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    for section in every_schema(schema):
        for name, field in section.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, name


def test_the_schema_and_the_models_have_the_same_settings() -> None:
    schema = Settings.model_json_schema()
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"signing", "verification"}
    sections = {name: model for name, model in vars(sections_module).items() if name in schema["$defs"]}
    for name, model in sections.items():
        if hasattr(model, "model_fields"):
            assert set(schema["$defs"][name]["properties"]) == set(model.model_fields)
