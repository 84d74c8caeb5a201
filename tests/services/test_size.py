"""The size guard: what is too large for UDP, what is done about it, and what is said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from shaken_plugin.authentication import SigningPair
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.lab.pki import Authority
from shaken_plugin.switch import SizeAdvice, SizeOutcome, attach
from shaken_plugin.switch.marks import SLOTS, Marks
from shaken_plugin.switch.size import SizeAction, added_bytes, advise, shortened
from shaken_plugin.switch.sizeguard import TCP_HOLDS, TCP_TRIED
from tests.services.bench import Bench, settings
from tests.services.builders import call, pair

PEER = "sip:192.0.2.9"
VALUE = 'e30.e30.AAAA;info=<https://cert.example.com/x.pem>;alg=ES256;ppt="shaken"'
SIGNED = {"identity": VALUE, "source": "acme/dialler", "date": "Wed, 18 Nov 2026 11:06:40 GMT"}
ADDED = len(f"Identity: {VALUE}\r\nDate: {SIGNED['date']}\r\n")


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


def bench(authority: Authority, ours: SigningPair, **size: Any) -> Bench:
    return Bench.make(authority, ours, signing={"size": {"threshold": 1300, **size}})


def check(on: Bench, size_without: int, variables: Mapping[str, str] = SIGNED, **how: Any) -> SizeAdvice:
    return on.switch.check_size(variables, size_without, "udp", how.pop("peer", PEER), **how)


def counted(on: Bench) -> dict[str, int]:
    return {name: count for name, count in on.observer.counts.items() if name.startswith("size_")}


def said(on: Bench) -> list[str]:
    return [text for _, text in on.observer.lines if "signing.size" in text]


# --- The pure part --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "bytes_less"),
    [
        ({}, 0),
        ({"date": ""}, 37),
        ({"replace_date": "1"}, 37),
        ({"header_name": "y"}, 7),
        ({"identity": ""}, ADDED),
    ],
)
def test_what_is_added_is_counted_with_names_and_line_ends(change: dict[str, str], bytes_less: int) -> None:
    assert added_bytes({**SIGNED, **change}) == ADDED - bytes_less


def test_what_is_counted_is_what_a_real_signature_attaches(authority: Authority, ours: SigningPair) -> None:
    variables = Bench.make(authority, ours).switch.sign(call).variables
    lines = [f"{action.name}: {action.value}\r\n" for action in attach(variables)]  # type: ignore[union-attr]  # all are AddHeader
    assert added_bytes(variables) == sum(map(len, lines))


def judge(size_without: int, action: SizeAction, threshold: int = 1300, *, takes: bool = True) -> SizeAdvice:
    return advise(SIGNED, size_without, threshold, action, takes_tcp=lambda: takes)


@pytest.mark.parametrize("action", SizeAction)
def test_the_threshold_itself_fits_and_nothing_is_asked(action: SizeAction) -> None:
    def takes_tcp() -> bool:
        raise AssertionError("asked")

    advice = advise(SIGNED, 1300 - ADDED, 1300, action, takes_tcp=takes_tcp)
    assert advice == SizeAdvice(SizeOutcome.FITS, 1300, SIGNED)
    assert judge(60_000, action, 0).outcome is SizeOutcome.FITS  # 0: any size
    assert advise({"skip": "x"}, 9000, 1300, action, takes_tcp=takes_tcp).outcome is SizeOutcome.FITS


@pytest.mark.parametrize(
    ("action", "takes", "over", "outcome"),
    [
        (SizeAction.WARN, True, 1, SizeOutcome.WARN),
        (SizeAction.TCP, True, 1, SizeOutcome.USE_TCP),
        (SizeAction.TCP, False, 1, SizeOutcome.TCP_REFUSED),
        (SizeAction.SHORTEN, True, 19, SizeOutcome.SHORTEN),
        (SizeAction.SHORTEN, True, 20, SizeOutcome.SHORTEN_NOT_ENOUGH),
    ],
)
def test_one_byte_more_has_a_named_outcome(action: SizeAction, takes: bool, over: int, outcome: SizeOutcome) -> None:
    advice = judge(1300 - ADDED + over, action, takes=takes)
    assert advice.outcome is outcome
    if outcome is not SizeOutcome.SHORTEN:
        assert (advice.size, advice.variables) == (1300 + over, SIGNED)


@pytest.mark.parametrize(
    ("over", "name", "ending"),
    [
        (1, "Identity", ';ppt="shaken"'),
        (10, "Identity", ';ppt="shaken"'),
        (11, "Identity", ";ppt=shaken"),
        (12, "Identity", ";ppt=shaken"),
        (13, "y", ";ppt=shaken"),
        (19, "y", ";ppt=shaken"),
    ],
)
def test_no_more_is_left_out_than_is_needed(over: int, name: str, ending: str) -> None:
    advice = judge(1300 - ADDED + over, SizeAction.SHORTEN)
    assert advice.size <= 1300
    sent = attach(advice.variables)[-1]
    assert (sent.name, advice.done != "") == (name, True)
    assert sent.value.endswith(f"x.pem>{ending}")  # type: ignore[union-attr]  # all are AddHeader


def test_every_form_names_the_same_token_certificate_and_type() -> None:
    full = IdentityHeader.parse(VALUE)
    forms = [IdentityHeader.parse(form["identity"]) for form, _ in shortened(SIGNED)]
    assert {(form.digest, form.info, form.ppt, form.alg) for form in forms} == {
        (full.digest, full.info, "shaken", None)
    }


# --- What is remembered, counted and said -----------------------------------------------------------


def test_a_trunk_is_warned_of_once_and_each_invite_counts(authority: Authority, ours: SigningPair) -> None:
    on = bench(authority, ours)
    for _ in range(5):
        assert check(on, 1200).outcome is SizeOutcome.WARN
        on.clock[0] += 3600
    check(on, 1200, {**SIGNED, "source": "intl"})
    check(on, 1300, {"identity": VALUE})
    check(on, 10)
    assert counted(on) == {"size_over": 7}
    assert [line.split(" has ")[0].removeprefix("shaken: an INVITE of ") for line in said(on)] == [
        "acme/dialler", "intl", "an unknown source",
    ]  # fmt: skip
    assert f"about {1200 + ADDED} bytes" in said(on)[0]


def test_what_shortening_left_out_is_said(authority: Authority, ours: SigningPair) -> None:
    on = bench(authority, ours, action="shorten")
    check(on, 1300 - ADDED + 13)
    check(on, 1300)
    assert counted(on) == {"size_shortened": 1, "size_shorten_not_enough": 1}
    assert "sent without alg, the quotes of ppt and the long name of the header (y:)." in said(on)[0]
    assert "its shortest form would be too large, too." in said(on)[1]


def test_what_does_not_leave_by_udp_may_have_any_size(authority: Authority, ours: SigningPair) -> None:
    on = bench(authority, ours)
    for transport in ("tcp", "tls", "ws", "sctp"):
        assert on.switch.check_size(SIGNED, 60_000, transport).outcome is SizeOutcome.FITS
    assert counted(on) == {}


def test_a_peer_is_tried_by_one_call_until_it_has_answered(authority: Authority, ours: SigningPair) -> None:
    on = bench(authority, ours, action="tcp")
    assert check(on, 1300).outcome is SizeOutcome.USE_TCP
    assert check(on, 1300).outcome is SizeOutcome.TCP_REFUSED
    assert check(on, 1300, peer="sip:192.0.2.10").outcome is SizeOutcome.USE_TCP
    on.switch.sizes.tcp_answered(PEER)
    assert check(on, 1300).outcome is SizeOutcome.USE_TCP
    on.clock[0] += TCP_HOLDS  # nothing was heard from it since
    assert check(on, 1300).outcome is SizeOutcome.TCP_REFUSED
    on.clock[0] += TCP_TRIED
    assert check(on, 1300).outcome is SizeOutcome.USE_TCP
    on.switch.sizes.tcp_answered(PEER)
    on.switch.sizes.tcp_failed(PEER)
    assert check(on, 1300).outcome is SizeOutcome.TCP_REFUSED
    assert counted(on) == {"size_tcp": 4, "size_tcp_refused": 3, "size_tcp_failed": 1}


def test_without_a_peer_nothing_is_remembered_and_udp_can_be_asked_for(authority: Authority, ours: SigningPair) -> None:
    on = bench(authority, ours, action="tcp")
    assert [check(on, 1300, peer=None).outcome for _ in range(2)] == [SizeOutcome.USE_TCP] * 2
    assert check(on, 1300, may_switch=False).outcome is SizeOutcome.TCP_REFUSED


def test_a_fault_of_ours_leaves_the_call_as_it_is(authority: Authority, ours: SigningPair) -> None:
    on = bench(authority, ours, action="shorten")
    broken = {"identity": ";" * 2000}
    assert check(on, 10, broken) == SizeAdvice(SizeOutcome.FITS, 10, broken)
    assert on.observer.counts["fault_size"] == 1


@pytest.mark.parametrize("wrong", [{"threshold": -1}, {"threshold": 65_536}, {"action": "fragment"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(signing={"size": wrong})


# --- Marks ------------------------------------------------------------------------------------------


def test_marks_are_shared_with_children_and_bounded() -> None:
    marks = Marks()
    child = os.fork()
    if child == 0:
        marks.mark("trunk", 7.0)
        os._exit(0)
    os.waitpid(child, 0)
    assert marks.until("trunk") == 7.0
    assert marks.until("another") == 0.0
    for number in range(4 * SLOTS):
        marks.mark(f"\udcff {number}", 1.0)
    kept = sum(marks.until(f"\udcff {number}") > 0 for number in range(4 * SLOTS))
    assert SLOTS // 2 < kept <= SLOTS
