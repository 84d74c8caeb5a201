"""What dialplan, profiles, gateways and variables do to the calls we sign and verify."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shaken_plugin.switchcheck.findings import Check, Finding, at_whole
from shaken_plugin.switchcheck.preprocessor import Text
from shaken_plugin.switchcheck.tree import Element
from shaken_plugin.switchcheck.variables import Assignment, Scope, assignments, is_true

FUNCTIONS: Final = ("verify", "pass_through", "sign")
"""What our script offers to the dialplan."""

_CALL: Final = re.compile(r"\bshaken::(\w+)")
_SOCKET: Final = re.compile(r":\d{1,5}/(verify|pass_through|sign)\b")
"""The same over the event socket: the agent listens, ``socket 127.0.0.1:8086/verify full``."""

_HEADERS: Final = ("sip_h_Identity", "sip_h_y", "sip_h_Date", "sip_h_P-Asserted-Identity")
"""Variables whose headers leave with calls we signed, verified or passed through."""

_LONGEST_PATTERN: Final = 200
_MOST_REPEATS: Final = 4
_REPEATS: Final = re.compile(r"[*+{]")
_SLOW: Final = re.compile(r"\)[*+{]|\$\{")
"""A repeated group can take time without end; what a variable holds is not known."""


@dataclass(slots=True)
class Use:
    """Which functions of ours a configuration calls, and how."""

    python: set[str]
    socket: set[str]

    @property
    def needs_python(self) -> bool:
        """Whether mod_python3 has to be there: unless everything goes over the event socket."""
        return bool(self.python) or not self.socket


def use_of(root: Element, text: Text) -> Use:
    """Where our functions stand, in an application's data or in a variable."""
    use = Use(set(), set())
    for setting in text.settings.values():
        use.python.update(_CALL.findall(setting.value))
    for element in root.all("action", "anti-action", "variable", "param"):
        data = element.get("data") or element.get("value")
        use.python.update(_CALL.findall(data))
        if element.get("application") == "socket" or "socket " in data:
            use.socket.update(_SOCKET.findall(data))
    return use


def check_calls(root: Element, text: Text, use: Use) -> Iterator[Finding]:
    """Everything about calls. ``root`` and ``text`` are the configuration."""
    found = list(assignments(root, text))
    yield from _native(root, found)
    yield from _headers(found)
    yield from _profiles(root)
    yield from _functions(root, text, use)
    yield from _signing(found)
    yield from _gateways(root, found)


def _native(root: Element, found: list[Assignment]) -> Iterator[Finding]:
    for item in found:
        if item.name.lower() == "sip_stir_shaken_attest" and item.value:
            yield item.finding(Check.NATIVE_SIGNING, "sets sip_stir_shaken_attest; take it out, shaken::sign signs")
        elif item.scope is not Scope.DIALPLAN and "sofia_stir_shaken_vs" in item.value:
            yield item.finding(Check.NATIVE_VERIFICATION, "runs sofia_stir_shaken_vs; take it out")
    for element in root.all("action", "anti-action"):
        if "sofia_stir_shaken_vs" in (element.get("application"), *element.get("data").split()[:1]) or (
            "=sofia_stir_shaken_vs" in element.get("data")
        ):
            yield element.finding(
                Check.NATIVE_VERIFICATION, "runs sofia_stir_shaken_vs; take it out, shaken::verify verifies"
            )
    for param in root.all("param"):
        if param.get("name").lower().startswith("stir-shaken-"):
            yield param.finding(
                Check.NATIVE_PARAMETER,
                f"{param.get('name')} is for FreeSWITCH's own STIR/SHAKEN; ours has its settings in shaken.yaml: "
                "take it out",
            )


def _headers(found: list[Assignment]) -> Iterator[Finding]:
    for item in found:
        name = item.name.lower()
        if name == "sip_copy_custom_headers" and not is_true(item.value):
            yield item.finding(
                Check.HEADERS_DROPPED,
                f"sip_copy_custom_headers={item.value} strips Identity from calls that pass through; take it out, or "
                "set it on calls alone that shall lose the header",
            )
        elif name == "exclude_outgoing_extra_header" and (excluded := _excluded(item.value)):
            yield item.finding(
                Check.HEADER_EXCLUDED,
                f"exclude_outgoing_extra_header={item.value[:80]} keeps {excluded} from leaving; "
                "make the pattern narrower",
            )


def _excluded(pattern: str) -> str | None:
    """The first header of ours that a pattern matches; a pattern that cannot be read matches all."""
    if pattern.startswith("/") and "/" in pattern[1:]:
        # switch_regex: "/pattern/flags".
        inner, _, flags = pattern[1:].rpartition("/")
        pattern = f"(?i){inner}" if "i" in flags else inner
    compiled = None
    if (
        len(pattern) <= _LONGEST_PATTERN
        and not _SLOW.search(pattern)
        and len(_REPEATS.findall(pattern)) <= _MOST_REPEATS
    ):
        # PCRE to FreeSWITCH; what the two read in different ways is rare, and told as not tried.
        with contextlib.suppress(re.error, RecursionError, OverflowError, Warning), warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(pattern)
    matching = [name for name in _HEADERS if compiled is None or compiled.search(name)]
    names = ", ".join(name.removeprefix("sip_h_") for name in matching)
    return f"{names} (the pattern cannot be tried here)" if compiled is None else names or None


def sofia_profiles(root: Element) -> Iterator[Element]:
    """The SIP profiles; other modules have elements of that name, too."""
    for configuration in root.all("configuration"):
        if configuration.get("name") == "sofia.conf":
            yield from configuration.all("profile")


def parameter(element: Element, name: str) -> str:
    """The last value of a parameter, empty where there is none."""
    values = [
        param.get("value")
        for param in element.all("param")
        if param.get("name").lower() == name and (param.inside("gateway") or element) is element
    ]
    return values[-1] if values else ""


def _profiles(root: Element) -> Iterator[Finding]:
    for profile in sofia_profiles(root):
        if not is_true(parameter(profile, "parse-all-invite-headers")):
            yield profile.finding(
                Check.COMPACT_FORM_UNSEEN,
                'an Identity header under its compact name "y" is not seen; add to its settings: '
                '<param name="parse-all-invite-headers" value="true"/>',
            )


def _functions(root: Element, text: Text, use: Use) -> Iterator[Finding]:
    for element in root.all("action", "anti-action", "variable"):
        for name in _CALL.findall(element.get("data") or element.get("value")):
            if name not in FUNCTIONS:
                yield element.finding(
                    Check.UNKNOWN_FUNCTION, f"shaken::{name} is no function; there are: {', '.join(FUNCTIONS)}"
                )
        if element.get("application") == "python" and element.get("data").split()[:1] == ["shaken"]:
            yield element.finding(
                Check.UNKNOWN_FUNCTION, f"shaken names no function; write shaken::NAME, NAME of: {', '.join(FUNCTIONS)}"
            )
    if not text.whole:
        # What stands in the part that was not read is not known.
        return
    used = use.python | use.socket
    where = text.places[0].file if text.places else "freeswitch.xml"
    if not used & {"sign", "verify"}:
        yield at_whole(
            Check.NOT_USED,
            where,
            "neither shaken::sign nor shaken::verify stands anywhere: nothing is signed or verified; "
            "'shaken setup' prints the lines to add",
        )
        return
    for name, check in (("sign", Check.SIGN_NOWHERE), ("verify", Check.VERIFY_NOWHERE)):
        if name not in used:
            yield at_whole(
                check,
                where,
                f"shaken::{name} stands nowhere; good only where this switch is not to {name} calls",
            )


# --- shaken::sign: on the leg that leaves -----------------------------------------------------


def signers(found: list[Assignment]) -> list[Assignment]:
    """The variables that run our signer before an INVITE leaves."""
    return [
        item
        for item in found
        if item.name.lower().startswith("execute_on_originate")
        and ("shaken::sign" in item.value or _SOCKET.search(item.value))
    ]


def _inbound(item: Assignment) -> bool:
    return item.element is not None and item.element.get("direction").lower() == "inbound"


def _signing(found: list[Assignment]) -> Iterator[Finding]:
    items = signers(found)
    for item in items:
        if item.application in {"set", "push"}:
            yield item.finding(
                Check.SIGN_WRONG_LEG,
                f'"{item.application}" sets it on the caller\'s leg alone; use application "export" with '
                "nolocal:execute_on_originate_shaken=…",
            )
        elif _inbound(item):
            yield item.finding(
                Check.SIGN_WRONG_LEG, 'direction="inbound" is the leg that arrives; write direction="outbound"'
            )


def _gateways(root: Element, found: list[Assignment]) -> Iterator[Finding]:
    """Gateways whose calls are signed, and whose From is not the number that is signed."""
    items = [item for item in signers(found) if not _inbound(item)]
    own = {item.element.inside("gateway") for item in items if item.element and item.scope is Scope.GATEWAY}
    elsewhere = any(item.scope is not Scope.GATEWAY for item in items)
    pid = {
        item.element.inside("gateway") if item.element else None
        for item in found
        if item.name.lower() == "sip_cid_type" and item.value.lower() == "pid"
    }
    for profile in sofia_profiles(root):
        for gateway in profile.all("gateway"):
            in_pai = None in pid or gateway in pid or parameter(profile, "caller-id-type").lower() == "pid"
            signed = gateway in own or elsewhere or not items
            if signed and not in_pai and not is_true(parameter(gateway, "caller-id-in-from")):
                ignored = "; its cid-type is not read by FreeSWITCH" if parameter(gateway, "cid-type") else ""
                yield gateway.finding(
                    Check.GATEWAY_FROM,
                    "From will be the gateway's account, and the number that is signed stands in Remote-Party-ID "
                    f'alone{ignored}; add <param name="caller-id-in-from" value="true"/>, or to its variables '
                    '<variable name="sip_cid_type" value="pid" direction="outbound"/>',
                )
