"""One download: one connection, one request, one answer that is judged; nothing is kept or repeated."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import httpcore

from shaken_plugin import __version__
from shaken_plugin.core.x5u import Target
from shaken_plugin.fetch import caching, freshness
from shaken_plugin.fetch.caching import Asked, Headers
from shaken_plugin.fetch.content import check_body
from shaken_plugin.fetch.model import DAY, FetchCode, Fetched, FetchFailure, Kind, KindRules
from shaken_plugin.fetch.sockets import GuardedBackend

MAX_HEADERS: Final = 100
MAX_HEADER_OCTETS: Final = 16_384
FRAMING_OCTETS: Final = 65_536
"""What an answer may have beside its body: header, informational answers, chunk sizes, trailers."""

_ACCEPT: Final = {
    # ATIS-1000080: the media type of a chain; many repositories use another, hence the rest.
    Kind.CERTIFICATE: "application/pem-certificate-chain, */*;q=0.5",
    Kind.TRUST_LIST: "*/*",
    Kind.CRL: "application/pkix-crl, */*;q=0.5",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What to fetch."""

    url: str
    target: Target
    kind: Kind
    rules: KindRules
    previous: Fetched | None
    """What was fetched before of this URL; the server is asked whether it still holds."""


async def download(
    question: Question, backend: GuardedBackend, tls: ssl.SSLContext, clock: Callable[[], float]
) -> Fetched:
    """Fetch a document.

    Raises:
        FetchFailure: anything but OVERLOADED, CIRCUIT_OPEN and URL_NOT_ALLOWED; the caller keeps the deadline.
    """
    asked = caching.ask(question.url, _request_headers(question), _stored(question.previous))
    requested_at = clock()
    try:
        async with _answer(question.target, asked, backend, tls) as response:
            headers = _headers(response)
            received_at = clock()
            current = _current(asked, response.status, headers, received_at)
            fresh = freshness.fresh_until(current, requested_at, received_at, question.rules)
            known = dict(freshness.validators(current))
            fetched = Fetched(
                question.url, b"", received_at, fresh, known.get("etag"), known.get("last-modified"), headers=headers
            )
            if response.status == 304:
                assert question.previous is not None  # else nothing conditional was asked
                return replace(fetched, body=question.previous.body, not_modified=True)
            _check_encoding(headers)
            backend.phase("reading the body")
            body = await _read(response, headers, question.rules.max_body)
    except (httpcore.NetworkError, httpcore.ProtocolError) as exc:
        why = str(exc) or "the connection broke"
        raise FetchFailure(FetchCode.BODY_BROKEN, f"no whole answer: {why}") from exc
    except httpcore.TimeoutException as exc:
        raise FetchFailure(FetchCode.TIMEOUT, str(exc) or "no answer") from exc
    check_body(body, question.kind)
    return replace(fetched, body=body)


async def warm_up() -> None:
    """Have httpcore load what it loads at its first request: 50 ms in which a loop answers nobody."""
    backend = httpcore.AsyncMockBackend([b"HTTP/1.1 204 No Content\r\n\r\n"])
    origin = httpcore.Origin(b"http", b"localhost", 80)
    async with httpcore.AsyncHTTPConnection(origin, network_backend=backend) as connection:
        await connection.request("GET", "http://localhost/")


@asynccontextmanager
async def _answer(
    target: Target, asked: Asked, backend: GuardedBackend, tls: ssl.SSLContext
) -> AsyncIterator[httpcore.Response]:
    """The header of the answer; the connection is closed afterwards, never used again."""
    url = httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )
    sent = [(name.encode(), value.encode()) for name, value in caching.sent(asked)]
    request = httpcore.Request("GET", url, headers=sent)
    connection = httpcore.AsyncHTTPConnection(url.origin, ssl_context=tls, http2=False, network_backend=backend)
    try:
        response = await connection.handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()
    finally:
        await connection.aclose()
        await backend.aclose()


def _request_headers(question: Question) -> Headers:
    target = question.target
    host = f"[{target.host}]" if ":" in target.host else target.host
    default = {"https": 443, "http": 80}[target.scheme]
    return [
        ("Host", host if target.port == default else f"{host}:{target.port}"),
        ("User-Agent", f"shaken-plugin/{__version__}"),
        ("Accept", _ACCEPT[question.kind]),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
    ]


def _stored(previous: Fetched | None) -> Headers:
    """What is known of the document that is there: ETag and Last-Modified are all that is kept of its header."""
    if previous is None:
        return ()
    # Validated once more: they come back from a file.
    return freshness.validators([("etag", previous.etag or ""), ("last-modified", previous.last_modified or "")])


def _headers(response: httpcore.Response) -> tuple[tuple[str, str], ...]:
    """The header fields, names in lower case.

    Raises:
        FetchFailure: TOO_LARGE.
    """
    octets = sum(len(name) + len(value) for name, value in response.headers)
    if len(response.headers) > MAX_HEADERS or octets > MAX_HEADER_OCTETS:
        raise FetchFailure(
            FetchCode.TOO_LARGE,
            f"a header of {len(response.headers)} fields, {octets} octets; at most {MAX_HEADERS}, {MAX_HEADER_OCTETS}",
        )
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers)


def _current(asked: Asked, status: int, headers: Headers, now: float) -> Headers:
    """The header of the document from now on.

    Raises:
        FetchFailure: STATUS or REDIRECT; BODY_BROKEN, where a 304 speaks of another document.
    """
    legible = caching.legible(headers)
    if status == 200:
        return legible
    if status == 304 and caching.is_conditional(asked):
        current = caching.updated(asked, legible)
        if current is None:
            raise FetchFailure(FetchCode.BODY_BROKEN, "304 for another document than the one that was asked about")
        return current
    wait = freshness.retry_after(headers, now, DAY)
    if 300 <= status < 400 and status != 304:
        # ATIS-1000074: "The STI-VS shall not follow redirects".
        where = (freshness.first(headers, "location") or "nowhere")[:200]
        raise FetchFailure(
            FetchCode.REDIRECT, f"answer {status}, a redirect to {where}, is not followed", wait, status=status
        )
    raise FetchFailure(FetchCode.STATUS, f"answer {status} instead of 200", wait, status=status)


def _check_encoding(headers: Headers) -> None:
    # Nothing is decompressed: a small body cannot become a large one.
    for name, value in headers:
        if name == "content-encoding" and value.strip().lower() != "identity":
            raise FetchFailure(FetchCode.ENCODED, f"Content-Encoding {value[:40]}, although identity was asked for")


async def _read(response: httpcore.Response, headers: Headers, most: int) -> bytes:
    """The body.

    Raises:
        FetchFailure: TOO_LARGE.
    """
    announced = freshness.first(headers, "content-length") or ""
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > most):
        raise FetchFailure(FetchCode.TOO_LARGE, f"a body of {announced[:18]} octets announced, at most {most}")
    body = bytearray()
    async for part in response.aiter_stream():
        body += part
        if len(body) > most:
            raise FetchFailure(FetchCode.TOO_LARGE, f"a body of more than {most} octets")
    return bytes(body)
