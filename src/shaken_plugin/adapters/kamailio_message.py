"""The message that Kamailio has at hand: read, edited, and what is noted of its transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shaken_plugin.adapters.kamailio_headers import MAX_HEADERS, Headers, UsualHeaders, headers_of, usual_headers_of
from shaken_plugin.core.call import NAMING, CallerHeader, CallMessage
from shaken_plugin.core.verstat import VERSTAT_PATTERN
from shaken_plugin.switch import Action, AddHeader, StripVerstat

ASKED: Final = "shaken_in"
"""Name of the xavp in which the routing script may say more of a call: ``route``."""

_FROM, _ASSERTED = CallerHeader.FROM, CallerHeader.ASSERTED  # a member of an Enum is looked for at length each time
_CALLERS: Final = tuple((header, header.value.lower()) for header in CallerHeader)
_NAMING: Final = tuple((name, name.lower()) for name in NAMING)
_RARE: Final = frozenset(
    {"date", "identity", "resource-priority", "priority", "replaces", *(name for _, name in _NAMING)}
)
"""Names of headers that most calls have none of."""

_EMPTY: Final = ("",)
_NO_DATE: Final = (None,)

_STRIP: Final = f"/{VERSTAT_PATTERN}//g"


class Message:
    """What can be asked of the message at hand, and done to it.

    Args:
        ksr: the switch's ``KSR`` module.
    """

    def __init__(self, ksr: Any) -> None:
        self._ksr = ksr
        if (pvx := getattr(ksr, "pvx", None)) is not None:
            # Each call takes a dozen of these: without a function of ours round them.
            self._get, self._set = pvx.xavp_child_gete, pvx.xavp_child_sets  # type: ignore[method-assign]  # the same, as one call
        self._explode = getattr(pvx, "xavp_params_explode", None)
        self._is_null = getattr(pvx, "xavp_is_null", None)
        self._length: int | None = None
        """Bytes of the message read last; None where it is no usual one, or a character may take several."""

    def _text(self) -> str:
        """The request at hand, whole; empty where it cannot be had: `_read` comes upon that once more."""
        try:
            return self._ksr.pv.get("$mb") or ""
        except BaseException:
            return ""

    def _read(
        self,
        text: str = "",
        *,
        user: str | None = None,
        body: bool = False,
        diverting: str = "",
        counted: str = "",
        whence: bool = True,
    ) -> CallMessage:
        """The request at hand, of which ``text`` is what `_text` found, if that was asked.

        Without ``whence`` it is not asked where the call came from, nor for its route.
        """
        pv = self._ksr.pv
        self._length = None
        try:
            text = text or pv.get("$mb")
            if (usual := usual_headers_of(text)) is not None:
                call = _usual_call(usual, self._pseudo("$ru") or self._unparsed_uri(), body=body)
                self._length = len(text) if text.isascii() else None
            elif (found := headers_of(text)) is not None:
                call = _call(found, self._pseudo("$ru") or self._unparsed_uri(), body=body)
            else:
                return self._read_by_name(user=user, body=body, diverting=diverting, counted=counted)
        except UnicodeDecodeError:
            return self._read_by_name(user=user, body=body, diverting=diverting, counted=counted)
        if not whence:
            return call
        call.source, call.user, call.route = pv.get("$si"), user, self._get(ASKED, "route")
        call.counted, call.diverting = counted, diverting
        return call

    def _read_by_name(self, *, user: str | None, body: bool, diverting: str, counted: str) -> CallMessage:
        """The same, one header after the other asked of Kamailio: slower, and for any message that it takes."""
        unreadable: list[str] = []
        pv = self._ksr.pv
        return CallMessage(
            method=pv.get("$rm"),
            request_uri=self._pseudo("$ru") or self._unparsed_uri(),
            to=next(self._headers("To", unreadable), ""),
            callers={
                header: lines for header in CallerHeader if (lines := tuple(self._headers(header.value, unreadable)))
            },
            call_id=self._call_id(),
            date=next(self._headers("Date", unreadable), None),
            identity=tuple(self._headers("Identity", unreadable)),
            priority=next(self._headers("Priority", unreadable), ""),
            naming={name: lines for name in NAMING if (lines := tuple(self._headers(name)))},
            resource_priority=tuple(self._headers("Resource-Priority", unreadable)),
            sdp=self._pseudo("$rb") if body else "",
            replaces=next(self._headers("Replaces"), ""),
            counted=counted,
            source=pv.get("$si"),
            user=user,
            diverting=diverting,
            route=self._get(ASKED, "route"),
            unreadable=tuple(unreadable),
        )

    def _call_id(self) -> str:
        return self._pseudo("$ci")

    def _target(self) -> str:
        """Where the call goes now, to compare with."""
        return utf8(self._pseudo("$ru"))

    def _unparsed_uri(self) -> str:
        """The Request-URI where Kamailio cannot parse it; an emergency call may stand in it."""
        words = self._pseudo("$mb").partition("\r\n")[0].split(" ")
        return words[1] if len(words) > 1 else ""

    def _headers(self, name: str, unreadable: list[str] | None = None) -> Iterator[str]:
        """The values of a header, in order."""
        get = self._ksr.hdr.get_idx
        for index in range(MAX_HEADERS):
            try:
                value = get(name, index)
            except UnicodeDecodeError:
                if unreadable is not None:
                    unreadable.append(name)
                value = self._raw(f"$(hdr({name})[{index}]{{s.encode.hexa}})")
            if value is None:
                return
            yield value

    def _pseudo(self, name: str) -> str:
        """A pseudo-variable as text, ``""`` where it is null."""
        try:
            return self._ksr.pv.get(name) or ""
        except UnicodeDecodeError:
            return self._raw(f"$({name[1:]}{{s.encode.hexa}})") or ""

    def _raw(self, name: str) -> str | None:
        """Bytes that are not UTF-8, as text with surrogate escapes, by way of hexadecimal."""
        digits = self._ksr.pv.get(name)
        return None if digits is None else bytes.fromhex(digits).decode("utf-8", "surrogateescape")

    def _execute(self, action: Action) -> None:
        ksr = self._ksr
        if isinstance(action, AddHeader):
            ksr.hdr.append(f"{action.name}: {action.value}\r\n")
        elif isinstance(action, StripVerstat):
            ksr.textops.subst_hf(action.name, _STRIP, "a")
        elif action.index is None:
            ksr.hdr.remove(action.name)
        else:
            ksr.textops.remove_hf_idx(action.name, action.index)

    def _publish(self, root: str, variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            self._set(root, name, value)

    def _is_there(self, root: str) -> bool:
        """Whether an xavp may have children; where Kamailio cannot say, it may."""
        return self._is_null is None or self._is_null(root) <= 0

    def _set(self, root: str, name: str, value: str) -> None:
        self._ksr.pvx.xavp_child_sets(root, name, value)

    def _get(self, root: str, name: str) -> str:
        return self._ksr.pvx.xavp_child_gete(root, name) or ""


def _usual_call(found: UsualHeaders, uri: str, *, body: bool) -> CallMessage:
    """`_call` of a message that has nothing rare."""
    method, caller, to, call_id, asserted, identity, date, content = found
    callers: dict[CallerHeader, tuple[str, ...]] = {_FROM: (caller,)}
    named = caller
    if asserted is not None:
        callers, named = {_ASSERTED: (asserted,), _FROM: (caller,)}, asserted + caller
    call = CallMessage(method, uri, to, callers, call_id)
    call.unmarked = "%" not in named and "verstat" not in named.lower()
    if identity is not None:
        call.identity = (identity,)
    if date is not None:
        call.date = date
    if body:
        call.sdp = content
    return call


def _call(found: Headers, uri: str, *, body: bool) -> CallMessage:
    """The call of a message, but for what the switch alone knows."""
    headers = found.headers
    lines = headers.get
    call = CallMessage(
        found.method,
        uri,
        lines("to", _EMPTY)[0],
        {header: headers[name] for header, name in _CALLERS if name in headers},
        lines("call-id", _EMPTY)[0],
    )
    if body:
        call.sdp = found.body
    if not _RARE.isdisjoint(headers):
        call.date = lines("date", _NO_DATE)[0]
        call.identity, call.resource_priority = lines("identity", ()), lines("resource-priority", ())
        call.priority, call.replaces = lines("priority", _EMPTY)[0], lines("replaces", _EMPTY)[0]
        call.naming = {header: headers[name] for header, name in _NAMING if name in headers}
    return call


def utf8(text: str) -> str:
    """A text that Kamailio takes; bytes that are not UTF-8 are named, not kept."""
    return text.encode("utf-8", "backslashreplace").decode()
