"""Whole calls through Kamailio, INVITE to BYE: CPU time of all its processes, ours beside a plain relay and secsipid.

All load the same modules and use the same allocator; the configurations of ours are the shipped examples, the
others the same without the lines that are ours.
"""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import stage
from bench.processes import children, cpu_seconds
from bench.results import BenchError, Report, Series, Target
from bench.sections import Options, Section
from bench.workers import Measure, interleave
from shaken_plugin.authentication import SigningPair, identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab import sipp
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.servers import KamailioServer, LabError, find_program, share

CALLER: Final = "12155551212"
"""Of the customer, in the lab's policy."""

WARMING: Final = 50
"""Calls before the first that count."""

OWN_SCRIPTS: Final = Path(__file__).parents[1] / "kamailio"

PLAIN, PLAIN_KEMI = "plain relay, native", "plain relay, KEMI"
IDLE, IDLE_KEMI = "not ours, native", "not ours, KEMI"
SIGN, SIGN_KEMI, SIGN_OTHER = "sign, native", "sign, KEMI", "sign, secsipid"
VERIFY, VERIFY_KEMI, VERIFY_OTHER = "verify, native", "verify, KEMI", "verify, secsipid"
NAMES: Final = (
    PLAIN, PLAIN_KEMI, IDLE, IDLE_KEMI, SIGN_OTHER, SIGN, SIGN_KEMI, VERIFY_OTHER, VERIFY, VERIFY_KEMI,
)  # fmt: skip


# --- Configurations ---------------------------------------------------------------------------

_SIGN_LINE: Final = '        python_exec("shaken_sign");'
_VERIFY_LINE: Final = '    python_exec("shaken_verify", "FROM_OUTSIDE");'
_BEFORE_MODULES: Final = 'loadmodule "async.so"'


def with_modules(config: str, *, secsipid: bool) -> str:
    """A shipped configuration that also loads secsipid, where that is there."""
    return _replaced(config, _BEFORE_MODULES, f'loadmodule "secsipid.so"\n{_BEFORE_MODULES}') if secsipid else config


def without_ours(config: str, sign: str = "", verify: str = "") -> str:
    """The shipped native configuration as it were without us.

    Args:
        config: its text.
        sign: what stands in the place of our signing.
        verify: likewise.

    Raises:
        BenchError: it is not the file that this was written for.
    """
    config = _replaced(config, _SIGN_LINE, sign + "\n#")
    config = _replaced(config, _VERIFY_LINE, verify + "\n#")
    lines = [line for line in config.splitlines() if not _OURS.search(line)]
    config = re.sub(r"^(branch_route|onreply_route)\[\w+\] \{\n\}\n", "", "\n".join(lines) + "\n", flags=re.MULTILINE)
    if "shaken_" in config or "_route[BRANCH]" in config or "_route[REPLY]" in config:
        raise BenchError("the shipped kamailio-native.cfg has changed: see bench/sections/kamailio.py")
    return config


_OURS: Final = re.compile(r'python_exec\("shaken_|t_on_branch\("BRANCH"\)|t_on_reply\("REPLY"\)')


def _replaced(config: str, old: str, new: str) -> str:
    if config.count(old) != 1:
        raise BenchError(f"the shipped configuration has changed: {old.strip()!r} is not in it once")
    return config.replace(old, new)


def secsipid_signing(key: Path, x5u: str) -> str:
    """As the module's documentation does it; the numbers without their plus signs, which PASSporTs have none of."""
    return f'        secsipid_add_identity("$(fU{{s.strip,1}})", "$(rU{{s.strip,1}})", "A", "", "{x5u}", "{key}");'


def secsipid_verifying(chain: Path) -> str:
    """Likewise, with the certificate in a file: nothing is downloaded."""
    return (
        f'    if (!secsipid_check_identity("{chain}")) {{\n'
        '        sl_send_reply("438", "Invalid Identity Header");\n        exit;\n    }'
    )


# --- Servers ----------------------------------------------------------------------------------


class Proxy(KamailioServer):
    """A Kamailio with the allocator that costs least: with that of Debian a plain relay costs twice as much."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]  # as its parent takes them
        self._command += ["-x", "tlsf", "-X", "tlsf"]

    def cpu(self) -> float:
        """CPU seconds of all its processes so far."""
        return sum(map(cpu_seconds, (self.pid, *children(self.pid))))


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to take a call, and the proof that it did."""

    name: str
    proxy: Proxy
    called: sipp.Answerer
    verifies: bool
    counter: str | None = None
    """Of ours, one for each call."""


class Stage:
    """All Kamailios, and SIPp on both sides of them.

    Args:
        folder: for all files.
        stack: ends the servers.
        secsipid: whether that module is there.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, secsipid: bool) -> None:
        self._folder, self._stack, self._secsipid = folder, stack, secsipid
        authority = Authority.new(time.time())
        alone: dict[str, Any] = {"agent": {"enabled": False}}
        self.origin = stage.provider(folder / "origin", authority, **alone)
        self._target = stage.provider(folder / "target", authority, policy={}, spc="123T", **alone)
        self._target.publish(self.origin.x5u, self.origin.credential.chain)
        off: dict[str, Any] = {"signing": {"mode": "off"}, "verification": {"mode": "off"}}
        self._off = stage.provider(folder / "off", authority, **alone, **off)
        self.pair = stage.pair_of(self.origin.settings)
        self._number = 0

    def variants(self) -> list[Variant]:
        """All of them, running."""
        native, kemi = (
            with_modules(share("kamailio", f"kamailio-{kind}.cfg").read_text("utf-8"), secsipid=self._secsipid)
            for kind in ("native", "kemi")
        )
        sign, verify, off = self.origin.settings, self._target.settings, self._off.settings
        plain = {"SHAKEN_SCRIPT": f'"{OWN_SCRIPTS / "empty.py"}"'}
        plain_kemi = {"KEMI_SCRIPT": f'"{OWN_SCRIPTS / "plain_routing.py"}"'}
        found = [
            self._variant(PLAIN, off, without_ours(native), defines=plain),
            self._variant(PLAIN_KEMI, off, kemi, defines=plain_kemi),
            self._variant(IDLE, off, native),
            self._variant(IDLE_KEMI, off, kemi),
            self._variant(SIGN, sign, native, counter="signed_a"),
            self._variant(SIGN_KEMI, sign, kemi, counter="signed_a"),
            self._variant(VERIFY, verify, native, verifies=True, counter="verified_passed"),
            self._variant(VERIFY_KEMI, verify, kemi, verifies=True, counter="verified_passed"),
        ]
        if self._secsipid:
            folder = self.origin.folder
            other = without_ours(native, sign=secsipid_signing(folder / "signing.key", self.origin.x5u))
            found.append(self._variant(SIGN_OTHER, off, other, defines=plain))
            other = without_ours(native, verify=secsipid_verifying(folder / "chain.pem"))
            found.append(self._variant(VERIFY_OTHER, off, other, verifies=True, defines=plain))
        return found

    def _variant(
        self,
        name: str,
        settings: Path,
        config: str,
        *,
        verifies: bool = False,
        counter: str | None = None,
        defines: Mapping[str, str] | None = None,
    ) -> Variant:
        folder = self._folder / re.sub(r"\W+", "-", name)
        folder.mkdir()
        (folder / "kamailio.cfg").write_text(config, "utf-8")
        called = self._stack.enter_context(sipp.Answerer(folder / "called"))
        proxy = Proxy(
            "kamailio",
            folder,
            settings,
            inside_peer=called.uri,
            outside_peer=called.uri,
            config=folder / "kamailio.cfg",
            defines=defines,
        )
        return Variant(name, self._stack.enter_context(proxy), called, verifies, counter)

    def call(self, variant: Variant, calls: int, rate: int, *, tampered: bool = False) -> sipp.Run:
        """Place calls, each with an Identity header of its own where the variant verifies."""
        self._number += 1
        label, arguments, file = f"calls-{self._number}", tuple[str, ...](), None
        if variant.verifies:
            values = [token(self.pair, tampered=tampered) for _ in range(calls)]
            (self._folder / f"{label}.inf").write_text("\n".join(["SEQUENTIAL", *values, ""]), "ascii")
            arguments, file = ("-inf", f"{label}.inf"), self._scenario()
        proxy = variant.proxy
        port = proxy.outside_port if variant.verifies else proxy.inside_port
        return sipp.call(
            "uac_call",
            self._folder,
            f"127.0.0.1:{port}",
            label=label,
            address="127.0.0.4" if variant.verifies else stage.TRUNK,
            keys={"from": f"+{CALLER}", "to": f"+{stage.CALLED}", "pai_user": f"+{CALLER}"},
            calls=calls,
            rate=rate,
            trace=False,
            file=file,
            arguments=arguments,
        )

    def _scenario(self) -> Path:
        """The shipped call with an Identity header, that takes the token from a file: ``;`` would end its field."""
        path = self._folder / "uac_tokens.xml"
        if not path.exists():
            text = sipp.scenario("uac_identity").read_text("utf-8")
            rest = f'info=<{self.origin.x5u}>;alg=ES256;ppt="shaken"'
            path.write_text(text.replace("Identity: [identity]", f"Identity: [field0];{rest}"), "utf-8")
        return path


def token(pair: SigningPair, *, tampered: bool = False) -> str:
    """A PASSporT of now for the call that is placed; of a tampered one the signature is another's."""
    made = [
        identity_header(
            pair,
            shaken_claims(
                attest=Attest.A,
                orig=TelephoneNumber(CALLER),
                dest=TelephoneNumber(stage.CALLED),
                iat=int(time.time()),
                origid=str(uuid.uuid4()),
            ),
        ).digest
        for _ in range(1 + tampered)
    ]
    return made[0].rpartition(".")[0] + "." + made[-1].rpartition(".")[2]


# --- The section ------------------------------------------------------------------------------


def run(options: Options) -> Report:
    """See `Section`."""
    report = Report("kamailio", TITLE)
    try:
        for name in ("kamailio", "kamcmd", "sipp"):
            find_program(name)
    except LabError as exc:
        raise BenchError(str(exc)) from exc
    secsipid = any(Path("/usr/lib").glob("*/kamailio/modules/secsipid.so"))
    if not secsipid:
        report.notes.append("secsipid is not installed: apt-get install kamailio-secsipid-modules")
    rounds, calls, rate = (3, 150, 100) if options.quick else (15, 3_000, 300)
    with ExitStack() as stack:
        try:
            stage_ = Stage(options.folder, stack, secsipid=secsipid)
            variants = stage_.variants()
            for variant in variants:
                prove(stage_, variant)
            advance = options.begin("kamailio", len(variants) * rounds)
            trouble: Counter[str] = Counter()
            subjects = [_cost(stage_, one, calls, rate, trouble) for one in variants]
            found = interleave(subjects, rounds, advance, warm=True)
        except LabError as exc:
            raise BenchError(str(exc)) from exc
    report.series = [Series(name, "ms", found[name]) for name in NAMES if name in found]
    report.notes += [
        f"{what}: {count} of {rounds * calls}: the machine was too busy, or is too slow for this rate"
        for what, count in trouble.items()
        if count > rounds * calls // 100
    ]
    report.notes.append(f"{rate} calls a second, {calls} in a turn; two SIP workers")
    compare(report)
    return report


def compare(report: Report) -> None:
    """The ratios of the section."""

    def cost(of: str, to: str, at_most: float | None = None) -> None:
        report.compare(of, to, target=None if at_most is None else Target(at_most, at_least=False))

    cost(PLAIN_KEMI, PLAIN)
    cost(IDLE, PLAIN, 1.10)
    cost(IDLE_KEMI, PLAIN_KEMI, 1.10)
    for name in (SIGN_OTHER, SIGN, SIGN_KEMI, VERIFY_OTHER, VERIFY, VERIFY_KEMI):
        cost(name, PLAIN)
    cost(SIGN, SIGN_OTHER, 1.00)
    cost(SIGN_KEMI, SIGN_OTHER, 1.10)
    cost(VERIFY, VERIFY_OTHER, 0.95)
    cost(VERIFY_KEMI, VERIFY_OTHER, 1.05)


def prove(on: Stage, variant: Variant) -> None:
    """Raise where a variant does not do what it is measured for; afterwards each of its workers is warm.

    Raises:
        BenchError: what it did instead.
    """
    good = on.call(variant, 1, 1)
    if good.counts.successful != 1:
        raise BenchError(f"{variant.name}: a call failed: {good.errors}\n{variant.proxy.log_tail()}")
    (invite,) = variant.called.invites()
    identities = len(invite.header("Identity"))
    if identities != (variant.verifies or variant.name in {SIGN, SIGN_KEMI, SIGN_OTHER}):
        raise BenchError(f"{variant.name}: {identities} Identity headers arrive")
    if variant.name == VERIFY_OTHER and on.call(variant, 1, 1, tampered=True).counts.failed != 1:
        raise BenchError(f"{variant.name}: a forged call passes")
    if variant.counter is not None and variant.proxy.counters().get(variant.counter) != 1:
        raise BenchError(f"{variant.name}: {variant.proxy.counters()}")
    on.call(variant, WARMING, WARMING)


def _cost(on: Stage, variant: Variant, calls: int, rate: int, trouble: Counter[str]) -> Measure[str]:
    def measure() -> Mapping[str, float]:
        counter, proxy = variant.counter, variant.proxy
        before, counted = proxy.cpu(), proxy.counters().get(counter, 0) if counter else 0
        counts = on.call(variant, calls, rate).counts
        took = proxy.cpu() - before
        trouble.update(
            {f"{variant.name}, failed": counts.failed, f"{variant.name}, retransmitted": counts.retransmissions}
        )
        # More: a retransmission that comes while another worker has its INVITE at hand is taken for a call, too.
        if counter and proxy.counters()[counter] - counted < counts.successful:
            raise BenchError(f"{variant.name}: {proxy.counters()}, before {counts.successful} calls {counted}")
        return {variant.name: took / calls * 1e3}

    return measure


TITLE: Final = "Whole calls through Kamailio, INVITE to BYE: CPU time of all its processes for one call"
SECTION: Final = Section("kamailio", TITLE, run)
