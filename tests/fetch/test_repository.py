"""The lab's repository, told what to do by another process."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from shaken_plugin.fetch import FetchCode, FetchRules, Kind, fetch_once
from shaken_plugin.lab.repository import CONTROL, COUNTS, Behaviour, Face, Repository, as_json
from tests.fetch.conftest import Failing


def _ask(base: str, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_behaviours_arrive_as_they_were_told(repository: Repository, rules: FetchRules, failing: Failing) -> None:
    base = repository.url("", Face.PLAIN)
    binary = Behaviour(body=bytes([0x30, 0x82, 0x00, 0xFC]) + bytes(range(252)), headers=[("Age", "7")])
    told = as_json({"/told.pem": [Behaviour(503, headers=[("Retry-After", "9")]), binary]})
    assert _ask(base, "PUT", CONTROL, told) == (200, "done")
    assert failing(repository.url("/told.pem"), rules).retry_after == 9
    fetched = fetch_once(repository.url("/told.pem"), Kind.CERTIFICATE, rules)
    assert fetched.body == binary.octets
    assert ("age", "7") in fetched.headers
    status, counts = _ask(base, "GET", COUNTS)
    assert (status, counts["/told.pem"], repository.count("/told.pem")) == (200, 2, 2)


@pytest.mark.parametrize("body", ["no json", "[]", '{"/a": 1}', '{"/a": [{"stutus": 200}]}'])
def test_what_is_no_behaviour_is_said_so(repository: Repository, body: str) -> None:
    status, text = _ask(repository.url("", Face.PLAIN), "PUT", CONTROL, body)
    assert status == 400
    assert text


@pytest.mark.parametrize(("method", "path"), [("GET", CONTROL), ("PUT", COUNTS), ("GET", "/-/other")])
def test_control_knows_two_questions(repository: Repository, method: str, path: str) -> None:
    assert _ask(repository.url("", Face.PLAIN), method, path)[0] == 404


def test_etag_is_answered_with_304(repository: Repository, rules: FetchRules, chain: bytes) -> None:
    repository.set("/etag.pem", Behaviour(body=chain, etag='"v1"'), Behaviour(body=b"never sent", etag='"v1"'))
    url = repository.url("/etag.pem")
    first = fetch_once(url, Kind.CERTIFICATE, rules)
    assert first.etag == '"v1"'
    second = fetch_once(url, Kind.CERTIFICATE, rules, first)
    assert (second.not_modified, second.body, repository.count("/etag.pem")) == (True, chain, 2)


def test_command_serves_a_folder_until_it_is_interrupted(tmp_path: Path, chain: bytes, failing: Failing) -> None:
    (tmp_path / "709J.pem").write_bytes(chain)
    program = "from shaken_plugin.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "lab", "repository", str(tmp_path), "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            described = _first_document(process)
            hosts = frozenset(urlsplit(url).netloc for name, url in described.items() if name != "ca")
            rules = FetchRules(lab_hosts=hosts, ca_bundle=Path(described["ca"]))
            assert fetch_once(f"{described['good']}/709J.pem", Kind.CERTIFICATE, rules).body == chain
            assert failing(f"{described['good']}/none.pem", rules).status == 404
            failure = failing(f"{described['expired']}/709J.pem", replace(rules))
            assert failure.code is FetchCode.TLS_FAILED
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def _first_document(process: subprocess.Popen[str]) -> Mapping[str, str]:
    """The JSON document at the beginning of the output; the program goes on."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.rstrip() == "}":
            break
    found = json.loads(text)
    assert isinstance(found, dict)
    return found
