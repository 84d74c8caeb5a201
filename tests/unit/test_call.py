"""One call attempt: where its parties stand, what begins a call, what is an emergency."""

from __future__ import annotations

import pytest

from shaken_plugin.core.call import (
    MAX_ASSERTED,
    CallerHeader,
    CallMessage,
    is_anonymous,
    is_emergency,
)
from shaken_plugin.core.sip import Request
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber, UriIdentity
from tests.builders import DEST, ORIG, message

ASSERTED = CallerHeader.ASSERTED


def test_call_is_read_from_a_request() -> None:
    request = Request.parse(
        b"INVITE sip:+1@b SIP/2.0\nf: <sip:a@b>\nt: <sip:c@d>\ni: 7\nP-Asserted-Identity: <tel:+1>\n"
        b"p-asserted-identity: <tel:+2>\nDate: x\ny: one\nIdentity: two\nPriority: urgent\n\nv=0\n"
    )
    call = CallMessage.from_request(request, source="192.0.2.1", user="u")
    assert call == CallMessage(
        method="INVITE",
        request_uri="sip:+1@b",
        to="<sip:c@d>",
        callers={ASSERTED: ("<tel:+1>", "<tel:+2>"), CallerHeader.FROM: ("<sip:a@b>",)},
        call_id="7",
        date="x",
        identity=("one", "two"),
        priority="urgent",
        sdp="v=0\n",
        source="192.0.2.1",
        user="u",
    )


def test_headers_that_are_missing_are_empty() -> None:
    call = CallMessage.from_request(Request.parse(b"OPTIONS sip:a SIP/2.0\n\n"))
    assert (call.to, call.callers, call.call_id, call.date, call.identity, call.priority) == ("", {}, "", None, (), "")


@pytest.mark.parametrize(
    ("method", "to", "initial"),
    [
        ("INVITE", "<sip:a@b>", True),
        ("INVITE", "<sip:a@b>;tag=1", False),
        ("INVITE", "sip:a@b;tag=1", False),
        ("INVITE", "<sip:a@b;tag=1>", True),
        ("INVITE", '"x;tag=1" <sip:a@b>', True),
        ("INVITE", '<sip:a@b>;x="y;tag=1"', True),
        ("INVITE", "<sip:a@b>, <sip:c@d>;tag=1", True),
        ("INVITE", "sip:a@b, sip:c@d;tag=1", True),
        ("INVITE", "<sip:a@b", True),
        ("INVITE", "", True),
        ("REGISTER", "<sip:a@b>", False),
        ("ACK", "<sip:a@b>", False),
        ("invite", "<sip:a@b>", False),
    ],
)
def test_invite_outside_a_dialog_begins_a_call(method: str, to: str, initial: bool) -> None:
    """RFC 3261 §12.2: no To tag. What only looks like one must not get a call past verification."""
    assert message(method=method, to=to).is_initial_invite is initial


def test_callers_come_in_order_and_those_that_name_nobody_are_left_out(us: DialPlan) -> None:
    """RFC 3325 §9.1: PAssertedID-value *(COMMA PAssertedID-value)."""
    lines = ('"A, B" <sip:a@h>, <tel:+12155551212>', "<tel:alice>, <http://x>, <sip:x@h", "<tel:+442071838750>")
    callers = list(message(callers={ASSERTED: lines}).callers_in(ASSERTED, us))
    assert [str(caller.party) for caller in callers] == ["sip:a@h", "12155551212", "442071838750"]
    assert {caller.header for caller in callers} == {ASSERTED}


def test_comma_in_from_is_part_of_the_name(us: DialPlan) -> None:
    call = message(callers={CallerHeader.FROM: ("Smith, Alice <tel:+12155551212>",)})
    assert [str(caller.party) for caller in call.callers_in(CallerHeader.FROM, us)] == [ORIG]


def test_no_more_callers_than_the_limit_are_looked_at(us: DialPlan) -> None:
    values = ", ".join(f"<tel:+1215555{number}>" for number in range(1000, 1020))
    assert len(list(message(callers={ASSERTED: (values,)}).callers_in(ASSERTED, us))) == MAX_ASSERTED
    junk = ", ".join(["junk"] * MAX_ASSERTED)
    assert list(message(callers={ASSERTED: (junk, "<tel:+12155551212>")}).callers_in(ASSERTED, us)) == []


def test_missing_header_has_no_callers(us: DialPlan) -> None:
    assert list(message().callers_in(ASSERTED, us)) == []


@pytest.mark.parametrize(
    ("uri", "party"),
    [
        (f"sip:+{DEST}@b", TelephoneNumber(DEST)),
        ("sip:bob@b", UriIdentity("sip:bob@b")),
        ("tel:bob", None),
        ("http://b", None),
        ("", None),
    ],
)
def test_called_party_stands_in_to_and_in_the_request_uri(
    us: DialPlan, uri: str, party: TelephoneNumber | UriIdentity | None
) -> None:
    assert message(to=f"<{uri}>").called(us) == party
    assert message(request_uri=uri).request_party(us) == party


def test_to_that_cannot_be_read_names_nobody(us: DialPlan) -> None:
    assert message(to="<sip:a@b").called(us) is None


@pytest.mark.parametrize(
    ("party", "anonymous"),
    [
        (UriIdentity("sip:anonymous@anonymous.invalid"), True),
        (UriIdentity("sip:x@anonymous.invalid"), True),
        (UriIdentity("sip:anonymous.invalid"), True),
        (UriIdentity("sip:anonymous@example.com"), False),
        (UriIdentity("sip:anonymous.invalid@example.com"), False),
        (TelephoneNumber("12155551212"), False),
    ],
)
def test_anonymous_is_the_host_that_nobody_is_authoritative_for(
    party: TelephoneNumber | UriIdentity, anonymous: bool
) -> None:
    """RFC 3323 §4.1.1.3, RFC 8224 §11."""
    assert is_anonymous(party) is anonymous


NORMAL = f"<sip:+{DEST}@b>"


@pytest.mark.parametrize(
    ("request_uri", "to", "priority", "emergency"),
    [
        (f"sip:+{DEST}@b", NORMAL, "", False),
        ("sip:911@b", NORMAL, "", True),
        ("tel:911", NORMAL, "", True),
        ("tel:911;phone-context=+1", NORMAL, "", True),
        ("sip:+1911@b;user=phone", NORMAL, "", True),
        ("sip:+911@b;user=phone", "<sip:+911@b;user=phone>", "", True),
        ("sip:+1911@b;user=phone", '"Help" <sip:+1911@c;user=phone>', "", True),
        (f"sip:+{DEST}@b", '"Help" <sip:911@b>', "", True),
        ("urn:service:sos", NORMAL, "", True),
        ("URN:Service:SOS.fire", NORMAL, "", True),
        ("urn:service:sosx", NORMAL, "", False),
        ("urn:service:counseling", NORMAL, "", False),
        (f"sip:+{DEST}@b", "<urn:service:sos.police>", "", True),
        (f"sip:+{DEST}@b", NORMAL, " PSAP-Callback ", True),
        (f"sip:+{DEST}@b", NORMAL, "emergency", False),
        ("http://911", "<sip:911", "", False),
        ("tel:x", "<sip:alice@b>", "", False),
        ("sip:911@b;x=\udcff", NORMAL, "", True),
    ],
)
def test_emergency_call_is_known(us: DialPlan, request_uri: str, to: str, priority: str, emergency: bool) -> None:
    """RFC 5031 §4.2 service URNs, RFC 7090 §5 call-backs, and the numbers of the dial plan."""
    assert is_emergency(request_uri, to, priority, us) is emergency


@pytest.mark.parametrize(
    ("value", "tag"),
    [("<sip:a@b>;tag=1", "1"), ('"x" <sip:a@b>;x=y;tag=abc', "abc"), ("<sip:a@b>", ""), ("<<", ""), (None, "")],
)
def test_the_callers_tag_is_that_of_from(value: str | None, tag: str) -> None:
    callers: dict[CallerHeader, tuple[str, ...]] = {} if value is None else {CallerHeader.FROM: (value,)}
    assert CallMessage("INVITE", "sip:c@d", "<sip:c@d>", callers).from_tag == tag
    assert CallMessage("INVITE", "sip:c@d", value or "", {}).to_tag == tag
