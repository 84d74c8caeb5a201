"""A message read in one pass and one read by asking for each header are the same call."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.adapters.fake_kamailio import FakeKsr
from shaken_plugin.adapters.kamailio_headers import MAX_HEADERS, MAX_NAME, _wanted, headers_of, usual_headers_of
from shaken_plugin.adapters.kamailio_message import Message
from shaken_plugin.adapters.kamailio_state import STATE, pack, unpack
from shaken_plugin.core.call import NAMING, CallerHeader, CallMessage
from shaken_plugin.switch.actions import strip_foreign

START: Final = b"INVITE sip:+12025550143@b.example SIP/2.0"
NAMES: Final = (
    *(header.value for header in CallerHeader), *NAMING,
    "To", "t", "Call-ID", "i", "Date", "Identity", "y", "Y", "IDENTITY", "Priority", "Resource-Priority", "Replaces",
    "Via", "v", "Contact", "m", "CSeq", "X-Other", "b", "x",
)  # fmt: skip


def both(message: bytes) -> tuple[CallMessage, CallMessage]:
    """The call by either way."""
    reader = Message(FakeKsr(message))
    given = {"user": "alice", "body": True, "diverting": "<sip:d@e>", "counted": "key"}
    return reader._read(**given), reader._read_by_name(**given)  # type: ignore[arg-type]  # of the types it takes


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8")))),
    st.text(st.characters(exclude_characters="\0", codec="utf-8")),
)
def test_both_ways_read_the_same(headers: list[tuple[str, str]], body: str) -> None:
    lines = [START, *(f"{name}: {value.strip()}".encode() for name, value in headers)]
    quick, slow = both(b"\r\n".join([*lines, b"", body.encode()]))
    assert quick == slow


VALUES: Final = st.one_of(
    st.sampled_from(
        ["", " ", "<sip:+12155550112@a>", "<sip:%76erstat@a>", '"VerStat" <sip:a@b>', "a\t", "\ta b", "x:y"]
    ),
    st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8"), max_size=5).map(str.strip),
)


@given(
    st.permutations(["From", "To", "Call-ID", "P-Asserted-Identity", "Identity", "Date"]),
    st.lists(
        st.tuples(st.sampled_from((*NAMES, "from", "FROM ", "Date ", "User-Agent", "X_Y", "Xy")), VALUES), max_size=3
    ),
    st.lists(VALUES, min_size=6, max_size=6),
    st.sampled_from(["", " ", "  ", "\t"]),
    st.integers(0, 6),
    st.sampled_from(["", "body", "b\r\n\r\nFrom: x"]),
)
def test_the_usual_message_is_read_as_any_other(
    order: list[str], others: list[tuple[str, str]], values: list[str], space: str, missing: int, body: str
) -> None:
    """Whatever `usual_headers_of` says, it is what `headers_of` finds; and unmarked is what nobody has to strip."""
    pairs = [(name, value) for name, value in zip(order, values, strict=True) if order.index(name) != missing]
    pairs[1:1] = others
    text = "\r\n".join([START.decode(), *(f"{name}:{space}{value}" for name, value in pairs), "", body])
    quick = usual_headers_of(text)
    if quick is not None:
        method, *texts, rest = quick
        named = zip(("from", "to", "call-id", "p-asserted-identity", "identity", "date"), texts, strict=True)
        expected = {name: (value,) for name, value in named if value is not None}
        assert headers_of(text) == (method, expected, rest)
    call, slow = both(text.encode())
    assert call == slow
    if call.unmarked:
        call.unmarked = False
        assert strip_foreign(call) == ()


def usual(*more: str) -> str:
    """A usual message, with lines more in its middle."""
    lines = [START.decode(), "Via: a", "From: <sip:+12155550112@a>;tag=1", *more, "To: <sip:b@c>", "Call-ID: x", "", ""]
    return "\r\n".join(lines)


def test_what_nearly_all_messages_have_is_usual() -> None:
    found = usual_headers_of(
        usual("P-Asserted-Identity:  <sip:+12155550112@a>", "X-Any: \t", "Identity: a.b.c;info=<d>", "Date: e")
    )
    caller, asserted = "<sip:+12155550112@a>;tag=1", "<sip:+12155550112@a>"
    assert found == ("INVITE", caller, "<sip:b@c>", "x", asserted, "a.b.c;info=<d>", "e", "")


@pytest.mark.parametrize(
    "line",
    [
        "From: <sip:c@d>", "f: <sip:c@d>", "To: <sip:c@d>", "Date: x \t", "date: x", "Diversion: x", "y: x", "From : x",
        "History-Info: x", "P-Preferred-Identity: x", "Identity: x \t", "Identity: x\r\n folded", "Replaces: x", "no",
        "Priority: x", "X: \0", "X\n: x",
    ],
)  # fmt: skip
def test_what_has_more_is_not_usual(line: str) -> None:
    assert usual_headers_of(usual(line)) is None


@pytest.mark.parametrize(
    "line",
    [
        b"Identity: a\r\n folded", b"From: a\r\n\tfolded", b"From: \xff", b"b: <sip:referrer@a>", b"no colon",
        b"From: a\nTo: b", b"From: a\rTo: b", b"X: \0", b"\r\n".join([b"Identity: x"] * (MAX_HEADERS + 1)),
    ],
)  # fmt: skip
def test_what_is_not_simple_is_asked_of_kamailio(line: bytes) -> None:
    message = b"\r\n".join([START, line, b"To: <sip:b@c>", b"", b""])
    assert headers_of(message.decode("utf-8", "surrogateescape")) is None or b"\xff" in line
    quick, slow = both(message)
    assert quick == slow


def test_long_names_are_read_likewise_and_not_remembered() -> None:
    """Whoever calls chooses them."""
    before = _wanted.cache_info().currsize
    for name in ("x" * (MAX_NAME + 1), "Identity" + " " * MAX_NAME, " " * (MAX_NAME + 1) + "x"):
        quick, slow = both(b"\r\n".join([START, f"{name}: value".encode(), b"", b""]))
        assert quick == slow
    assert _wanted.cache_info().currsize == before


def test_the_state_of_a_signing_comes_back_as_it_was() -> None:
    variables = {name: f"value of {name}" for name in STATE}
    assert unpack(pack(variables)) == variables
    assert unpack(pack({"identity": "x"})) == dict.fromkeys(STATE, "") | {"identity": "x"}
    assert unpack(pack({"level": "A"})) == dict.fromkeys(STATE, "")
