"""The part of the settings about offences and the webhook that tells customers of them."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from shaken_plugin.config.fields import Reference, Url
from shaken_plugin.config.models import Section, Switch


class WebhookSettings(Section):
    """Where the agent sends warnings, each with its evidence; docs/offences.md says what."""

    url: Url | None = None
    """An https URL, or an http one of this very machine; none: people tell customers, and say so with
    'shaken offence delivered'."""
    secret: Reference | None = None
    """The secret that messages are signed with, by reference: file:PATH or env:NAME."""
    ca_bundle: str | None = None
    """PEM file of the authorities that its TLS certificate leads to; the system's by default."""

    @model_validator(mode="after")
    def _is_guarded(self) -> WebhookSettings:
        if self.url is None:
            return self
        if self.secret is None:
            raise ValueError("a url needs a secret, by which its owner knows who sends")
        if (why := _unfit(self.url)) is not None:
            raise ValueError(f"url: {why}")
        return self


def _unfit(url: str) -> str | None:
    """Why evidence must not be sent to a URL, None where it may."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "not a URL"
    if not host or port == 0 or parts.username is not None or parts.password is not None or parts.fragment:
        return "a host, no user, password or fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and host in {"localhost", "127.0.0.1", "::1"}):
        return None
    return "it must begin with https:// (or be of this very machine): it carries telephone numbers"


class OffencesSettings(Section):
    """Unauthorised caller IDs: the first offence is a warning, the second suspends."""

    enabled: Switch = True
    """Whether the agent counts offences."""
    suspend: Literal["propose", "automatic"] = "propose"
    """What the second offence does. propose: an alarm, until a person decides; automatic: the customer is suspended,
    but not for what was proposed before."""
    grace: Annotated[int, Field(ge=0, le=2_592_000)] = 86_400
    """Seconds after the delivery of a warning before a second offence counts."""
    gather: Annotated[int, Field(ge=0, le=86_400)] = 60
    """Seconds after the first call of an offence until its warning is sent, so that it shows what else came."""
    webhook: WebhookSettings = WebhookSettings()
    """Where the agent sends warnings."""
