"""The Identity header field (RFC 8224 §4).

    Identity = "Identity" HCOLON signed-identity-digest SEMI ident-info
               *( SEMI ident-info-params )
    signed-identity-digest = 1*(base64-char / ".")
    ident-info = "info" EQUAL ident-info-uri
    ident-info-uri = LAQUOT absoluteURI RAQUOT
    ident-info-params = ident-info-alg / ident-type / ident-info-extension
    ident-info-alg = "alg" EQUAL token
    ident-type = "ppt" EQUAL token
    ident-info-extension = generic-param
    base64-char = ALPHA / DIGIT / "/" / "+"

Deviations: the digest is base64url and dots (the ABNF's alphabet is an erratum, tokens are
base64url by RFC 7515); parameters are taken in any order; ``ppt`` and ``alg`` may be quoted,
as the examples of RFC 8443, 8946 and 9795 and most live traffic have them; a parameter that
stands twice is refused, because two readers would pick different ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from shaken_plugin.core.passport import MAX_TOKEN_LENGTH
from shaken_plugin.core.sip import unfold
from shaken_plugin.errors import FailureCode, VerificationFailure

MAX_LENGTH: Final = MAX_TOKEN_LENGTH + 4_096
"""Longest header value that is looked at, characters: the token and its parameters."""

MAX_PARAMS: Final = 16
"""Most parameters a header may have; four are defined."""

MAX_KNOWN: Final = 1_024
"""Longest parameters that are remembered, characters: a signer sends the same with every call."""

_TOKEN = r"[A-Za-z0-9.!%*_+`'~-]+"
_DIGEST = re.compile(r"[A-Za-z0-9_.-]+")
# One parameter with the white space that SEMI and EQUAL allow (RFC 3261 §25.1), values as
# token, quoted-string or <URI>. Possessive, so that a long bad value costs one pass.
_URI = r'<(?P<uri>[^<>"\s]++)>'
_QUOTED = r'"(?P<quoted>(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\.)*+)"'
_PARAM = re.compile(
    rf"[ \t]*+;[ \t]*+(?P<name>{_TOKEN})"
    rf'(?:[ \t]*+=[ \t]*+(?:{_URI}|{_QUOTED}|(?P<token>[^\s;<>"]++)))?'
)
_QUOTED_PAIR = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class IdentityHeader:
    """One Identity header value, taken apart.

    ``info`` is the URI between the angle brackets, None where the parameter is missing.
    ``extensions`` are the parameters that RFC 8224 does not define, in order.
    """

    digest: str
    info: str | None
    alg: str | None = None
    ppt: str | None = None
    extensions: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def parse(cls, value: str) -> IdentityHeader:
        """Parse one header value, folded or not.

        Raises:
            VerificationFailure: IDENTITY_TOO_LARGE or IDENTITY_MALFORMED.
        """
        if len(value) > MAX_LENGTH:
            raise VerificationFailure(FailureCode.IDENTITY_TOO_LARGE, f"{len(value)} characters, at most {MAX_LENGTH}")
        value = unfold(value)
        digest = _DIGEST.match(value)
        if digest is None:
            raise _malformed("no signed-identity-digest at the start")
        position = digest.end()
        read = _read_params if len(value) - position > MAX_KNOWN else _read_known
        return cls(digest.group(), *read(value[position:], position))

    def format(self, *, quote_ppt: bool = True) -> str:
        """The header value to send: digest, info, alg, ppt (extensions are not repeated).

        Args:
            quote_ppt: ``ppt="shaken"`` rather than ``ppt=shaken``. The ABNF has a token, most
                live networks send and expect the quotes.
        """
        parts = [self.digest, f"info=<{self.info}>"]
        if self.alg is not None:
            parts.append(f"alg={self.alg}")
        if self.ppt is not None:
            parts.append(f'ppt="{self.ppt}"' if quote_ppt else f"ppt={self.ppt}")
        return ";".join(parts)


_Params = tuple[str | None, str | None, str | None, tuple[tuple[str, str | None], ...]]
"""``info``, ``alg``, ``ppt``, and the rest."""


def _read_params(text: str, begin: int) -> _Params:
    """The parameters behind the digest. They begin at that character of the header, for messages."""
    params: dict[str, str | None] = {}
    position = 0
    while position < len(text):
        match = _PARAM.match(text, position)
        if match is None:
            raise _malformed(f"not a parameter at character {begin + position + 1}")
        name = match["name"].lower()
        if name in params:
            raise _malformed(f"the parameter {name[:20]} stands twice")
        params[name] = _param_value(name, match)
        if len(params) > MAX_PARAMS:
            raise _malformed(f"more than {MAX_PARAMS} parameters")
        position = match.end()
    for name in ("alg", "ppt"):
        # RFC 8224 §4: both are tokens; quotes around them are tolerated, other characters not.
        if name in params and re.fullmatch(_TOKEN, params[name] or "") is None:
            raise _malformed(f"{name} has no token for a value")
    return params.pop("info", None), params.pop("alg", None), params.pop("ppt", None), tuple(params.items())


_read_known = lru_cache(1_024)(_read_params)


def _param_value(name: str, match: re.Match[str]) -> str | None:
    if name == "info":
        if match["uri"] is None:
            raise _malformed("info is not a URI in angle brackets")
        return match["uri"]
    if match["uri"] is not None:
        return f"<{match['uri']}>"
    if match["quoted"] is not None:
        return _QUOTED_PAIR.sub(r"\1", match["quoted"])
    return match["token"]


def _malformed(detail: str) -> VerificationFailure:
    return VerificationFailure(FailureCode.IDENTITY_MALFORMED, detail)
