"""The part of FreeSWITCH's mod_event_socket that the adapter talks to, for tests: one connection for one leg."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

UUID = "3e0f6e0a-1b1c-4b3e-9f6e-0a1b1c4b3e9f"
CORE = "0d5e6e0a-1b1c-4b3e-9f6e-0a1b1c4b3e9f"
PARTNER = "7c5f2d1e-1b1c-4b3e-9f6e-0a1b1c4b3e9f"

PROFILE = {
    "caller_id_name": "Caller-Caller-ID-Name",
    "caller_id_number": "Caller-Caller-ID-Number",
    "destination_number": "Caller-Destination-Number",
    "network_addr": "Caller-Network-Addr",
}
"""What is of the caller profile, and no variable."""

Values = Mapping[str, str | bytes | list[str]]


def unescaped(text: str, delimiter: str = "") -> str:
    """What FreeSWITCH makes of an argument (switch_utils.c, cleanup_separated_string)."""
    found: list[str] = []
    end = position = 0
    inside = False
    text = text.lstrip(" ")
    while position < len(text):
        char, following = text[position], text[position + 1 : position + 2]
        taken = {"'": "'", '"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t", "s": " "}
        special = taken.get(following, delimiter if delimiter and following == delimiter else None)
        if char == "\\" and special is not None:
            found.append(special)
            end = len(found)
            position += 1
        elif char == "'" and (inside or "'" in text[position + 1 :]):
            inside = not inside
            end = len(found) if inside else end
        else:
            found.append(char)
            if char != " " or inside:
                end = len(found)
        position += 1
    return "".join(found[:end] if end else found)


def separated(text: str, parts: int) -> list[str]:
    """Arguments between spaces (switch_utils.c, separate_string_blank_delim); the last takes the rest."""
    found: list[str] = []
    while text and len(found) < parts - 1:
        text = text.lstrip(" ")
        inside, position = False, 0
        while position < len(text) and (text[position] != " " or inside):
            if text[position] == "\\":
                position += 1
            elif text[position] == "'":
                inside = not inside
            position += 1
        found.append(unescaped(text[:position]))
        text = text[position:].lstrip(" ")
    return [*found, unescaped(text)] if text else found


def listed(text: str) -> list[str]:
    """Arguments between semicolons (switch_utils.c, separate_string_char_delim)."""
    found, begin, inside, position = [], 0, False, 0
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == "'" and (inside or "'" in text[position + 1 :]):
            inside = not inside
        elif text[position] == ";" and not inside:
            found.append(unescaped(text[begin:position], ";"))
            begin = position + 1
        position += 1
    return [*found, unescaped(text[begin:], ";")] if begin < len(text) else found


class Leg:
    """A leg whose dialplan has connected to the server under test, and does what that says until it ends."""

    def __init__(
        self,
        port: int,
        path: str = "",
        own: Values | None = None,
        other: Values | None = None,
        *,
        switch: str = "",
        control: str = "full",
        uuid: str = UUID,
        before: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        self.variables: dict[str, Any] = {"uuid": uuid, **(own or {})}
        if path:
            self.variables["socket_path"] = path
        self.other = other
        if other is not None:
            self.variables["originating_leg_uuid"] = PARTNER
        self.switch, self.control, self.uuid, self._before = switch, control, uuid, before
        self.commands: list[str] = []
        self.executed: list[tuple[str, str]] = []
        self.hung_up: str | None = None
        self.told: dict[str, str] = {}
        """Variables that were set on the leg it was made for."""
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.file = self.socket.makefile("rb")

    def run(self) -> Leg:
        """Until the server ends the connection."""
        try:
            while command := self._read():
                self.commands.append(command)
                answer = self._before(command)
                self.socket.sendall(self._answer(command) if answer is None else answer)
        except OSError:
            pass
        finally:
            self.close()
        return self

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def _read(self) -> str:
        lines = []
        while (line := self.file.readline()) not in {b"", b"\n"}:
            lines.append(line.decode())
        return "".join(lines)

    def _answer(self, command: str) -> bytes:
        first = command.splitlines()[0]
        if first == "connect":
            return self._connected()
        if first == "sendmsg":
            return self._message(command)
        assert first.startswith("api "), first
        # switch_stristr in parse_command: anybody could unload the module with a header of these words.
        assert "mod_event_socket" not in first.lower()
        return self._api(*first.removeprefix("api ").split(" ", 1))

    def _connected(self) -> bytes:
        fields = {f"variable_{name}": self._text(value) for name, value in self.variables.items()}
        fields = {"Unique-ID": self.uuid, "Core-UUID": CORE, "Control": self.control, "Reply-Text": "+OK\n", **fields}
        encoded = "".join(
            f"{name}: {quote(value.encode('utf-8', 'surrogateescape'))}\n" for name, value in fields.items()
        )
        return f"Content-Type: command/reply\n{encoded}\n".encode()

    @staticmethod
    def _text(value: str | bytes | list[str]) -> str:
        if isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        return value if isinstance(value, str) else "ARRAY::" + "|:".join(value)

    def _message(self, command: str) -> bytes:
        fields = dict(line.split(": ", 1) for line in command.splitlines()[1:])
        if fields["call-command"] == "execute":
            self.executed.append((fields["execute-app-name"], fields["execute-app-arg"]))
            if fields["execute-app-name"] == "set_profile_var":
                name, _, value = fields["execute-app-arg"].partition("=")
                self.variables[name] = value
        else:
            self.hung_up = fields["hangup-cause"]
        return b"Content-Type: command/reply\nReply-Text: +OK\n\n"

    def _api(self, name: str, rest: str = "") -> bytes:
        if name == "global_getvar":
            return body(self.switch.encode())
        if name == "uuid_dump":
            uuid, form = rest.split(" ")
            assert form == "json"
            if uuid == PARTNER and not self.other:
                return body(b"-ERR No such channel!\n")
            return body(dump(self.other or {} if uuid == PARTNER else self.variables))
        if name == "uuid_setvar_multi":
            return self._set_all(*rest.split(" ", 1))
        assert name == "uuid_setvar"
        return self._set_one(rest)

    def _set_all(self, uuid: str, several: str) -> bytes:
        assert uuid == self.uuid
        pairs = [pair.split("=", 1) for pair in listed(several)]
        assert len(pairs) <= 64
        for variable, value in pairs:
            assert variable
            assert "${" not in value
            self._set(variable, value)
        return body(b"+OK\n")

    def _set_one(self, rest: str) -> bytes:
        uuid, variable, *values = separated(rest, 3)
        if uuid == PARTNER:
            if not self.other:
                return body(b"-ERR No such channel!\n")
            self.told[variable] = values[0]
            return body(b"+OK\n")
        assert uuid == self.uuid
        self._set(variable, values[0] if values else "")
        return body(b"+OK\n")

    def _set(self, variable: str, value: str) -> None:
        if value:
            self.variables[variable] = value
        else:
            self.variables.pop(variable, None)


def body(data: bytes) -> bytes:
    return b"Content-Type: api/response\nContent-Length: %d\n\n%b" % (len(data), data)


def dump(variables: Values) -> bytes:
    """As cJSON writes it: octets that are no UTF-8 stay what they are."""
    fields: dict[str, Any] = {"Event-Name": "CHANNEL_DATA"}
    fields |= {header: variables[name] for name, header in PROFILE.items() if name in variables}
    for name, value in variables.items():
        if name in PROFILE:
            continue
        fields[f"variable_{name}"] = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogateescape")
