"""A stand-in for Kamailio's ``KSR`` module, for tests of the adapter and of routing scripts.

It behaves as Kamailio 5.6 was seen to behave where the adapter relies on it:

* changes are lumps: they do not show when headers are read again, only in what is sent;
* lumps of the request route stay on every branch, those of a branch route on that branch alone;
* reading bytes that are not UTF-8 raises UnicodeDecodeError; ``{s.encode.hexa}`` does not;
* a new Request-URI is read at once; that of a branch in its branch route;
* xavps last as long as the transaction and take UTF-8 alone; an unset one reads as an empty text.

Nothing else of Kamailio is here. Functions the adapter must not use do not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from shaken_plugin.core.sip import COMPACT_NAMES

_START = re.compile(rb"([A-Z]+) (\S+) SIP/2\.0|SIP/2\.0 ([0-9]{3}) .*")
_HEXADECIMAL: Final = re.compile(r"\$\((.+)\{s\.encode\.hexa\}\)")
_HEADER: Final = re.compile(r"hdr\(([^)]+)\)\[([0-9]+)\]")


@dataclass
class Lumps:
    """Changes of a message: what was removed, edited and appended."""

    removed: set[int] = field(default_factory=set)
    edited: dict[int, bytes] = field(default_factory=dict)
    appended: list[bytes] = field(default_factory=list)

    def copy(self) -> Lumps:
        """The same changes, to go on with separately."""
        return Lumps(set(self.removed), dict(self.edited), list(self.appended))


class FakeKsr:
    """The ``KSR`` module for one transaction.

    Args:
        message: a SIP request or response as on the wire.
        source: IP address it came from.
    """

    def __init__(self, message: bytes, source: str = "192.0.2.1") -> None:
        self.source = source
        self.logged: list[tuple[str, str]] = []
        self.counters: dict[str, int] = {}
        self.has_counters = True
        self.xavps: dict[tuple[str, str], str] = {}
        self.reply: tuple[int, str] | None = None
        self.reply_headers: list[str] = []
        self.branch_index = 0
        self.destination = ""
        self.canceled = False
        self.has_transaction = False
        self.uri: str | None = None
        """The Request-URI that the script wrote, or that of the branch; None as received."""
        self._start, self._headers, self._body = b"", list[tuple[str, bytes]](), b""
        self.hdr = _Hdr(self)
        self.pv = _Pv(self)
        self.pvx = _Pvx(self)
        self.textops = _TextOps(self)
        self.sl = _Sl(self)
        self.tm = _Tm(self)
        self.rr = _Rr(self)
        self.record_route: list[str] = []
        """Parameters of the Record-Route of the branch."""
        self.htable = _HTable(self)
        self.dialog: _Dialog | None = _Dialog(self)
        self.dialogs: dict[str, str] = {}
        """Variables of the dialog that the transaction belongs to; empty where none is managed."""
        self.managed = False
        self.can_manage = True
        """Whether the module dialog takes the call."""
        self.shared: dict[str, int] = {}
        self.metrics: dict[str, int] = {}
        self.has_metric = True
        self.xhttp_prom = _XhttpProm(self)
        self.suspended: tuple[str, str] | None = None
        self.can_suspend = True
        setattr(self, "async", _Async(self))  # the name is a keyword
        self.receive(message)

    # --- For the test -------------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        """Go on with another message of the same transaction: a reply, or a retransmission."""
        self.length, self._message = len(message), message
        head, _, self._body = message.partition(b"\r\n\r\n")
        self._start, _, rest = head.partition(b"\r\n")
        self._headers = []
        for line in re.split(rb"\r\n(?![ \t])", rest):
            name, colon, value = line.partition(b":")
            if colon:
                self._headers.append((name.strip().decode("ascii"), value.strip()))
        self.lumps = Lumps()
        self._request_lumps = self.lumps

    def begin_branch(self, index: int) -> None:
        """Enter the branch route for a branch: its changes are its own, its destination too."""
        self._request_destination = self.destination
        self.branch_index = index
        self.record_route = []
        self.lumps = self._request_lumps.copy()

    def end_branch(self) -> None:
        """Leave the branch route."""
        self.destination = self._request_destination
        self.lumps = self._request_lumps

    def sent(self) -> list[tuple[str, str]]:
        """The headers of the message as it would leave now."""
        kept = [
            (name, self.lumps.edited.get(index, value))
            for index, (name, value) in enumerate(self._headers)
            if index not in self.lumps.removed
        ]
        for line in self.lumps.appended:
            name, _, value = line.partition(b":")
            kept.append((name.decode("ascii"), value.strip()))
        return [(name, value.decode("utf-8", "surrogateescape")) for name, value in kept]

    def sent_values(self, name: str) -> list[str]:
        """The values of one header as they would leave now."""
        return [value for header, value in self.sent() if _full(header) == name.lower()]

    # --- For the modules below ----------------------------------------------------------------

    def indices(self, name: str) -> list[int]:
        """Where headers of a name stand, in order, compact names included."""
        return [index for index, (header, _) in enumerate(self._headers) if _full(header) == name.lower()]

    def raw(self, name: str) -> bytes | None:
        """A pseudo-variable's bytes."""
        start = _START.match(self._start)
        assert start is not None
        method, uri, status = start.groups()
        call_id = self.indices("call-id")
        values = {
            "$rm": method,
            "$ru": self.uri.encode()
            if self.uri is not None
            else None
            if uri and b"@" in uri.partition(b"@")[2]
            else uri,  # one that cannot be parsed
            "$mb": self._message,
            "$rs": status,
            "$dlg_var(shaken_slot)": self.dialogs.get("shaken_slot", "").encode() or None,
            "$ft": self._tag("from"),
            "$tt": self._tag("to"),
            "$rt": self._headers[refer[0]][1] if (refer := self.indices("refer-to")) else None,
            "$ci": self._headers[call_id[0]][1] if call_id else None,
            "$si": self.source.encode(),
            "$rb": self._body,
            "$route_uri": self._route(),
            "$du": self.destination.encode("utf-8", "surrogateescape") or None,
        }
        return values[name]

    def _tag(self, name: str) -> bytes | None:
        found = self.indices(name)
        return self._headers[found[0]][1].partition(b";tag=")[2] or None if found else None

    def _route(self) -> bytes | None:
        routes = self.indices("route")
        return self._headers[routes[0]][1].partition(b"<")[2].partition(b">")[0] if routes else None

    def header(self, name: str, index: int) -> bytes | None:
        """A header's bytes."""
        found = self.indices(name)
        return self._headers[found[index]][1] if index < len(found) else None

    def edit(self, name: str, pattern: re.Pattern[bytes], replacement: bytes) -> bool:
        """Substitute in every header of a name."""
        changed = False
        for index in self.indices(name):
            value = self._headers[index][1]
            edited = pattern.sub(replacement, value)
            if edited != value:
                self.lumps.edited[index] = edited
                changed = True
        return changed

    def _log(self, level: str, text: str) -> None:
        self.logged.append((level, text))

    def dbg(self, text: str) -> None:
        """Log at debug level."""
        self._log("dbg", text)

    def info(self, text: str) -> None:
        """Log at info level."""
        self._log("info", text)

    def warn(self, text: str) -> None:
        """Log a warning."""
        self._log("warn", text)

    def err(self, text: str) -> None:
        """Log an error."""
        self._log("err", text)


def _full(name: str) -> str:
    return COMPACT_NAMES.get(name.lower(), name.lower())


class _Hdr:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def get_idx(self, name: str, index: int) -> str | None:
        value = self._ksr.header(name, index)
        return None if value is None else value.decode("utf-8")

    def is_present(self, name: str) -> int:
        return -1 if self._ksr.header(name, 0) is None else 1

    def append(self, text: str) -> int:
        if not text.endswith("\r\n"):
            raise AssertionError("a header must end with CRLF")
        for line in text[:-2].split("\r\n"):
            if "\r" in line or "\n" in line or re.match(r"[A-Za-z-]+: ", line) is None:
                raise AssertionError("a header with a line break in it")
            self._ksr.lumps.appended.append(line.encode("utf-8"))
        return 1

    def remove(self, name: str) -> int:
        found = self._ksr.indices(name)
        self._ksr.lumps.removed.update(found)
        return 1 if found else -1

    def append_to_reply(self, text: str) -> int:
        self._ksr.reply_headers.append(text.removesuffix("\r\n"))
        return 1


class _TextOps:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def remove_hf_idx(self, name: str, index: int) -> int:
        found = self._ksr.indices(name)
        if index >= len(found):
            return -1
        self._ksr.lumps.removed.add(found[index])
        return 1

    def subst_hf(self, name: str, expression: str, _flags: str) -> int:
        _, pattern, replacement, flags = expression.split("/")
        assert flags == "g"
        return 1 if self._ksr.edit(name, re.compile(pattern.encode()), replacement.encode()) else -1


class _Pv:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def get(self, name: str) -> str | int | None:
        if name == "$ml":
            return self._ksr.length
        if name == "$dlg_ctx(set)":
            return int(self._ksr.managed)
        if (wrapped := _HEXADECIMAL.fullmatch(name)) is not None:
            header = _HEADER.fullmatch(wrapped.group(1))
            if header is not None:
                value = self._ksr.header(header.group(1), int(header.group(2)))
            else:
                value = self._ksr.raw(f"${wrapped.group(1)}")
            return None if value is None else value.hex()
        value = self._ksr.raw(name)
        return None if value is None else value.decode("utf-8")

    def seti(self, name: str, value: int) -> int:
        self._ksr.shared[name] = value
        return 1

    def sets(self, name: str, value: str) -> int:
        if name == "$dlg_var(shaken_slot)":
            assert self._ksr.managed, "there is no dialog"
            self._ksr.dialogs["shaken_slot"] = value
            return 1
        assert name == "$du"
        self._ksr.destination = value
        return 1


class _Pvx:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def xavp_child_sets(self, root: str, name: str, value: str) -> int:
        value.encode()  # as Kamailio takes it: UTF-8 alone
        self._ksr.xavps[root, name] = value
        return 1

    def xavp_params_explode(self, text: str, root: str) -> int:
        text.encode()
        found = re.findall(r"([a-z_]+)='([^']*)'(?:;|\Z)", text)
        if "".join(f"{name}='{value}';" for name, value in found)[:-1] != text:
            return -1
        for old in [key for key in self._ksr.xavps if key[0] == root]:
            del self._ksr.xavps[old]  # another one of the same name hides it
        self._ksr.xavps.update({(root, name): value for name, value in found})
        return 1

    def xavp_child_gete(self, root: str, name: str) -> str:
        return self._ksr.xavps.get((root, name), "")

    def xavp_is_null(self, root: str) -> int:
        return -1 if any(key[0] == root for key in self._ksr.xavps) else 1


class _Sl:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def send_reply(self, status: int, phrase: str) -> int:
        if self._ksr.reply is not None:
            raise AssertionError("a second final answer")
        self._ksr.reply = (status, phrase)
        return 1


class _Tm:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def t_get_branch_index(self) -> int:
        return self._ksr.branch_index

    def t_newtran(self) -> int:
        self._ksr.has_transaction = True
        return 1

    def t_is_canceled(self) -> int:
        return 1 if self._ksr.canceled else -1

    def t_reply(self, status: int, phrase: str) -> int:
        if self._ksr.suspended is None:
            raise AssertionError("there is no transaction yet")
        return self._ksr.sl.send_reply(status, phrase)


class _Rr:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def add_rr_param(self, text: str) -> int:
        self._ksr.record_route.append(text)
        return 1


class _Dialog:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def dlg_manage(self) -> int:
        if self._ksr.managed or not self._ksr.can_manage:
            return -1
        self._ksr.managed = True
        return 1


class _Async:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def task_group_route(self, route: str, group: str) -> int:
        if not self._ksr.can_suspend:
            return -1
        self._ksr.suspended = (route, group)
        return 0


class _HTable:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def sht_inc(self, table: str, name: str) -> int:
        if table != "shaken" or not self._ksr.has_counters:
            return -255
        self._ksr.counters[name] = self._ksr.counters.get(name, 0) + 1
        return self._ksr.counters[name]


class _XhttpProm:
    def __init__(self, ksr: FakeKsr) -> None:
        self._ksr = ksr

    def counter_inc_l1(self, metric: str, number: int, label: str) -> int:
        if metric != "shaken_events" or not self._ksr.has_metric:
            return -1
        self._ksr.metrics[label] = self._ksr.metrics.get(label, 0) + number
        return 1
