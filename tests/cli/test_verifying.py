"""``shaken verify`` and ``shaken decode``."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.authentication import identity_header
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.passport import div_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider
from tests.cli.conftest import Run, invite

NUMBERS = ["--from", "+12155551212", "--to", "+12025550143"]


@pytest.fixture
def identity(in_force: Provider, run: Run) -> str:
    """An Identity value of our own."""
    assert in_force.settings.exists()
    return run("sign", "--attest", "A", *NUMBERS).stdout.strip()


@pytest.fixture
def message(identity: str, tmp_path: Path) -> Path:
    path = tmp_path / "signed.sip"
    path.write_text(invite("+12155551212", "+12025550143", f"Identity: {identity}"))
    return path


# --- verify -------------------------------------------------------------------------------------


def test_a_call_that_passes_is_0(run: Run, run_json: Callable[..., Any], message: Path, identity: str) -> None:
    data = run_json("verify", message)
    (result,) = data.pop("identities")
    assert data == {
        "result": "passed",
        "verstat": "TN-Validation-Passed",
        "code": None,
        "status": None,
        "phrase": None,
        "diversions": [],
        "rich": None,
        "priority": None,
    }
    assert (result["passed"], result["attest"], result["orig"], result["spc"]) == (True, "A", "12155551212", "709J")
    assert result["x5u"] in identity
    told = run("verify", message).stdout
    assert told.startswith("passed: TN-Validation-Passed\n")
    assert "12155551212" in told


def test_what_else_was_signed_is_told(
    run: Run, run_json: Callable[..., Any], in_force: Provider, identity: str, tmp_path: Path
) -> None:
    issued = in_force.credential
    pair = load_pair(key=issued.key, chain=issued.chain, x5u=in_force.x5u, live_from=0.0, spc=None)
    base = {"iat": int(time.time()), "orig": {"tn": "12155551212"}, "dest": {"tn": ["12025550143"]}}
    number = TelephoneNumber("12025550143")
    values = [
        identity,
        identity_header(pair, div_claims(base, number, number), "div").format(),
        identity_header(pair, base | {"crn": "Alert", "rcd": {"nam": "Acme\x1b", "icn": "x"}}, "rcd").format(),
        identity_header(pair, base | {"rph": {"auth": ["ets.0"]}}, "rph").format(),
    ]
    path = tmp_path / "rich.sip"
    headers = [f"Identity: {value}" for value in values]
    path.write_text(invite("+12155551212", "+12025550143", *headers, "Resource-Priority: ets.0"))
    data = run_json("verify", path)
    assert data["result"] == "passed"
    assert data["diversions"] == ["12025550143"]
    assert data["identities"][1]["div"] == "12025550143"
    assert (data["rich"]["shown"], data["rich"]["crn"]) == ("partial", "Alert")
    assert data["rich"]["withheld"] == {"icn": "not an https URI"}
    assert data["priority"] == {"code": None, "auth": ["ets.0"], "sph": None}
    told = run("verify", path).stdout
    for line in ("diverted from 12025550143", "name: Acme\\x1b", "reason: Alert", "priority signed: ets.0",
                 "icn must not be shown: not an https URI"):  # fmt: skip
        assert f"  {line}\n" in told
    path.write_text(invite("+12155551212", "+12025550143", *headers))
    assert "  priority not signed: rph_mismatch\n" in run("verify", path).stdout
    assert run_json("verify", path)["priority"]["code"] == "rph_mismatch"


def test_a_nested_passport_has_its_row(run: Run, in_force: Provider, identity: str, tmp_path: Path) -> None:
    issued = in_force.credential
    pair = load_pair(key=issued.key, chain=issued.chain, x5u=in_force.x5u, live_from=0.0, spc=None)
    base = {"iat": int(time.time()), "orig": {"tn": "12155551212"}}
    number = TelephoneNumber("12025550143")
    claims = div_claims(base, number, number) | {"opt": identity.partition(";")[0]}
    path = tmp_path / "nested.sip"
    value = identity_header(pair, claims, "div-o").format()
    path.write_text(invite("+12155551212", "+12025550143", f"Identity: {value}"))
    assert "1.opt" in run("verify", path).stdout


@pytest.mark.parametrize("form", ["{}", "Identity: {}", "y:{}", "identity :  {}\n", "\n\n{}\n\n"])
def test_an_identity_alone_needs_the_numbers(run: Run, run_json: Callable[..., Any], identity: str, form: str) -> None:
    text = form.format(identity)
    assert run_json("verify", *NUMBERS, stdin=text)["result"] == "passed"
    assert "needs --from and --to" in run("verify", stdin=text, code=2).stderr


def test_a_folded_identity_is_read(run_json: Callable[..., Any], identity: str) -> None:
    assert run_json("verify", *NUMBERS, stdin=identity.replace(";info", "\r\n ;info"))["result"] == "passed"


def test_uris_may_be_given_whole(run_json: Callable[..., Any], identity: str) -> None:
    numbers = ["--from", "sip:+12155551212@example.com", "--to", "tel:+12025550143"]
    assert run_json("verify", *numbers, stdin=identity)["result"] == "passed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--from", "+13035550100", "--to", "+12025550143"], "orig_mismatch"),
        (["--from", "+12155551212", "--to", "+13035550100"], "dest_mismatch"),
        ([*NUMBERS, "--at", "2050-01-01"], "iat_stale"),
        ([*NUMBERS, "--at", "2001-01-01T00:00:00Z"], "iat_in_future"),
    ],
)
def test_a_call_that_does_not_pass_is_1_and_named(
    run: Run, run_json: Callable[..., Any], identity: str, arguments: list[str], code: str
) -> None:
    data = run_json("verify", *arguments, stdin=identity, code=1)
    assert (data["result"], data["code"], data["identities"][0]["code"]) == ("failed", code, code)
    assert data["identities"][0]["section"].startswith("RFC 8224")
    told = run("verify", *arguments, stdin=identity, code=1).stdout
    assert f"  {code}: " in told
    assert told.count(code) == 2  # in the verdict, and in the row of the header


def test_a_message_without_identity_is_1(run: Run, run_json: Callable[..., Any], in_force: Provider) -> None:
    assert in_force.settings.exists()
    assert run_json("verify", stdin=invite(), code=1)["code"] == "no_identity"
    assert run("verify", stdin=invite(), code=1).stdout.startswith("none: No-TN-Validation")


def test_other_anchors_need_no_settings(
    run_json: Callable[..., Any], message: Path, in_force: Provider, tmp_path: Path, present: float
) -> None:
    gone = ["--settings", tmp_path / "gone"]
    chain = ["--certificate", in_force.folder / "chain.pem"]
    anchors = ["--anchors", in_force.folder / "anchors.pem"]
    assert run_json("verify", message, *gone, *anchors, *chain)["result"] == "passed"
    assert run_json("verify", message, *gone, *anchors, code=1)["code"] == "certificate_not_yet"
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.new(present).root_pem)
    assert run_json("verify", message, *gone, "--anchors", other, *chain, code=1)["code"] == "certificate_untrusted"


def test_another_certificate_is_looked_at_with_the_choices_of_the_settings(
    run_json: Callable[..., Any], run: Run, in_force: Provider, change: Callable[..., None], present: float
) -> None:
    change(verification={"lab_hosts": ["127.0.0.1:9000"], "freshness": 600})
    chain = ["--certificate", in_force.folder / "chain.pem"]
    files = ["--key", in_force.folder / "signing.key", "--chain", in_force.folder / "chain.pem"]
    signed = run("sign", "--attest", "A", *NUMBERS, *files, "--x5u", "https://a.example/b.pem", "--at", present).stdout
    assert run_json("verify", *NUMBERS, *chain, "--at", present + 300, stdin=signed)["result"] == "passed"
    assert run_json("verify", *NUMBERS, *chain, "--at", present + 700, stdin=signed, code=1)["code"] == "iat_stale"
    lab = signed.replace("a.example", "127.0.0.1:9000")
    assert run_json("verify", *NUMBERS, *chain, "--at", present, stdin=lab, code=1)["code"] == "x5u_mismatch"


def test_verstat_is_written_as_the_settings_have_it(
    run: Run, run_json: Callable[..., Any], message: Path, change: Callable[..., None]
) -> None:
    change(verification={"verstat_level": True})
    assert run_json("verify", message)["verstat"] == "TN-Validation-Passed-A"
    assert run("verify", message).stdout.startswith("passed: TN-Validation-Passed-A\n")


def test_the_dial_plan_is_an_option_beside_anchors(run: Run, message: Path, in_force: Provider) -> None:
    anchors = ["--anchors", in_force.folder / "anchors.pem", "--certificate", in_force.folder / "chain.pem"]
    run("verify", message, *anchors, "--country", "GB")
    assert "not a country code" in run("verify", message, *anchors, "--country", "XX", code=2).stderr


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_anchors_that_are_none_are_3(run: Run, message: Path, tmp_path: Path, content: bytes) -> None:
    anchors = tmp_path / "bad.pem"
    anchors.write_bytes(content)
    assert str(anchors) in run("verify", message, "--anchors", anchors, code=3).stderr


def test_a_certificate_file_that_is_none_is_1(run_json: Callable[..., Any], message: Path, in_force: Provider) -> None:
    data = run_json("verify", message, "--certificate", in_force.folder / "policy.yaml", code=1)
    assert data["code"] == "certificate_malformed"


def test_a_certificate_helps_no_header_without_url(run_json: Callable[..., Any], in_force: Provider) -> None:
    chain = ["--certificate", in_force.folder / "chain.pem"]
    for value, code in (("e30.e30.AA;ppt=shaken", "info_missing"), (";", "identity_malformed")):
        assert run_json("verify", *NUMBERS, *chain, stdin=value, code=1)["code"] == code


@pytest.mark.parametrize("option", ["--anchors", "--certificate"])
def test_files_that_are_not_there_or_folders_are_wrong_usage(
    run: Run, message: Path, tmp_path: Path, option: str
) -> None:
    for place in (tmp_path / "gone", tmp_path):
        assert "Error: " in run("verify", message, option, place, code=2).stderr


def test_a_source_that_is_not_there_is_3(run: Run, tmp_path: Path) -> None:
    assert "No such file" in run("verify", tmp_path / "gone", code=3).stderr


def test_verifying_needs_no_private_key(run: Run, message: Path, in_force: Provider) -> None:
    (in_force.folder / "signing.key").unlink()
    run("verify", message)


def test_anchors_of_the_settings_that_are_not_there_are_3(run: Run, message: Path, in_force: Provider) -> None:
    (in_force.folder / "anchors.pem").unlink()
    assert "verification.trust_anchors[0]: " in run("verify", message, code=3).stderr


def test_verification_that_is_off_is_3(run: Run, message: Path, change: Callable[..., None]) -> None:
    change(verification={"mode": "off"})
    assert "give --anchors" in run("verify", message, code=3).stderr


def test_a_message_that_is_broken_behind_its_first_line_is_1(run: Run, in_force: Provider) -> None:
    assert in_force.settings.exists()
    assert "not a SIP request" in run("verify", stdin="INVITE sip:a@b SIP/2.0\r\nnonsense\r\n\r\n", code=1).stderr


# --- What stands in a call is not trusted ---------------------------------------------------------


def _token(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, "AAAA"])


def _hostile(text: str) -> list[bytes]:
    x5u = "https://a.example/b.pem"
    header = {"alg": "ES256", "typ": "passport", "ppt": "shaken", "x5u": x5u}
    claims = {
        "attest": "A",
        "dest": {"uri": [text]},
        "iat": 1,
        "orig": {"uri": text},
        "origid": "11111111-2222-4333-8444-555555555555",
    }
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return [
        f'{_token(header, claims)};info=<{x5u}>;ppt="{quoted}"'.encode("utf-8", "surrogateescape"),
        f'{_token(header, claims)};info=<{x5u}>;ppt=shaken;note="{quoted}"'.encode("utf-8", "surrogateescape"),
        f"{_token(header | {text: text}, claims | {text: text})};info=<{x5u}>".encode(),
    ]


HOSTILE = {
    "closing markup": "[/red]",
    "markup": "[link=https://evil.example]click[/link]",
    "escape sequence": "\x1b[2J\x1b]0;title\x07",
    "right-to-left override": "\u202egnp.exe",
    "brackets": "[[[",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("command", [["decode"], ["verify", *NUMBERS]], ids=["decode", "verify"])
@pytest.mark.usefixtures("in_force")
def test_nothing_in_a_call_reaches_the_terminal_as_markup_or_control(
    run: Run, run_json: Callable[..., Any], command: list[str], text: str
) -> None:
    for value in _hostile(text):
        # Quoted or not, ppt is a token, and no text holds control characters.
        broken = b'ppt="' in value or b"\x1b" in value
        code = 0 if command == ["decode"] and not broken else 1
        out = run(*command, stdin=value, code=code).stdout
        assert all(char.isprintable() or char == "\n" for char in out)
        run_json(*command, stdin=value, code=code)


@pytest.mark.parametrize("command", [["decode"], ["verify", *NUMBERS]], ids=["decode", "verify"])
@pytest.mark.usefixtures("in_force")
def test_bytes_that_are_not_utf_8_are_shown_and_not_stumbled_over(
    run: Run, run_json: Callable[..., Any], command: list[str]
) -> None:
    value = b"e30.e30.AA;info=<https://a.example/\xff>;note=\xfe"
    run(*command, stdin=value, code=0 if command == ["decode"] else 1)
    assert run_json(*command, stdin=value, code=0 if command == ["decode"] else 1)


# --- decode -------------------------------------------------------------------------------------


def test_decode_shows_parameters_header_and_claims(run: Run, run_json: Callable[..., Any], identity: str) -> None:
    (parts,) = run_json("decode", stdin=identity)
    assert parts["problem"] is None
    assert parts["parameters"] == {"info": parts["header"]["x5u"], "alg": "ES256", "ppt": "shaken"}
    assert parts["header"]["typ"] == "passport"
    assert parts["claims"]["orig"] == {"tn": "12155551212"}
    assert (parts["form"], parts["signature_octets"]) == ("full", 64)
    out = run("decode", stdin=identity).stdout
    assert "Identity 1 of 1 (not verified)" in out
    assert "claim      attest  A" in out
    assert "UTC)" in out


def test_decode_needs_no_settings_and_reads_whole_messages(run_json: Callable[..., Any], message: Path) -> None:
    assert len(run_json("decode", message)) == 1


def test_decode_shows_the_compact_form(run: Run, run_json: Callable[..., Any]) -> None:
    # RFC 8225 §7.
    (parts,) = run_json("decode", stdin="..AAAA;info=<https://a.example/b>;alg=ES256")
    assert (parts["form"], parts["claims"]) == ("compact", {})
    assert "3 octets, compact form" in run("decode", stdin="..AAAA;info=<https://a.example/b>").stdout


def test_an_identity_that_cannot_be_decoded_is_1_and_as_much_as_possible_is_shown(
    run: Run, run_json: Callable[..., Any], identity: str
) -> None:
    good, bad, worse = run_json("decode", stdin=f"{identity}\na.b.c;info=<https://a.example/b>\n;;\n", code=1)
    assert good["problem"] is None
    assert (bad["parameters"]["info"], bad["problem"]["code"]) == ("https://a.example/b", "token_malformed")
    assert (worse["header"], worse["problem"]["code"]) == (None, "identity_malformed")
    assert "problem    identity_malformed: " in run("decode", stdin=";;", code=1).stdout


def test_decode_of_a_message_without_identity_is_1(run: Run) -> None:
    assert "no Identity header" in run("decode", stdin=invite(), code=1).stderr


def test_decode_of_nothing_is_1(run: Run) -> None:
    assert "no Identity" in run("decode", stdin="", code=1).stderr


def test_decode_of_a_file_that_is_not_there_is_3(run: Run, tmp_path: Path) -> None:
    run("decode", tmp_path / "gone", code=3)
    run("decode", tmp_path, code=3)


def test_a_strange_iat_is_shown_without_a_time(run: Run) -> None:
    for iat in (10**15, "soon", True, None):
        out = run("decode", stdin=f"{_token({}, {'iat': iat})};info=<https://a.example/b>").stdout
        assert f"claim      iat     {iat}" in out
