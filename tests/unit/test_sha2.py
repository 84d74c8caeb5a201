"""Python's own SHA-256 is the same function as OpenSSL's."""

from __future__ import annotations

import hashlib
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.core import sha2


@given(st.binary(max_size=500))
def test_it_is_the_same_function(data: bytes) -> None:
    assert sha2.sha256(data).digest() == hashlib.sha256(data).digest()
    assert sha2.sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.skipif(not (find_spec("_sha2") or find_spec("_sha256")), reason="this Python was built without")
def test_it_is_the_one_that_is_part_of_python() -> None:
    assert sha2.sha256 is not hashlib.sha256
    assert sha2.sha256(b"").__class__.__module__ in {"_sha2", "_sha256"}


@pytest.mark.parametrize("has", ["", "_sha2", "_sha256"])
def test_a_python_without_has_that_of_openssl(has: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = object()
    for name in ("_sha2", "_sha256"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(sha256=own) if name == has else None)
    spec = spec_from_file_location(sha2.__name__, sha2.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.sha256 is (own if has else hashlib.sha256)
