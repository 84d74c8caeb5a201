"""The FreeSWITCH functions over an event socket, on a stand-in for FreeSWITCH: what they do, and what they survive."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin import runtime
from shaken_plugin.adapters.freeswitch import functions
from shaken_plugin.adapters.freeswitch.dump import DumpError, leg_variables
from shaken_plugin.adapters.freeswitch.esl import conversation, ends, server
from shaken_plugin.adapters.freeswitch.esl.server import EventSocket
from shaken_plugin.adapters.freeswitch.esl.text import ConversationError, checked_uuid, set_variable, set_variables
from shaken_plugin.adapters.freeswitch.esl.wire import MAX_FIELDS, MAX_READ, Fields, PeerGone, Wire
from shaken_plugin.adapters.freeswitch.functions import HOOK
from shaken_plugin.authentication import Limiter
from shaken_plugin.core.records import Customer, Limits, Rate
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider, dump
from shaken_plugin.ports import Author
from shaken_plugin.stores.presence import leg_owner
from shaken_plugin.stores.sqlite import SqlitePolicy
from shaken_plugin.switch import Switch
from shaken_plugin.switch.waiting import WaitingRoom
from shaken_plugin.telemetry import MemoryObserver
from tests.adapter.esl_peer import CORE, PARTNER, UUID, Leg, body, listed, separated
from tests.adapter.test_freeswitch import Counts
from tests.conftest import NOW

CALLED = "+12025550143"
LEAVING = {"direction": "outbound", "caller_id_number": "+12155551212", "destination_number": CALLED}
CUSTOMER, BANNED = ({"direction": "inbound", "sip_network_ip": f"127.0.0.{last}"} for last in (2, 6))
CAME = {
    "direction": "inbound",
    "sip_full_from": "<sip:+12155551212@a.example>;tag=1",
    "sip_full_to": f"<sip:{CALLED}@b.example>",
    "sip_req_uri": f"{CALLED}@b.example",
    "sip_call_id": "call-1",
    "sip_network_ip": "127.0.0.9",
}


class Bench:
    """A provider, and a server with it in a thread of its own."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.observer = MemoryObserver()
        self.provider = Provider.make(folder, authority, NOW, verification={"wait": 0.0})
        self.provider.publish(self.provider.x5u, self.provider.credential.chain)
        self.refused = False
        self._switch: Switch | None = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.served = self.serve("127.0.0.1:0")

    def serve(self, address: str) -> EventSocket:
        return EventSocket(address, self.load, self.observer)

    def load(self) -> Switch:
        if self.refused:
            raise RuntimeError("shaken.yaml is refused")
        services = runtime.start(self.provider.settings, NOW)
        if self._switch is None:
            numbers = itertools.count()
            self._switch = Switch(services, self.observer, lambda: NOW, lambda: f"uuid-{next(numbers)}", WaitingRoom())
        self._switch.services = services
        return self._switch

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def leg(self, *arguments: Any, **options: Any) -> Leg:
        return Leg(self.served.port, *arguments, **options)

    def connected(self) -> int:
        return len(self.served._open)

    def close(self) -> None:
        self.do(self.served.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        self.loop.close()
        if self._switch is not None and self._switch.room is not None:
            self._switch.room.close()


@pytest.fixture
def bench(tmp_path: Path, authority: Authority) -> Iterator[Bench]:
    made = Bench(tmp_path, authority)
    made.do(made.served.look())
    yield made
    made.close()


# --- What the functions do ----------------------------------------------------------------------


def identities(leg: Leg) -> list[str]:
    names = ["sip_h_Identity" + " " * spaces for spaces in range(1, 9)]
    return [leg.variables[name] for name in names if name in leg.variables]


def test_a_leg_that_leaves_is_signed_for_whom_it_is_made(bench: Bench) -> None:
    leg = bench.leg("sign", LEAVING, CUSTOMER).run()
    (value,) = identities(leg)
    assert value.endswith((";ppt=shaken", ';ppt="shaken"'))
    assert leg.variables["shaken_as_level"] == "A"
    assert leg.variables["sip_h_Date"].endswith("GMT")
    assert bench.observer.counts["signed_a"] == 1
    assert not any(command.startswith("resume") for command in leg.commands)


def test_whoever_ends_waits_until_every_socket_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a loop that ends at once leaves them to the garbage collector, which warns of each."""
    transports: list[Any] = []
    begin, end = conversation.Conversation.begin, EventSocket._end

    async def noted(talk: conversation.Conversation) -> None:
        transports.append(talk._wire._writer.transport)
        await begin(talk)

    async def slowly(served: EventSocket, *closing: Any) -> None:
        transports.append(None)
        await asyncio.sleep(0.05)
        await end(served, *closing)

    async def closed() -> Any:
        await bench.served.close()
        return transports[0]._sock is None

    monkeypatch.setattr(conversation.Conversation, "begin", noted)
    monkeypatch.setattr(EventSocket, "_end", slowly)
    threading.Thread(target=bench.leg("sign", LEAVING, CUSTOMER).run).start()
    until(lambda: len(transports) == 2)
    assert asyncio.run_coroutine_threadsafe(closed(), bench.loop).result(20)


def test_a_leg_whose_partner_has_ended_is_signed_as_a_strangers(bench: Bench) -> None:
    leg = bench.leg("sign", LEAVING, {}).run()
    assert leg.variables["shaken_as_skip"] == "policy_unsigned"
    assert identities(leg) == []


def test_a_leg_is_not_taken_for_one_whose_name_looks_like_it(bench: Bench) -> None:
    leg = bench.leg("sign", LEAVING, CUSTOMER)
    connected = leg._connected()
    leg._before = lambda command: connected if command.startswith("connect") else None
    leg.variables["originating_leg_uuid"] = f"%37{PARTNER[1:]}"  # FreeSWITCH writes it as it is
    assert leg.run().variables["shaken_as_skip"] == "policy_unsigned"


def test_on_a_leg_that_came_signing_is_arranged_for_those_that_leave(bench: Bench) -> None:
    leg = bench.leg("sign", {**CAME, **CUSTOMER, "export_vars": "a,b"}).run()
    assert leg.variables[f"nolocal:{HOOK}"] == f"socket 127.0.0.1:{bench.served.port}/sign full"
    assert leg.variables["export_vars"] == f"a,b,nolocal:{HOOK}"
    again = bench.leg("sign", leg.variables).run()
    assert again.variables["export_vars"] == leg.variables["export_vars"]


def test_a_refused_customer_is_answered_and_its_legs_are_given_up(bench: Bench) -> None:
    assert bench.leg("sign", {**CAME, **BANNED}).run().executed == [("respond", "403 Customer Suspended")]
    assert bench.leg("sign", LEAVING, BANNED).run().hung_up == "OUTGOING_CALL_BARRED"


def test_a_substituted_leg_is_one_of_the_other_number_for_freeswitch_itself(bench: Bench) -> None:
    edit = yaml.safe_load(bench.provider.settings.read_text())
    edit["signing"] |= {"unauthorised": "substitute", "substitute": "+12155551299"}
    dump(bench.provider.settings, edit)
    runtime.apply(bench.provider.settings, NOW)
    bench.do(bench.served.look())
    leg = bench.leg("sign", {**LEAVING, "caller_id_number": "+19175550199"}, CUSTOMER).run()
    profile = ("set_profile_var", "caller_id_number=+12155551299"), ("set_profile_var", "caller_id_name=+12155551299")
    assert leg.executed == list(profile)
    assert leg.variables["sip_force_full_from"].startswith("<sip:+12155551299@")
    assert leg.variables["shaken_as_substituted_for"] == "19175550199"
    assert len(identities(leg)) == 1
    # The next leg of the same call, whatever the records say then.
    edit["signing"] |= {"unauthorised": "downgrade"}
    dump(bench.provider.settings, edit)
    runtime.apply(bench.provider.settings, NOW)
    bench.do(bench.served.look())
    (note,) = leg.told.items()
    again = bench.leg("sign", {**LEAVING, "caller_id_number": "+19175550199"}, {**CUSTOMER, note[0]: note[1]}).run()
    assert again.executed == list(profile)
    assert (again.variables["shaken_as_skip"], identities(again)) == ("substitute_changed", [])
    alone = {name: value for name, value in LEAVING.items() if name != "originating_leg_uuid"}
    assert bench.leg("sign", {**alone, "caller_id_number": "+19175550199"}).run().told == {}


def test_who_hangs_up_before_saying_so_is_no_trouble(bench: Bench) -> None:
    def gone(command: str) -> bytes | None:
        if command.startswith("sendmsg"):
            raise OSError
        return None

    bench.leg("sign", LEAVING, BANNED, before=gone).run()
    assert bench.observer.counts["refused"] == 1
    assert not [name for name in bench.observer.counts if name.startswith("fault")]


def test_a_call_is_verified(bench: Bench) -> None:
    signed = bench.leg("sign", LEAVING, CUSTOMER).run()
    came = {**CAME, "sip_identity": identities(signed)[0], "sip_i_date": signed.variables["sip_h_Date"]}
    leg = bench.leg("verify", came).run()
    assert leg.variables["sip_verstat"] == "TN-Validation-Passed"
    assert leg.variables["sip_h_P-Asserted-Identity"] == "<sip:+12155551212;verstat=TN-Validation-Passed@a.example>"
    assert identities(leg) == identities(signed)


def test_a_rejected_call_says_why(bench: Bench) -> None:
    bench.provider = Provider.make(
        bench.provider.folder, Authority.new(NOW), NOW, verification={"wait": 0.0, "reject": [438]}
    )
    bench.do(bench.served.look(anew=True))
    signed = bench.leg("sign", LEAVING, CUSTOMER).run()
    token = identities(signed)[0].replace(".", ".A", 1)
    leg = bench.leg("verify", {**CAME, "sip_identity": token, "sip_i_date": signed.variables["sip_h_Date"]}).run()
    assert leg.executed == [("respond", "438 Invalid Identity Header")]
    assert leg.variables["sip_reason"].startswith("STIR;cause=438")


def test_several_fields_pass_in_order_and_unharmed(bench: Bench) -> None:
    values = [f"a.b.{number};info=<https://x.example/{number}>;alg=ES256" for number in range(3)]
    assert identities(bench.leg("pass_through", {**CAME, "sip_identity": values}).run()) == values
    odd = ["a.b.c;info=<https://x.example/%41> ;q='${system(x)}\\n", "a.b.c;info=<unload mod_event_socket>;x=''"]
    leg = bench.leg("pass_through", {**CAME, "sip_identity": odd}).run()
    assert [leg.variables["sip_h_y"], leg.variables["sip_h_y "]] == odd


def test_a_variable_of_the_whole_switch_is_one_of_the_leg(bench: Bench) -> None:
    signed = bench.leg("sign", LEAVING, CUSTOMER, switch="sip_cid_type=pid\nnoise\nempty=\n").run()
    assert signed.variables["shaken_as_level"] == "A"
    kept = bench.leg("pass_through", CAME, switch="socket_resume=true\n").run()
    assert kept.variables["socket_resume"] == "false"
    assert "socket_resume" not in bench.leg("pass_through", CAME).run().variables


# --- Text ----------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
parts = st.lists(st.sampled_from([*"\\'\" ${}ns;=,", "mod_event", "_socket", "unload"])).map("".join)


@given(st.from_regex(r"[A-Za-z_:-]{1,20} {0,3}", fullmatch=True), texts | parts)
def test_a_variable_arrives_as_it_is(name: str, value: str) -> None:
    command = set_variable(UUID, name, value)
    assert "\n" not in command
    assert "mod_event_socket" not in command.lower()
    api, rest = command.removeprefix("api ").split(" ", 1)
    assert api == "uuid_setvar"
    assert separated(rest, 3) == [UUID, name, value] if value else [UUID, name]


names = st.from_regex(r"[A-Za-z_:-]{1,20} {0,3}", fullmatch=True)


@given(st.lists(st.tuples(names, texts | parts), max_size=8))
def test_variables_arrive_at_once_as_they_do_one_by_one(pairs: list[tuple[str, str]]) -> None:
    commands = list(set_variables(UUID, pairs))
    arrived: list[tuple[str, str]] = []
    for command in commands:
        assert "\n" not in command
        assert "mod_event_socket" not in command.lower()
        api, _, rest = command.removeprefix("api ").partition(" ")
        if api == "uuid_setvar":
            _, name, value, *_ = [*separated(rest, 3), ""]
            arrived.append((name, value))
        else:
            assert "$" not in command  # FreeSWITCH would refuse such a value
            assert rest.startswith(f"{UUID} ")
            arrived += [(pair.split("=", 1)[0], pair.split("=", 1)[1]) for pair in listed(rest.partition(" ")[2])]
    assert arrived == pairs


def test_no_command_sets_more_variables_than_the_switch_takes() -> None:
    pairs = [(f"v{number}", "x") for number in range(130)]
    commands = list(set_variables(UUID, pairs))
    assert [command.count("=") for command in commands] == [60, 60, 10]


def test_line_breaks_and_nul_do_not_arrive() -> None:
    assert set_variable(UUID, "a", "x\r\n\n\0y").endswith(" a xy")


@pytest.mark.parametrize("text", ["", "-ERR No such channel!\n", "[]", "1", "[" * 100_000])
def test_what_is_no_leg_is_our_own_error(text: str) -> None:
    with pytest.raises(DumpError):
        leg_variables(text)


def test_fields_of_other_kinds_are_passed_over() -> None:
    fields = {"variable_a": "1", "variable_b": ["x", "y"], "variable_c": [1], "variable_d": {}}
    assert leg_variables(json.dumps({**fields, "Caller-Network-Addr": "::1"})) == {
        "a": "1",
        "b": "ARRAY::x|:y",
        "network_addr": "::1",
    }


@pytest.mark.parametrize("uuid", [None, "", "a b", "a\n", ["a", "b"], "x" * 256, "'"])
def test_a_uuid_that_could_not_stand_in_a_command_is_refused(uuid: object) -> None:
    with pytest.raises(ConversationError):
        checked_uuid(uuid)


# --- The protocol --------------------------------------------------------------------------------


class Writer:
    """Of a connection whose other end does not matter."""

    def write(self, _data: bytes) -> None: ...
    async def drain(self) -> None: ...


def answered(data: bytes, *commands: str, told: list[str | None] | None = None) -> list[tuple[Fields, str]]:
    """What `Wire.ask` makes of octets that come, and then no more."""

    async def ask() -> list[tuple[Fields, str]]:
        reader = asyncio.StreamReader(limit=MAX_FIELDS)
        reader.feed_data(data)
        reader.feed_eof()
        wire = Wire(reader, cast("asyncio.StreamWriter", Writer()))
        if told is not None:
            wire.told = lambda event: told.append(event.get("Unique-ID"))
        return await wire.ask(*commands)

    return asyncio.run(ask())


def test_answers_come_in_order_and_events_between_them_are_told() -> None:
    event = b"Unique-ID: a%20b\nX: y\n\n"
    between = b"Content-Length: %d\nContent-Type: text/event-plain\n\n%b" % (len(event), event)
    linger = b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\nContent-Length: 0\n\n"
    told: list[str | None] = []
    first, second = answered(body(b"\xff1\n\n") + between + linger + body(b"2"), "api a", "api b", told=told)
    assert (first[1], second[1]) == ("\udcff1\n\n", "2")
    assert told == ["a b"]


@pytest.mark.parametrize("listening", [False, True])
def test_an_answer_that_nobody_waited_for_is_not_the_next_ones(listening: bool) -> None:
    """Else a slow refusal of a watch would be taken for a leg that has ended, and its call go on unsigned."""

    async def ask() -> list[tuple[Fields, str]]:
        reader = asyncio.StreamReader(limit=MAX_FIELDS)
        wire = Wire(reader, cast("asyncio.StreamWriter", Writer()))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.ask("api originate", "api b"), 0.01)
        reader.feed_data(body(b"-ERR too slow"))
        if listening:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wire.listen(), 0.01)
        reader.feed_data(body(b"b") + body(b"+OK"))
        return await asyncio.wait_for(wire.ask("api c"), 10)

    ((_, text),) = asyncio.run(ask())
    assert text == "+OK"


def test_a_value_cannot_pass_for_another_field() -> None:
    data = b"Content-Type: command/reply\nvariable_x: a%0AControl: full\nControl: single\nControl: full\n\n"
    ((fields, _),) = answered(data, "connect")
    assert fields.get("variable_x") == "a\nControl: full"
    assert (fields.get("Control"), fields.get("control"), fields.get("x")) == ("single", None, None)


pieces = st.sampled_from(
    b"\n|\n\n|\r\n|: |3|-1|%0A|\xff|Content-Length: |Content-Type: |command/reply|api/response|text/event-plain"
    b"|text/disconnect-notice|Content-Disposition: linger".split(b"|")
)


@given(st.lists(pieces | st.binary(max_size=5), max_size=40).map(b"".join))
def test_whatever_comes_is_an_answer_or_our_own_error(data: bytes) -> None:
    with suppress(PeerGone, ConversationError):
        ((fields, text),) = answered(data, "connect")
        assert fields.get("Content-Type") in {"command/reply", "api/response"}
        assert len(text.encode("utf-8", "surrogateescape")) == int(fields.get("Content-Length") or 0)


# --- What it survives ----------------------------------------------------------------------------


def until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_octets_that_are_no_text_hinder_nothing(bench: Bench) -> None:
    came = {
        **CAME,
        "sip_i_x": b"\xff\xfe\xc3",
        "sip_P-Asserted-Identity": b'"\xff" <sip:+1;verstat=TN-Validation-Passed@a>',
    }
    leg = bench.leg("verify", came).run()
    assert leg.variables["sip_verstat"] == "No-TN-Validation"
    assert "TN-Validation-Passed" not in leg.variables.get("sip_h_P-Asserted-Identity", "")


def test_a_dialplan_without_full_is_told(bench: Bench) -> None:
    leg = bench.leg("verify", CAME, control="single-channel").run()
    assert leg.commands == ["connect\n"]
    assert "full" in bench.observer.lines[-1][1]
    assert bench.observer.counts["esl_refused"] == 1


def test_a_path_that_is_none_is_told(bench: Bench) -> None:
    bench.leg("varify", CAME).run()
    assert "/varify" in bench.observer.lines[-1][1]


@pytest.mark.parametrize(
    "answer",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Content-Type: command/reply\nContent-Length: x\n\n",
        b"Content-Type: command/reply\nContent-Length: -5\n\n",
        b"Content-Type: command/reply\nContent-Length: 99999999999\n\n",
        b"Content-Length: 1\nContent-Length: 1\nContent-Type: command/reply\n\nxx",
        b"Content-Type: text/disconnect-notice\n\n",
        b"Content-Type: text/rude-rejection\nContent-Length: 0\n\n",
        b"Content-Type: command/reply\n\n",
        b"Content-Type: command/reply\nControl: full\nUnique-ID: a b\n\n",
        b"\xff\xff\n\n",
        b"x" * (2 * MAX_READ),
        b"x: y\n" * (MAX_READ // 4),
        b"\n\n\n\n",
    ],
    ids=lambda answer: repr(answer[:60]),
)
def test_who_speaks_something_else_is_left(bench: Bench, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    begun = time.monotonic()
    leg = bench.leg("verify", CAME, before=lambda _: answer)
    leg.run()
    assert time.monotonic() - begun < 30  # reading so many headers takes 4 s where coverage is measured
    until(lambda: bench.connected() == 0)
    assert "shaken_vs_result" not in leg.variables
    assert bench.leg("verify", CAME).run().variables["shaken_vs_result"]


@pytest.mark.parametrize(
    "command", ["api global_getvar", f"api uuid_dump {UUID}", f"api uuid_dump {PARTNER}", "api uuid_setvar"]
)
@pytest.mark.parametrize(
    "answer", [b"", b"Content-Type: api/response\nContent-Length: 500\n\nhalf"], ids=["none", "half"]
)
def test_a_peer_that_goes_away_or_falls_silent_costs_nothing(
    bench: Bench, command: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def goes(asked: str) -> bytes | None:
        if not asked.startswith(command):
            return None
        leg.socket.sendall(answer)
        raise OSError

    leg = bench.leg("sign", LEAVING, CUSTOMER, before=goes)
    leg.run()
    until(lambda: bench.connected() == 0)
    assert bench.observer.counts["esl_gone"] == 1
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    silent = bench.leg("sign", LEAVING, CUSTOMER, before=lambda asked: b"" if asked.startswith(command) else None)
    begun = time.monotonic()
    silent.run()
    assert time.monotonic() - begun < 5
    until(lambda: bench.connected() == 0)
    assert sum(count for name, count in bench.observer.counts.items() if name.startswith("fault_")) == 1
    assert "TimeoutError" in bench.observer.lines[-1][1]


def test_a_leg_that_has_ended_is_gone(bench: Bench) -> None:
    def ended(command: str) -> bytes | None:
        return body(b"-ERR No such channel!\n") if command.startswith("api uuid_setvar") else None

    bench.leg("sign", LEAVING, CUSTOMER, before=ended).run()
    assert bench.observer.counts["esl_gone"] == 1


@pytest.mark.parametrize("fault", [ZeroDivisionError, SystemExit, KeyboardInterrupt, RecursionError])
def test_a_fault_leaves_the_call_alone_and_a_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    def broken(*_: object) -> list[Any]:
        raise fault("+12155551212")

    monkeypatch.setattr(functions, "verify", broken)
    leg = bench.leg("verify", CAME).run()
    assert not any(command.startswith("api uuid_setvar") for command in leg.commands)
    assert bench.observer.counts["fault_verify"] == 1
    assert fault.__name__ in bench.observer.lines[-1][1]
    assert "2155551212" not in bench.observer.lines[-1][1]


def test_a_call_that_waits_holds_up_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def waits(*_: object) -> list[Any]:
        go_on.wait(10)
        return []

    monkeypatch.setattr(functions, "verify", waits)
    waiting = [threading.Thread(target=bench.leg("verify", CAME).run) for _ in range(server.SPARE - 1)]
    for thread in waiting:
        thread.start()
    begun = time.monotonic()
    assert bench.leg("sign", LEAVING, CUSTOMER).run().variables["shaken_as_level"] == "A"
    assert time.monotonic() - begun < 2
    go_on.set()
    for thread in waiting:
        thread.join(10)


def test_too_many_at_one_time_go_on_without_us(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    silent = [bench.leg() for _ in range(3)]
    until(lambda: bench.connected() == 3)
    begun = time.monotonic()
    assert bench.leg("verify", CAME).run().commands == []
    assert time.monotonic() - begun < 1
    assert bench.observer.counts["esl_full"] == 1
    for leg in silent:
        leg.close()
    until(lambda: bench.connected() == 0)


def test_its_end_lets_everybody_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    silent = bench.leg(before=lambda _: b"")
    until(lambda: bench.connected() == 1)
    port = bench.served.port
    bench.do(bench.served.close())
    silent.run()
    with pytest.raises(OSError, match="refused"):
        Leg(port)


# --- Settings ------------------------------------------------------------------------------------


def test_settings_are_taken_when_they_are_put_in_force(bench: Bench) -> None:
    policy = bench.provider.folder / "policy.yaml"
    dump(policy, {})
    bench.do(bench.served.look())
    before = bench.served._version
    runtime.apply(bench.provider.settings, NOW)
    bench.do(bench.served.look())
    assert bench.served._version == before  # records decide at once, and make nobody read settings anew
    assert bench.leg("sign", LEAVING, CUSTOMER).run().variables["shaken_as_skip"] == "policy_unsigned"
    settings = yaml.safe_load(bench.provider.settings.read_text())
    dump(bench.provider.settings, settings | {"signing": settings["signing"] | {"mode": "off"}})
    runtime.apply(bench.provider.settings, NOW)
    bench.do(bench.served.look())
    assert bench.served._version != before
    assert bench.leg("sign", LEAVING, CUSTOMER).run().variables["shaken_as_skip"] == "signing_off"


def test_a_policy_that_cannot_be_read_changes_nothing(bench: Bench) -> None:
    (bench.provider.folder / "policy.db").unlink()
    bench.do(bench.served.look())
    assert bench.leg("verify", CAME).run().variables["shaken_vs_result"]


def test_refused_settings_serve_nobody(tmp_path: Path, authority: Authority) -> None:
    bench = Bench(tmp_path, authority)
    bench.refused = True
    with pytest.raises(RuntimeError, match="refused"):
        bench.do(bench.served.look())
    bench.refused = False
    bench.do(bench.served.look())
    assert bench.leg("sign", LEAVING, CUSTOMER).run().variables["shaken_as_level"] == "A"
    bench.close()


def test_an_address_that_is_taken_is_an_error(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = bench.serve(f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(OSError, match="in use"):
            bench.do(other.look())
        bench.do(other.close())


# --- Calls with a slot --------------------------------------------------------------------------


class Switchboard:
    """A FreeSWITCH whose customer may have one call at a time; its watch connects when it is asked to make one."""

    def __init__(self, bench: Bench, *, makes: bool = True) -> None:
        self.bench, self.counts = bench, Counts()
        with SqlitePolicy(bench.provider.folder / "policy.db").change(Author("test", "limits", NOW), "limits") as draft:
            acme = draft.get(Customer, "acme")
            assert acme is not None
            draft.put(replace(acme, limits=Limits(Rate(None, 1))))
        switch = bench.load()
        assert switch.services.authentication is not None
        switch.services.authentication.limiter = Limiter(self.counts, switch.services.plan)
        switch.services = replace(switch.services, limiter=self.counts)
        bench.served._switch = switch
        switch.tells_ends, switch.to_tell_ends = True, "load mod_loopback"
        self.makes, self.legs, self.said = makes, {UUID}, list[str]()
        self.watch: Leg | None = None
        self._threads: list[threading.Thread] = []

    def answer(self, command: str) -> bytes | None:
        """What this FreeSWITCH has to say beside an ordinary leg's answers."""
        first = command.splitlines()[0]
        self.said.append(first)
        if first.startswith("api originate"):
            if self.makes:
                self.begin("watch")
            return body(b"+OK\n" if self.makes else b"-ERR CHAN_NOT_IMPLEMENTED\n")
        if first.startswith("api uuid_exists"):
            return body(b"true" if first.rpartition(" ")[2] in self.legs else b"false")
        if first.startswith(("event", "filter", "api uuid_transfer")):
            return b"Content-Type: command/reply\nReply-Text: +OK\n\n"
        return None

    def begin(self, path: str) -> Leg:
        self.watch = Leg(self.bench.served.port, path, uuid="watch", before=self.answer)
        self._threads.append(threading.Thread(target=self.watch.run))
        self._threads[-1].start()
        return self.watch

    def ends(self, uuid: str) -> None:
        """A leg that bears the mark has ended."""
        assert self.watch is not None
        event = f"Event-Name: CHANNEL_DESTROY\nUnique-ID: {uuid}\n\n".encode()
        self.watch.socket.sendall(b"Content-Length: %d\nContent-Type: text/event-plain\n\n%b" % (len(event), event))

    def close(self) -> None:
        with suppress(OSError, AttributeError):  # it may have been hung up, or never have begun
            self.watch.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]  # it is there
        for thread in self._threads:
            thread.join(20)

    def call(self, **options: Any) -> Leg:
        return self.bench.leg("sign", CUSTOMER | PROFILES, before=self.answer, **options).run()


PROFILES = {"caller_id_number": "+12155551212", "destination_number": CALLED}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_IDLE", 0.05)


def test_a_call_keeps_its_slot_until_its_leg_has_ended(bench: Bench, quick: None) -> None:
    board = Switchboard(bench)
    with closing(board):
        leg = board.call()
        (call,) = board.counts.running
        assert leg.variables["shaken_held"] == call
        owner = leg_owner(CORE, UUID)
        assert (board.counts.told, board.counts.owners) == ([("followed", call)], [owner])
        assert bench.served.follows(owner)
        assert board.call(uuid="another").executed == [("respond", "480 Call Limit Reached")]
        board.ends(UUID)
        until(lambda: board.counts.told[1:] == [("ended", call)])
        assert board.watch is not None
        until(lambda: board.watch.hung_up)  # by us: FreeSWITCH would go on to its next attempt
        assert not bench.served.follows(owner)


def test_where_no_watch_is_made_it_is_said_and_the_call_goes_on_without_a_slot(bench: Bench) -> None:
    board = Switchboard(bench, makes=False)
    leg = board.call()
    assert HOOK in "".join(leg.variables)
    until(lambda: [name for name, _ in board.counts.told] == ["ended"])
    assert any("NOT enforced: load mod_loopback" in text for _, text in bench.observer.lines)
    assert not leg.executed


def test_a_leg_that_ends_before_it_is_followed_gives_its_slot_back(bench: Bench) -> None:
    board = Switchboard(bench)

    def ended(command: str) -> bytes | None:
        return body(b"-ERR No such channel!\n") if command.startswith("api uuid_setvar") else board.answer(command)

    bench.leg("sign", LEAVING, CUSTOMER, before=ended).run()
    until(lambda: [name for name, _ in board.counts.told] == ["ended"])
    assert not board.counts.running
    assert bench.observer.counts["esl_gone"] == 1


def test_a_slot_that_was_given_when_nobody_waited_any_more_is_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, real, begun, go = Switchboard(bench), functions.sign, threading.Event(), threading.Event()

    def slow(switch: Switch, leg: Any, **options: Any) -> Any:
        commands = real(switch, leg, **options)
        begun.set()
        assert go.wait(20)
        return commands

    monkeypatch.setattr(functions, "sign", slow)
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    leg = board.call()
    assert begun.is_set()
    assert "shaken_held" not in leg.variables
    go.set()
    until(lambda: [name for name, _ in board.counts.told] == ["ended"])


def test_a_watch_that_lost_its_agent_begins_anew_where_it_is_needed(bench: Bench, quick: None) -> None:
    board = Switchboard(bench)
    with closing(board):
        leg = board.begin("again")
        until(lambda: leg.hung_up)
        assert not [text for text in board.said if "uuid_transfer" in text]
        bench.loop.call_soon_threadsafe(bench.served.resume, leg_owner(CORE, UUID), "slot of one that runs")
        bench.loop.call_soon_threadsafe(bench.served.resume, leg_owner(CORE, PARTNER), "slot of one that ended")
        leg = board.begin("again")
        until(lambda: [text for text in board.said if text.startswith("api uuid_transfer watch 'socket:127.0.0.1:")])
        assert leg.hung_up is None
        bench.leg("pass_through", CAME, before=board.answer).run()  # any leg helps; it has a watch made
        until(lambda: board.counts.told == [("ended", "slot of one that ended")])
        assert bench.served.follows(leg_owner(CORE, UUID))
        bench.do(bench.served.close())
        assert bench.connected() == 0
        assert board.counts.told == [("ended", "slot of one that ended")]  # calls go on without this agent
