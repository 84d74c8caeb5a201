"""The demonstration: calls through two real Kamailios, and a picture of what happens to each.

    caller (SIPp) ── originating Kamailio, signs ── terminating Kamailio, verifies ── called (SIPp)

What is shown comes from the switches' logs and from what SIPp saw on the wire; nothing is staged.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.jws import b64url
from shaken_plugin.core.passport import Attest, Passport, serialise, shaken_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.lab import sipp
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.lab.provider import CERTIFICATE_HOST, Provider
from shaken_plugin.lab.servers import KamailioServer, LabError

CALLED: Final = "+12025550143"
OWN_NUMBER: Final = "+12155551212"
LETTER_NUMBER: Final = "+13125550142"
EXPIRED_LETTER_NUMBER: Final = "+14155550177"
STRANGE_NUMBER: Final = "+19175550100"


@dataclass(frozen=True, slots=True)
class Scene:
    """One call of the demonstration, and what must come of it."""

    title: str
    number: str
    source: str
    level: str | None
    """Level the originating side must decide; None for a call that does not pass it."""
    verstat: str
    code: str | None = None
    """Failure code the terminating side must give."""
    identity: str | None = None
    """An Identity header that the caller brings along."""


def scenes(pair: SigningPair, untrusted: SigningPair, now: float) -> list[Scene]:
    """All calls, with the forged headers made for them."""

    def signed(by: SigningPair, iat: float, attest: Attest = Attest.A) -> IdentityHeader:
        claims = shaken_claims(
            attest=attest,
            orig=TelephoneNumber(OWN_NUMBER[1:]),
            dest=TelephoneNumber(CALLED[1:]),
            iat=int(iat),
            origid=str(uuid.uuid4()),
        )
        return identity_header(by, claims)

    passed, none, failed = "TN-Validation-Passed", "No-TN-Validation", "TN-Validation-Failed"
    customer, gateway, stranger = "127.0.0.2", "127.0.0.3", "127.0.0.4"
    return [
        Scene("A number that the customer owns", OWN_NUMBER, customer, "A", passed),
        Scene("A client's number, with a letter of authorisation", LETTER_NUMBER, customer, "A", passed),
        Scene("A client's number, whose letter ended yesterday", EXPIRED_LETTER_NUMBER, customer, "B", passed),
        Scene("A number that nobody vouched for", STRANGE_NUMBER, customer, "B", passed),
        Scene("From an unknown source, in at a gateway", "+442079460123", gateway, "C", passed),
        Scene("From a source that is no gateway: unsigned", OWN_NUMBER, stranger, "unsigned", none, "no_identity"),
        Scene(
            "Forged: a B raised to A after signing", OWN_NUMBER, stranger, None, failed, "signature_invalid",
            tampered(signed(pair, now, Attest.B)).format(),
        ),
        Scene(
            "Forged: a token of ten minutes ago", OWN_NUMBER, stranger, None, none, "iat_stale",
            signed(pair, now - 600).format(),
        ),
        Scene(
            "Forged: signed under an authority nobody trusts", OWN_NUMBER, stranger, None, failed,
            "certificate_untrusted", signed(untrusted, now).format(),
        ),
    ]  # fmt: skip


def tampered(header: IdentityHeader) -> IdentityHeader:
    """The header with its level raised to A, and the signature of the level it had."""
    head, _, signature = header.digest.split(".")
    changed = dict(Passport.parse(header.digest).claims) | {"attest": "A"}
    return IdentityHeader(".".join((head, b64url(serialise(changed)), signature)), header.info, header.alg, header.ppt)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the switches said and the wire showed of one call."""

    scene: Scene
    call: sipp.Run
    signed: dict[str, Any]
    verified: dict[str, Any]
    arrived: sipp.Traced | None

    @property
    def as_expected(self) -> bool:
        """Whether level, verdict and failure code are what they must be."""
        level = self.signed.get("level") if self.scene.level else None
        outcome = (self.verified.get("verstat"), self.verified.get("code"))
        return level == self.scene.level and outcome == (self.scene.verstat, self.scene.code)


def events(log: str, call_id: str) -> Iterator[dict[str, Any]]:
    """The plugin's log lines about one call."""
    for line in log.splitlines():
        _, found, text = line.partition("shaken {")
        if found and call_id in text:
            try:
                yield json.loads("{" + text)
            except ValueError:
                continue


@dataclass(frozen=True, slots=True)
class Stage:
    """The running servers."""

    folder: Path
    originating: KamailioServer
    terminating: KamailioServer
    called: sipp.Answerer
    scenes: list[Scene]

    def play(self, index: int) -> Seen:
        """Place one call and collect what is known of it."""
        scene = self.scenes[index]
        keys = {"from": scene.number, "to": CALLED, "pai_user": scene.number}
        target = f"127.0.0.1:{self.originating.inside_port}"
        if scene.identity is not None:
            keys["identity"] = scene.identity
            target = f"127.0.0.1:{self.terminating.outside_port}"
        name = "uac_call" if scene.identity is None else "uac_identity"
        run = sipp.call(name, self.folder, target, label=f"call-{index}", address=scene.source, keys=keys)
        if run.counts.successful != 1:
            raise LabError(f"the call '{scene.title}' did not come through: {run.errors}")
        call_id = run.messages[0].header("Call-ID")[0]
        arrived = [invite for invite in self.called.invites() if invite.header("Call-ID") == [call_id]]
        return Seen(
            scene,
            run,
            _last(self.originating, call_id, "sign"),
            _last(self.terminating, call_id, "verify"),
            arrived[-1] if arrived else None,
        )


def _last(server: KamailioServer, call_id: str, name: str) -> dict[str, Any]:
    found = [event for event in events(server.log_text(), call_id) if event.get("event") == name]
    return found[-1] if found else {}


@contextmanager
def stage(folder: Path, now: float) -> Iterator[Stage]:
    """Make keys and policies, and start everything; all ends with the context."""
    authority = Authority.new(now)
    originating = Provider.make(folder / "originating", authority, now)
    terminating = Provider.make(folder / "terminating", authority, now, spc="123T", policy={})
    terminating.publish(originating.x5u, originating.credential.chain)
    stranger = authority.issue(spc="666X", now=now, defect=Defect.UNTRUSTED)
    stranger_url = f"https://{CERTIFICATE_HOST}/666X.pem"
    terminating.publish(stranger_url, stranger.chain)
    pair = load_pair(
        key=originating.credential.key, chain=originating.credential.chain, x5u=originating.x5u, live_from=0, spc=None
    )
    untrusted = load_pair(key=stranger.key, chain=stranger.chain, x5u=stranger_url, live_from=0, spc=None)
    nowhere = "sip:127.0.0.1:9"
    with (
        sipp.Answerer(folder / "called") as called,
        KamailioServer(
            "terminating", folder / "terminating" / "run", terminating.settings, inside_peer=called.uri,
            outside_peer=nowhere, kemi=True,
        ) as verifier,
        KamailioServer(
            "originating", folder / "originating" / "run", originating.settings, inside_peer=nowhere,
            outside_peer=f"sip:127.0.0.1:{verifier.outside_port}",
        ) as signer,
    ):  # fmt: skip
        yield Stage(folder, signer, verifier, called, scenes(pair, untrusted, now))


def run_demo(keep: Path | None, *, as_json: bool = False) -> bool:
    """Play all calls and print them.

    Args:
        keep: folder for all files; by default a temporary one that goes.
        as_json: print JSON instead of pictures.

    Returns:
        Whether every call came out as it must.

    Raises:
        LabError: a program is missing, or a server did not start.
    """
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="shaken-demo-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with console.status("starting two Kamailios …") if not as_json else _quiet(), stage(folder, time.time()) as up:
            seen = []
            for index in range(len(up.scenes)):
                seen.append(up.play(index))
                if not as_json:
                    console.print(picture(index, seen[-1], up))
    good = all(call.as_expected for call in seen)
    if as_json:
        console.print_json(json.dumps([_as_data(call) for call in seen]))
    else:
        console.print(closing(seen, keep))
    return good


@contextmanager
def _quiet() -> Iterator[None]:
    yield


def _as_data(call: Seen) -> dict[str, Any]:
    return {
        "title": call.scene.title,
        "as_expected": call.as_expected,
        "sign": call.signed or None,
        "verify": call.verified,
        "arrived": call.arrived.text if call.arrived else None,
    }


# --- Pictures ---------------------------------------------------------------------------------

_WIDTH: Final = 22


def ladder(call: Seen, up: Stage) -> Text:
    """Who sent what to whom."""
    passes_signer = call.scene.level is not None
    columns = [("caller", call.scene.source)]
    if passes_signer:
        columns.append(("originating", f":{up.originating.inside_port} signs"))
    columns += [("terminating", f":{up.terminating.outside_port} verifies"), ("called", f":{up.called.port}")]
    hops = len(columns) - 1
    carries = bool(call.arrived and call.arrived.header("Identity"))
    there = ["INVITE"] * hops
    if carries and passes_signer:
        there[1:] = ["INVITE + Identity"] * (hops - 1)
    elif carries:
        there = ["INVITE + Identity"] * hops
    there[-1] = "INVITE + verstat"
    rows = [(there, ">")]
    answers = [m.first_line.removeprefix("SIP/2.0 ") for m in call.call.messages if not m.sent]
    back = [answer for answer in answers if not answer.startswith("100")]
    rows += [([answer] * hops, "<") for answer in back[:-1]]
    rows += [(["ACK"] * hops, ">"), (["BYE"] * hops, ">"), (back[-1:] * hops, "<")]
    text = Text()
    for title in (0, 1):
        text.append("".join(column[title].ljust(_WIDTH + 1) for column in columns).rstrip() + "\n", style="bold")
    for labels, direction in rows:
        line = "│"
        for label in labels:
            arrow = f"─ {label} ".ljust(_WIDTH - 1, "─")
            line += f"{arrow}▶│" if direction == ">" else f"◀{arrow}│"
        text.append(line + "\n")
    return text


def picture(index: int, call: Seen, up: Stage) -> Panel:
    """One call as a panel."""
    parts: list[Text] = [ladder(call, up)]
    if call.scene.level is not None:
        parts.append(_why(call.signed))
    if call.arrived and (values := call.arrived.header("Identity")):
        parts.append(_passport(values[-1]))
    parts += [_verdict(call.verified), _arrived(call.arrived)]
    style = "green" if call.as_expected else "red"
    title = f"{index + 1}. {call.scene.title}"
    return Panel(Group(*parts), title=title, title_align="left", border_style=style)


def _why(signed: dict[str, Any]) -> Text:
    level = str(signed.get("level", "?"))
    style = {"A": "bold green", "B": "bold yellow", "C": "bold yellow"}.get(level, "bold red")
    text = Text("Level ")
    text.append(level, style=style)
    text.append(", because\n")
    for line in signed.get("trace", []):
        text.append(f"  {line}\n", style=None if line.startswith("+") else "yellow")
    for missing in signed.get("missing", []):
        text.append(f"  for a better level: {missing}\n", style="italic")
    return text


def _passport(value: str) -> Text:
    text = Text("PASSporT")
    try:
        header = IdentityHeader.parse(value)
        passport = Passport.parse(header.digest)
    except VerificationFailure as failure:
        return text.append(f" {failure}\n")
    text.append(f" {len(value)} characters\n")
    text.append(f"  {serialise(passport.header).decode()}\n  {serialise(passport.claims).decode()}\n", style="cyan")
    return text


def _verdict(verified: dict[str, Any]) -> Text:
    verstat = str(verified.get("verstat", "?"))
    style = "bold green" if "Passed" in verstat else "bold red" if "Failed" in verstat else "bold yellow"
    text = Text("Verdict ")
    text.append(verstat, style=style)
    if code := verified.get("code"):
        text.append(f"  {code}")
    if detail := verified.get("detail"):
        text.append(f" ({detail})")
    return text.append("\n")


def _arrived(invite: sipp.Traced | None) -> Text:
    if invite is None:
        return Text("Nothing reached the called side")
    text = Text("At the called side\n")
    for name in ("From", "P-Asserted-Identity"):
        for value in invite.header(name):
            text.append(f"  {name}: {value}\n")
    return text.append(f"  Identity headers: {len(invite.header('Identity'))}")


def closing(seen: list[Seen], keep: Path | None) -> Group:
    """The summary, and what to do next."""
    good = sum(call.as_expected for call in seen)
    line = Text(
        f"{good} of {len(seen)} calls came out as they must.", style="bold green" if good == len(seen) else "bold red"
    )
    files = (
        f"All files are in {keep}."
        if keep
        else "All servers have ended and their files are gone; --keep FOLDER keeps them."
    )
    steps = (
        "Next, for your own switch:\n"
        "  1. shaken check-config --settings FILE   begin from the settings in docs/reference.md\n"
        "  2. sudo shaken setup                     installs it for your switch; says first what it will do\n"
        "  3. set mode: observe in both sections    it decides, signs, verifies and logs, changing nothing\n"
        "  4. shaken explain --from … --to … --source …   ask what a call would get, and why\n"
        "  5. set mode: active                      when the log says what you expect"
    )
    return Group(line, Text(files), Text(steps))
