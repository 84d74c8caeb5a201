"""What is told about an offence by the webhook: JSON, signed as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: the signature is
over id, time and body, and the id is the same however often a message is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple

VERSION: Final = 1
"""Version of the body; a field may be added without a new one."""

_PREFIX: Final = b"whsec_"


class Kind(Enum):
    """What a message tells. Only the delivery of a warning has consequences."""

    WARNING = "warning"
    PROPOSED = "suspension_proposed"
    SUSPENDED = "suspended"


class Message(NamedTuple):
    """A message that waits to be sent. ``tries`` were made before, the last of them ended with ``failure``."""

    id: str
    offence: int
    kind: Kind
    body: bytes
    tries: int
    failure: str | None


def body_of(identifier: str, kind: Kind, at: float, details: dict[str, Any]) -> bytes:
    """The body of a message.

    Args:
        identifier: the message's.
        kind: what it tells.
        at: POSIX seconds.
        details: of the offence, as `view.Details.as_json` gives them.
    """
    stamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    data = {"v": VERSION, "id": identifier, "type": f"offence.{kind.value}", "timestamp": stamp, "data": details}
    return json.dumps(data, separators=(",", ":")).encode("ascii")


def secret_key(secret: bytes) -> bytes:
    """The key of a secret: of ``whsec_…`` what its base64 says, of anything else the octets without line ends.

    Raises:
        ValueError: it is too short to be secret, or not base64.
    """
    secret = secret.strip()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("behind whsec_ there is no base64") from None
    else:
        key = secret
    if len(key) < 16:
        raise ValueError("shorter than 16 octets; make one with: openssl rand -hex 32")
    return key


def headers(message: Message, key: bytes, now: float) -> dict[str, str]:
    """The header fields that tell a receiver who sent it, when, and whether it came before."""
    stamp = str(int(now))
    signed = b".".join((message.id.encode(), stamp.encode(), message.body))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "Webhook-Id": message.id,
        "Webhook-Timestamp": stamp,
        "Webhook-Signature": f"v1,{digest}",
    }
