"""SIP messages out of text files: logs, traces of SIPp or sngrep, whatever holds them in clear.

A message begins at its first line and ends at the next one, at its Content-Length, or where a
line is no header; everything between messages (time stamps, separators) is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from shaken_plugin.core.sip import MAX_MESSAGE_LENGTH
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.probe.message import Message

MAX_FILE: Final = 256 * 1024 * 1024
"""Longest file that is read, bytes; it is read into memory."""

MAX_MESSAGES: Final = 200_000
"""Most messages of one file."""

_START = re.compile(
    rb"^(?:[A-Z]{1,32} [^\s]{1,2048} SIP/2\.0|SIP/2\.0 [1-6][0-9]{2}(?: [^\r\n]{0,256})?)\r?$", re.MULTILINE
)
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:|[ \t]")


def read_messages(data: bytes) -> Iterator[Message]:
    """The messages of a text, in order; what cannot be read as SIP is passed over."""
    starts = [match.start() for _, match in zip(range(MAX_MESSAGES), _START.finditer(data), strict=False)]
    for begin, end in pairwise([*starts, len(data)]):
        try:
            yield Message.parse(_cut(data[begin : min(end, begin + MAX_MESSAGE_LENGTH)]))
        except SipSyntaxError:
            continue


def _cut(block: bytes) -> bytes:
    """The message alone: its headers up to the first line that is none, its body by Content-Length."""
    lines = block.splitlines(keepends=True)
    head = lines[:1]
    position = len(lines[0])
    for line in lines[1:]:
        position += len(line)
        if not line.strip():
            break
        if _HEADER.match(line) is None:
            return b"".join(head)
        head.append(line)
    length = re.search(
        rb"^(?:content-length|l)[ \t]*:[ \t]*([0-9]{1,6})[ \t]*\r?$", b"".join(head), re.IGNORECASE | re.MULTILINE
    )
    # Logs often have LF where there was CRLF, so that the body is shorter than it says.
    body = block[position : position + int(length.group(1))] if length else b""
    return b"".join(head) + b"\r\n" + body
