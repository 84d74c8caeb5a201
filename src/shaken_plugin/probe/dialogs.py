"""The requests and answers of a call, as bytes. No sockets, no time.

Only what a probe needs of RFC 3261: one call at a time between two places that we hold both. All
requests of a call go to where its first one went, or came from, whatever Record-Route says: the
PBX is always in between, and an address behind NAT would lead nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import md5, sha256
from typing import Final

from shaken_plugin.core.sip import NameAddr, split_list
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.probe.message import HeaderLine, Message, parameter

AGENT: Final = "shaken-probe"
"""User-Agent of what we send."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of our sides is reached: for Via and Contact."""

    host: str
    port: int
    transport: str

    @property
    def uri(self) -> str:
        """The Contact."""
        extra = "" if self.transport == "udp" else f";transport={self.transport}"
        return f"sip:{self.host}:{self.port}{extra}"

    def via(self, branch: str) -> HeaderLine:
        """A Via with this branch; ``rport`` so that answers come back through NAT (RFC 3581)."""
        sent_by = f"{self.host}:{self.port}"
        return HeaderLine("Via", f"SIP/2.0/{self.transport.upper()} {sent_by};branch=z9hG4bK{branch};rport")


def sdp(host: str, port: int = 6000) -> bytes:
    """A session with one audio stream that nobody serves."""
    kind = "IP6" if ":" in host else "IP4"
    host = host.strip("[]")
    lines = ["v=0", f"o=- 1 1 IN {kind} {host}", "s=-", f"c=IN {kind} {host}", "t=0 0"]
    lines += [f"m=audio {port} RTP/AVP 0 8 101", "a=rtpmap:101 telephone-event/8000"]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def build(start: str, lines: list[HeaderLine], body: bytes = b"") -> bytes:
    """A message with its Content-Length."""
    all_lines = [*lines]
    if body:
        all_lines.append(HeaderLine("Content-Type", "application/sdp"))
    all_lines.append(HeaderLine("Content-Length", str(len(body))))
    head = "".join(f"{line}\r\n" for line in all_lines)
    return f"{start}\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


def answer(request: Message, status: int, phrase: str, *, tag: str = "", contact: str = "", body: bytes = b"") -> bytes:
    """A response to a request (RFC 3261 §8.2.6)."""
    lines = [HeaderLine(line.name, line.value) for line in request.lines if line.full_name in {"via", "record-route"}]
    to = request.first("to")
    if tag and not parameter(to, "tag"):
        to += f";tag={tag}"
    lines += [HeaderLine("From", request.first("from")), HeaderLine("To", to)]
    lines += [HeaderLine("Call-ID", request.call_id), HeaderLine("CSeq", request.first("cseq"))]
    if contact:
        lines.append(HeaderLine("Contact", f"<{contact}>"))
    return build(f"SIP/2.0 {status} {phrase}", [*lines, HeaderLine("Server", AGENT)], body)


def contact_of(message: Message) -> str:
    """The URI of a Contact, empty where there is none that can be read."""
    try:
        return NameAddr.parse(next(iter(split_list(message.first("contact"))), "")).uri
    except SipSyntaxError:
        return ""


@dataclass(slots=True)
class Dialog:
    """Our half of a call (RFC 3261 §12): what stands in its further requests."""

    place: Place
    call_id: str
    local: str
    """From of our requests, with our tag."""
    remote: str
    """To of our requests, with their tag once it is known."""
    target: str
    """Request-URI of further requests."""
    routes: tuple[str, ...] = ()
    cseq: int = 0
    branches: int = field(default=0)

    @classmethod
    def of_caller(cls, place: Place, *, caller: str, called: str, host: str, call_id: str, display: str = "") -> Dialog:
        """A call that we place; ``host`` is the PBX, ``called`` a number."""
        target = f"sip:{called}@{host};user=phone"
        local = f"{display}<sip:{caller}@{place.host};user=phone>;tag={call_id.partition('@')[0]}"
        return cls(place, call_id, local, f"<{target}>", target)

    @classmethod
    def of_called(cls, place: Place, invite: Message, tag: str) -> Dialog:
        """A call that we answer with this tag."""
        routes = tuple(route for value in invite.values("record-route") for route in split_list(value))
        local = f"{invite.first('to')};tag={tag}"
        return cls(place, invite.call_id, local, invite.first("from"), contact_of(invite) or "sip:unknown", routes)

    def answered(self, response: Message) -> None:
        """Take over what a 2xx of our INVITE says: tag, target and route set (RFC 3261 §12.1.2)."""
        self.remote = response.first("to")
        self.target = contact_of(response) or self.target
        routes = [route for value in response.values("record-route") for route in split_list(value)]
        self.routes = tuple(reversed(routes))

    def request(
        self, method: str, lines: tuple[HeaderLine, ...] = (), body: bytes = b"", *, cseq: int | None = None
    ) -> bytes:
        """The next request of the call; an ACK of a 2xx has the number of its INVITE."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        self.branches += 1
        branch = re.sub(r"[^A-Za-z0-9]", "", self.call_id.partition("@")[0]) + f"{self.branches}{method.lower()}"
        common = [
            self.place.via(branch),
            HeaderLine("Max-Forwards", "70"),
            *(HeaderLine("Route", route) for route in self.routes),
            HeaderLine("From", self.local),
            HeaderLine("To", self.remote),
            HeaderLine("Call-ID", self.call_id),
            HeaderLine("CSeq", f"{cseq} {method}"),
            HeaderLine("Contact", f"<{self.place.uri}>"),
            HeaderLine("User-Agent", AGENT),
        ]
        return build(f"{method} {self.target} SIP/2.0", [*common, *lines], body)


def beside(invite: Message, method: str, to: str) -> bytes:
    """The ACK of an answer that is no 2xx, or a CANCEL: both belong to the INVITE's own transaction.

    RFC 3261 §17.1.1.3, §9.1: same Via, Request-URI, Call-ID and number.
    """
    number = invite.first("cseq").partition(" ")[0]
    lines = [HeaderLine("Via", invite.first("via")), HeaderLine("Max-Forwards", "70")]
    lines += [HeaderLine("Route", value) for value in invite.values("route")]
    lines += [HeaderLine("From", invite.first("from")), HeaderLine("To", to)]
    lines += [HeaderLine("Call-ID", invite.call_id), HeaderLine("CSeq", f"{number} {method}")]
    return build(f"{method} {invite.uri} SIP/2.0", lines)


_CHALLENGE = re.compile(r'([a-z]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)


def authorization(challenge: Message, method: str, uri: str, user: str, password: str) -> HeaderLine | None:
    """The header that answers a 401 or 407 (RFC 3261 §22.4, RFC 8760); None where its kind is not known."""
    proxy = challenge.status == 407
    for value in challenge.values("proxy-authenticate" if proxy else "www-authenticate"):
        scheme, _, rest = value.partition(" ")
        given = {name.lower(): quoted or plain for name, quoted, plain in _CHALLENGE.findall(rest)}
        algorithm = given.get("algorithm", "MD5")
        digest = {"MD5": _md5, "SHA-256": _sha256}.get(algorithm.upper())
        qops = {qop.strip() for qop in given.get("qop", "").split(",")}
        if scheme.lower() != "digest" or digest is None or not (qops & {"auth", ""}):
            continue
        realm, nonce = given.get("realm", ""), given.get("nonce", "")
        first = digest(f"{user}:{realm}:{password}")
        second = digest(f"{method}:{uri}")
        count, own = "00000001", "5368616b656e"
        middle = f"{nonce}:{count}:{own}:auth" if "auth" in qops else nonce
        text = f'Digest username="{_quoted(user)}", realm="{realm}", nonce="{nonce}", uri="{uri}"'
        text += f', response="{digest(f"{first}:{middle}:{second}")}", algorithm={algorithm}'
        text += f', qop=auth, nc={count}, cnonce="{own}"' if "auth" in qops else ""
        text += f', opaque="{given["opaque"]}"' if "opaque" in given else ""
        return HeaderLine("Proxy-Authorization" if proxy else "Authorization", text)
    return None


def _quoted(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text)


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def _sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()
