"""SIPp on both sides: calls at a steady rate, who answers them, and what both wrote down."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from bench.load import mix
from bench.load.observed import Arrival, Call
from bench.results import BenchError
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.core.passport import Passport
from shaken_plugin.errors import ShakenError
from shaken_plugin.lab.servers import LOOPBACK, Server, find_program, free_port
from shaken_plugin.lab.sipp import PATIENCE, Counts, read_counts

SCENARIOS: Final = Path(__file__).with_name("scenarios")
AT_A_TIME: Final = 10_000
"""Calls that SIPp has at most; more would be an overloaded machine, and its rate no longer steady."""

_STAMP: Final = r"^\d{4}-\d\d-\d\d\t[\d:.]+\t(\d+\.\d+)"
_ARRIVED: Final = re.compile(rf"{_STAMP}\|", re.MULTILINE)
_VERSTAT: Final = re.compile("verstat=([A-Za-z0-9-]+)")


class _Sipp(Server):
    """A SIPp that writes one line for each message, and what its scenario logs."""

    def __init__(self, folder: Path, label: str, scenario: str, *arguments: str) -> None:
        self.port = free_port()
        self.statistics, self.errors = folder / f"{label}.csv", folder / f"{label}.err"
        self.messages, self.logged = folder / f"{label}.messages", folder / f"{label}.calls"
        files = ("-stf", self.statistics, "-error_file", self.errors, "-log_file", self.logged)
        command = [find_program("sipp"), "-sf", str(SCENARIOS / scenario), "-i", LOOPBACK, "-p", str(self.port)]
        command += ["-nostdin", "-trace_stat", "-fd", "1", "-trace_err", "-trace_logs", *map(str, files)]
        super().__init__(label, [*command, *arguments], folder, {})

    def is_ready(self) -> bool:
        """See `Server.is_ready`."""
        return self.statistics.exists()


class Called(_Sipp):
    """Who answers all calls, and logs with what they come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "called", "uas_logged.xml")

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"sip:{LOOPBACK}:{self.port}"


class Callers(_Sipp):
    """All customers, who place so many calls at a steady rate.

    Args:
        folder: for its files.
        port: of the originating Kamailio.
        rate: calls a second.
        calls: how many in all.
    """

    def __init__(self, folder: Path, port: int, rate: int, calls: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        injected = folder / "callers.inf"
        mix.write_calls(injected)
        messages = folder / "callers.messages"
        arguments = ["-inf", str(injected), "-t", "ui", "-ip_field", "0", "-max_socket", "1000"]
        arguments += ["-trace_shortmsg", "-shortmessage_file", str(messages), "-recv_timeout", PATIENCE]
        arguments += ["-r", str(rate), "-m", str(calls), "-l", str(AT_A_TIME)]
        super().__init__(folder, "callers", "uac_mixed.xml", *arguments)
        self._command += ["-key", "port", str(self.port), f"{LOOPBACK}:{port}"]

    def wait(self, seconds: float) -> Counts:
        """Wait for the end of all calls; what SIPp counted.

        Raises:
            BenchError: it does not end, or ends otherwise.
        """
        assert self._process is not None
        code = self._process.wait(seconds)
        if code not in {0, 1}:
            raise BenchError(f"SIPp ended with {code}: {self.log_tail()}")
        return read_counts(self.statistics)


# --- What they wrote --------------------------------------------------------------------------


class Message(NamedTuple):
    """One line of a short trace."""

    at: float
    sent: bool
    call_id: str
    cseq: str
    first_line: str


def messages(path: Path) -> Iterator[Message]:
    """The lines of a ``-trace_shortmsg`` file."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        for line in file:
            parts = line.rstrip("\n").split("\t")
            if len(parts) == 7:
                yield Message(float(parts[2]), parts[3] == "S", parts[4], parts[5].removeprefix("CSeq:"), parts[6])


def kinds(logged: Path) -> dict[str, str]:
    """Of what kind the calls are that the callers logged, by Call-ID.

    Raises:
        BenchError: a call is of no kind.
    """
    found: dict[str, str] = {}
    for line in logged.read_text("ascii").splitlines():
        call_id, source, number = line.split()
        kind = mix.kind_of(source, number)
        if kind is None:
            raise BenchError(f"a call of nobody: {line}")
        found[call_id] = kind.name
    return found


def placed(trace: Path, kind: Callable[[str], str]) -> dict[str, Call]:
    """The calls that were placed, by Call-ID.

    Args:
        trace: short trace of the calling side.
        kind: of a Call-ID.
    """
    calls: dict[str, Call] = {}
    for one in messages(trace):
        if one.call_id not in calls:
            calls[one.call_id] = Call(one.call_id, kind(one.call_id), one.at)
        _note(calls[one.call_id], one)
    return calls


def _note(call: Call, one: Message) -> None:
    method = one.cseq.rpartition(" ")[2]
    if one.sent:
        call.transmissions += one.first_line.startswith("INVITE ")
        if method == "BYE":
            call.hung_up = call.hung_up or one.at
        return
    status = int(one.first_line.split()[1])
    if method == "BYE":
        call.ended = call.ended or (one.at if status < 300 else None)
    elif status > 100:
        call.rang = call.rang or one.at
        if status >= 200:
            call.status = call.status or status


def arrived(logged: Path, calls: Mapping[str, Call]) -> list[str]:
    """Put what the called side logged to the calls.

    Returns:
        Call-IDs of calls that nobody placed.
    """
    _, *parts = _ARRIVED.split(logged.read_text("utf-8", "replace"))
    strangers = []
    for at, text in zip(parts[::2], parts[1::2], strict=True):
        call_id, caller, identity, several = (part.strip() for part in text.split("|", 3))
        if call_id in calls:
            calls[call_id].arrivals.append(_arrival(float(at), caller, identity, several))
        else:
            strangers.append(call_id)
    return strangers


def _arrival(at: float, caller: str, identity: str, several: str) -> Arrival:
    verstat = _VERSTAT.search(caller)
    found = verstat[1] if verstat else None
    value = identity.removeprefix("Identity:").strip()
    if not value:
        return Arrival(at, None, None, found, 0)
    count = 2 if several else 1
    try:
        header = IdentityHeader.parse(value)
        level = Passport.parse(header.digest).claims.get("attest")
    except ShakenError:
        return Arrival(at, "unreadable", None, found, count)
    return Arrival(at, str(level), header.info, found, count)
