"""One bounded download for ``shaken lint-cert``: what came, or why nothing came, never an exception.

Not the verifier's own fetcher: it asks whatever URL the operator typed, http too, so that its
answer can be judged.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import httpx

from shaken_plugin.core.certificates import MAX_DOCUMENT_LENGTH
from shaken_plugin.lint.repository import Exchange, Trouble, host_trouble

TIMEOUT: Final = 5.0
"""Seconds for the whole download; a verifier has less."""


def download(
    url: str, lab_hosts: frozenset[str] = frozenset(), timeout: float = TIMEOUT, ca_bundle: str | None = None
) -> Exchange:
    """Ask a URL once: no redirect is followed, no proxy asked, the body taken up to one octet past the limit.

    Args:
        url: http or https.
        lab_hosts: ``host`` or ``host:port`` that may have private addresses, see `core.x5u.check`.
        timeout: seconds for everything together.
        ca_bundle: PEM file of the authorities that TLS certificates lead to; the system's by default.
    """
    try:
        # Taken as it comes: what is compressed could be a thousand times as long.
        headers = {"Accept": "application/pem-certificate-chain", "Accept-Encoding": "identity"}
        request = httpx.Request("GET", url, headers=headers)
        if request.url.scheme not in {"http", "https"} or not request.url.host:
            raise httpx.InvalidURL("neither http nor https with a host")
    except (httpx.InvalidURL, ValueError, TypeError) as exc:
        return Exchange(url, lab_hosts, trouble=Trouble.URL, detail=str(exc))
    if (detail := host_trouble(url, lab_hosts)) is not None:
        return Exchange(url, lab_hosts, trouble=Trouble.HOST, detail=detail)
    try:
        return asyncio.run(asyncio.wait_for(_ask(url, request, lab_hosts, ca_bundle), timeout))
    except (TimeoutError, httpx.TimeoutException):
        return Exchange(url, lab_hosts, trouble=Trouble.TIMEOUT, detail=f"{timeout:g} seconds")
    except (httpx.HTTPError, ssl.SSLError, OSError, ValueError) as exc:
        kind = Trouble.TLS if _is_tls(exc) else Trouble.CONNECTION
        return Exchange(url, lab_hosts, trouble=kind, detail=str(exc) or type(exc).__name__)


async def _ask(url: str, request: httpx.Request, lab_hosts: frozenset[str], ca_bundle: str | None) -> Exchange:
    # Proxies and .netrc of the environment are not asked.
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_bundle), trust_env=False) as client:
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            body = bytearray()
            async for piece in response.aiter_raw(8_192):
                body += piece
                if len(body) > MAX_DOCUMENT_LENGTH:
                    break
        finally:
            await response.aclose()
    headers = {name.lower(): value for name, value in response.headers.items()}
    is_cut = len(body) > MAX_DOCUMENT_LENGTH
    return Exchange(url, lab_hosts, response.status_code, headers, bytes(body), is_cut)


def _is_tls(exc: BaseException | None) -> bool:
    """Whether a TLS error is among the causes."""
    while exc is not None:
        if isinstance(exc, ssl.SSLError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
