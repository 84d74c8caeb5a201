"""Log lines: numbers masked, one line of JSON each, warnings in time, and never a private key."""

from __future__ import annotations

import base64
import json
import traceback
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from shaken_plugin.authentication import Credential, SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.attestation import RULES
from shaken_plugin.core.call import CallerHeader, CallMessage
from shaken_plugin.core.records import Basis
from shaken_plugin.errors import CredentialError, SigningError
from shaken_plugin.lab.pki import Authority, Issued
from shaken_plugin.ports import Severity
from shaken_plugin.runtime import Services
from shaken_plugin.stores.memory import MemoryStore
from tests.conftest import NOW
from tests.records import number_right, reached
from tests.services.bench import Bench
from tests.services.builders import (
    ACME,
    CALLED,
    CALLER,
    CUSTOMER_ADDRESS,
    GATEWAY_ADDRESS,
    PENDING_ADDRESS,
    SPC,
    STRANGE_ADDRESS,
    SUSPENDED_ADDRESS,
    TRUNK,
    X5U,
    FailingSigner,
    call,
    identity_of,
    pair,
    policy,
    sip,
    with_signer,
)
from tests.services.test_telemetry import HOSTILE

HOUR, DAY = 3600.0, 86_400.0
STRANGE_NUMBER = "19175550100"


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(spc=SPC, now=NOW)


@pytest.fixture(scope="module")
def ours(issued: Issued) -> SigningPair:
    return load_pair(key=issued.key, chain=issued.chain, x5u=X5U, live_from=0.0, spc=SPC)


def _text(bench: Bench) -> str:
    return "\n".join(text for _, text in bench.observer.lines)


# --- What is told -------------------------------------------------------------------------------


def test_a_signed_call_is_told_in_one_line(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, log={"full_numbers": True})
    variables = bench.sign(call()).variables
    assert bench.events("sign") == [
        {
            "event": "sign",
            "call_id": "call-1@example.com",
            "level": "A",
            "orig": CALLER,
            "dest": CALLED,
            "credential": "main",
            "iat": int(NOW),
            "origid": variables["origid"],
            "policy": 1,
            "source": "acme/acme-main",
        }
    ]
    assert bench.lines(Severity.INFO)


@pytest.mark.parametrize(
    ("source", "traced"), [(CUSTOMER_ADDRESS, False), (GATEWAY_ADDRESS, True), (STRANGE_ADDRESS, True)]
)
def test_the_trace_is_told_of_calls_with_less_than_a(
    authority: Authority, ours: SigningPair, source: str, traced: bool
) -> None:
    bench = Bench.make(authority, ours)
    bench.sign(call(source=source))
    (told,) = bench.events("sign")
    assert ("trace" in told) == traced


def test_the_trace_of_every_call_is_told_if_wanted(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, log={"trace": True})
    bench.sign(call())
    trace = bench.events("sign")[0]["trace"]
    assert "+ destination: calls to this destination are signed" in trace
    assert "+ source: the call came over a trunk we know [trunk acme-main]" in trace
    assert "+ gateway: the source is a customer's trunk, not a gateway" in trace
    assert [line.split()[1].rstrip(":") for line in trace] == [rule.name for rule in RULES]


def test_what_a_better_level_needs_is_told(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, log={"full_numbers": True})
    bench.sign(call(callers={CallerHeader.FROM: (sip(STRANGE_NUMBER),)}))
    assert bench.events("sign")[0]["missing"] == [f"a record that acme may use {STRANGE_NUMBER}"]


def test_a_verified_call_is_told_in_one_line(authority: Authority, ours: SigningPair, issued: Issued) -> None:
    bench = Bench.make(authority, documents={X5U: issued.chain}, log={"full_numbers": True})
    bench.verify(call(identity=(identity_of(ours),), unreadable=("Subject",)))
    (told,) = bench.events("verify")
    assert (told["result"], told["verstat"], told["attest"]) == ("passed", "TN-Validation-Passed", "A")
    assert (told["orig"], told["spc"], told["x5u"], told["unreadable"]) == (CALLER, SPC, X5U, ["Subject"])
    assert "code" not in told


def test_requests_inside_a_dialog_are_not_told(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours)
    bench.sign(call(method="BYE"))
    bench.verify(call(method="BYE"))
    assert bench.observer.lines == []


def test_each_identity_that_failed_is_counted(authority: Authority) -> None:
    bench = Bench.make(authority)
    bench.verify(call(identity=("nonsense;", "nonsense;")))
    assert bench.observer.counts == {"verified_failed": 1, "failure_identity_malformed": 2}


@pytest.mark.parametrize("how", ["store", "expired", "signer"])
def test_what_an_operator_must_mend_is_a_warning(authority: Authority, ours: SigningPair, how: str) -> None:
    store = MemoryStore(policy())
    store.broken = how == "store"
    made = {
        "store": ours,
        "expired": pair(authority, age=timedelta(days=9), lifetime=timedelta(days=8)),
        "signer": with_signer(ours, FailingSigner()),
    }[how]
    bench = Bench.make(authority, made, store=store)
    bench.sign(call())
    (event,) = bench.events("sign")
    assert event["skip"]
    assert len(bench.lines(Severity.WARNING)) == (2 if how == "expired" else 1)


# --- Numbers are masked -------------------------------------------------------------------------


def _wide() -> MemoryStore:
    """Records whose labels are full of numbers."""
    rights = (
        number_right("acme", "12155551200", "12155551299", Basis.CUSTOMER_WORD),
        number_right("acme", STRANGE_NUMBER, STRANGE_NUMBER, Basis.LETTER, "LOA for 19175550100", valid_until=NOW - 1),
    )
    return MemoryStore(policy(rights=rights))


NUMBERS = [CALLER, CALLED, STRANGE_NUMBER, "12155551200", "12155551299"]


@pytest.mark.parametrize("number", [CALLER, STRANGE_NUMBER, "13035550100"])
@pytest.mark.parametrize("full", [False, True])
def test_numbers_are_masked_unless_wanted_in_full(
    authority: Authority, ours: SigningPair, number: str, full: bool
) -> None:
    bench = Bench.make(authority, ours, store=_wide(), log={"full_numbers": full, "trace": True})
    message = call(callers={CallerHeader.FROM: (sip(number),)})
    bench.sign(message)
    bench.verify(replace(message, identity=(identity_of(ours),)))
    text = _text(bench)
    assert (number in text) == full
    assert (CALLED in text) == full
    if not full:
        assert not [one for one in NUMBERS if one in text]
        assert bench.events("sign")[0]["orig"] == f"{number[:4]}*****{number[-2:]}"


def test_the_user_of_a_uri_is_masked(authority: Authority, ours: SigningPair) -> None:
    bench = Bench.make(authority, ours, log={"trace": True})
    bench.sign(call(callers={CallerHeader.FROM: ("<sip:alice@example.com>",)}))
    assert "alice" not in _text(bench)
    assert bench.events("sign")[0]["orig"] == "sip:***@example.com"


# --- One line, whatever comes -------------------------------------------------------------------


def _everywhere(text: str) -> CallMessage:
    return call(
        call_id=text,
        callers={header: (text, f'"{text}" {sip(CALLER)}') for header in CallerHeader},
        to=f'"{text}" {sip(CALLED)}',
        request_uri=f"sip:{text}@example.net",
        date=None,
        identity=(text, f"a.b.c;info=<https://a.example/{text}>;ppt=shaken"),
        priority=text,
        unreadable=(text,) * 40,
        user=text,
        source=text,
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_line_is_one_line_of_valid_json_whatever_the_headers_say(
    authority: Authority, ours: SigningPair, text: str
) -> None:
    bench = Bench.make(authority, ours, log={"full_numbers": True, "trace": True})
    message = _everywhere(text)
    bench.sign(message)
    bench.sign(replace(message, source=CUSTOMER_ADDRESS, user=None, identity=()))
    bench.verify(message)
    bench.switch.reply_reasons([f'STIR;cause=438;text="{text}"'], "..x", None)
    assert len(bench.events("sign")) == 2
    assert len(bench.events("verify")) == 1
    assert len(bench.events("reported_by_verifier")) == 1
    for _, line in bench.observer.lines:
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line.removeprefix("shaken "))


def test_a_long_customer_name_does_not_cost_the_trace(authority: Authority, ours: SigningPair) -> None:
    store = MemoryStore(policy(trunks=(reached(replace(TRUNK, customer=_long()), CUSTOMER_ADDRESS),)))
    bench = Bench.make(authority, ours, store=store, log={"trace": True})
    bench.sign(call(source=CUSTOMER_ADDRESS))
    assert len(bench.events("sign")[0]["trace"]) == len(RULES)


def _long() -> Any:
    return replace(ACME, name="\U0001f4de" * 200)


# --- Expiry -------------------------------------------------------------------------------------


def _bench_with(authority: Authority, *spans: tuple[float, float]) -> Bench:
    """A credential whose pairs begin and end some days from now."""
    pairs = [
        pair(authority, x5u=f"{X5U}{index}", age=timedelta(days=-start), lifetime=timedelta(days=end - start))
        for index, (start, end) in enumerate(spans)
    ]
    return Bench.make(authority, *pairs)


@pytest.mark.parametrize(
    ("spans", "warned"),
    [
        ([(-4, 2)], False),
        ([(-4.01, 1.99)], True),
        ([(-700, 30)], False),
        ([(-700, 29.9)], True),
        ([(-4.01, 1.99), (1, 8)], False),
        ([(-4.01, 1.99), (2, 9)], True),
        ([(-9, -1)], True),
    ],
    ids=[
        "a third",
        "less than a third",
        "30 days of years",
        "less than 30 days",
        "next lies ready",
        "next comes late",
        "expired",
    ],
)
def test_expiry_is_warned_about_when_a_third_of_the_life_is_left(
    authority: Authority, spans: list[tuple[float, float]], warned: bool
) -> None:
    bench = _bench_with(authority, *spans)
    bench.sign(call())
    assert bench.observer.counts["credential_expiring"] == warned
    assert sum(line.startswith("credential main:") for line in bench.lines(Severity.WARNING)) == warned


def test_the_warning_names_the_credential_the_time_left_and_what_to_do(authority: Authority) -> None:
    bench = _bench_with(authority, (-6, 1))
    for _ in range(3):
        bench.sign(call())
    (line,) = bench.lines(Severity.WARNING)
    assert line.startswith("credential main: no certificate is valid beyond 24.0 hours from now;")
    assert "shaken apply" in line
    assert bench.observer.counts["credential_expiring"] == 3


# --- The private key ----------------------------------------------------------------------------


def _spellings(key: bytes) -> list[str]:
    """A private key in every form it could leak in."""
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    scalar = private.private_numbers().private_value
    octets = scalar.to_bytes(32, "big")
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    secret_lines = [line for line in key.decode().splitlines() if "-----" not in line]
    return [
        *secret_lines,
        str(scalar),
        octets.hex(),
        octets.hex().upper(),
        base64.b64encode(octets).decode().rstrip("="),
        base64.urlsafe_b64encode(octets).decode().rstrip("="),
        base64.b64encode(der).decode(),
        repr(octets),
        "PRIVATE KEY",
    ]


def test_a_private_key_never_appears_in_logs_reprs_or_errors(
    authority: Authority, ours: SigningPair, issued: Issued
) -> None:
    bench = Bench.make(authority, ours, documents={X5U: issued.chain}, log={"full_numbers": True, "trace": True})
    outcomes: list[object] = []
    for source in (CUSTOMER_ADDRESS, GATEWAY_ADDRESS, PENDING_ADDRESS, SUSPENDED_ADDRESS, STRANGE_ADDRESS):
        outcomes += [bench.sign(call(source=source)), bench.verify(call(identity=(identity_of(ours),)))]
    credential = Credential("main", (ours,))
    services = replace(bench.switch.services, credentials={"main": credential})
    shown = [*outcomes, ours, ours.signer, credential, services, vars(services.authentication), bench.switch]
    text = "\n".join([_text(bench), *map(repr, shown), *map(str, shown), repr(dir(ours.signer))])

    raised: list[BaseException] = []
    for key in (issued.key[:-40], issued.key.replace(b"PRIVATE", b"PUBLIC"), issued.key[30:], issued.key):
        try:
            load_pair(key=key, chain=authority.issue(spc=SPC, now=NOW).chain, x5u=X5U, live_from=0.0, spc=SPC)
        except CredentialError as exc:
            raised.append(exc)
    try:
        ours.signer.sign(None)  # type: ignore[arg-type]  # the fault
    except SigningError as exc:
        raised.append(exc)
    assert len(raised) == 5
    text += "".join("".join(traceback.format_exception(exc)) for exc in raised)
    assert not [spelling for spelling in _spellings(issued.key) if spelling in text]
    assert isinstance(services, Services)


def test_the_spellings_would_be_found(issued: Issued) -> None:
    spellings = _spellings(issued.key)
    assert all(line in issued.key.decode() for line in spellings[:3])
    assert len(spellings) >= 10
