"""The settings file: every field checked, every mistake told at once and in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import PATH_VARIABLE, parse_settings, settings_path
from shaken_plugin.core.attestation import Refusal
from shaken_plugin.errors import Problem

PAIR = {"key": "file:k.pem", "chain": "file:c.pem", "x5u": "https://certificates.example.com/a.pem"}
CREDENTIAL = {"name": "main", "spc": "709J", "pairs": [PAIR]}
FULL: dict[str, Any] = {
    "country": "US",
    "numeric_users": True,
    "emergency_numbers": ["110"],
    "policy": "policy.yaml",
    "on_fault": "refuse",
    "store": {
        "path": "policy.db",
        "state": "runtime.db",
        "when_unavailable": "refuse",
        "max_age": 60,
        "redis": {"servers": ["[::1]:6379"]},
    },
    "signing": {
        "mode": "observe",
        "credentials": [CREDENTIAL],
        "sources": ["From", "P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID"],
        "existing_identity": "replace_ours",
        "diversion": "leave",
        "stale_date": "replace",
        "freshness": 30,
        "unknown_source": "refuse",
        "pending_customer": "B",
        "sign_international": False,
        "leave_alone": ["+1876"],
        "origid": {"per": "customer", "namespace": "6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
        "resign_after": 10,
        "quote_ppt": False,
        "size": {"threshold": 1000, "action": "tcp"},
        "mky": False,
        "unauthorised": "substitute",
        "substitute": "+12155551200",
        "substitute_in": ["asserted"],
        "substitute_host": "sip.example.com",
        "invalid_numbers": "downgrade",
        "require_approval": True,
        "answers": {
            reason: {"status": 488, "phrase": "Ask Sales"}
            for reason in ("suspended", "terminated", "do_not_originate", "unauthorised", "unknown_source", "pending")
        },
        "refuse_status": 480,
        "refuse_phrase": "Ask Sales, please",
    },
    "verification": {
        "mode": "active",
        "trust_anchors": ["file:roots.pem", "env:ROOTS"],
        "stored_anchors": True,
        "certificates": "certificates",
        "freshness": 45,
        "inner_freshness": 10800,
        "profile": "rfc8224",
        "mky": False,
        "verstat": "strict",
        "verstat_level": True,
        "add_asserted": False,
        "mark_from": True,
        "reject": [403, 438],
        "reason": False,
        "lab_hosts": ["127.0.0.1:8443"],
        "trust_list": "us",
        "revocation": "hard",
        "replay": "enforce",
        "wait": 1.5,
        "max_waiting": 10,
        "cache": "certificates.sqlite",
        "replay_memory": "replay.sqlite",
    },
    "trust_lists": {
        "us": {
            "url": "https://authority.example.com/ca-list",
            "signers": ["file:authority.pem"],
            "crl": {"urls": ["http://authority.example.com/crl"], "signers": ["file:crl.pem"]},
        }
    },
    "records": {
        "enabled": False,
        "folder": "calls",
        "rotate_bytes": 1_000_000,
        "ledger": "sqlite:ledger.db",
        "ledger_password": "file:ledger.password",
        "keep_days": 100,
        "alarm_bytes": 10_000_000,
    },
    "agent": {
        "enabled": False,
        "socket": "agent.sock",
        "listen": "0.0.0.0:9000",
        "listen_anywhere": True,
        "esl": {"listen": "0.0.0.0:8086"},
        "max_documents": 1000,
        "max_bytes": 10485760,
        "max_fetches": 8,
        "max_per_host": 2,
        "keep_days": 30,
        "stale": 3600,
        "ca_bundle": "repositories.pem",
    },
    "offences": {
        "enabled": False,
        "suspend": "automatic",
        "grace": 3600,
        "gather": 0,
        "webhook": {"url": "https://hooks.example.com/", "secret": "file:secret", "ca_bundle": "hooks.pem"},
    },
    "keys": {"encryption": "file:kek", "previous": ["env:OLD_KEK"], "plaintext": True},
    "limits": {"mode": "report", "when_unavailable": "refuse", "status": 503, "phrase": "Full", "retry_after": 5},
    "freeswitch": {"identity_name": "full"},
    "log": {"full_numbers": True, "trace": True},
}
MINIMAL: dict[str, Any] = {
    "signing": {"credentials": [CREDENTIAL]},
    "verification": {"trust_anchors": ["file:roots.pem"]},
}


def merged(plain: Any, over: Any) -> Any:
    """``over`` put over ``plain``, mapping by mapping."""
    if isinstance(plain, dict) and isinstance(over, dict):
        return {**plain, **{name: merged(plain.get(name), value) for name, value in over.items()}}
    return over


def at(path: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``a.b``."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value  # type: ignore[no-any-return]  # a mapping after the first step


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shaken.yaml"


def dumped(data: Any) -> str:
    """YAML as a person writes it: values that are the same stand there twice, without alias."""
    return yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False)


def read(file: Path, data: Any) -> tuple[Settings | None, list[Problem]]:
    file.write_text(data if isinstance(data, str) else dumped(data))
    settings, document = parse_settings(file)
    return settings, document.problems


def good(file: Path, data: Any) -> Settings:
    settings, problems = read(file, data)
    assert settings is not None, problems
    return settings


# --- Files that are right -----------------------------------------------------------------------


@pytest.mark.parametrize("data", [FULL, MINIMAL], ids=["full", "minimal"])
def test_the_compiled_settings_are_read_back_as_the_same(file: Path, data: dict[str, Any]) -> None:
    settings = good(file, data)
    compiled = json.loads(json.dumps(settings.model_dump(mode="json")))
    assert Settings.model_validate(compiled) == settings


def test_every_setting_stands_in_the_full_sample_and_arrives(file: Path) -> None:
    settings = good(file, FULL)
    plain = good(file, MINIMAL)

    def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if not isinstance(value, dict):
            return {path: value}
        return {key: leaf for name, inner in value.items() for key, leaf in leaves(inner, (*path, name)).items()}

    full, default = leaves(settings.model_dump()), leaves(plain.model_dump())
    for section in (("trust_lists",), ("store", "redis")):  # tests/config/test_fleet.py has those of the second
        full = {path: leaf for path, leaf in full.items() if path[: len(section)] != section} | {section: True}
    default[("trust_lists",)] = bool(plain.trust_lists)
    assert full.keys() == default.keys()
    same = {".".join(path) for path in full if full[path] == default[path]}
    assert same == {"country", "numeric_users", "policy", "signing.credentials", "verification.mode"}


def test_relative_paths_are_those_of_the_files_folder_whatever_the_process_s(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(yaml.safe_dump(FULL))
    monkeypatch.chdir(file.parent)
    settings, _ = parse_settings(Path(file.name))
    assert settings is not None
    folder = file.parent
    (pair,) = settings.signing.credentials[0].pairs
    assert (pair.key, pair.chain) == (f"file:{folder}/k.pem", f"file:{folder}/c.pem")
    assert settings.verification.trust_anchors == [f"file:{folder}/roots.pem", "env:ROOTS"]
    assert settings.verification.certificates == f"{folder}/certificates"
    assert (settings.store.path, settings.policy) == (f"{folder}/policy.db", f"{folder}/policy.yaml")
    assert settings.store.state == f"{folder}/runtime.db"
    webhook = settings.offences.webhook
    assert (webhook.secret, webhook.ca_bundle) == (f"file:{folder}/secret", f"{folder}/hooks.pem")
    records = settings.records
    assert (records.folder, records.ledger) == (f"{folder}/calls", f"sqlite:{folder}/ledger.db")
    assert records.ledger_password == f"file:{folder}/ledger.password"


def test_the_state_file_is_beside_the_store_unless_said_otherwise(file: Path) -> None:
    assert good(file, MINIMAL).store.state == "/var/lib/shaken/state.db"
    assert good(file, MINIMAL | {"store": {"path": "db/policy.db"}}).store.state == f"{file.parent}/db/state.db"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:/var/lib/shaken/ledger.db",
        "postgresql://shaken@db.example.com/shaken",
        "postgresql://shaken@db.example.com:5432/shaken?sslmode=verify-full",
        "postgresql:///shaken?host=/run/postgresql",
    ],
)
def test_ledgers_that_can_be_named(file: Path, url: str) -> None:
    assert good(file, merged(MINIMAL, at("records.ledger", url))).records.ledger == url


@pytest.mark.parametrize(
    "url",
    [
        "/var/lib/shaken/ledger.db",
        "sqlite:",
        "sqlite:///ledger.db?mode=ro",
        "postgresql://shaken@db.example.com/shaken?password=hunter2",
        "postgresql://shaken@db.example.com/shaken?sslmode=require&password=hunter2",
        "postgresql://shaken@db.example.com/shaken?pass%77ord=hunter2",
        "postgresql://shaken@db.example.com/shaken?sslpassword=hunter2&sslmode=require",
        "postgresql://shaken%3Ahunter2@db.example.com/shaken",
        "postgresql://shaken%3ahunter2@db.example.com/shaken",
        "postgresql://shaken:secret@db.example.com/shaken",
        "postgresql://db.example.com",
        "mysql://db.example.com/shaken",
    ],
)
def test_ledgers_that_cannot(file: Path, url: str) -> None:
    _, (problem,) = read(file, merged(MINIMAL, at("records.ledger", url)))
    assert problem.path == "records.ledger"
    assert "ledger_password" in problem.message
    assert "hunter2" not in str(problem)
    assert "neither sqlite:PATH nor postgresql://USER@HOST/DATABASE" in problem.message


def test_absolute_paths_stay(file: Path) -> None:
    pair = PAIR | {"key": "file:/etc/shaken/k.pem"}
    settings = good(file, merged(MINIMAL, at("signing.credentials", [CREDENTIAL | {"pairs": [pair]}])))
    assert settings.signing.credentials[0].pairs[0].key == "file:/etc/shaken/k.pem"
    assert settings.store.path == "/var/lib/shaken/policy.db"


def test_the_policy_file_is_beside_the_settings_unless_said_otherwise(file: Path) -> None:
    assert good(file, MINIMAL).policy == str(file.parent / "policy.yaml")
    assert good(file, MINIMAL | {"policy": "/etc/other.yaml"}).policy == "/etc/other.yaml"
    for nothing in ("null", "~", ""):
        assert good(file, yaml.safe_dump(MINIMAL) + f"policy: {nothing}\n").policy is None


@pytest.mark.parametrize("text", ["true", "True", "yes", "on", "ON"])
def test_switches_are_written_as_yaml_has_them(file: Path, text: str) -> None:
    assert good(file, yaml.safe_dump(MINIMAL) + f"log: {{trace: {text}}}\n").log.trace
    off = {"true": "false", "yes": "no", "on": "off"}[text.lower()]
    assert not good(file, yaml.safe_dump(MINIMAL) + f"log: {{trace: {off}}}\n").log.trace


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-12-01", 1_796_083_200),
        ("2026-12-01T06:00:00", 1_796_104_800),
        ("2026-12-01T06:00:00Z", 1_796_104_800),
        ("2026-12-01T06:00:00-05:00", 1_796_122_800),
    ],
)
def test_moments_are_utc_unless_they_say_otherwise(file: Path, text: str, seconds: float) -> None:
    pair = PAIR | {"live_from": text}
    settings = good(file, merged(MINIMAL, at("signing.credentials", [CREDENTIAL | {"pairs": [pair]}])))
    assert settings.signing.credentials[0].pairs[0].live_from == seconds


def test_settings_cannot_be_changed_afterwards(file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        good(file, MINIMAL).signing.freshness = 1


def test_the_settings_file_is_named_by_the_environment_or_has_its_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "/etc/other.yaml")
    assert settings_path() == Path("/etc/other.yaml")
    monkeypatch.setenv(PATH_VARIABLE, "")
    assert settings_path() == Path("/etc/shaken/shaken.yaml")


# --- Mistakes, field by field -------------------------------------------------------------------

MISTAKES: list[tuple[str, Any, str]] = [
    ("country", "USA", "'USA' is not a country code"),
    ("numeric_users", "maybe", "neither true nor false"),
    ("emergency_numbers[0]", ["11O"], "not digits"),
    ("on_fault", "drop", "not one of continue or refuse"),
    ("store.when_unavailable", "last-known", "(did you mean last_known?)"),
    ("signing.mode", "activ", "(did you mean active?)"),
    ("signing.sources", [], "at least 1 item"),
    ("signing.sources[0]", ["From:"], "(did you mean From?)"),
    ("signing.diversion", "replace", "not one of sign or leave"),
    ("signing.existing_identity", "replace", "not one of skip, add or replace_ours"),
    ("signing.stale_date", "repair", "not one of leave or replace"),
    ("signing.freshness", 0, "greater than or equal to 1"),
    ("signing.freshness", 3601, "less than or equal to 3600"),
    ("signing.freshness", "1.5", "valid integer"),
    ("signing.freshness", None, "valid integer"),
    ("signing.unknown_source", "C", "not one of unsigned or refuse"),
    ("signing.pending_customer", "A", "not one of B, C, unsigned or refuse"),
    ("signing.sign_international", "2", "neither true nor false"),
    ("signing.leave_alone[1]", ["+1876", "+1-876"], "not digits"),
    ("signing.origid.per", "trunks", "(did you mean trunk?)"),
    ("signing.origid.namespace", "709J", "not a UUID"),
    ("signing.resign_after", -1, "greater than or equal to 1"),
    ("signing.refuse_status", 399, "greater than or equal to 400"),
    ("signing.refuse_status", 302, "greater than or equal to 400"),
    ("signing.refuse_status", 603, "603 tells the caller that analytics blocked the call"),
    ("signing.refuse_status", 607, "less than or equal to 599"),
    ("signing.answers.pending.status", 603, "603 tells the caller that analytics blocked the call"),
    ("signing.answers.unauthorised.status", 200, "greater than or equal to 400"),
    ("signing.answers.unauthorised.phrase", "a\tb", "not a reason phrase"),
    ("signing.unauthorised", "block", "not one of downgrade, refuse or substitute"),
    ("signing.substitute", "main", "not digits"),
    ("signing.invalid_numbers", "block", "not one of refuse, downgrade or ignore"),
    ("signing.refuse_phrase", "No\r\nX-Evil: 1", "not a reason phrase"),
    ("signing.refuse_phrase", "", "not a reason phrase"),
    ("signing.refuse_phrase", "x" * 61, "not a reason phrase"),
    ("verification.verstat", "lax", "not one of atis1000082 or strict"),
    ("verification.freshness", "soon", "valid integer"),
    ("verification.trust_anchors[0]", ["roots.pem"], "by reference"),
    ("verification.reject[1]", [403, 404], "not one of 403, 428, 436, 437, 438"),
    ("verification.reject", 403, "valid list"),
    ("verification.mark_from", "", "neither true nor false"),
    ("log.trace", "1", "neither true nor false"),
    ("log", "verbose", "valid dictionary"),
]


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES, ids=[f"{row[0]}={row[1]!r:.20}" for row in MISTAKES])
def test_a_wrong_value_is_told_with_its_path(file: Path, path: str, value: Any, message: str) -> None:
    settings, problems = read(file, merged(MINIMAL, at(path.partition("[")[0], value)))
    assert settings is None
    assert [problem.path for problem in problems] == [path]
    assert message in problems[0].message


PAIR_MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("name", {"name": "two words"}, "not a name"),
    ("name", {"name": "-x"}, "not a name"),
    ("name", {"name": "x" * 65}, "not a name"),
    ("spc", {"spc": "709j"}, "not a Service Provider Code"),
    ("spc", {"spc": "x" * 17}, "not a Service Provider Code"),
    ("pairs", {"pairs": None}, "valid list"),
    ("pairs[0].key", {"pairs": [PAIR | {"key": "k.pem"}]}, "by reference"),
    ("pairs[0].key", {"pairs": [PAIR | {"key": "file:"}]}, "by reference"),
    ("pairs[0].key", {"pairs": [PAIR | {"key": "env:a b"}]}, "by reference"),
    ("pairs[0].chain", {"pairs": [PAIR | {"chain": "https://a.example/c.pem"}]}, "by reference"),
    ("pairs[0].x5u", {"pairs": [PAIR | {"x5u": "https://a.example/a b"}]}, "not a URL"),
    ("pairs[0].live_from", {"pairs": [PAIR | {"live_from": "tomorrow"}]}, "not a time such as 2026-12-31"),
    ("pairs[0].live_from", {"pairs": [PAIR | {"live_from": "1796083200"}]}, "not a time such as 2026-12-31"),
]


@pytest.mark.parametrize(("path", "change", "message"), PAIR_MISTAKES, ids=[row[0] for row in PAIR_MISTAKES])
def test_a_wrong_value_of_a_credential_is_told_with_its_path(
    file: Path, path: str, change: dict[str, Any], message: str
) -> None:
    settings, problems = read(file, merged(MINIMAL, at("signing.credentials", [CREDENTIAL | change])))
    assert settings is None
    assert [problem.path for problem in problems] == [f"signing.credentials[0].{path}"]
    assert message in problems[0].message


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (at("signing.credentials", []), "signing.credentials", "at least one is needed to sign (or set mode: off)"),
        (
            at("signing.credentials", [CREDENTIAL, CREDENTIAL | {"pairs": [PAIR | {"x5u": "https://b.example"}]}]),
            "signing.credentials[1].name",
            "stands twice",
        ),
        (
            at("signing.credentials", [CREDENTIAL, CREDENTIAL | {"name": "b"}]),
            "signing.credentials[1].pairs[0].x5u",
            "every pair needs its own",
        ),
        ({"signing": None}, "signing", "valid dictionary"),
    ],
)
def test_what_no_field_shows_alone_is_told_of_its_section(
    file: Path, change: dict[str, Any], path: str, message: str
) -> None:
    settings, problems = read(file, merged(MINIMAL, change))
    assert settings is None
    assert [problem.path for problem in problems] == [path]
    assert message in problems[0].message


@pytest.mark.parametrize("section", ["signing", "verification"])
def test_a_section_that_is_off_needs_nothing_else(file: Path, section: str) -> None:
    assert good(file, MINIMAL | {section: {"mode": "off"}})


@pytest.mark.parametrize(("missing", "path"), [("signing", ""), ("verification", "")])
def test_a_missing_section_is_told(file: Path, missing: str, path: str) -> None:
    settings, problems = read(file, {name: value for name, value in MINIMAL.items() if name != missing})
    assert settings is None
    assert [(problem.path, problem.message) for problem in problems] == [(path, f"{missing} is missing")]


def test_each_refusal_has_an_answer_of_its_own(file: Path) -> None:
    plain = good(file, MINIMAL)
    # 603 tells the caller that analytics blocked the call (47 CFR 64.1200(k)), and nothing else.
    assert {refusal: plain.answer(refusal)[0] for refusal in Refusal} == {
        refusal: 480 if refusal is Refusal.OVER_LIMIT else 403 for refusal in Refusal
    }
    phrases = [plain.answer(refusal)[1] for refusal in Refusal]
    assert len(set(phrases)) == len(phrases)
    assert all(phrases)
    assert plain.answer(None) == (403, "Caller ID Not Authorised")
    signing = {"refuse_phrase": "Ask Sales", "answers": {"pending": {"status": 480}, "suspended": {"phrase": "Pay"}}}
    busy = {"status": 503, "phrase": "Try Another", "retry_after": 5}
    chosen = good(file, merged(MINIMAL, {"signing": signing, "limits": busy}))
    assert chosen.answer(Refusal.OVER_LIMIT) == (503, "Try Another")
    assert chosen.answer(Refusal.PENDING) == (480, "Ask Sales")
    assert chosen.answer(Refusal.SUSPENDED) == (403, "Pay")
    assert chosen.answer(Refusal.UNAUTHORISED) == (403, "Ask Sales")


def test_substituting_needs_a_number(file: Path) -> None:
    settings, problems = read(file, merged(MINIMAL, {"signing": {"unauthorised": "substitute"}}))
    assert settings is None
    (problem,) = problems
    assert "needs a number in substitute" in str(problem)
    assert problem.line > 0
