"""Records of what really happens: each is valid by the schema, whatever stands in the call."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.attestation import Step
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.lab.pki import Authority
from shaken_plugin.records.call import MAX_LINE, CallRecord
from shaken_plugin.records.lines import Line, read_line
from shaken_plugin.records.schema import schema
from shaken_plugin.records.spool import SpoolWriter
from tests.builders import message
from tests.config.jsonschema import mistakes
from tests.conftest import NOW
from tests.records.builders import record
from tests.services.bench import Bench
from tests.services.builders import GATEWAY_ADDRESS, SUSPENDED_ADDRESS, X5U, BrokenStore, call, pair, sip

ROOT = Path(__file__).parents[2]
SCHEMA = schema()


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


class Kept:
    """Keeps what it is given."""

    def __init__(self, trouble: str | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.trouble = trouble

    def write(self, record: CallRecord) -> str | None:
        line = record.line()
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert len(line) <= MAX_LINE
        assert line.isascii()
        assert isinstance(read_line(line[:-1], 0), Line)
        found = json.loads(line)
        assert list(mistakes(SCHEMA, found)) == []
        assert found.keys() <= SCHEMA["properties"].keys()
        self.records.append(found)
        return self.trouble


def kept_by(bench: Bench, trouble: str | None = None) -> Kept:
    kept = Kept(trouble)
    bench.switch.services = dataclasses.replace(bench.switch.services, records=kept)
    return kept


def test_a_signed_call(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours)
    kept = kept_by(bench)
    outcome = bench.sign(call())
    (found,) = kept.records
    signature = outcome.variables["identity"].partition(";")[0].rpartition(".")[2]
    assert found["signature_sha256"] == hashlib.sha256(signature.encode()).hexdigest()
    wanted = {"kind": "sign", "level": "A", "attest": "A", "ppt": "shaken", "credential": "main", "at": bench.clock[0]}
    assert wanted.items() <= found.items()
    assert {"customer", "trunk", "origid", "iat", "policy_version", "orig", "dest", "source"} <= found.keys()
    assert found["rules"] == [step["rule"] for step in found["trace"]]
    assert not {"skip", "refused", "missing", "observe", "result"} & found.keys()


def test_the_verifier_names_the_signature_as_the_signer_did(authority: Authority) -> None:
    issued = authority.issue(spc="709J", now=NOW)
    ours = load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0.0, spc="709J")
    bench = Bench.make(authority, ours, documents={X5U: issued.chain})
    kept = kept_by(bench)
    signed = bench.sign(call())
    bench.verify(call(identity=(signed.variables["identity"],)))
    elsewhere = {"request_uri": "sip:+19175550100@example.net", "to": "<sip:+19175550100@example.net>"}
    bench.verify(call(identity=(signed.variables["identity"],), **elsewhere))
    sign, passed, failed = kept.records
    assert (passed["kind"], passed["result"], passed["verstat"]) == ("verify", "passed", "TN-Validation-Passed")
    for name in ("orig", "dest", "attest", "origid", "iat", "ppt", "signature_sha256"):
        assert passed[name] == sign[name]
    assert (failed["result"], failed["code"]) == ("failed", "dest_mismatch")


def test_calls_that_are_not_signed_and_modes(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, signing={"mode": "observe"}, verification={"mode": "observe"})
    kept = kept_by(bench)
    bench.sign(call(source="192.0.2.99"))
    bench.sign(call(to="<sip:+12025550143@b.example.com>;tag=2"))  # inside a dialog: nothing
    bench.verify(call(to="<sip:+12025550143@b.example.com>;tag=2"))
    bench.verify(call())
    bench.sign(call(source=SUSPENDED_ADDRESS))
    bench.sign(call(source=GATEWAY_ADDRESS))
    bench.sign(call(callers={CallerHeader.FROM: (sip("19175550100"),)}))
    unknown, unsigned, refused, foreign, other = kept.records
    assert (refused["refused"], refused["refusal"], refused["skip"]) == (True, "suspended", "policy_refused")
    assert (foreign["gateway"], foreign["level"], "customer" in foreign) == ("intl", "C", False)
    assert (other["level"], other["unauthorised"], "unauthorised" in foreign) == ("B", True, False)
    assert (unknown["level"], unknown["skip"], unknown["observe"]) == ("unsigned", "policy_unsigned", True)
    assert unknown["missing"] != []
    assert (unsigned["result"], unsigned["code"], unsigned["observe"]) == ("none", "no_identity", True)
    assert unsigned["orig"] == "12155551212"


def test_a_fault_is_recorded_and_a_fault_of_recording_loses_no_call(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, store=BrokenStore())
    kept = kept_by(bench)
    bench.sign(call())
    (found,) = kept.records
    assert (found["kind"], found["skip"]) == ("sign", "internal_error")

    class Raising:
        def write(self, record: object) -> NoReturn:
            raise MemoryError

    good = Bench.make(authority, ours)
    plain = good.sign(call())
    good.switch.services = dataclasses.replace(good.switch.services, records=Raising())
    assert good.sign(call()).variables.keys() == plain.variables.keys()
    assert good.observer.counts["fault_record"] == good.observer.counts["record_lost"] == 1
    assert good.verify(call()).variables["result"] == "none"


def test_the_line_is_in_the_file_before_a_switch_gets_what_it_puts_on_the_call(
    authority: Authority, ours: SigningPair, tmp_path: Path
) -> None:
    bench = Bench.make(authority, ours)
    bench.switch.services = dataclasses.replace(bench.switch.services, records=SpoolWriter(tmp_path, 1 << 20))
    outcome = bench.sign(call(call_id="abc"))
    (file,) = tmp_path.iterdir()
    (line,) = file.read_text().splitlines()  # read by its name, as whoever comes after a crash does
    signature = outcome.variables["identity"].partition(";")[0].rpartition(".")[2]
    assert json.loads(line)["signature_sha256"] == hashlib.sha256(signature.encode()).hexdigest()


@pytest.mark.parametrize("where", ["sign", "verify"])
def test_a_fault_behind_the_decision_leaves_one_record_and_that_of_the_fault(
    authority: Authority, ours: SigningPair, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    bench = Bench.make(authority, ours)
    kept = kept_by(bench)

    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError

    for module in sorted(name for name in sys.modules if name.startswith("shaken_plugin.switch.")):
        monkeypatch.setattr(f"{module}.strip_foreign", fail, raising=False)
    outcome = getattr(bench, where)(call())
    assert outcome.variables["skip"] == "internal_error"
    (found,) = kept.records
    assert found["skip" if where == "sign" else "code"] == "internal_error"
    assert not {"attest", "signature_sha256", "result"} & found.keys()


@pytest.mark.parametrize("where", ["sign", "verify"])
def test_a_call_that_cannot_be_read_leaves_its_call_id_or_a_count(
    authority: Authority, ours: SigningPair, where: str
) -> None:
    bench = Bench.make(authority, ours)
    kept = kept_by(bench)

    def fail() -> NoReturn:
        raise ValueError("hostile")

    run = getattr(bench.switch, where)
    run(fail, call_id=lambda: "abc")
    (found,) = kept.records
    assert (found["kind"], found["call_id"]) == (where, "abc")
    assert found["skip" if where == "sign" else "code"] == "internal_error"
    run(fail, call_id=fail)
    run(fail)
    assert len(kept.records) == 1
    assert bench.observer.counts["record_lost"] == 2


def test_a_record_that_is_lost_is_counted_and_told_once_a_minute(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours)
    kept_by(bench, "/calls: No space left on device")
    for _ in range(3):
        assert "identity" in bench.sign(call()).variables
    assert bench.observer.counts["record_lost"] == 3
    assert len([text for _, text in bench.observer.lines if "No space left on device" in text]) == 1


HOSTILE = ["\0\n\r\x1b[2J\u2028", "\udc80" * 5_000, "€" * 60_000, '"\\' * 40_000, "1" * 100_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_makes_one_line_that_is_not_too_long(authority: Authority, ours: SigningPair, text: str) -> None:
    bench = Bench.make(authority, ours)
    kept = kept_by(bench)
    bench.sign(call(call_id=text, to=f"<sip:{text}@b.example.com>"))
    bench.verify(message(text, call_id=text))
    assert len(kept.records) == 2
    trace = tuple(Step(text, False, text, text, text) for _ in range(50))
    worst = record(trace=trace, rules=(text,) * 50, missing=(text,) * 50, **dict.fromkeys(TEXTS, text))
    Kept().write(worst)
    assert len(text) < 1_000 or json.loads(worst.line())["cut"] is True


TEXTS = [
    field.name for field in dataclasses.fields(CallRecord) if str(field.type).startswith("str") and field.name != "kind"
]


def test_every_field_stands_in_the_document_as_the_code_says_it() -> None:
    text = (ROOT / "docs" / "call-records.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| \w+ \| (.*) \|$", text, re.MULTILINE))
    assert rows == {name: shape["description"] for name, shape in SCHEMA["properties"].items()}


def test_a_field_that_is_unknown_to_the_schema_or_of_another_type_would_be_found() -> None:
    good = json.loads(record().line())
    assert list(mistakes(SCHEMA, good)) == []
    changes: tuple[dict[str, Any], ...] = (
        {"at": "now"},
        {"kind": "sing"},
        {"trace": [{}]},
        {"refused": 1},
        {"rules": "source"},
    )
    for change in changes:
        assert list(mistakes(SCHEMA, good | change)) != []
    del good["node"]
    assert list(mistakes(SCHEMA, good)) == ["$: node is missing"]
