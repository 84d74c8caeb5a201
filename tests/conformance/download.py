"""The network of a case: the production fetcher, with names and sockets that exist in memory only."""

from __future__ import annotations

import base64
from collections.abc import Hashable, Mapping
from typing import Any

from shaken_plugin.errors import FailureCode, VerificationFailure
from shaken_plugin.fetch import FetchFailure, FetchRules, Kind, fetch_once
from shaken_plugin.lab.wire import Played, Trouble, Wire

TROUBLES = {"timeout": Trouble.TIMEOUT, "tls": Trouble.TLS}


def download(case: Mapping[str, Any], url: str) -> bytes:
    """The document behind a URL.

    Raises:
        VerificationFailure: CERTIFICATE_UNAVAILABLE.
    """
    wire = Wire({known: _played(answer) for known, answer in case["cert_bodies"].items()}, case["dns"])
    try:
        fetched = fetch_once(
            url, Kind.CERTIFICATE, FetchRules(), clock=lambda: case["now"], resolve=wire.resolve, sockets=wire
        )
    except FetchFailure as exc:
        raise VerificationFailure(FailureCode.CERTIFICATE_UNAVAILABLE, str(exc)) from exc
    return fetched.body


def _played(answer: Mapping[str, Any]) -> Played:
    if (error := answer.get("error")) is not None:
        return Played(trouble=TROUBLES.get(error, Trouble.RESET))
    headers = answer.get("headers") or {}
    return Played(answer["status"], tuple(headers.items()), _body(answer))


def _body(answer: Mapping[str, Any]) -> bytes:
    if "body_b64" in answer:
        return base64.b64decode(answer["body_b64"])
    if "body_repeat" in answer:
        repeat = answer["body_repeat"]
        return str(repeat["unit"]).encode() * min(int(repeat["count"]), 1_000_000)
    return str(answer.get("body", "")).encode()


class CaseSource:
    """A `ports.CertificateSource` into which everything a case serves has been fetched."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self._case = case

    def version(self, url: str, now: float) -> Hashable:
        """See `ports.CertificateSource.version`; what failed is known, too."""
        return url

    def read(self, url: str) -> bytes:
        """See `ports.CertificateSource.read`."""
        return download(self._case, url)
