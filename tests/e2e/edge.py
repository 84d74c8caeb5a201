"""A host of a fleet under SIPp load: what became of each call, how long it took, and what was recorded of it."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import yaml

from shaken_plugin import runtime
from shaken_plugin.authentication import identity_header
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.records import Basis, Customer, Limits, Rate, Right
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.lab import sipp
from shaken_plugin.lab.provider import dump
from shaken_plugin.lab.servers import LOOPBACK, KamailioServer
from shaken_plugin.ports import Author, Span
from shaken_plugin.records.ledger import Ledger
from shaken_plugin.records.search import Wanted, search
from shaken_plugin.stores.freshness import mark_of
from shaken_plugin.stores.redis.connection import RedisAccess
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.policy import RedisPolicy
from shaken_plugin.stores.redis.upkeep import upload_snapshot
from tests.agent.host import until
from tests.agent.prepared import PreparedAgent
from tests.e2e.conftest import Network, pair_of

RATE: Final = 40
"""Calls a second."""
WORKERS: Final = 2
MAX_AGE: Final = 2
"""Seconds for which the copy decides calls without being known to be whole."""
FLEET: Final = "outage"
MAX_INCOMING: Final = 600
"""Calls of one load from another carrier: no PASSporT comes twice."""
CALLER: Final = "+12155551212"
CALLERS: Final = Span("12155600000", "12155603999")
"""More of the customer's numbers, for loads whose every call has another: what is decided of one says nothing of the
next, so that each call asks the copy."""
CALLED: Final = "+12025550143"
BOUND: Final = 0.05
"""Seconds that a call may take longer than without any trouble."""


@dataclass(frozen=True, slots=True)
class Call:
    """What SIPp saw of one call; times in POSIX seconds."""

    sent: float
    status: int
    """Of the final answer to the INVITE."""
    seconds: float
    """From its INVITE being sent to it having come through, or to the refusal."""
    carries: str | None
    """Its level, or its verdict; None where it came with none, or not through."""


class Edge:
    """An originating Kamailio of a fleet, its agent, and who answers.

    Args:
        network: where all of it runs.
        access: the Redis, as another host of the fleet reaches it.
        servers: settings of the Redis, as this host reaches it.
    """

    def __init__(self, network: Network, access: RedisAccess, **servers: Any) -> None:
        self.network = network
        first = network.provider("elsewhere")
        runtime.start(first.settings, time.time())
        log = FleetLog(access, FLEET)
        upload_snapshot(first.folder / "policy.db", log)
        self.elsewhere = RedisPolicy(first.folder / "policy.db", log)
        self.level = "A"
        """What calls get."""
        self.prepare()
        self._callers = network.folder / f"{network.name('callers')}.csv"
        first_one, last_one = int(CALLERS.first), int(CALLERS.last)
        self._callers.write_text(
            "\n".join(["SEQUENTIAL", *(f"+{one}" for one in range(first_one, last_one + 1))]) + "\n"
        )
        store = {"path": "policy.db", "redis": {"fleet": FLEET, **servers}, "max_age": MAX_AGE}
        self.provider = network.provider("origin", store=store, signing={"origid": {"per": "call"}})
        self.folder = self.provider.folder
        self.ledger = Ledger(f"sqlite:{self.folder / 'ledger.db'}")
        network.stack.enter_context(closing(self.ledger))
        self._agents = 0
        self.agent = self.start_agent()
        until(lambda: mark_of(self.folder / "policy.db").exists())
        runtime.start(self.provider.settings, time.time())
        self.called = network.called()
        self.signer = network.kamailio(self.provider, outside_peer=self.called.uri, workers=WORKERS)

    def start_agent(self) -> PreparedAgent:
        """A new agent, in the place of one that is gone."""
        self._agents += 1
        name, folder = f"agent-{self._agents}", self.provider.folder
        self.agent = PreparedAgent(name, folder, self.provider.settings, folder / "agent.sock")
        return self.network.stack.enter_context(self.agent)

    # --- The policy, changed from another host ----------------------------------------------------

    def prepare(self) -> None:
        """Give the customer limits that no test comes near, so that each call is counted, and more numbers."""
        with self.elsewhere.change(Author("test", "a load", time.time()), "limits and numbers") as draft:
            draft.put(replace(self._customer(), limits=Limits(Rate(1_000.0, 1_000))))
            draft.put(Right("callers", "acme", Basis.ASSIGNED))
            draft.add_numbers(Right, "callers", [CALLERS])

    def change(self) -> str:
        """Change what level calls get; gives the new one.

        Raises:
            StoreUnavailable, StoreError: nothing was changed.
        """
        level = "B" if self.level == "A" else "A"
        with self.elsewhere.change(Author("test", "an outage", time.time()), "ceiling") as draft:
            draft.put(replace(self._customer(), ceiling=Attest(level)))
        self.level = level
        return level

    def _customer(self) -> Customer:
        with self.elsewhere.records() as records:
            found = records.get(Customer, "acme")
        assert found is not None
        return found

    # --- Calls ------------------------------------------------------------------------------------

    def calls(self, file: Path | None = None, *, known: bool = False) -> Load:
        """Calls of the customer begin.

        Args:
            file: another scenario than that of calls that are answered.
            known: they come from one number, which is known after the first; otherwise each from one of `CALLERS`.
        """
        address, signer = "127.0.0.2", self.signer
        file = file or sipp.scenario("uac_call")
        if known:
            return Load(self, signer, signer.inside_port, "sign", file, address)
        many = self.network.folder / f"many_{file.name}"
        text = file.read_text("utf-8")
        assert "[from]" in text
        many.write_text(text.replace("[from]", "[field0]").replace("[pai_user]", "[field0]"))
        return Load(self, signer, signer.inside_port, "sign", many, address, ("-inf", str(self._callers)))

    def incoming(self, verifier: KamailioServer) -> Load:
        """Calls from another carrier begin, each with a PASSporT of its own."""
        folder = self.network.folder
        text = sipp.scenario("uac_identity").read_text("utf-8")
        file, values = folder / "uac_many.xml", folder / "identities.csv"
        file.write_text(text.replace("[identity]", "[field0];[field1];[field2];[field3]"))  # ";" separates the fields
        values.write_text("\n".join(["SEQUENTIAL", *(self._identity() for _ in range(MAX_INCOMING))]) + "\n")
        arguments = ("-inf", str(values))
        return Load(self, verifier, verifier.outside_port, "verify", file, "127.0.0.3", arguments)

    def _identity(self) -> str:
        claims = shaken_claims(
            attest=Attest.A, orig=TelephoneNumber(CALLER[1:]), dest=TelephoneNumber(CALLED[1:]), iat=int(time.time()),
            origid=str(uuid.uuid4()),
        )  # fmt: skip
        return identity_header(pair_of(self.provider), claims).format()

    # --- What the host says -----------------------------------------------------------------------

    def ask(self, path: str) -> str:
        """What the agent's HTTP server says."""
        address = re.findall(r"http://(127\.0\.0\.1:\d+)/health", self.agent.log_text())[-1]
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def alarms(self) -> dict[str, str]:
        """The alarms that are on, with their texts."""
        return {alarm["name"]: alarm["text"] for alarm in json.loads(self.ask("/health"))["alarms"]}

    def held(self) -> float:
        """How many calls have a slot."""
        return float(self.ask("/metrics").partition("\nshaken_limit_slots ")[2].split()[0])

    def decide_when_stale(self, mode: str) -> None:
        """Have calls decided in a mode once the copy is too old."""
        settings = yaml.safe_load(self.provider.settings.read_text("utf-8"))
        settings["store"]["when_unavailable"] = mode
        dump(self.provider.settings, settings)
        runtime.start(self.provider.settings, time.time())
        self.signer.rpc("app_python.reload")

    def recorded(self, kind: str) -> dict[str, list[dict[str, Any]]]:
        """The records in the ledger, by Call-ID."""
        found: dict[str, list[dict[str, Any]]] = {}
        with suppress(StoreUnavailable):
            for one in search(self.ledger, Wanted(kind=kind)):
                found.setdefault(one.record["call_id"], []).append(one.record)
        return found


class Load:
    """Calls at a steady rate, until they are ended.

    Args:
        edge: where they go.
        switch: the Kamailio that decides them.
        port: of it, where they come in.
        kind: sign or verify.
        file: a scenario.
        address: where they come from.
        arguments: more options for SIPp.
    """

    def __init__(
        self,
        edge: Edge,
        switch: KamailioServer,
        port: int,
        kind: Literal["sign", "verify"],
        file: Path,
        address: str,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._edge, self._switch, self._kind = edge, switch, kind
        self._what = attest if kind == "sign" else verstat
        self._has_one_caller = kind == "verify" or not arguments
        self._before = switch.counters()
        self._since = edge.called.trace.stat().st_size
        keys = {"from": CALLER, "to": CALLED, "pai_user": CALLER}
        network = edge.network
        self._caller = network.stack.enter_context(
            sipp.Caller(
                network.folder, file.stem, f"{LOOPBACK}:{port}", label=network.name("load"), address=address,
                keys=keys, rate=RATE, file=file, arguments=arguments,
            )
        )  # fmt: skip

    def run(self, seconds: float) -> None:
        """Let it go on for so long."""
        time.sleep(seconds)

    def latest(self) -> str | None:
        """What the last call that came through carries."""
        trace = self._edge.called.trace
        last = invites(sipp.read_trace(trace, max(self._since, trace.stat().st_size - 20_000)))[-1:]
        return self._what(last[0]) if last else None

    def end(self) -> list[Call]:
        """End it: every call was answered, came through once, and left one record; in the order they were sent."""
        run = self._caller.end()
        sent: dict[str, float] = {}
        callers: set[str] = set()
        final: dict[str, sipp.Traced] = {}
        for message in run.messages:
            call_id = message.header("Call-ID")[0]
            if message.sent and message.first_line.startswith("INVITE"):
                sent.setdefault(call_id, message.at)
                callers.update(message.header("P-Asserted-Identity"))
            elif not message.sent and message.header("CSeq") == ["1 INVITE"] and status(message) >= 200:
                final.setdefault(call_id, message)
        assert (run.counts.successful, run.counts.failed) == (len(sent), 0), run.errors
        # On loopback nothing is lost; more of these mean that a worker stalled.
        assert run.counts.retransmissions <= len(sent) // 50, run.counts
        assert not faults(self._before, self._switch.counters())
        arrived: dict[str, sipp.Traced] = {}
        for invite in invites(sipp.read_trace(self._edge.called.trace, self._since)):
            if (call_id := invite.header("Call-ID")[0]) in sent:
                arrived.setdefault(call_id, invite)
        assert final.keys() == sent.keys()
        assert self._has_one_caller or len(callers) == len(sent)
        assert arrived.keys() == {call_id for call_id, answer in final.items() if status(answer) == 200}
        until(lambda: self._edge.held() == 0)
        carried = {call_id: self._what(invite) for call_id, invite in arrived.items()}
        self._check_records(set(sent), carried)
        return [
            Call(at, status(final[one]), arrived.get(one, final[one]).at - at, carried.get(one))
            for one, at in sorted(sent.items(), key=lambda pair: pair[1])
        ]

    def _check_records(self, sent: set[str], carried: dict[str, str | None]) -> None:
        """One record of each call, which says what went over the wire."""
        until(lambda: sent <= self._edge.recorded(self._kind).keys())
        found = self._edge.recorded(self._kind)
        assert {len(found[call_id]) for call_id in sent} == {1}
        field = "attest" if self._kind == "sign" else "verstat"
        recorded = {call_id: found[call_id][0].get(field) for call_id in sent}
        assert recorded == {call_id: carried.get(call_id) for call_id in sent}


def status(answer: sipp.Traced) -> int:
    """Of an answer."""
    return int(answer.first_line.split()[1])


def invites(messages: Iterable[sipp.Traced]) -> list[sipp.Traced]:
    """The INVITEs that came."""
    return [message for message in messages if not message.sent and message.first_line.startswith("INVITE")]


def attest(invite: sipp.Traced) -> str | None:
    """The level that an INVITE carries."""
    for value in invite.header("Identity"):
        claims = value.split(".")[1]
        found: str = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["attest"]
        return found
    return None


def verstat(invite: sipp.Traced) -> str | None:
    """The verdict that an INVITE carries."""
    found = re.search("verstat=([A-Za-z-]+)", " ".join(invite.header("P-Asserted-Identity")))
    return found[1] if found else None


def faults(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What the plugin counted meanwhile that must not be."""
    gained = Counter(after) - Counter(before)
    return {name: count for name, count in gained.items() if name.startswith(("fault", "record", "signer"))}


@dataclass(frozen=True, slots=True)
class Delays:
    """How much longer calls took than usual; seconds."""

    usual: float
    noise: float
    """The worst of the calls before, above the usual."""
    worst: float
    """Of the calls while something is wrong, above the usual."""
    settled: Sequence[float]
    """Of those once everybody has noticed, above the usual."""

    @classmethod
    def of(cls, calls: Sequence[Call], begin: float, noticed: float, end: float) -> Delays:
        """From calls before, while everybody notices, and after that."""
        before = [call.seconds for call in calls if call.sent < begin]
        during = [call for call in calls if begin <= call.sent < end]
        usual = median(before)
        return cls(
            usual,
            max(before) - usual,
            max(call.seconds for call in during) - usual,
            [call.seconds - usual for call in during if call.sent >= noticed],
        )

    def trouble(self) -> str | None:
        """What is wrong with them, as far as it is no noise of the machine."""
        noise = min(self.noise, BOUND)
        if self.worst > BOUND + max(noise, 0.01):
            return f"a call took {self.worst * 1000:.0f} ms more: {self}"
        slow = [seconds for seconds in self.settled if seconds > 0.02 + noise]
        if len(slow) > len(self.settled) // 50:
            return f"{len(slow)} of {len(self.settled)} calls were slow still: {self}"
        if median(self.settled) > 0.003:
            return f"every call takes longer still: {self}"
        return None


def undisturbed(attempt: Callable[[], Delays], tries: int = 3) -> None:
    """Delays that are small enough once in a few times: a busy machine only ever adds to them."""
    for _ in range(tries):
        trouble = attempt().trouble()
        if trouble is None:
            return
    raise AssertionError(trouble)
