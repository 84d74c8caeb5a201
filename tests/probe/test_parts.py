"""Messages, streams, credentials, advice and reports of the probe."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import md5
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.core.sip import MAX_MESSAGE_LENGTH
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.probe.advice import ANY, FREESWITCH, PRODUCTS, advise, by_name, product_of
from shaken_plugin.probe.canaries import BY_NAME, CALLER, CANARIES, Scene, Signer, number_after
from shaken_plugin.probe.compare import fragments
from shaken_plugin.probe.dialogs import Dialog, Place, authorization, contact_of, sdp
from shaken_plugin.probe.findings import Finding, Grade, Kind, Leg, Step, Verdict, Verification
from shaken_plugin.probe.headers import identity_findings, issued_at
from shaken_plugin.probe.message import MAX_LINES, HeaderLine, Message, Stream
from shaken_plugin.probe.report import as_data, as_html, printable

NOW = 1_795_000_000.0
SIGNER = Signer.new(NOW)
INVITE = Dialog.of_caller(
    Place("127.0.0.1", 5070, "udp"), caller=CALLER, called="+12025550143", host="pbx", call_id="a@h"
).request("INVITE", SIGNER.sign(BY_NAME["folded"], CALLER, "+12025550143", NOW), sdp("127.0.0.1"))


# --- Messages ---------------------------------------------------------------------------------


def test_a_message_keeps_its_lines_as_they_came() -> None:
    raw = INVITE.replace(b"Identity: ", b"iDENTITY :\t").replace(b"Max-Forwards: 70", b"Subject: \xff")
    message = Message.parse(raw)
    (line,) = message.all("identity")
    assert line.name == "iDENTITY"
    assert line.value.count("\n ;") == 3
    assert "\n" not in line.unfolded
    assert message.first("subject") == "\udcff"
    assert message.raw == raw
    assert message.body.startswith(b"v=0")
    assert (message.method, message.status, message.uri) == ("INVITE", None, "sip:+12025550143@pbx;user=phone")
    assert message.is_initial_invite
    assert not Message.parse(raw.replace(b"To: <", b"To: <sip:x>;tag=1\r\nTo: <")).is_initial_invite


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\nno colon\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\n: empty\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\n" + b"a: b\r\n" * (MAX_LINES + 1) + b"\r\n",
        b"x" * (MAX_MESSAGE_LENGTH + 1),
    ],
)
def test_what_is_no_message_is_refused_by_name(raw: bytes) -> None:
    with pytest.raises(SipSyntaxError):
        Message.parse(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_our_error(data: bytes) -> None:
    for raw in (data, b"INVITE sip:a SIP/2.0\r\n" + data, INVITE[:200] + data + INVITE[200:]):
        try:
            message = Message.parse(raw)
        except SipSyntaxError:
            continue
        message.call()
        assert list(identity_findings(message.all("identity"), message.all("identity"))) is not None
        assert message.is_initial_invite in {True, False}


@given(st.lists(st.integers(1, 400), max_size=8))
def test_a_stream_gives_the_same_messages_however_it_is_cut(cuts: list[int]) -> None:
    answer = b"SIP/2.0 200 OK\r\nl: 3\r\n\r\nabc"
    data, stream = INVITE + b"\r\n\r\n" + answer + INVITE, Stream()
    found: list[Message] = []
    for cut in [*cuts, len(data)]:
        found += stream.feed(data[:cut])
        data = data[cut:]
    assert [message.raw for message in found] == [INVITE, answer, INVITE]


def test_a_stream_that_comes_byte_by_byte_costs_no_more_than_its_length() -> None:
    body = b"x" * 60_000
    data = b"SIP/2.0 200 OK\r\n" + b"Subject: y\r\n" * 500 + b"Content-Length: %d\r\n\r\n" % len(body) + body
    stream = Stream()
    begin = time.process_time()
    found = [message for place in range(len(data)) for message in stream.feed(data[place : place + 1])]
    assert [message.raw for message in found] == [data]
    assert time.process_time() - begin < 2.0  # reading the head at every byte takes minutes


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SIP/2.0 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"SIP/2.0 200 OK\r\nContent-Length: 999999\r\n\r\n",
        b"x" * (MAX_MESSAGE_LENGTH + 1),
    ],
)
def test_a_stream_that_is_no_sip_ends(data: bytes) -> None:
    with pytest.raises(SipSyntaxError):
        list(Stream().feed(data))


# --- Dialogs ----------------------------------------------------------------------------------


def test_the_digest_is_that_of_rfc_2617() -> None:
    """RFC 2617 §3.5 with our own cnonce: the formula is applied by hand here."""
    challenge = Message.parse(
        b"SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\n"
        b'WWW-Authenticate: Digest realm="a@b", qop="auth,auth-int", nonce="dcd9", opaque="5ccc"\r\n\r\n'
    )
    line = authorization(challenge, "INVITE", "sip:a", 'Mu"fasa', "secret")
    assert line is not None
    assert line.name == "Authorization"
    first, second = (md5(text.encode()).hexdigest() for text in ('Mu"fasa:a@b:secret', "INVITE:sip:a"))
    wanted = md5(f"{first}:dcd9:00000001:5368616b656e:auth:{second}".encode()).hexdigest()
    assert f'response="{wanted}"' in line.value
    assert 'username="Mu\\"fasa"' in line.value
    assert 'opaque="5ccc"' in line.value


def test_the_digest_without_qop_is_that_of_rfc_2069() -> None:
    challenge = Message.parse(b'SIP/2.0 407 x\r\nProxy-Authenticate: Digest realm="r", nonce="n"\r\n\r\n')
    line = authorization(challenge, "INVITE", "sip:a", "u", "p")
    assert line is not None
    assert line.name == "Proxy-Authorization"
    first, second = (md5(text.encode()).hexdigest() for text in ("u:r:p", "INVITE:sip:a"))
    assert f'response="{md5(f"{first}:n:{second}".encode()).hexdigest()}"' in line.value
    assert "cnonce" not in line.value


def test_a_contact_that_cannot_be_read_is_none() -> None:
    assert contact_of(Message.parse(b'SIP/2.0 200 OK\r\nm: "A, B" <sip:a@b>, <sip:c>\r\n\r\n')) == "sip:a@b"
    assert contact_of(Message.parse(b"SIP/2.0 200 OK\r\nContact: <\r\n\r\n")) == ""
    assert contact_of(Message.parse(b"SIP/2.0 200 OK\r\n\r\n")) == ""


def test_an_address_of_ipv6_is_written_as_such() -> None:
    assert b"c=IN IP6 ::1" in sdp("[::1]")
    assert Place("[::1]", 5060, "tls").uri == "sip:[::1]:5060;transport=tls"


# --- Canaries ---------------------------------------------------------------------------------


def test_every_kind_of_canary_of_the_issue_is_there() -> None:
    headers = [header for canary in CANARIES for header in canary.headers]
    assert {len(canary.headers) for canary in CANARIES} == {0, 1, 2, 3}
    assert {header.name for header in headers} == {"Identity", "y"}
    assert {header.length for header in headers} >= {1024, 2048, 4096, 8192}
    assert {canary.scene for canary in CANARIES} == set(Scene)
    assert any(header.compact for header in headers)
    assert any(header.folded for header in headers)
    assert {canary.sdp for canary in CANARIES} == {canary.date for canary in CANARIES} == {True, False}


@pytest.mark.parametrize("kilobytes", [1, 2, 4, 8])
def test_a_long_canary_is_as_long_as_it_says(kilobytes: int) -> None:
    (line,) = SIGNER.sign(BY_NAME[f"{kilobytes}k"], CALLER, "+12025550143", NOW)
    assert kilobytes * 1024 <= len(str(line)) <= kilobytes * 1024 + 300


def test_numbers_are_counted_on_with_all_their_digits() -> None:
    assert number_after("+12025550100", 7) == "+12025550107"
    assert number_after("+0099", 1) == "+0100"


def test_no_two_canaries_have_a_token_in_common() -> None:
    lines = [line for canary in CANARIES for line in SIGNER.sign(canary, CALLER, "+12025550143", NOW)]
    tokens = [line.unfolded.partition(";")[0] for line in lines if ".." not in line.value]
    shaken = [token for token, line in zip(tokens, lines, strict=False) if "shaken" in line.value]
    assert len(shaken) == len(set(shaken))


# --- Sizes and headers ------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "packets"), [(1472, 1), (1473, 2), (2952, 2), (2953, 3), (8000, 6), (65_507, 45)])
def test_a_datagram_takes_so_many_packets(size: int, packets: int) -> None:
    """Counted by hand: the first packet carries 1472 bytes of it, every further one 1480."""
    assert fragments(size) == packets


def test_many_headers_are_compared_in_bounded_time() -> None:
    lines = [HeaderLine("Identity", f"a.b{number}.c;info=<x>") for number in range(5000)]
    findings = list(identity_findings(lines[:1], lines))
    assert [finding.kind for finding in findings] == [Kind.ADDED]
    assert len(findings[0].diff) == 63


def test_the_time_of_issue_is_read_leniently() -> None:
    good = SIGNER.sign(BY_NAME["one"], CALLER, "+12025550143", NOW)[0]
    lines = "".join(f"{line}\r\n" for line in (HeaderLine("Identity", "junk"), good))
    assert issued_at(Message.parse(f"INVITE sip:a SIP/2.0\r\n{lines}\r\n".encode())) == NOW
    assert issued_at(Message.parse(b"INVITE sip:a SIP/2.0\r\n\r\n")) is None


# --- Advice -----------------------------------------------------------------------------------


def verdict(*kinds: Kind, server: str = "", text: str = "t", diff: Sequence[str] = ()) -> Verdict:
    findings = tuple(Finding(kind, text, 1, tuple(diff)) for kind in kinds)
    leg = Leg(Message.parse(INVITE), NOW, "udp")
    return Verdict("one", leg, (leg,), findings, Verification(True), "what", 200, server)


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("FreeSWITCH-mod_sofia/1.10.12", "FreeSWITCH"),
        ("kamailio (6.0.1 (x86_64/linux))", "Kamailio"),
        ("Asterisk PBX 22.1.0", "Asterisk"),
        ("FPBX-16.0.40(18.9)", "Asterisk"),
        ("OpenSIPS (3.4.5 (x86_64/linux))", "OpenSIPS"),
        ("Cisco-SIPGateway", None),
    ],
)
def test_products_are_recognised(server: str, name: str | None) -> None:
    product = product_of(server)
    assert (product.name if product else None) == name


def test_advice_is_that_of_the_product_each_once_and_else_the_general() -> None:
    found = [verdict(Kind.DUPLICATED, Kind.RENAMED, server="FreeSWITCH"), verdict(Kind.DUPLICATED)]
    advice = advise(found)
    assert [one.kind for one in advice] == [Kind.DUPLICATED, Kind.RENAMED]
    assert advice[0] in FREESWITCH.advice
    assert advice[1] in ANY
    assert advise(found, by_name("asterisk")) == [advice[1]]
    assert advise([verdict(Kind.INTACT, server="FreeSWITCH")]) == []
    assert by_name("none of them") is None


def test_every_product_says_what_to_do_about_a_header_that_is_gone() -> None:
    for product in PRODUCTS:
        assert Kind.STRIPPED in {advice.kind for advice in product.advice}
    for kind in (Kind.NUMBER_REWRITTEN, Kind.LOST_BY_SIZE, Kind.FRAGMENTED):
        assert kind in {advice.kind for advice in ANY}


def test_what_freeswitch_needs_without_its_copies_is_a_hook_of_the_leaving_leg() -> None:
    copies, compact = (one.text for one in advise([verdict(Kind.STRIPPED, server="FreeSWITCH")]))
    assert "sip_copy_custom_headers=false" in copies
    assert "export nolocal:execute_on_originate_pass=python shaken::pass_through" in copies
    assert "shaken::pass_through of this plugin, before the bridge" not in copies
    assert "sip_i_y" in compact


def test_every_finding_has_a_grade_and_an_own_title() -> None:
    assert {kind.grade for kind in Kind} == set(Grade)
    assert len({kind.title for kind in Kind}) == len(Kind)


# --- Reports ----------------------------------------------------------------------------------

HOSTILE = "</pre><script>alert(1)</script><svg onload=x>\"'&{{ 7*7 }}\x1b[31m\u202e"


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.references += [value or "" for name, value in attrs if name in {"href", "src"}]


def hostile_report() -> str:
    leg = Leg(Message.parse(INVITE.replace(b"shaken-probe", HOSTILE.encode())), NOW, "udp")
    bad = verdict(Kind.ALTERED, server=HOSTILE, text=HOSTILE, diff=[f"- {HOSTILE}", f"+ {HOSTILE}"])
    bad = replace(
        bad, name=HOSTILE, what=HOSTILE, before=leg, after=(leg,), verification=Verification(False, HOSTILE, HOSTILE),
        trace=(Step(NOW, (0, 1), HOSTILE, "1 Identity"), Step(NOW + 1, (1, 0), "200 OK")),
    )  # fmt: skip
    return as_html([bad], advise([bad]), title=HOSTILE, now=NOW, ends=(HOSTILE, HOSTILE, HOSTILE))


def test_a_report_escapes_everything_and_refers_to_nothing_outside() -> None:
    text = hostile_report()
    seen = Tags()
    seen.feed(text)
    assert "script" not in seen.tags
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert all(reference.startswith("#") for reference in seen.references)
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:|//)|url\(|@import", text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "{{ 7*7 }}" in text  # nothing is computed
    assert "default-src 'none'" in text


def test_the_ladder_has_an_arrow_for_each_message() -> None:
    text = hostile_report()
    assert text.count("<path d=") == 2
    assert "200 OK" in text


def test_the_data_are_json_and_carry_all_findings() -> None:
    found = verdict(Kind.DUPLICATED, Kind.RENAMED, server="FreeSWITCH", diff=["- a", "+ \x1b"])
    data = json.loads(json.dumps(as_data([found], advise([found]))))
    (call,) = data["calls"]
    assert (data["preserved"], data["server"]) == (False, "FreeSWITCH")
    assert [finding["kind"] for finding in call["findings"]] == ["duplicated", "renamed"]
    assert call["findings"][0]["diff"] == ["- a", "+ \x1b"]
    assert (call["verifies"], call["code"], call["sent_bytes"]) == (True, None, len(INVITE))
    assert data["advice"][0]["source"] == "tried"
    assert printable("a\r\nb\udc80") == "a\\r\nb\\udc80"
