"""The folder of certificate documents: file names no URL can steer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shaken_plugin.certs.directory import CertificateDirectory, file_name
from shaken_plugin.errors import FailureCode, VerificationFailure
from tests.conftest import NOW

URL = "https://certificates.example.com/709J.pem"


def test_a_document_lies_under_the_sha_256_of_its_url() -> None:
    # Written out, so that whoever fills the folder may rely on it: printf %s URL | sha256sum.
    assert file_name(URL) == f"{hashlib.sha256(URL.encode()).hexdigest()}.pem"
    assert file_name("https://a.example/b") == "daa1944644c377b3cf4807d9426a106de1003fff8ea4ec65634522fcfe0e83c0.pem"


@pytest.mark.parametrize("url", ["../../etc/passwd", "/etc/passwd", "", "https://a.example/" + "x" * 5_000, "\x00"])
def test_no_url_leaves_the_folder(tmp_path: Path, url: str) -> None:
    assert (tmp_path / file_name(url)).resolve().parent == tmp_path.resolve()
    assert CertificateDirectory(tmp_path).version(url, NOW) is None


@pytest.mark.parametrize("other", [URL.upper(), URL + "/", URL.replace("https", "http"), URL + " "])
def test_urls_that_differ_in_one_character_have_different_documents(tmp_path: Path, other: str) -> None:
    (tmp_path / file_name(URL)).write_bytes(b"document")
    assert CertificateDirectory(tmp_path).version(other, NOW) is None


@pytest.mark.parametrize("there", ["folder", "missing"])
def test_what_is_no_file_is_unavailable(tmp_path: Path, there: str) -> None:
    if there == "folder":
        (tmp_path / file_name(URL)).mkdir()
    with pytest.raises(VerificationFailure) as failure:
        CertificateDirectory(tmp_path).read(URL)
    assert failure.value.code is FailureCode.CERTIFICATE_UNAVAILABLE
    assert failure.value.detail


def test_a_folder_that_appears_later_is_found(tmp_path: Path) -> None:
    source = CertificateDirectory(tmp_path / "later")
    assert source.version(URL, NOW) is None
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / file_name(URL)).write_bytes(b"document")
    assert source.read(URL) == b"document"
