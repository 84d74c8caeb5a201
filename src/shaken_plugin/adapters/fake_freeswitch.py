"""A stand-in for FreeSWITCH's ``freeswitch`` module and its legs, for tests of the adapter and of scripts.

It behaves as FreeSWITCH 1.11 was seen to behave where the adapter relies on it:

* names of variables have no case; an empty value takes one away; a line break in one is one in the INVITE;
* what is given to ``execute`` is expanded, what is given to ``setVariable`` is not;
* of an INVITE that came, ``sip_identity`` holds all Identity fields, ``sip_h_identity`` the first;
* a leg that is made for another gets copies of its ``sip_h_…`` variables, and what that one exports;
  then what stands in ``execute_on_originate…`` runs, and then its INVITE is sent;
* ``sip_h_identity`` is sent twice, and a field that sofia knows is taken apart and put together again.

Nothing else of FreeSWITCH is here. Functions the adapter must not use do not exist.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Final

_numbers = itertools.count(1)
_IDENTITY: Final = re.compile(r"(?P<digest>[^;]*)(?=;)")
_EXPANDED: Final = re.compile(r"\$\{?\w")


class FakeFreeSwitch:
    """The ``freeswitch`` module.

    Args:
        source: IP address calls come from.
    """

    def __init__(self, source: str = "192.0.2.1") -> None:
        self.source = source
        self.logged: list[tuple[str, str]] = []
        self.legs: dict[str, FakeSession] = {}
        self.global_variables: dict[str, str] = {}

    def consoleLog(self, level: str, text: str) -> None:  # noqa: N802  # the switch's name
        """Write to the log."""
        if not text.endswith("\n"):
            raise AssertionError("a log line must end with a line break")
        self.logged.append((level, text.removesuffix("\n")))

    def API(self) -> _Api:  # noqa: N802  # the switch's name
        """Access to API commands."""
        return _Api(self)

    # --- For the test -------------------------------------------------------------------------

    def arrive(self, message: bytes) -> FakeSession:
        """The leg of an INVITE that came, with the variables mod_sofia sets (parse-all-invite-headers)."""
        head, _, body = message.decode("utf-8", "surrogateescape").partition("\r\n\r\n")
        start, *lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
        headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        session = FakeSession(
            self, {"direction": "inbound", "sip_network_ip": self.source, "network_addr": self.source}
        )
        uri = start.split(" ")[1]
        session.put("sip_req_uri", uri.partition(":")[2].partition(";")[0] if "@" in uri else uri)
        session.put("destination_number", uri.partition(":")[2].partition("@")[0])
        for name, value in headers:
            self._received(session, name.lower(), name, value)
        session.put("switch_r_sdp", body)
        asserted = session.getVariable("sip_P-Asserted-Identity")
        caller = asserted or re.sub(r".*sips?:([^@]*)@.*", r"\1", session.getVariable("sip_full_from") or "")
        session.put("caller_id_number", caller)
        return session

    def leave(
        self,
        partner: FakeSession | None,
        number: str,
        hook: Callable[[FakeSession, str], None],
        variables: dict[str, str] | None = None,
    ) -> FakeSession:
        """A leg that leaves to a number, its hooks run, its INVITE about to be sent.

        Args:
            partner: the leg it is made for.
            number: what is dialled.
            hook: runs a function of the script by its name: ``(session, "sign")``.
            variables: of the originate string or the gateway.
        """
        session = FakeSession(self, {"direction": "outbound", "sip_destination_url": f"sip:{number}@127.0.0.1:5082"})
        session.put("destination_number", number)
        if partner is not None:
            session.put("originating_leg_uuid", partner.uuid)
            session.put("network_addr", partner.getVariable("network_addr") or "")
            caller = partner.getVariable("effective_caller_id_number") or partner.getVariable("caller_id_number")
            session.put("caller_id_number", caller or "")
            for name, value in partner.variables.items():
                if name.startswith("sip_h_") or name == "sip_cid_type":
                    session.put(name, value)
            for name in filter(None, (partner.getVariable("export_vars") or "").split(",")):
                session.put(name.removeprefix("nolocal:"), partner.getVariable(name) or "")
        for name, value in (variables or {}).items():
            session.put(name, value)
        for name, value in {**self.global_variables, **session.variables}.items():
            if name.startswith("execute_on_originate"):
                application, _, function = value.partition(" ")
                assert application == "python"
                hook(session, function.removeprefix("shaken::"))
        return session

    def _received(self, session: FakeSession, known: str, name: str, value: str) -> None:
        """What mod_sofia makes of one header field."""
        simple = {"from": "sip_full_from", "to": "sip_full_to", "call-id": "sip_call_id"}
        if known in simple:
            session.put(simple[known], value)
        elif known == "identity":
            session.push("sip_identity", value)
            if session.getVariable("sip_h_identity") is None:
                session.put("sip_h_identity", value)
        else:
            session.push(f"sip_i_{known.replace('-', '_')}", value)
            if known == "p-asserted-identity":
                session.put("sip_P-Asserted-Identity", re.sub(r".*sips?:([^@]*)@.*", r"\1", value))
            elif name.startswith(("X-", "P-", "On")):
                session.put(f"sip_h_{name}", value)


class FakeSession:
    """A session: one leg of a call."""

    def __init__(self, freeswitch: FakeFreeSwitch, variables: dict[str, str]) -> None:
        self._freeswitch = freeswitch
        self.uuid = f"00000000-0000-4000-8000-{next(_numbers):012}"
        self.variables: dict[str, str] = {}
        self.answered: str | None = None
        self.cause: str | None = None
        for name, value in {"uuid": self.uuid, **variables}.items():
            self.put(name, value)
        freeswitch.legs[self.uuid] = self

    # --- The switch's own -----------------------------------------------------------------------

    def get_uuid(self) -> str:
        """What FreeSWITCH calls the leg."""
        return self.uuid

    def getVariable(self, name: str) -> str | None:  # noqa: N802  # the switch's name
        """A channel variable."""
        return self.variables.get(name.lower()) or self._freeswitch.global_variables.get(name)

    def setVariable(self, name: str, value: str) -> None:  # noqa: N802  # the switch's name
        """Set a channel variable, or take it away."""
        value.encode()  # the switch's binding refuses what is no text
        self.put(name, value)

    def execute(self, application: str, argument: str) -> None:
        """Run an application of the dialplan."""
        if _EXPANDED.search(argument):
            raise AssertionError(f"FreeSWITCH would expand {argument!r}")
        if application == "set_profile_var":
            name, _, value = argument.partition("=")
            self.put(name, value)
            return
        if application != "respond":
            raise AssertionError(f"no {application} here")
        self.answered = argument

    def hangup(self, cause: str) -> None:
        """End the leg."""
        self.cause = cause

    # --- For the test ---------------------------------------------------------------------------

    def put(self, name: str, value: str) -> None:
        """Set a variable as the switch does."""
        self.variables.pop(name.lower(), None)
        if value:
            self.variables[name.lower()] = value

    def push(self, name: str, value: str) -> None:
        """Add a value to a variable that may hold several."""
        before = self.getVariable(name)
        if before is None:
            self.put(name, value)
        else:
            self.put(name, f"{before if before.startswith('ARRAY::') else f'ARRAY::{before}'}|:{value}")

    def invite(self) -> list[tuple[str, str]]:
        """The header fields of its INVITE, those that the adapter may have to do with."""
        number = self.getVariable("caller_id_number")
        written = self.getVariable("sip_force_full_from") or self.getVariable("sip_from_uri")
        fields = [("From", written or f"<sip:{number}@127.0.0.1>")]
        fields.append(("To", f"<{self.getVariable('sip_destination_url')}>"))
        if twice := self.getVariable("sip_h_identity"):
            fields.append(("Identity", _through_sofia(twice)))
        if self.getVariable("sip_cid_type") == "pid":
            fields.append(("P-Asserted-Identity", f"<sip:{number}@127.0.0.1>"))
        elif self.getVariable("sip_cid_type") != "none":
            fields.append(("Remote-Party-ID", f"<sip:{number}@127.0.0.1>"))
        for name, value in self.variables.items():
            if name.startswith("sip_h_"):
                for line in f"{name.removeprefix('sip_h_')}: {value}".split("\r\n"):
                    field, _, text = line.partition(":")
                    known = field.strip().lower() == "identity"
                    fields.append((field.strip().title(), _through_sofia(text.strip()) if known else text.strip()))
        return fields

    def sent(self, name: str) -> list[str]:
        """The values of one field of its INVITE."""
        return [value for field, value in self.invite() if field.lower() == name.lower()]


def _through_sofia(value: str) -> str:
    """An Identity field taken apart and put together again."""
    digest = _IDENTITY.match(value)
    info = re.search(r"info=\s*<([^<>;]*)>", value)
    written = digest["digest"] if digest else ""
    written += f";info=<{info[1]}>" if info else ""
    for name in ("alg", "ppt"):
        if found := re.search(f"{name}=([^;]*)", value):
            written += f";{name}={found[1]}"
    rest = value.partition("ppt=")[2].partition(";")
    return written + (f";{rest[2]}" if rest[1] else "")


def _listed(text: str) -> str | list[str]:
    """A value in a dump: several are a list there."""
    return text.removeprefix("ARRAY::").split("|:") if text.startswith("ARRAY::") else text


class _Api:
    def __init__(self, freeswitch: FakeFreeSwitch) -> None:
        self._freeswitch = freeswitch

    def executeString(self, command: str) -> str:  # noqa: N802  # the switch's name
        name, uuid, variable, *value = command.split(" ", 3)
        if (name, len(value)) not in {("uuid_getvar", 0), ("uuid_setvar", 1), ("uuid_dump", 0)}:
            raise AssertionError(f"no {name} here")
        leg = self._freeswitch.legs.get(uuid)
        if leg is None:
            return "-ERR No such channel!"
        if name == "uuid_dump":
            return json.dumps({f"variable_{key}": _listed(text) for key, text in leg.variables.items()})
        if value:
            leg.put(variable, value[0])
            return "+OK"
        return leg.getVariable(variable) or "_undef_"
