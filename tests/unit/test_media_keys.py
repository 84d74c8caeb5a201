"""The media keys of a session description (RFC 8225 §5.2.2)."""

from __future__ import annotations

import pytest

from shaken_plugin.core.passport import media_keys

ONE = "4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB"
TWO = "02:1A:CC:54:27:AB:EB:9C:53:3F:3E:4B:65:2E:7D:46:3F:54:42:CD"


def line(digest: str, alg: str = "sha-1") -> str:
    return f"a=fingerprint:{alg} {digest}"


def key(digest: str, alg: str = "sha-1") -> dict[str, str]:
    return {"alg": alg, "dig": digest.replace(":", "")}


@pytest.mark.parametrize(
    ("sdp", "keys"),
    [
        ("", []),
        ("v=0\r\nm=audio 9 RTP/AVP 0\r\n", []),
        (f"v=0\r\n{line(ONE)}\r\nm=audio\r\n", [key(ONE)]),
        (f"v=0\n{line(ONE)}", [key(ONE)]),
        (f"{line(ONE)}\r\n{line(TWO)}\r\n", [key(TWO), key(ONE)]),
        (f"{line(ONE)}\r\n{line(TWO, 'sha-2')}\r\n", [key(ONE), key(TWO, "sha-2")]),
        (f"{line(ONE)} \t\r\n", [key(ONE)]),
        (f"a=fingerprint:sha-1   {ONE}\r\n", [key(ONE)]),
        (f"{line(ONE.lower())}\r\n", [key(ONE.lower())]),
        (f"{line(ONE)}\r\nm=video\r\n{line(ONE)}\r\n", [key(ONE)]),
    ],
    ids=["none", "no fingerprint", "one", "no line end", "sorted", "by alg and dig", "trailing", "blanks", "as it is",
         "one key for two media"],
)  # fmt: skip
def test_each_fingerprint_becomes_a_key_sorted_by_alg_and_digest(sdp: str, keys: list[dict[str, str]]) -> None:
    assert media_keys(sdp) == keys


@pytest.mark.parametrize(
    "sdp",
    [
        f"x{line(ONE)}\r\n",
        f"a=fingerprint: {ONE}\r\n",
        "a=fingerprint:sha-1\r\n",
        "a=fingerprint:sha-1 \r\n4A\r\n",
        "a=fingerprint:sha-1 4A:\r\n",
        "a=fingerprint:sha-1 4AA\r\n",
        "a=fingerprint:sha-1 4G\r\n",
        f"{line(ONE)} x\r\n",
    ],
)
def test_line_that_is_no_fingerprint_gives_no_key(sdp: str) -> None:
    assert media_keys(sdp) == []
