"""``shaken lab``."""

from __future__ import annotations

import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.directory import file_name
from shaken_plugin.core.certificates import SigningCertificate, parse_chain
from shaken_plugin.lab.pki import Defect, KeyKind
from tests.cli.conftest import Run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "pki"


def _names(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def test_a_certificate_is_made_with_all_that_belongs_to_it(run_json: Callable[..., Any], out: Path) -> None:
    data = run_json("lab", "pki", "--out", out, "--spc", "709J")
    url = "https://certificates.lab.example.com/709J.pem"
    assert data == {
        "anchors": f"{out}/anchors.pem",
        "key": f"{out}/709J.key",
        "chain": f"{out}/709J.pem",
        "published": f"{out}/certificates/{file_name(url)}",
        "x5u": url,
    }
    chain = Path(data["chain"]).read_bytes()
    assert load_pair(key=Path(data["key"]).read_bytes(), chain=chain, x5u=url, live_from=0, spc="709J")
    assert Path(data["published"]).read_bytes() == chain


def test_keys_are_for_their_owner_alone(run: Run, out: Path) -> None:
    run("lab", "pki", "--out", out, "--spc", "709J")
    for name in ("709J.key", "authority.pem"):
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o600


def test_a_folder_with_an_authority_gets_one_more_certificate(run: Run, out: Path) -> None:
    run("lab", "pki", "--out", out, "--spc", "709J")
    anchors = (out / "anchors.pem").read_bytes()
    told = run("lab", "pki", "--out", out, "--spc", "811K", "--name", "other").stdout
    assert (out / "anchors.pem").read_bytes() == anchors
    assert {"709J.key", "other.key", "other.pem"} <= _names(out)
    assert f"chain      {out}/other.pem" in told


def test_numbers_and_ranges_may_stand_for_an_spc(run: Run, out: Path) -> None:
    run("lab", "pki", "--out", out, "--number", "12155551212", "--number", "911", "--range", "12155551300", "100")
    (leaf, *_) = parse_chain((out / "12155551212.pem").read_bytes())
    tnauthlist = SigningCertificate.load(leaf).tnauthlist
    assert (tnauthlist.spcs, tnauthlist.ones) == ((), ("12155551212", "911"))
    assert tnauthlist.lists("12155551399")
    run("lab", "pki", "--out", out, "--range", "12155551300", "100")
    assert (out / "12155551300.pem").exists()


def test_life_and_issuer_are_options(run: Run, out: Path) -> None:
    run("lab", "pki", "--out", out, "--spc", "709J", "--days", "7", "--issuer-key", KeyKind.RSA.value)
    leaf, issuer = x509.load_pem_x509_certificates((out / "709J.pem").read_bytes())
    assert timedelta(days=6.9) < leaf.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=7)
    assert leaf.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=1)
    assert issuer.public_key().__class__.__name__ == "RSAPublicKey"


def test_a_certificate_of_one_day_is_valid(run: Run, out: Path) -> None:
    run("lab", "pki", "--out", out, "--spc", "709J", "--days", "1")
    (leaf, *_) = parse_chain((out / "709J.pem").read_bytes())
    assert leaf.not_valid_after_utc > datetime.now(UTC) + timedelta(hours=23)


@pytest.mark.parametrize("defect", [defect.value for defect in Defect])
def test_every_defect_can_be_made(run: Run, out: Path, defect: str) -> None:
    run("lab", "pki", "--out", out, "--spc", "709J", "--defect", defect)
    assert (out / "709J.pem").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--number", "+12155551212"],
        ["--number", "1215555121212345"],
        ["--number", "nobody"],
        ["--range", "12155551300", "1"],
        ["--range", "9999", "2"],
        ["--spc", "7 09"],
        ["--spc", "ü"],
    ],
    ids=" ".join,
)
def test_what_no_certificate_can_carry_is_1_and_leaves_no_certificate(
    run: Run, out: Path, arguments: list[str]
) -> None:
    assert run("lab", "pki", "--out", out, *arguments, code=1).stderr
    assert not {name for name in _names(out) if name.endswith(".key") or name.startswith("certificates")}


def test_a_folder_with_something_else_in_place_of_the_authority_is_1(run: Run, out: Path) -> None:
    out.mkdir()
    (out / "authority.pem").write_text("something else")
    assert "not a lab authority" in run("lab", "pki", "--out", out, "--spc", "709J", code=1).stderr
    assert (out / "authority.pem").read_text() == "something else"


@pytest.mark.parametrize(
    "arguments", [[], ["--spc", "709J", "--days", "0"], ["--spc", "709J", "--defect", "none"], ["--range", "1215", "x"]]
)
def test_wrong_usage_is_2(run: Run, out: Path, arguments: list[str]) -> None:
    run("lab", "pki", "--out", out, *arguments, code=2)
    assert not out.exists()


def test_the_demonstration_without_its_programs_is_3_and_names_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.defpath", str(tmp_path))
    told = run("lab", "demo", "--keep", tmp_path / "demo", code=3)
    assert "kamailio" in told.stderr or "sipp" in told.stderr
