"""Who may use which number, decided in a real Kamailio: changes, refusals, and a store in trouble."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from shaken_plugin.conduct import decisions
from shaken_plugin.conduct.state import State
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.core.records import (
    Customer,
    CustomerState,
    DoNotOriginate,
    Overrides,
    Right,
    Route,
    Trunk,
    Unauthorised,
    Withheld,
)
from shaken_plugin.lab.provider import Provider
from shaken_plugin.lab.servers import KamailioServer, share
from shaken_plugin.ports import Author, PolicyDraft, Span
from shaken_plugin.sqlitefile import LOOK_EVERY
from shaken_plugin.stores.sqlite import SqlitePolicy
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.party import Message, Party
from tests.e2e.phone import Phone

OWN, LETTER, UNOWNED, OTHER = "+12155551212", "+13125550142", "+19175550199", "+12155551299"
CUSTOMER, STRANGER, PENDING, BANNED, GONE = (f"127.0.0.{last}" for last in (2, 4, 5, 6, 7))


@contextmanager
def changed(provider: Provider, what: str) -> Iterator[PolicyDraft]:
    """A change of the policy, as the command line makes it."""
    store = SqlitePolicy(provider.folder / "policy.db")
    with store.change(Author("test", what, time.time()), what) as draft:
        yield draft


def suspended(draft: PolicyDraft) -> None:
    customer = draft.get(Customer, "acme")
    assert customer is not None
    draft.put(replace(customer, state=CustomerState.SUSPENDED))


def not_to_originate(draft: PolicyDraft, number: str) -> None:
    draft.put(DoNotOriginate("inbound", Withheld.INBOUND_ONLY))
    draft.add_numbers(DoNotOriginate, "inbound", [Span(number[1:], number[1:])])


def overruled(draft: PolicyDraft, **rules: Any) -> None:
    """Choices for the trunk of the customer alone."""
    trunk = draft.get(Trunk, "acme-dialler")
    assert trunk is not None
    draft.put(replace(trunk, rules=Overrides(**rules)))


_EVENT = re.compile(r"^ *\d+\((\d+)\).* shaken (\{.*\})$", re.MULTILINE)


def decided(server: KamailioServer, since: int) -> list[tuple[int, dict[str, Any]]]:
    """The worker, by process id, and the log line of each signing decision from a place in the log on."""
    found = []
    for pid, text in _EVENT.findall(server.log_text()[since:]):
        with suppress(ValueError):  # Kamailio 6 writes a line in parts, between which another process may write
            found.append((int(pid), json.loads(text)))
    return [(pid, event) for pid, event in found if event["event"] == "sign"]


WORKERS = 4


def decided_by_all(server: KamailioServer) -> list[dict[str, Any]]:
    """Decisions of every worker, by calls that come in bursts: one alone would always wake the same."""
    since = len(server.log_text())
    phone = Phone()
    try:
        for _ in range(40):
            for _ in range(3 * WORKERS):
                phone.send(phone.invite(), server.inside_port)
            time.sleep(0.05)
            found = decided(server, since)
            if len({pid for pid, _ in found}) == WORKERS:
                return [event for _, event in found]
        raise AssertionError(f"only {len({pid for pid, _ in found})} workers took a call")
    finally:
        phone.close()


def test_a_change_decides_calls_within_a_second_in_every_worker(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    signer = network.kamailio(provider, outside_peer=called.uri, workers=WORKERS)
    assert {event["level"] for event in decided_by_all(signer)} == {"A"}
    with changed(provider, "the number is to be called only") as draft:
        not_to_originate(draft, OWN)
    time.sleep(1.0)
    events = decided_by_all(signer)
    assert {(event.get("refusal"), event["policy"]) for event in events} == {("do_not_originate", 2)}


def test_a_suspension_holds_in_every_worker_while_an_import_has_the_policy_locked(network: Network) -> None:
    called = network.called()
    provider = network.provider("origin")
    signer = network.kamailio(provider, outside_peer=called.uri, workers=WORKERS)
    assert {event["level"] for event in decided_by_all(signer)} == {"A"}
    state = State(provider.folder / "state.db")
    with changed(provider, "a long import") as draft:
        draft.add_numbers(
            Right, next(draft.all(Right)).id, (Span(f"1215{n}", f"1215{n}") for n in range(10**6, 10**6 + 500))
        )
        decisions.suspend(state, "acme", "Ann", "complaints", time.time())
        time.sleep(1.0)
        events = decided_by_all(signer)
    assert {(event.get("refusal"), event["policy"]) for event in events} == {("suspended", 1)}
    decisions.reinstate(state, "acme", "Ann", "was a mistake", time.time())
    time.sleep(1.0)
    assert {event["level"] for event in decided_by_all(signer)} == {"A"}


class Edge:
    """One Kamailio between a caller and a called party who notes what arrives when."""

    def __init__(self, network: Network, provider: Provider, **options: Any) -> None:
        self.provider, self.called = provider, Party()
        network.stack.callback(self.called.close)
        self.server = network.kamailio(provider, outside_peer=f"sip:{self.called.target}", workers=1, **options)

    def ask(self, number: str = OWN, address: str = CUSTOMER, **parts: Any) -> tuple[str, Message]:
        """What became of a call, in one word, and the final answer, of which there is one."""
        self.called.forget()
        with Party(address) as caller:
            call = caller.call(self.server.inside_port, number=number, **parts)
            if call.final.status < 300:
                call.bye()
            finals = [answer for answer in call.answers() if answer.status >= 200]
            assert len({answer.first_line for answer in finals}) == 1
            assert call.final.all("Retry-After") == []
        if call.final.status != 200:
            assert self.called.invites() == []
            return f"{call.final.status} {call.final.phrase}", call.final
        identity = self.called.invite().identity()
        return (claims(identity[0])["attest"] if identity else "unsigned"), call.final


def claims(value: str) -> dict[str, Any]:
    return dict(Passport.parse(IdentityHeader.parse(value).digest).claims)


def test_a_letter_that_ends_between_two_calls(network: Network) -> None:
    edge = Edge(network, network.provider("origin"))
    assert edge.ask(LETTER)[0] == "A"
    with changed(edge.provider, "the letter ends") as draft:
        letter = next(right for right in draft.all(Right) if right.document == "LOA-2026-113")
        end = time.time() + 1.0
        draft.put(replace(letter, valid_until=end))
    assert edge.ask(LETTER)[0] == "A"
    assert time.time() < end
    time.sleep(end - time.time())
    assert edge.ask(LETTER)[0] == "B"


EMERGENCY: list[dict[str, str]] = [{"to": "911"}, {"ruri": "urn:service:sos", "to_value": "<urn:service:sos>"}]


def test_each_refusal_and_what_the_records_say_of_unauthorised_numbers(network: Network) -> None:
    choices = {
        "unknown_source": "refuse",
        "pending_customer": "refuse",
        "answers": {"suspended": {"status": 480, "phrase": "Call Accounts"}},
    }
    edge = Edge(network, network.provider("origin", signing=choices))
    assert edge.ask()[0] == "A"
    assert edge.ask(UNOWNED)[0] == "B"
    with changed(edge.provider, "refused") as draft:
        overruled(draft, unauthorised=Unauthorised.REFUSE)
        not_to_originate(draft, OWN)
    gone = Customer("gone", "Gone Ltd", CustomerState.TERMINATED)
    with changed(edge.provider, "one has left") as draft:
        draft.put(gone)
        draft.put(Trunk("gone", gone, addresses=(ip_network(GONE),)))
    refused = {
        (UNOWNED, CUSTOMER): "403 Caller ID Not Authorised",
        (OWN, CUSTOMER): "403 Caller ID Must Not Originate Calls",
        ("+10005551212", CUSTOMER): "403 Caller ID Must Not Originate Calls",
        (UNOWNED, STRANGER): "403 Source Not Known",
        (UNOWNED, PENDING): "403 Customer Not Verified",
        (UNOWNED, BANNED): "480 Call Accounts",
        (UNOWNED, GONE): "403 Customer Terminated",
    }
    for (number, address), answer in refused.items():
        assert edge.ask(number, address)[0] == answer
        for parts in EMERGENCY:
            outcome, final = edge.ask(number, address, **parts)
            assert (outcome in {"A", "B", "unsigned"}, final.status) == (True, 200)
            assert number in edge.called.invite().one("From")
    with changed(edge.provider, "substituted") as draft:
        overruled(draft, unauthorised=Unauthorised.SUBSTITUTE, substitute=OTHER[1:])
    assert edge.ask(UNOWNED)[0] == "A"
    assert OTHER in edge.called.invite().one("From")
    for parts in EMERGENCY:
        assert edge.ask(UNOWNED, **parts)[1].status == 200
        assert UNOWNED in edge.called.invite().one("From")  # nor is it substituted
    recorded = [
        json.loads(line)
        for file in (edge.provider.folder / "calls").iterdir()
        for line in file.read_text().splitlines()
    ]
    refusals = {record["refusal"] for record in recorded if "refusal" in record}
    assert refusals == {"unauthorised", "do_not_originate", "unknown_source", "pending", "suspended", "terminated"}
    (replaced,) = [record for record in recorded if "substituted_for" in record]
    assert (replaced["orig"], replaced["substituted_for"], replaced["attest"]) == (OTHER[1:], UNOWNED[1:], "A")
    assert replaced["unauthorised"]
    assert replaced["offence"]
    assert not [record for record in recorded if record.get("emergency") and record.get("offence")]
    names = ("unauthorised", "do_not_originate", "unknown_source", "pending", "suspended", "terminated")
    assert all(edge.server.counters()[f"refused_{name}"] >= 1 for name in names)


def test_the_script_names_the_route_whose_rules_hold(network: Network) -> None:
    config = share("kamailio", "kamailio-native.cfg").read_text("utf-8")
    mark = '        python_exec("shaken_sign");'
    assert config.count(mark) == 1
    file = network.folder / "routes.cfg"
    named = f'        if (is_present_hf("X-Route")) $xavp(shaken_in=>route) = $hdr(X-Route);\n{mark}'
    file.write_text(config.replace(mark, named))
    edge = Edge(network, network.provider("origin"), config=file)
    with changed(edge.provider, "a route that takes no strangers' numbers") as draft:
        draft.put(Route("strict", ("44",), Overrides(unauthorised=Unauthorised.REFUSE)))
    assert edge.ask(UNOWNED)[0] == "B"
    assert edge.ask(UNOWNED, to="+442079460123")[0] == "403 Caller ID Not Authorised"
    assert edge.ask(UNOWNED, extra=b"X-Route: strict\r\n")[0] == "403 Caller ID Not Authorised"
    assert edge.ask(UNOWNED, extra=b"X-Route: none\r\n")[0] == "B"


# --- A store in trouble -------------------------------------------------------------------------

Trouble = Callable[[Path], Any]


@contextmanager
def missing(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    aside = path.with_name(f"{path.name}.aside")
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    yield
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
        file = aside.with_name(aside.name + suffix)
        if file.exists():
            file.rename(path.with_name(path.name + suffix))


@contextmanager
def corrupt(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(b"not a database " * 1000)
    yield
    path.write_bytes(content)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """By somebody who restored it. While workers have a file open SQLite gives nobody the whole of it."""
    with missing(path):
        shutil.copy(path.with_name(f"{path.name}.aside"), path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")


def delay(edge: Edge, number: str) -> float:
    """Seconds until a call has reached the called party, or is refused; the median of some."""
    taken = []
    for _ in range(3):
        edge.called.forget()
        with Party(CUSTOMER) as caller:
            request = caller.request(number=number)
            begun = time.monotonic()
            caller.send(request, edge.server.inside_port)
            while not edge.called.received and not [
                m for m in caller.received if not m.first_line.startswith("SIP/2.0 100")
            ]:
                assert time.monotonic() < begun + 5
                time.sleep(0.0005)
            taken.append(time.monotonic() - begun)
    return median(taken)


@pytest.mark.parametrize(
    ("mode", "known", "strange"),
    [
        ("last_known", "A", "unsigned"),
        ("unsigned", "unsigned", "unsigned"),
        ("refuse", "500 Server Internal Error", "500 Server Internal Error"),
    ],
)
def test_a_store_in_trouble_leaves_calls_in_the_declared_mode_without_delay(
    network: Network, mode: str, known: str, strange: str
) -> None:
    store = {"path": "policy.db", "when_unavailable": mode}
    edge = Edge(network, network.provider("origin", store=store))
    assert edge.ask()[0] == "A"
    before = delay(edge, OWN)
    for file, trouble in itertools.product(("policy.db", "state.db"), (missing, corrupt, locked)):
        what = f"{file} {trouble.__name__}"
        with trouble(edge.provider.folder / file):
            time.sleep(2 * LOOK_EVERY)  # until then a worker may not have looked
            assert edge.ask()[0] == known, what
            # Policy and standings are remembered apart: the state file says nothing of numbers.
            beside = known if file == "state.db" else strange
            assert edge.ask("+12155551213")[0] == beside, what
            assert edge.ask(to="911")[1].status == 200
            assert delay(edge, OWN) < before + 0.05, what
        time.sleep(0.3)
        assert edge.ask()[0] == "A", what
