"""Kamailios that are compared: which there are, how they are started, and the proof that each does what it is for."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from bench import stage
from bench.configurations import secsipid_signing, secsipid_verifying, with_modules, without_ours
from bench.fleet import Fleet
from bench.numbering import CALLERS, anybody
from bench.phones import Phones
from bench.results import BenchError
from bench.servers import Called, Proxy
from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.sip import format_date
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab import sipp
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.servers import LabError, find_program, free_port, share

CALLER: Final = CALLERS[12]
"""Of calls that prove something; the others have any of `CALLERS`."""

OUTSIDE: Final = "127.0.0.4"
"""Where calls come from that are verified."""

WARMING: Final = 50
"""Calls before the first that count, all within half a second."""
COLD: Final = 20.0
"""Seconds that these may take: each worker loads what it needs with its first call."""

OWN_SCRIPTS: Final = Path(__file__).parent / "kamailio"

PLAIN, PLAIN_KEMI = "plain relay, native", "plain relay, KEMI"
IDLE, IDLE_KEMI = "not ours, native", "not ours, KEMI"
SIGN, SIGN_KEMI, SIGN_OTHER = "sign, native", "sign, KEMI", "sign, secsipid"
VERIFY, VERIFY_KEMI, VERIFY_OTHER = "verify, native", "verify, KEMI", "verify, secsipid"
FLEET, FLEET_KEMI = "sign in a fleet, native", "sign in a fleet, KEMI"
VERIFY_FLEET, VERIFY_FLEET_KEMI = "verify in a fleet, native", "verify in a fleet, KEMI"
FLOORS: Final = {
    "floor, an empty function": ("nothing",),
    "floor, three empty functions": ("nothing", "nothing", "nothing"),
    "floor, message read": ("read",),
    "floor, one signature": ("sign",),
    "floor, read, signature, header, record, log line": ("sign_and_write",),
}
"""What of bench/kamailio/floor.py a plain relay executes in the place of our signing."""
NAMES: Final = (
    PLAIN, PLAIN_KEMI, IDLE, IDLE_KEMI,
    SIGN_OTHER, SIGN, SIGN_KEMI, FLEET, FLEET_KEMI,
    VERIFY_OTHER, VERIFY, VERIFY_KEMI, VERIFY_FLEET, VERIFY_FLEET_KEMI,
)  # fmt: skip

SIGNED, _PASSED = "signed_a", "verified_passed"

_WITHOUT: Final = {"SHAKEN_SCRIPT": f'"{OWN_SCRIPTS / "empty.py"}"'}
_FLOOR: Final = {"SHAKEN_SCRIPT": f'"{OWN_SCRIPTS / "floor.py"}"'}
_WITHOUT_KEMI: Final = {"KEMI_SCRIPT": f'"{OWN_SCRIPTS / "plain_routing.py"}"'}


def need_programs() -> bool:
    """Whether secsipid is there, too.

    Raises:
        BenchError: without Kamailio or SIPp nothing can be measured.
    """
    try:
        for name in ("kamailio", "kamcmd", "sipp"):
            find_program(name)
    except LabError as exc:
        raise BenchError(str(exc)) from exc
    return any(Path("/usr/lib").glob("*/kamailio/modules/secsipid.so"))


NO_SECSIPID: Final = "secsipid is not installed: apt-get install kamailio-secsipid-modules"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to take a call, and the proof that it did."""

    name: str
    proxy: Proxy
    verifies: bool
    counter: str | None = None
    """Of ours, one for each call."""
    fleet: Fleet | None = None
    """Whose agent and Redis have work with it."""

    @property
    def port(self) -> int:
        """Where its calls come in."""
        return self.proxy.outside_port if self.verifies else self.proxy.inside_port

    @property
    def address(self) -> str:
        """Where its calls come from."""
        return OUTSIDE if self.verifies else stage.TRUNK

    def counted(self) -> int:
        """How many calls it says to have signed or verified; 0 where it does neither by us."""
        return self.proxy.counters().get(self.counter, 0) if self.counter else 0


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How a variant is made; without settings of its own it is a member of the fleet."""

    settings: Path | None
    config: str
    verifies: bool = False
    counter: str | None = None
    defines: Mapping[str, str] | None = None


class Stage:
    """All Kamailios that were asked for, and SIPp on both sides of them.

    Args:
        folder: for all files.
        stack: ends the servers.
        secsipid: whether that module is there.
        shared: MB of memory that the processes of each Kamailio share.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, secsipid: bool, shared: int = 64) -> None:
        self.folder, self._stack, self._secsipid, self._shared = folder, stack, secsipid, shared
        self._authority = Authority.new(time.time())
        alone: dict[str, Any] = {"agent": {"enabled": False}}
        self.origin = stage.provider(folder / "origin", self._authority, **alone)
        self._target = stage.provider(folder / "target", self._authority, policy={}, spc="123T", **alone)
        self._target.publish(self.origin.x5u, self.origin.credential.chain)
        off: dict[str, Any] = {"signing": {"mode": "off"}, "verification": {"mode": "off"}}
        self._off = stage.provider(folder / "off", self._authority, **alone, **off)
        self.pair = stage.pair_of(self.origin.settings)
        self.called_port, self._number = free_port(), 0

    @cached_property
    def fleet(self) -> Fleet:
        """A host of one, begun when it is first asked for."""
        made = Fleet(self.folder, self._authority, self._stack)
        made.member.publish(self.origin.x5u, self.origin.credential.chain)
        return made

    def variants(self, names: Sequence[str] = NAMES) -> list[Variant]:
        """Those of these names that there can be, running, proved and warm.

        Raises:
            BenchError: one does something else, or has other modules than the first.
            LabError: one does not start.
        """
        found = [self._started(name, self._recipes[name]) for name in names if name in self._recipes]
        for variant in found:
            prove(self, variant)
            if (modules := variant.proxy.modules()) != (first := found[0].proxy.modules()):
                raise BenchError(f"{variant.name} has other modules than {found[0].name}: {sorted(modules ^ first)}")
        return found

    @cached_property
    def _recipes(self) -> dict[str, _Recipe]:
        native, kemi = (
            with_modules(share("kamailio", f"kamailio-{kind}.cfg").read_text("utf-8"), secsipid=self._secsipid)
            for kind in ("native", "kemi")
        )
        sign, verify, off = self.origin.settings, self._target.settings, self._off.settings
        found = {
            PLAIN: _Recipe(off, without_ours(native), defines=_WITHOUT),
            PLAIN_KEMI: _Recipe(off, kemi, defines=_WITHOUT_KEMI),
            IDLE: _Recipe(off, native),
            IDLE_KEMI: _Recipe(off, kemi),
            SIGN: _Recipe(sign, native, counter=SIGNED),
            SIGN_KEMI: _Recipe(sign, kemi, counter=SIGNED),
            FLEET: _Recipe(None, native, counter=SIGNED),
            FLEET_KEMI: _Recipe(None, kemi, counter=SIGNED),
            VERIFY_FLEET: _Recipe(None, native, verifies=True, counter=_PASSED),
            VERIFY_FLEET_KEMI: _Recipe(None, kemi, verifies=True, counter=_PASSED),
            VERIFY: _Recipe(verify, native, verifies=True, counter=_PASSED),
            VERIFY_KEMI: _Recipe(verify, kemi, verifies=True, counter=_PASSED),
        }
        for name, functions in FLOORS.items():
            steps = "\n".join(f'        python_exec("{function}");' for function in functions)
            found[name] = _Recipe(off, without_ours(native, sign=steps), defines=_FLOOR)
        if self._secsipid:
            signs = secsipid_signing(self.origin.folder / "signing.key", self.origin.x5u)
            checks = secsipid_verifying(self.origin.folder / "chain.pem")
            found[SIGN_OTHER] = _Recipe(off, without_ours(native, sign=signs), defines=_WITHOUT)
            config = without_ours(native, verify=checks)
            found[VERIFY_OTHER] = _Recipe(off, config, verifies=True, defines=_WITHOUT)
        return found

    def signing(self, name: str, settings: Path) -> Variant:
        """One of ours that signs natively by other settings; neither proved nor warm."""
        native = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
        return self._started(name, _Recipe(settings, native, counter=SIGNED))

    def _started(self, name: str, recipe: _Recipe) -> Variant:
        folder, called = self.folder / re.sub(r"\W+", "-", name), f"sip:127.0.0.1:{self.called_port}"
        folder.mkdir()
        config = folder / "kamailio.cfg"
        config.write_text(recipe.config, "utf-8")
        fleet = self.fleet if recipe.settings is None else None
        proxy = Proxy(
            "kamailio",
            folder,
            fleet.settings if fleet else recipe.settings,
            inside_peer=called,
            outside_peer=called,
            config=config,
            defines=recipe.defines,
            shared=self._shared,
        )
        return Variant(name, self._stack.enter_context(proxy), recipe.verifies, recipe.counter, fleet)

    def answering(self) -> Called:
        """SIPp as the called side of all; to be entered."""
        self._number += 1
        folder = self.folder / f"called-{self._number}"
        folder.mkdir()
        return Called(folder, self.called_port)

    def phones(self, variant: Variant) -> Phones:
        """A caller and a called party of our own for a variant, instead of SIPp."""
        return Phones(variant.address, CALLER, self.called_port)

    def headers(self, variant: Variant, calls: int, *, tampered: bool = False) -> list[str]:
        """A line for each call: an Identity header of its own where the variant verifies."""
        if not variant.verifies:
            return [""] * calls
        rest = f'info=<{self.origin.x5u}>;alg=ES256;ppt="shaken"'
        date = format_date(int(time.time()))  # RFC 8224 §6.1: a signer MUST add one
        return [f"Date: {date}\r\nIdentity: {token(self.pair, tampered=tampered)};{rest}\r\n" for _ in range(calls)]

    def call(
        self, variant: Variant, calls: int, rate: int, *, callers: Sequence[str] = (), arguments: tuple[str, ...] = ()
    ) -> sipp.Run:
        """Place calls by SIPp to any numbers; from any, each with a PASSporT of its own, where the variant verifies.

        Args:
            variant: through which.
            calls: how many.
            rate: calls a second.
            callers: numbers that call, digits; by default those of the customer, by chance.
            arguments: more options for SIPp.

        Raises:
            LabError: SIPp ended otherwise than with the last call.
        """
        self._number += 1
        label, draw = f"calls-{self._number}", random.Random(self._number)
        rows = ["SEQUENTIAL"]
        for index in range(calls):
            called = anybody(draw)
            if variant.verifies:
                caller = anybody(draw)
                date = format_date(int(time.time()))
                rows.append(f"+{caller};+{called};{token(self.pair, caller, called)};{date}")
            else:
                rows.append(f"+{callers[index] if callers else draw.choice(CALLERS)};+{called}")
        (self.folder / f"{label}.inf").write_text("\n".join([*rows, ""]), "ascii")
        return sipp.call(
            "uac_call",
            self.folder,
            f"127.0.0.1:{variant.port}",
            label=label,
            address=variant.address,
            keys={},
            calls=calls,
            rate=rate,
            trace=False,
            file=self._scenario(verifies=variant.verifies),
            arguments=("-inf", f"{label}.inf", *arguments),
        )

    def _scenario(self, *, verifies: bool) -> Path:
        """A shipped scenario that takes from a file what differs: parties, token (``;`` ends a field) and Date."""
        path = self.folder / ("uac_tokens.xml" if verifies else "uac_parties.xml")
        if not path.exists():
            text = sipp.scenario("uac_identity" if verifies else "uac_call").read_text("utf-8")
            rest = f'info=<{self.origin.x5u}>;alg=ES256;ppt="shaken"'
            text = text.replace("Identity: [identity]", f"Date: [field3]\nIdentity: [field2];{rest}")
            text = text.replace("[from]", "[field0]").replace("[pai_user]", "[field0]").replace("[to]", "[field1]")
            path.write_text(text, "utf-8")
        return path


def token(pair: SigningPair, caller: str = CALLER, called: str = stage.CALLED, *, tampered: bool = False) -> str:
    """A PASSporT of now for a call; of a tampered one the signature is another's."""
    made = [
        identity_header(
            pair,
            shaken_claims(
                attest=Attest.A,
                orig=TelephoneNumber(caller),
                dest=TelephoneNumber(called),
                iat=int(time.time()),
                origid=str(uuid.uuid4()),
            ),
        ).digest
        for _ in range(1 + tampered)
    ]
    return made[0].rpartition(".")[0] + "." + made[-1].rpartition(".")[2]


def prove(on: Stage, variant: Variant) -> None:
    """Raise where a variant does not do what it is measured for; afterwards each of its workers is warm.

    Raises:
        BenchError: what it did instead.
    """
    draw, forget = random.Random(variant.name), variant.fleet.forget if variant.fleet else None
    if forget:
        forget()
    with on.phones(variant) as phones:
        good = phones.place(variant.port, on.headers(variant, WARMING), 2 * WARMING, draw, COLD)
        forged = on.headers(variant, 1, tampered=True)
        refused = phones.place(variant.port, forged, 1, draw).lost if variant.name == VERIFY_OTHER else 1
    if good.lost:
        raise BenchError(f"{variant.name}: {good.lost} of {WARMING} calls were lost\n{variant.proxy.log_tail()}")
    signs = variant.name == SIGN_OTHER or variant.counter == SIGNED
    found = {len(re.findall(rb"^Identity: ", invite, re.MULTILINE)) for invite in good.invites}
    if found != {int(variant.verifies or signs)}:
        raise BenchError(f"{variant.name}: INVITEs arrive with {found} Identity headers")
    if signs and (written := stage.levels(good.invites)) != {"A"}:
        raise BenchError(f"{variant.name}: INVITEs arrive with the levels {sorted(written)}")
    if not refused:
        raise BenchError(f"{variant.name}: a forged call passes")
    if variant.counter and variant.counted() != WARMING:
        raise BenchError(f"{variant.name}: of {WARMING} calls {variant.proxy.counters()}")
    if variant.fleet and not (variant.fleet.has_seen() if variant.verifies else variant.fleet.has_counted()):
        raise BenchError(f"{variant.name}: Redis knows of none of its calls")
