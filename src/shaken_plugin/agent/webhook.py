"""Sending messages to the operator's webhook: one POST, no redirect, bounded in time and size."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import httpx

from shaken_plugin.conduct.message import Message, headers, secret_key
from shaken_plugin.config.offences import WebhookSettings
from shaken_plugin.config.settings import resolve

DEADLINE: Final = 15.0
"""Seconds for everything about one message."""

_PATIENCE: Final = httpx.Timeout(10.0, connect=5.0)


class NotDelivered(Exception):
    """A message did not arrive, as far as is known; the text says why."""


class Webhook:
    """The webhook that settings name.

    Args:
        settings: with a URL.
        clock: POSIX seconds.

    Raises:
        ValueError: its secret or CA bundle cannot be used.
    """

    def __init__(self, settings: WebhookSettings, clock: Callable[[], float]) -> None:
        assert settings.url is not None
        assert settings.secret is not None
        self.url = settings.url
        self._key = secret_key(resolve(settings.secret))
        self._clock = clock
        try:
            tls = ssl.create_default_context(cafile=settings.ca_bundle)
        except OSError as exc:
            raise ValueError(f"{settings.ca_bundle}: {exc.strerror or exc}") from exc
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        # trust_env: a proxy of the environment would see telephone numbers that nobody meant for it.
        self._client = httpx.AsyncClient(verify=tls, timeout=_PATIENCE, follow_redirects=False, trust_env=False)

    async def send(self, message: Message) -> None:
        """Send one message; 2xx is its delivery. What the answer says besides is not read.

        Raises:
            NotDelivered: whatever else happened. It may have arrived all the same.
        """
        fields = headers(message, self._key, self._clock())
        try:
            async with (
                asyncio.timeout(DEADLINE),
                self._client.stream("POST", self.url, content=message.body, headers=fields) as answer,
            ):
                status = answer.status_code
        except TimeoutError:
            raise NotDelivered(f"no answer in {DEADLINE:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            raise NotDelivered(f"{type(exc).__name__}: {exc}"[:300]) from exc
        if not 200 <= status < 300:
            raise NotDelivered(f"answered {status}")

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
