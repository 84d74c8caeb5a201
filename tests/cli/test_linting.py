"""``shaken lint-cert``: files, standard input, and URLs asked of a server of the test's own."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shaken_plugin.cli.downloading import download
from shaken_plugin.core.certificates import MAX_DOCUMENT_LENGTH
from shaken_plugin.lab.administrator import PolicyAdministrator
from shaken_plugin.lab.pki import Authority, Issued, key_pem
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lint.repository import Exchange, Trouble
from tests.cli.conftest import Run

RunJson = Callable[..., Any]
PKI = Path(__file__).parents[1] / "pki"
LOOPBACK = "127.0.0.1"


@pytest.fixture
def issued(living: Authority, present: float) -> Issued:
    return living.issue(now=present, spc="709J")


@pytest.fixture
def files(tmp_path: Path, living: Authority, issued: Issued, present: float) -> Path:
    (tmp_path / "chain.pem").write_bytes(issued.chain)
    (tmp_path / "key.pem").write_bytes(issued.key)
    (tmp_path / "roots.pem").write_bytes(living.root_pem)
    administrator = PolicyAdministrator.new(present)
    (tmp_path / "crl.pem").write_bytes(administrator.crl_signer.public_bytes(Encoding.PEM))
    (tmp_path / "list.crl").write_bytes(administrator.crl([], now=present))
    (tmp_path / "revoked.crl").write_bytes(administrator.crl([issued.certificate], now=present))
    return tmp_path


def lints(data: Any, source: int = 0) -> set[str]:
    return {finding["lint"] for finding in data["sources"][source]["findings"]}


OF_THE_LAB = {"e_atis_ext_certificate_policies_ca", "e_shaken_certificate_policies_id_ca",
              "e_atis_ext_crl_distribution_ca"}  # fmt: skip
"""What the lab's intermediate lacks."""


def test_a_chain_in_a_file_and_all_that_the_operator_knows(run_json: RunJson, files: Path) -> None:
    known = ("--anchors", files / "roots.pem", "--key", files / "key.pem", "--spc", "709J")
    data = run_json("lint-cert", files / "chain.pem", *known, code=1)
    assert lints(data) == OF_THE_LAB
    assert (data["ok"], data["errors"], data["warnings"], data["notices"]) == (False, 3, 0, 0)
    leaf, issuer = data["sources"][0]["certificates"]
    assert (leaf["kind"], leaf["spc"], issuer["kind"]) == ("end entity", "709J", "intermediate")
    assert leaf["subject"] == "C=US, O=Lab Provider, CN=SHAKEN 709J"
    finding = data["sources"][0]["findings"][0]
    assert finding.keys() == {"lint", "severity", "citation", "certificate", "text", "remedy"}
    assert (finding["severity"], finding["certificate"]) == ("error", 1)


def test_a_leaf_of_the_lab_has_no_error_and_that_is_0(run_json: RunJson, issued: Issued) -> None:
    data = run_json("lint-cert", stdin=issued.certificate.public_bytes(Encoding.PEM))
    assert (data["ok"], lints(data)) == (True, {"w_chain_incomplete"})
    assert data["sources"][0]["source"] == "-"


def test_another_key_code_root_or_time_is_said(run_json: RunJson, files: Path, present: float) -> None:
    (files / "other.key").write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    (files / "other.pem").write_bytes(Authority.new(present, name="Other").root_pem)
    known = ("--anchors", files / "other.pem", "--key", files / "other.key", "--spc", "811K")
    data = run_json("lint-cert", files / "chain.pem", *known, "--at", present + 80 * 86_400, code=1)
    assert lints(data) - OF_THE_LAB == {
        "e_chain_root", "e_key_mismatch", "e_spc_mismatch", "e_self_test", "w_validity_renewal",
    }  # fmt: skip
    data = run_json("lint-cert", files / "chain.pem", "--margin", 3, "--at", present + 80 * 86_400, code=1)
    assert "w_validity_renewal" not in lints(data)


def test_roots_come_from_settings_too(run: Run, run_json: RunJson, provider: Provider, files: Path) -> None:
    data = run_json("lint-cert", files / "chain.pem", "--settings", provider.settings, code=1)
    assert "e_chain_root" not in lints(data)
    anchors = provider.settings.parent / "anchors.pem"
    anchors.write_text("nothing")
    told = run("lint-cert", files / "chain.pem", "--settings", provider.settings, code=3).stderr
    assert "not a PEM file of root certificates" in told
    anchors.unlink()
    assert run("lint-cert", files / "chain.pem", "--settings", provider.settings, code=3).stderr


def test_a_revocation_list_is_a_source_of_its_own(run: Run, run_json: RunJson, files: Path, present: float) -> None:
    signed = ("--crl-signer", files / "crl.pem")
    data = run_json("lint-cert", files / "chain.pem", "--crl", files / "revoked.crl", *signed, code=1)
    assert lints(data) - OF_THE_LAB == {"e_crl_revoked"}
    assert data["sources"][1] == {"source": str(files / "revoked.crl"), "certificates": [], "findings": []}
    later = ("--at", present + 2 * 86_400)
    data = run_json("lint-cert", files / "chain.pem", "--crl", files / "list.crl", *signed, *later, code=1)
    assert (lints(data) - OF_THE_LAB, lints(data, 1)) == (set(), {"e_crl_out_of_date"})
    told = run("lint-cert", files / "chain.pem", "--crl", files / "list.crl", *signed, *later, code=1).stdout
    assert "the revocation list is out of date since" in " ".join(told.split())


def test_who_signs_revocation_lists_comes_from_settings_too(
    run: Run, run_json: RunJson, provider: Provider, change: Callable[..., None], files: Path
) -> None:
    asked = ("lint-cert", files / "chain.pem", "--crl", files / "revoked.crl", "--settings", provider.settings)
    assert "--crl needs --crl-signer" in run(*asked, code=2).stderr
    here = {"anchors": ["file:anchors.pem"], "crl": {"signers": [f"file:{files / 'crl.pem'}"]}}
    change(trust_lists={"lab": here}, verification={"trust_anchors": [], "trust_list": "lab"})
    assert lints(run_json(*asked, code=1)) - OF_THE_LAB == {"e_crl_revoked"}
    (files / "crl.pem").unlink()
    assert "No such file" in run(*asked, code=3).stderr


def test_roots_of_a_list_that_the_agent_fetches_are_not_known_here(
    run: Run, run_json: RunJson, provider: Provider, change: Callable[..., None], files: Path
) -> None:
    listed = {"url": "https://sti-pa.example/list", "unsigned": True}
    change(trust_lists={"lab": listed}, verification={"trust_anchors": [], "trust_list": "lab"})
    asked = ("lint-cert", files / "chain.pem", "--settings", provider.settings)
    assert "e_chain_root" not in lints(run_json(*asked, code=1))
    assert "not checked without --anchors" in run(*asked, code=1).stdout


def test_several_sources_are_compared(run_json: RunJson, files: Path) -> None:
    names = ("NetNumber_19d9f5fa64a5", "no_crldp_0778cb5231")
    paths = [PKI / "samples" / f"{names[0]}.pem", PKI / "anomalies" / f"{names[1]}.pem"]
    data = run_json("lint-cert", *paths, code=1)
    assert all("w_key_reused" in lints(data, place) for place in (0, 1))


def test_people_get_a_table_with_what_to_do(run: Run, files: Path) -> None:
    told = run("lint-cert", files / "chain.pem", code=1).stdout
    text = " ".join(told.split())
    assert "end entity, SPC 709J, C=US, O=Lab Provider, CN=SHAKEN 709J, until" in text
    assert "e_atis_ext_crl_distribution_ca" in text
    assert "3 errors, 0 warnings, 0 notices" in text
    assert "not checked without --anchors, --key, --spc, --crl" in text
    assert "1 error," in run("lint-cert", "-", code=1, stdin=b"nothing").stdout


def test_without_findings_there_is_no_table_and_with_all_options_nothing_is_left_out(run: Run, files: Path) -> None:
    told = run("lint-cert", files / "roots.pem").stdout
    assert "[ATIS" not in told
    assert "0 errors, 0 warnings, 0 notices" in told
    known = ("--anchors", files / "roots.pem", "--key", files / "key.pem", "--spc", "709J", "--crl", files / "list.crl")
    assert "not checked" not in run("lint-cert", files / "roots.pem", *known, "--crl-signer", files / "crl.pem").stdout


def test_what_is_no_certificate_keeps_its_place(run: Run, run_json: RunJson) -> None:
    data = run_json("lint-cert", code=1, stdin=b"\x30garbage")
    assert (data["sources"][0]["certificates"], lints(data)) == ([None], {"e_der_unreadable"})
    assert "1  cannot be read" in run("lint-cert", code=1, stdin=b"\x30garbage").stdout


def test_what_a_certificate_says_cannot_act_on_the_terminal(run: Run) -> None:
    told = run("lint-cert", PKI / "anomalies" / "unparseable_4378a3f13651.der", code=1).stdout
    assert "e_der_refused" in told
    evil = "x\x1b[31m[bold]"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, evil)])
    made = _certificate(ec.generate_private_key(ec.SECP256R1()), name)
    told = run("lint-cert", "-", code=1, stdin=made.public_bytes(Encoding.DER)).stdout
    assert "\x1b" not in told
    assert "\\x1b[31m[bold]" in told


@pytest.mark.parametrize("name", [path.name for path in sorted((PKI / "anomalies").iterdir())])
def test_every_anomaly_gives_findings_and_no_traceback(run_json: RunJson, name: str) -> None:
    code = 0 if name.startswith("sig_sha384") else 1
    data = run_json("lint-cert", PKI / "anomalies" / name, "--at", "2025-08-12", code=code)
    assert lints(data)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.pem"],
        ["."],
        ["chain.pem", "--anchors", "key.pem"],
        ["chain.pem", "--key", "chain.pem"],
        ["chain.pem", "--crl", "list.crl", "--crl-signer", "key.pem"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_read_is_3(run: Run, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(files)
    assert run("lint-cert", *arguments, code=3).stderr


@pytest.mark.parametrize(
    "arguments", [["--margin", "-1"], ["--anchors", "nowhere"], ["--at", "soon"], ["--crl", __file__]]
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    run("lint-cert", *arguments, code=2, stdin=b"")


# --- URLs -----------------------------------------------------------------------------------------


def _certificate(key: ec.EllipticCurvePrivateKey, name: x509.Name) -> x509.Certificate:
    """A self-signed web certificate for loopback."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(LOOPBACK))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


SOUND = {"Content-Type": "application/pem-certificate-chain", "Cache-Control": "public, max-age=86400"}


class Repository(ThreadingHTTPServer):
    """Answers by path; notes what was asked."""

    daemon_threads = True
    body = b""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__((LOOPBACK, 0), Answers)
        self.asked: list[str] = []
        self.scheme = "https" if context else "http"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def host(self) -> str:
        return f"{LOOPBACK}:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.host}/{path}"

    def get(self, path: str, timeout: float = 5.0) -> Exchange:
        return download(self.url(path), frozenset({self.host}), timeout)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what these tests are about."""


class Answers(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/slow":
            time.sleep(1.0)
        if self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b"x")
                time.sleep(0.1)
            return
        status = {"/missing": 404, "/moved": 302}.get(self.path, 200)
        body = b"x" * 4_000_000 if self.path == "/long" else self.server.body
        self.send_response(status)
        for name, value in SOUND.items():
            self.send_header(name, value)
        if self.path == "/moved":
            self.send_header("Location", self.server.url("chain.pem"))
        if self.path in {"/cut", "/reset"}:
            self.send_header("Content-Length", str(len(body) + 100))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/reset":
            # With a linger time of zero, closing resets the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the overridden one
        """Nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None, body: bytes) -> Iterator[Repository]:
    with Repository(context) as server:
        server.body = body
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def repository(tmp_path: Path, issued: Issued, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """An HTTPS repository with the chain, on loopback, whose own certificate is trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _certificate(key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, LOOPBACK)]))
    (tmp_path / "web.pem").write_bytes(made.public_bytes(Encoding.PEM) + key_pem(key))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web.pem")
    with serving(context, issued.chain) as server:
        yield server


def test_a_repository_is_asked_and_judged(run_json: RunJson, repository: Repository) -> None:
    url = repository.url("chain.pem")
    data = run_json("lint-cert", url, "--lab-host", repository.host, code=1)
    assert lints(data) == OF_THE_LAB
    assert data["sources"][0]["source"] == url
    assert repository.asked == ["/chain.pem"]


def test_lab_hosts_of_the_settings_may_be_asked(
    run_json: RunJson, repository: Repository, provider: Provider, change: Callable[..., None]
) -> None:
    change(verification={"lab_hosts": [repository.host]})
    data = run_json("lint-cert", repository.url("chain.pem"), "--settings", provider.settings, code=1)
    assert lints(data) == OF_THE_LAB


def test_the_ca_bundle_of_the_settings_is_used(
    run_json: RunJson,
    repository: Repository,
    provider: Provider,
    change: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    change(verification={"lab_hosts": [repository.host]})
    url = repository.url("chain.pem")
    assert "e_tls_transport" in lints(run_json("lint-cert", url, "--settings", provider.settings, code=1))
    change(agent={"ca_bundle": str(tmp_path / "web.pem")})
    assert lints(run_json("lint-cert", url, "--settings", provider.settings, code=1)) == OF_THE_LAB


def test_a_private_address_is_not_asked(run_json: RunJson, repository: Repository) -> None:
    data = run_json("lint-cert", repository.url("chain.pem"), code=1)
    assert lints(data) == {"e_url_host", "w_atis_protocol"}
    assert repository.asked == []


def test_a_redirect_is_reported_and_not_followed(run_json: RunJson, repository: Repository) -> None:
    data = run_json("lint-cert", repository.url("moved"), "--lab-host", repository.host, code=1)
    assert lints(data) == {"e_http_status_200", "e_atis_redirect"}
    assert repository.asked == ["/moved"]
    assert repository.url("chain.pem") in str(data["sources"][0]["findings"])


def test_an_error_page_is_no_certificate(run_json: RunJson, repository: Repository) -> None:
    data = run_json("lint-cert", repository.url("missing"), "--lab-host", repository.host, code=1)
    assert lints(data) == {"e_http_status_200"}


def test_a_body_is_taken_up_to_a_limit(repository: Repository) -> None:
    exchange = repository.get("long")
    assert exchange.is_cut
    assert MAX_DOCUMENT_LENGTH < len(exchange.body) <= MAX_DOCUMENT_LENGTH + 16_384


@pytest.mark.parametrize("path", ["slow", "drip"])
def test_all_of_it_has_a_time_limit(repository: Repository, path: str) -> None:
    start = time.monotonic()
    exchange = repository.get(path, timeout=0.4)
    assert exchange.trouble is Trouble.TIMEOUT
    assert time.monotonic() - start < 0.9


@pytest.mark.parametrize("path", ["cut", "reset"])
def test_a_connection_that_breaks_is_no_answer(repository: Repository, path: str) -> None:
    exchange = repository.get(path)
    assert (exchange.trouble, exchange.status) == (Trouble.CONNECTION, None)


def test_nobody_listening_is_no_answer(repository: Repository) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        host = f"{LOOPBACK}:{taken.getsockname()[1]}"
        exchange = download(f"https://{host}/", frozenset({host}))
    assert exchange.trouble is Trouble.CONNECTION
    assert exchange.detail


def test_a_web_certificate_that_nobody_trusts(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    exchange = repository.get("chain.pem")
    assert exchange.trouble is Trouble.TLS
    assert repository.asked == []


def test_http_is_asked_and_found_fault_with(run_json: RunJson, issued: Issued) -> None:
    with serving(None, issued.chain) as server:
        data = run_json("lint-cert", server.url("chain.pem"), "--lab-host", server.host, code=1)
        assert lints(data) == OF_THE_LAB | {"w_atis_protocol"}
        tls = download(f"https://{server.host}/", frozenset({server.host}))
    assert tls.trouble is Trouble.TLS


@pytest.mark.parametrize(
    ("url", "lint"),
    [
        ("https://", "e_bad_url"),
        ("gopher://example.com/", "e_bad_url"),
        ("https://example.com/\x00", "e_bad_url"),
        ("https://exa mple.com/", "e_url_host"),
        ("http://[", "e_url_host"),
        ("https://localhost:99999/", "e_url_host"),
    ],
)
def test_what_cannot_be_asked_is_said(run_json: RunJson, url: str, lint: str) -> None:
    assert lint in lints(run_json("lint-cert", url, code=1))
