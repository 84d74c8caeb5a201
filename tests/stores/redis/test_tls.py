"""Redis over TLS: nobody but the server that was named, with a certificate of the authorities that were named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.redis.connection import RedisAccess
from shaken_plugin.stores.redis.log import FleetLog
from tests.contract.fleet import guarded


def ping(access: RedisAccess) -> object:
    log = FleetLog(access, "test")
    try:
        return log.command("PING")
    finally:
        log.close()


def test_the_name_in_the_certificate_must_be_the_one_in_the_settings(tmp_path: Path) -> None:
    with guarded(tmp_path, "localhost") as server:
        assert ping(replace(server.access, servers=(("localhost", server.port),))) in {b"PONG", True}
        with pytest.raises(StoreUnavailable, match=r"certificate is not valid for '127\.0\.0\.1'"):
            ping(server.access)


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with guarded(tmp_path) as server:
        assert ping(server.access) in {b"PONG", True}
        for ca in (str(other), None):  # None: the system's, which is none of ours
            with pytest.raises(StoreUnavailable, match="certificate verify failed"):
                ping(replace(server.access, ca=ca))
