"""A downloader that does as its URLs say, and the real daemon around it.

``python -m tests.agent.scripted SETTINGS FOLDER`` runs the daemon. Each download adds a line to
``FOLDER/downloads.log``. By the first part of the URL's path: ``slow-SECONDS`` answers late,
``missing`` and ``hang`` fail or never answer, ``junk`` answers HTML, ``busy`` is an overloaded
downloader, ``list`` answers ``FOLDER/list``, ``crl`` answers ``FOLDER/crl``; all else answers
``FOLDER/chain.pem``. ``FOLDER/clock`` has the seconds by which servers' clocks are ahead.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from shaken_plugin.agent.lists import (
    ListRefused,
    RevocationParser,
    TrustListContent,
    TrustListParser,
)
from shaken_plugin.agent.parts import Parts
from shaken_plugin.agent.trusted import parse_bundle
from shaken_plugin.cli.agent import run
from shaken_plugin.core.crl import RevocationList
from shaken_plugin.fetch import FetchCode, Fetched, FetchFailure, Kind


class Scripted:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.previous: list[Fetched | None] = []
        self.under_way = 0
        self.most = 0

    async def fetch(self, url: str, kind: Kind, previous: Fetched | None = None) -> Fetched:
        with (self.folder / "downloads.log").open("a") as log:
            log.write(f"{url}\n")
        self.previous.append(previous)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._answer(url)
        finally:
            self.under_way -= 1

    async def _answer(self, url: str) -> Fetched:
        word, _, seconds = urlsplit(url).path.split("/")[1].partition("-")
        await asyncio.sleep({"slow": float(seconds or 0), "hang": 3600.0}.get(word, 0.0))
        if word == "missing":
            raise FetchFailure(FetchCode.STATUS, "404")
        if word == "busy":
            raise FetchFailure(FetchCode.OVERLOADED, "")
        if word == "fault":
            raise RuntimeError("a fault in the downloader")
        now = time.time()
        name = {"list": "list", "crl": "crl"}.get(word, "chain.pem")
        try:
            body = b"<html>not found</html>" if word == "junk" else (self.folder / name).read_bytes()
        except OSError:
            raise FetchFailure(FetchCode.CONNECT_FAILED, "") from None
        ahead = self.folder / "clock"
        date = now + float(ahead.read_text()) if ahead.exists() else now
        return Fetched(url, body, now, now + 3600, '"tag"', None, headers=(("date", formatdate(date, usegmt=True)),))

    async def close(self) -> None:
        """Nothing is open."""

    def downloads(self) -> list[str]:
        return downloads(self.folder)


def downloads(folder: Path) -> list[str]:
    """The URLs that were downloaded, in order."""
    log = folder / "downloads.log"
    return log.read_text().split() if log.exists() else []


def trust_list_parser(signers: Sequence[x509.Certificate]) -> TrustListParser:
    """Reads ``{"signed_by": …, "sequence": …, "expires": …, "pem": …}``; for tests of what comes after."""

    def parse(body: bytes, now: float) -> TrustListContent:
        data = json.loads(body)
        if data["signed_by"] != "us" or not signers:
            raise ListRefused("signed by the wrong key")
        if now >= data["expires"]:
            raise ListRefused("it has expired")
        return TrustListContent(data["sequence"], data["expires"], parse_bundle(data["pem"].encode(), now).anchors)

    return parse


def revocation_parser(_signers: Sequence[x509.Certificate]) -> RevocationParser:
    """Reads ``{"this": …, "next": …, "revoked": [[issuer in hex, serial], …]}``."""

    def parse(body: bytes, _now: float) -> RevocationList:
        data = json.loads(body)
        revoked = frozenset((bytes.fromhex(issuer), int(serial)) for issuer, serial in data["revoked"])
        return RevocationList(b"pa", 1, data["this"], data["next"], revoked)

    return parse


def parts(folder: Path) -> Parts:
    return Parts(lambda _settings: Scripted(folder), trust_list_parser, revocation_parser)


if __name__ == "__main__":
    run(Path(sys.argv[1]), parts(Path(sys.argv[2])))
