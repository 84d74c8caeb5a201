"""A provider for the lab: keys, trust anchors, a policy and settings in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from shaken_plugin.certs.directory import file_name
from shaken_plugin.lab.pki import Authority, Issued

CERTIFICATE_HOST: Final = "certificates.lab.example.com"
"""Where the lab's x5u URLs point; nothing is ever fetched from there."""

SPC: Final = "709J"

_Dumper: Final[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's, where there is one: ten times as fast."""


def sample_policy(now: float) -> dict[str, Any]:
    """The records of the demonstration: a contact centre, a small customer, a gateway.

    Source addresses are those of Linux's loopback network, so that one machine can play all parts.
    """
    today = datetime.fromtimestamp(now, UTC)

    def day(days: int) -> str:
        return f"{today + timedelta(days=days):%Y-%m-%d}"

    return {
        "customers": [
            {
                "id": "acme",
                "name": "Acme Contact Centre",
                "state": "verified",
                "trunks": [{"id": "acme-dialler", "addresses": ["127.0.0.2"]}],
            },
            {
                "id": "pending",
                "name": "Newcomer Ltd",
                "state": "pending",
                "trunks": [{"id": "newcomer", "addresses": ["127.0.0.5"]}],
            },
            {
                "id": "banned",
                "name": "Suspended Inc",
                "state": "suspended",
                "trunks": [{"id": "suspended", "addresses": ["127.0.0.6"]}],
            },
        ],
        "gateways": [{"id": "intl", "name": "International gateway", "addresses": ["127.0.0.3"]}],
        "rights": [
            {"customer": "acme", "basis": "assigned", "numbers": ["+12155551200..+12155551299"]},
            {
                "customer": "acme",
                "basis": "letter",
                "document": "LOA-2026-113",
                "use_case": "appointment reminders for Example Clinic",
                "valid_from": day(-200),
                "valid_until": day(120),
                "numbers": ["+13125550142"],
            },
            {
                "customer": "acme",
                "basis": "letter",
                "document": "LOA-2025-007",
                "use_case": "surveys for Example Bank",
                "valid_until": day(-1),
                "numbers": ["+14155550177"],
            },
        ],
    }


@dataclass(frozen=True, slots=True)
class Provider:
    """A folder with everything one Kamailio needs."""

    folder: Path
    settings: Path
    credential: Issued
    x5u: str

    @classmethod
    def make(
        cls,
        folder: Path,
        authority: Authority,
        now: float,
        *,
        spc: str = SPC,
        policy: Mapping[str, Any] | None = None,
        signing: Mapping[str, Any] | None = None,
        verification: Mapping[str, Any] | None = None,
        agent: Mapping[str, Any] | None = None,
        records: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Provider:
        """A new provider.

        Args:
            folder: where; created.
            authority: issues its certificate and is its only trust anchor.
            now: POSIX seconds.
            spc: its Service Provider Code.
            policy: records instead of `sample_policy`.
            signing: settings of this section that differ from the lab's.
            verification: likewise.
            agent: likewise.
            records: likewise.
            settings: other settings.
        """
        folder.mkdir(parents=True, exist_ok=True)
        issued = authority.issue(spc=spc, now=now)
        x5u = f"https://{CERTIFICATE_HOST}/{spc}.pem"
        (folder / "signing.key").write_bytes(issued.key)
        (folder / "signing.key").chmod(0o600)
        (folder / "chain.pem").write_bytes(issued.chain)
        (folder / "anchors.pem").write_bytes(authority.root_pem)
        (folder / "certificates").mkdir(exist_ok=True)
        dump(folder / "policy.yaml", policy if policy is not None else sample_policy(now))
        path = folder / "shaken.yaml"
        pair = {"key": "file:signing.key", "chain": "file:chain.pem", "x5u": x5u}
        dump(
            path,
            {
                "store": {"path": "policy.db"},
                "signing": {"credentials": [{"name": "main", "spc": spc, "pairs": [pair]}], **(signing or {})},
                "verification": {
                    "trust_anchors": ["file:anchors.pem"],
                    "certificates": "certificates",
                    "cache": "certificates.sqlite",
                    "replay_memory": "replay.memory",
                    **(verification or {}),
                },
                "agent": {"socket": "agent.sock", "listen": "127.0.0.1:0"} | dict(agent or {}),
                "records": {"folder": "calls", "ledger": "sqlite:ledger.db", **(records or {})},
                "log": {"full_numbers": True, "trace": True},
                "policy": "policy.yaml",
                **settings,
            },
        )
        return cls(folder, path, issued, x5u)

    def publish(self, x5u: str, chain: bytes) -> None:
        """Put a certificate document where this provider's verifier looks it up."""
        (self.folder / "certificates" / file_name(x5u)).write_bytes(chain)


def dump(path: Path, data: Mapping[str, Any]) -> None:
    """Write YAML as a person would."""
    path.write_text(yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True), "utf-8")
