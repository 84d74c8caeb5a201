"""Redis over TLS: nobody but the server that was named, with a certificate of the authorities that were named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from redis import Redis

from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab.redis import MASTER, RedisServer, wait_until
from shaken_plugin.lab.servers import free_port
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


class Material(NamedTuple):
    """What two sides of one authority show each other."""

    server: tuple[Path, Path, Path]
    """Certificate, key and authority."""
    access: RedisAccess
    """With a certificate of our own."""
    options: dict[str, str]
    """Of a server that wants one from everybody, its peers too."""


@pytest.fixture
def material(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    """Of an authority that the system believes."""
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    paths = []
    for name in ("127.0.0.1", "client@example.com"):
        issued = authority.issue_cert(name)
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        paths += [certificate, key]
    options = {
        "tls-auth-clients": "yes",
        "tls-replication": "yes",
        "tls-client-cert-file": str(paths[2]),
        "tls-client-key-file": str(paths[3]),
    }
    access = RedisAccess((), tls=True, ca=str(ca), certificate=str(paths[2]), key=str(paths[3]))
    return Material((paths[0], paths[1], ca), access, options)


@contextmanager
def single(folder: Path, material: Material) -> Iterator[RedisAccess]:
    with RedisServer("one", folder / "one", material.options, access=material.access, tls=material.server) as server:
        yield server.access


@contextmanager
def sentinel(folder: Path, material: Material) -> Iterator[RedisAccess]:
    """One that wants a password of its own."""
    with single(folder, material) as master:
        ((host, port),) = master.servers
        watcher = RedisServer(
            "sentinel",
            folder / "sentinel",
            material.options | {"requirepass": "sesame"},
            access=replace(material.access, password="sesame"),
            tls=material.server,
            extra=[f"sentinel monitor {MASTER} {host} {port} 1"],
            arguments=["--sentinel"],
        )
        with watcher:
            yield replace(
                master, servers=watcher.access.servers, mode="sentinel", master=MASTER, sentinel_password="sesame"
            )


@contextmanager
def cluster(folder: Path, material: Material) -> Iterator[RedisAccess]:
    options = material.options | {"cluster-enabled": "yes", "tls-cluster": "yes", "cluster-port": str(free_port())}
    with RedisServer("node", folder / "node", options, access=material.access, tls=material.server) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        wait_until(lambda: "cluster_state:ok" in str(server.command("CLUSTER", "INFO")), "the Cluster has all slots")
        yield replace(server.access, mode="cluster")


@pytest.mark.parametrize("servers", [single, sentinel, cluster])
def test_both_sides_show_certificates_and_no_other_authority_is_believed_than_the_one_that_is_named(
    tmp_path: Path, material: Material, servers: Callable[[Path, Material], AbstractContextManager[RedisAccess]]
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with servers(tmp_path, material) as access:
        assert ping(access) in {b"PONG", True}
        assert ping(replace(access, ca=None)) in {b"PONG", True}  # the system's
        with pytest.raises(StoreUnavailable):
            ping(replace(access, certificate=None, key=None))
        with pytest.raises(StoreUnavailable, match=r"certificate verify failed|No master found"):
            ping(replace(access, ca=str(other)))
        if access.mode == "sentinel":
            with pytest.raises(StoreUnavailable):
                ping(replace(access, sentinel_password=None))


def test_the_master_that_the_sentinels_name_is_held_to_the_same_authorities(tmp_path: Path, material: Material) -> None:
    named = tmp_path / "named.pem"
    named.write_bytes(material.server[2].read_bytes())
    with sentinel(tmp_path, material) as access:
        log = FleetLog(replace(access, ca=str(named)), "test")
        assert log.command("PING") in {b"PONG", True}
        trustme.CA().cert_pem.write_to_path(named)
        assert isinstance(log.client, Redis)
        log.client.connection_pool.disconnect()  # from the master; the Sentinel's stays
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            log.command("PING")
        log.close()
