"""What holds for every call: signed ones verify, changed ones fail, and decisions keep their limits."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shaken_plugin.core.attestation import WITHOUT_RECORD, AttestationPolicy, CallFacts, Decision, Level, decide
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.passport import Attest, shaken_claims
from shaken_plugin.core.records import Basis, Customer, CustomerState, Gateway, NumberRight, PolicyFacts, Trunk
from shaken_plugin.core.sip import NameAddr, Uri, format_date
from shaken_plugin.core.telephone import DialPlan, Party, TelephoneNumber, UriIdentity
from shaken_plugin.core.verification import Result
from shaken_plugin.core.verstat import VERSTAT_PATTERN, strip_verstat
from shaken_plugin.errors import SipSyntaxError
from shaken_plugin.lab.pki import Authority
from tests.builders import Bench, message
from tests.conftest import NOW
from tests.property.strategies import examples, many, mutated, wire_text
from tests.records import number_right

numbers = st.text("0123456789", min_size=8, max_size=15).map(TelephoneNumber)
uris = st.from_regex(re.compile(r"sip:[a-z][a-z0-9_]{0,8}@[a-z]{1,8}\.example"), fullmatch=True).map(UriIdentity)
parties = st.one_of(numbers, uris)


@pytest.fixture(scope="module")
def bench(authority: Authority, us: DialPlan) -> Bench:
    return Bench.make(authority, us)


def uri(party: Party) -> str:
    return f"sip:+{party}@h.example;user=phone" if isinstance(party, TelephoneNumber) else str(party)


calls = st.fixed_dictionaries(
    {
        "attest": st.sampled_from(Attest),
        "orig": parties,
        "dest": parties,
        "iat": st.integers(int(NOW) - 60, int(NOW) + 60),
        "origid": st.uuids().map(str),
        "mky": st.sampled_from([None, [{"alg": "sha-256", "dig": "AB"}]]),
    }
)


@examples
@given(call=calls, asserted=st.booleans(), dated=st.booleans())
def test_signed_call_verifies(bench: Bench, call: dict[str, Any], asserted: bool, dated: bool) -> None:
    """What is signed for a call passes on that call, with the level and parties that were signed."""
    header = CallerHeader.ASSERTED if asserted else CallerHeader.FROM
    invite = message(
        bench.identity(claims=shaken_claims(**call)),
        callers={header: (f'"A" <{uri(call["orig"])}>;tag=1',)},
        to=f"<{uri(call['dest'])}>",
        request_uri=uri(call["dest"]),
        date=format_date(call["iat"]) if dated else None,
    )
    verdict = bench.verify(invite)
    assert verdict.result is Result.PASSED
    assert verdict.decisive is not None
    assert (verdict.decisive.attest, verdict.decisive.orig) == (call["attest"], call["orig"])


@examples
@given(call=calls, other=parties, data=st.data())
def test_call_with_anything_changed_fails(
    bench: Bench, call: dict[str, Any], other: Party, data: st.DataObject
) -> None:
    """One character of the token, one party, or the time: any single change makes it fail."""
    assume(other not in {call["orig"], call["dest"]})
    value = bench.identity(claims=shaken_claims(**call))
    invite = message(
        value,
        callers={CallerHeader.FROM: (f"<{uri(call['orig'])}>",)},
        to=f"<{uri(call['dest'])}>",
        request_uri=uri(call["dest"]),
    )
    now = NOW
    change = data.draw(st.sampled_from(["token", "orig", "dest", "date", "late", "early"]))
    if change == "token":
        end = value.index(";")
        place = data.draw(st.integers(0, end - 1))
        character = data.draw(st.sampled_from("ABYZabyz0189-_").filter(lambda char: char != value[place]))
        invite = replace(invite, identity=(value[:place] + character + value[place + 1 :],))
    elif change == "orig":
        invite = replace(invite, callers={CallerHeader.FROM: (f"<{uri(other)}>",)})
    elif change == "dest":
        invite = replace(invite, to=f"<{uri(other)}>", request_uri=uri(other))
    elif change == "date":
        wrong = data.draw(st.integers(61, 10**8)) * data.draw(st.sampled_from([-1, 1]))
        invite = replace(invite, date=format_date(NOW + wrong))
    else:
        away = data.draw(st.integers(61, 10**6))
        now = call["iat"] + (away if change == "late" else -away)
    assert bench.verify(invite, now).result is not Result.PASSED


@examples
@given(call=calls, name=st.sampled_from(["attest", "dest", "iat", "orig", "origid"]), data=st.data())
def test_claims_of_another_token_do_not_fit_the_signature(
    bench: Bench, call: dict[str, Any], name: str, data: st.DataObject
) -> None:
    """A claim exchanged under a signature makes it fail, also where the new claim fits the call."""
    other = call | {name: data.draw(calls)[name]}
    assume(other != call)
    signed, wanted = (bench.identity(claims=shaken_claims(**claims)).split(".") for claims in (call, other))
    forged = ".".join([signed[0], wanted[1], *signed[2:]])
    invite = message(
        forged,
        callers={CallerHeader.FROM: (f"<{uri(other['orig'])}>",)},
        to=f"<{uri(other['dest'])}>",
        request_uri=uri(other["dest"]),
    )
    assert bench.verify(invite).result is Result.FAILED


# --- The decision -----------------------------------------------------------------------------

moments = st.one_of(st.none(), st.integers(-2, 2).map(lambda offset: NOW + offset))
customers = st.builds(
    Customer,
    id=st.sampled_from(["acme", "other"]),
    name=st.just("X"),
    state=st.sampled_from(CustomerState),
    ceiling=st.sampled_from([None, *Attest]),
)
sources = st.one_of(
    st.none(), st.builds(Gateway, id=st.just("g"), name=st.just("G")), st.builds(Trunk, st.just("t"), customers)
)
rights = st.builds(
    number_right,
    customer=st.sampled_from(["acme", "other"]),
    first=st.just("12155551212"),
    last=st.just("12155551212"),
    basis=st.sampled_from(Basis),
    valid_from=moments,
    valid_until=moments,
)
policies = st.builds(
    AttestationPolicy,
    unknown_source=st.sampled_from(WITHOUT_RECORD),
    pending_customer=st.sampled_from([level for level in Level if level not in {Level.A, Level.DIV}]),
    sign_international=st.booleans(),
    leave_alone=st.sampled_from([(), ("1",), ("44", "49")]),
)
facts = st.builds(CallFacts, orig=st.none() | parties, dest=st.none() | parties, emergency=st.booleans())
decisions = st.tuples(facts, sources, st.lists(rights, max_size=3).map(tuple), policies)

_RANK = list(Level)


def decided(call: CallFacts, source: Any, held: tuple[NumberRight, ...], policy: AttestationPolicy) -> Decision:
    return decide(call, PolicyFacts(source, held, 1), policy, NOW)


@examples
@given(case=decisions)
def test_decision_keeps_every_limit(case: Any) -> None:
    """A needs a documented right in force; gateways get C at most; nobody unknown is signed; and so on."""
    call, source, held, _ = case
    decision = decided(*case)
    level = decision.level
    assert decision == decided(*case)
    assert decision.trace
    assert not (call.emergency and level is Level.REFUSE)
    if source is None:
        assert level.attest is None
    if isinstance(source, Gateway):
        assert level in {Level.C, Level.UNSIGNED}
    if isinstance(source, Trunk):
        customer = source.customer
        if level.attest is not None:
            assert customer.state in {CustomerState.VERIFIED, CustomerState.PENDING}
            assert customer.ceiling is None or _RANK.index(level) >= _RANK.index(Level(customer.ceiling.value))
        if level is Level.A:
            assert isinstance(call.orig, TelephoneNumber)
            assert customer.state is CustomerState.VERIFIED
            assert any(
                right.customer == customer.id
                and right.basis is not Basis.CUSTOMER_WORD
                and (right.valid_from or 0) <= NOW < (right.valid_until or NOW + 1)
                for right in (covering.right for covering in held)
            )
    if level is not Level.A and level.attest is not None:
        assert decision.missing


@examples
@given(case=decisions, more=rights)
def test_more_rights_never_make_it_worse(case: Any, more: NumberRight) -> None:
    """Another record of a right may raise the level, never lower it."""
    call, source, held, policy = case
    with_more = decided(call, source, (*held, more), policy)
    assert _RANK.index(with_more.level) <= _RANK.index(decided(*case).level)


# --- verstat ----------------------------------------------------------------------------------


class PosixPattern:
    """An extended regular expression of the C library, as the switches' own substitution uses it."""

    class _Match(ctypes.Structure):
        _fields_ = (("start", ctypes.c_int), ("end", ctypes.c_int))

    def __init__(self, pattern: str) -> None:
        self._libc = ctypes.CDLL(None)
        self._compiled = ctypes.create_string_buffer(512)  # a regex_t, 64 octets in glibc
        assert self._libc.regcomp(self._compiled, pattern.encode(), 1) == 0  # REG_EXTENDED

    def removed_from(self, text: str) -> str:
        """The text without what matches, in one pass."""
        rest, kept = text.encode(), b""
        match = self._Match()
        while self._libc.regexec(self._compiled, rest, 1, ctypes.byref(match), 0) == 0:
            kept, rest = kept + rest[: match.start], rest[match.end :]
        return (kept + rest).decode()


POSIX = PosixPattern(VERSTAT_PATTERN)
MARKED = '"A" <sip:+1;verstat=X;npdi%3Bverstat%3DY@h;user=phone>;tag=1;verstat;x="y"'
foreign = st.lists(
    st.sampled_from(
        [";", ";;", " ", "\t", "\r\n ", "=", "%3B", "%3d", "%3", "B", "t", "\\", "ver", "stat", "verstat", "VerStat",
         "x", '"', "@h", ">", "-", "TN-Validation-Passed", "%41"]
    ),
    max_size=14,
).map("".join)  # fmt: skip
values = st.one_of(mutated(MARKED), foreign, foreign.map(lambda text: f"<sip:+1{text}@h>{text}"), wire_text)


@many(2)
@given(value=values)
def test_no_verstat_is_left_for_any_reader(value: str) -> None:
    """After one pass neither Python's pattern, nor the C library's, nor our own parser finds a verstat."""
    stripped = strip_verstat(value)
    assert re.search(VERSTAT_PATTERN, stripped) is None
    assert strip_verstat(stripped) == stripped
    try:
        address = NameAddr.parse(stripped)
        parsed = Uri.parse(address.uri)
    except SipSyntaxError:
        return
    assert address.param("verstat") is None
    assert "verstat" not in {**parsed.user_params, **parsed.params}


@many(2)
@given(value=values)
def test_switch_takes_out_the_same(value: str) -> None:
    """One global substitution by the C library leaves what Python leaves."""
    assume("\x00" not in value and value.isascii())
    assert POSIX.removed_from(value) == strip_verstat(value)


@examples
@given(value=st.one_of(wire_text, st.text(";= verstaVERSTA%3BD.x", max_size=30)))
def test_value_without_verstat_stays_as_it_is(value: str) -> None:
    """What has no parameter whose name begins with verstat is not touched."""
    assume(not re.search(r"(;|%3b)\s*verstat", value, re.IGNORECASE))
    assert strip_verstat(value) == value
