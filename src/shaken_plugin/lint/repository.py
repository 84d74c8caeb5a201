"""Lints of a certificate repository: the URL, and what it answers (ATIS-1000074, ATIS-1000080)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from shaken_plugin.core import x5u
from shaken_plugin.core.certificates import MAX_DOCUMENT_LENGTH
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.lint.certificate import Certificate
from shaken_plugin.lint.document import Document
from shaken_plugin.lint.model import Edition, Lint, Scope, Severity

DAY: Final = 86_400


class Trouble(Enum):
    """Why there is no answer."""

    URL = "the URL cannot be requested"
    HOST = "the host is not one that a verifier may ask"
    TLS = "no TLS connection"
    TIMEOUT = "no answer in time"
    CONNECTION = "no connection, or it broke"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One download. ``status`` is None without an answer; ``headers`` have small letters as keys.

    ``is_cut`` says that the body was longer than what was taken of it.
    """

    url: str
    lab_hosts: frozenset[str] = frozenset()
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_cut: bool = False
    trouble: Trouble | None = None
    detail: str = ""


_URL: Final = re.compile(r"(?i)(https?)://([^/?#]*)([^?#]*)(.*)", re.DOTALL)


def _authority(url: str) -> str:
    match = _URL.fullmatch(url)
    return "" if match is None else match[2]


def host_trouble(url: str, lab_hosts: frozenset[str]) -> str | None:
    """Why a verifier may not ask the host of a URL, whatever its scheme and port; None where it may."""
    authority = _authority(url).rpartition("@")[2]
    try:
        x5u.check(f"https://{authority}/", lab_hosts)  # whole, as hosts of the lab may be named with their port
    except VerificationFailure:
        try:
            x5u.check(f"https://{re.sub(r':[0-9]*$', '', authority)}/")
        except VerificationFailure as failure:
            return failure.detail
    return None


def _trouble(kind: Trouble, exchange: Exchange) -> str | None:
    return f"{kind.value}: {exchange.detail}" if exchange.trouble is kind else None


def _bad_url(exchange: Exchange) -> str | None:
    return _trouble(Trouble.URL, exchange)


def _url_host(exchange: Exchange) -> str | None:
    return _trouble(Trouble.HOST, exchange)


def _tls_transport(exchange: Exchange) -> str | None:
    return _trouble(Trouble.TLS, exchange)


def _request_timeout(exchange: Exchange) -> str | None:
    return _trouble(Trouble.TIMEOUT, exchange)


def _connection(exchange: Exchange) -> str | None:
    return _trouble(Trouble.CONNECTION, exchange)


def _status_200(exchange: Exchange) -> str | None:
    return None if exchange.status == 200 else f"the status is {exchange.status}"


def _redirect(exchange: Exchange) -> str | None:
    assert exchange.status is not None
    if not 300 <= exchange.status < 400:
        return None
    return f"the answer is {exchange.status}, to {exchange.headers.get('location', 'nowhere')}"


def _url_component(exchange: Exchange) -> str | None:
    match = _URL.fullmatch(exchange.url)
    if match is None:
        return None  # e_bad_url says so
    found = ["a user part"] if "@" in match[2] else []
    found += ["a query"] if "?" in match[4].partition("#")[0] else []
    found += ["a fragment"] if "#" in match[4] else []
    return f"the URL has {' and '.join(found)}" if found else None


def _protocol(exchange: Exchange) -> str | None:
    match = _URL.fullmatch(exchange.url)
    if match is None:
        return None  # e_bad_url says so
    if match[1].lower() != "https":
        return f"the scheme is {match[1]}"
    port = re.search(r":([0-9]*)\Z", match[2])
    if port is None or port[1] in x5u.PORTS["https"] or match[2].lower() in exchange.lab_hosts:
        return None
    return f"the port is {port[1]}"


def _moment(text: str) -> datetime:
    """An HTTP date.

    Raises:
        ValueError: it is none; or it has no time zone and cannot be compared.
    """
    moment = parsedate_to_datetime(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment


def _expires(headers: Mapping[str, str]) -> str | None:
    if "date" not in headers or "expires" not in headers:
        return None
    try:
        lifetime = _moment(headers["expires"]) - _moment(headers["date"])
    except (ValueError, TypeError, OverflowError, IndexError):
        return "Date or Expires cannot be read"
    return "Expires is less than 24 hours after Date" if lifetime < timedelta(days=1) else None


def _cache_header(exchange: Exchange) -> str | None:
    headers = exchange.headers
    if "no-cache" in headers.get("pragma", "").lower():
        return "the Pragma header is no-cache"
    if (problem := _expires(headers)) is not None:
        return problem
    control = headers.get("cache-control")
    if control is None:
        return "there is no Cache-Control header"
    directives = [part.strip().lower().partition("=") for part in control.split(",")]
    values = {name.strip(): value.strip().strip('"') for name, _, value in directives}
    if bad := [name for name in ("private", "no-store", "no-cache") if name in values]:
        return f"Cache-Control says {', '.join(bad)}"
    if re.fullmatch(r"[0-9]{1,10}", age := values.get("max-age", "")) is None:
        return "Cache-Control has no max-age"
    return None if int(age) >= DAY else f"Cache-Control has a max-age of {age} seconds"


def _content_type(exchange: Exchange) -> str | None:
    found = exchange.headers.get("content-type", "absent")
    right = found.partition(";")[0].strip().lower() == "application/pem-certificate-chain"
    return None if right else f"the Content-Type is {found}"


def _pem_certificate_chain(exchange: Exchange) -> str | None:
    document = Document.parse(exchange.body)
    if not document.is_pem:
        return "the body is not PEM"
    unreadable = document.problems or not all(isinstance(one, Certificate) for one in document.certificates)
    return "a CERTIFICATE block of the body cannot be read" if unreadable else None


def _body_too_large(exchange: Exchange) -> str | None:
    size = len(exchange.body)
    if size <= MAX_DOCUMENT_LENGTH and not exchange.is_cut:
        return None
    return f"the body has {'at least ' if exchange.is_cut else ''}{size} octets"


_ANY: Final = Scope[Exchange]("every URL", lambda _: True)
_ANSWERED: Final = Scope[Exchange]("where there is an answer", lambda exchange: exchange.status is not None)
_DELIVERED: Final = Scope[Exchange]("where the status is 200", lambda exchange: exchange.status == 200)
ERROR, WARN = Severity.ERROR, Severity.WARN
_SYSTEM: Final = Edition("system")
_A74, _A80 = Edition("ATIS-1000074"), Edition("ATIS-1000080")

REPOSITORY_LINTS: Final = (
    Lint("e_bad_url", ERROR, _SYSTEM, "", _ANY, _bad_url, "correct the URL"),
    Lint("e_url_host", ERROR, _SYSTEM, "", _ANY, _url_host,
         "publish under a public name; for a laboratory name the host with --lab-host"),
    Lint("e_tls_transport", ERROR, _SYSTEM, "", _ANY, _tls_transport,
         "give the web server a certificate of a public CA for this name"),
    Lint("e_request_timeout", ERROR, _SYSTEM, "", _ANY, _request_timeout,
         "let the server answer at once; a call waits no longer"),
    Lint("e_connection", ERROR, _SYSTEM, "", _ANY, _connection,
         "look whether the name resolves and the server listens"),
    Lint("e_http_status_200", ERROR, Edition("RFC 9110 §15"), "", _ANSWERED, _status_200,
         "let the URL answer 200 with the chain"),
    Lint("e_atis_redirect", ERROR, _A74, "", _ANSWERED, _redirect,
         "publish under the URL itself; verifiers follow no redirect"),
    Lint("e_atis_url_component", ERROR, _A74, "", _ANY, _url_component,
         "use a URL without user part, query and fragment, not even empty ones"),
    Lint("w_atis_protocol", WARN, _A80, "", _ANY, _protocol,
         "publish under https on port 443 or 8443"),
    Lint("e_atis_cache_header", ERROR, _A74, "", _DELIVERED, _cache_header,
         "send Cache-Control: public, max-age=86400 or more, and no Pragma and Expires against it"),
    Lint("w_atis_content_type", WARN, _A80, "", _DELIVERED, _content_type,
         "send Content-Type: application/pem-certificate-chain"),
    Lint("w_atis_pem_certificate_chain", WARN, _A80, "", _DELIVERED, _pem_certificate_chain,
         "publish the chain as PEM"),
    Lint("e_body_too_large", ERROR, _SYSTEM, "", _DELIVERED, _body_too_large,
         f"publish the chain alone; our verifier takes {MAX_DOCUMENT_LENGTH} octets"),
)  # fmt: skip
