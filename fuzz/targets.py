"""What is fuzzed: one parser each, which may raise nothing but its own errors.

    python fuzz/targets.py NAME CORPUS [libFuzzer options]

``fuzz/run.py`` does this for all of them. Run by hand on one file to see what it does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Final

import atheris

with atheris.instrument_imports(include=["shaken_plugin"]):
    from shaken_plugin.adapters.freeswitch.esl.text import ConversationError
    from shaken_plugin.adapters.freeswitch.esl.wire import MAX_FIELDS, Fields, PeerGone, Wire
    from shaken_plugin.config.dialplans import dial_plan
    from shaken_plugin.core import certificates, crl, trustlist
    from shaken_plugin.core.call import CallMessage
    from shaken_plugin.core.certificates import SigningCertificate, TrustAnchors, TrustedPath, parse_chain
    from shaken_plugin.core.claims import read_dest, read_iat, read_orig
    from shaken_plugin.core.constraints import ClaimConstraints, ConstraintsError
    from shaken_plugin.core.diverting import links
    from shaken_plugin.core.identity import IdentityHeader
    from shaken_plugin.core.passport import Passport
    from shaken_plugin.core.sip import Request
    from shaken_plugin.core.tnauthlist import TnAuthList
    from shaken_plugin.core.verification import (
        PASSPORT_TYPES,
        Pending,
        Profile,
        VerificationRules,
        begin,
        checks,
        finish,
    )
    from shaken_plugin.errors import (
        FailureCode,
        RevocationListError,
        SipSyntaxError,
        TrustListError,
        VerificationFailure,
    )
    from shaken_plugin.lab.pki import Authority
    from shaken_plugin.probe import passive
    from shaken_plugin.probe.capture import CaptureError, read_capture
    from shaken_plugin.probe.records import read_messages

NOW: Final = 1_795_000_000.0
PLAN: Final = dial_plan("US")
CONSTRAINTS: Final = ClaimConstraints(must_include=("attest",), must_exclude=("crn",))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def header(data: bytes) -> None:
    """An Identity header's value."""
    try:
        value = IdentityHeader.parse(_text(data))
    except VerificationFailure:
        return
    if value.info is not None:
        again = IdentityHeader.parse(value.format())
        assert (again.digest, again.info) == (value.digest, value.info), "what we write must read the same"


def token(data: bytes) -> None:
    """A PASSporT in full form, and its claims."""
    try:
        passport = Passport.parse(_text(data))
    except VerificationFailure:
        return
    readers = [read_iat, read_orig, read_dest]
    for kind in PASSPORT_TYPES.values():
        readers += kind.readers.values()
    for reader in readers:
        try:
            reader(passport.claims)
        except (VerificationFailure, KeyError):  # a reader is asked only where the claim is there
            continue


def call(data: bytes) -> None:
    """A whole INVITE, fresh whenever it was signed, with certificates not there, not yet there, and valid."""
    try:
        request = Request.parse(data)
    except SipSyntaxError:
        return
    message = CallMessage.from_request(request, source="192.0.2.1")
    links(message.identity)
    replace(message, diverting=message.to).diversion(PLAN)
    rules = VerificationRules(PLAN, freshness=10**10, profile=Profile.RFC8224)
    begin(message, VerificationRules(PLAN), NOW)
    outcome = begin(message, rules, NOW)
    if isinstance(outcome, Pending):
        finish(outcome, {}, NOW)
        finish(outcome, dict.fromkeys(outcome.urls, _trusted()), NOW)
        not_yet = VerificationFailure(FailureCode.CERTIFICATE_NOT_YET)
        finish(outcome, dict.fromkeys(outcome.urls, _trusted()) | {outcome.urls[0]: not_yet}, NOW).verstat()


@cache
def _trusted() -> TrustedPath:
    """A path that is valid at any time, so that every check after the fetch is reached."""
    authority = Authority.new(NOW)
    issued = authority.issue(spc="709J", now=NOW, enhanced=CONSTRAINTS)
    path = TrustAnchors([authority.root]).validate(parse_chain(issued.chain), NOW)
    signer = replace(path.signer, not_before=0.0, not_after=1e11)
    return replace(path, signer=signer, not_before=0.0, not_after=1e11)


def certificate(data: bytes) -> None:
    """A certificate document: chain, signer, TNAuthList, constraints, and the way to an anchor."""
    try:
        chain = parse_chain(data)
        SigningCertificate.load(chain[0])
        certificates.TrustAnchors(chain[-1:]).validate(chain, NOW)
    except VerificationFailure:
        return


def tnauthlist(data: bytes) -> None:
    """The DER of a TNAuthList."""
    try:
        TnAuthList.from_der(data)
    except ValueError:
        return


def constraints(data: bytes) -> None:
    """The DER of JWT claim constraints of either kind; what is read is written and read alike."""
    for enhanced in (False, True):
        try:
            found = ClaimConstraints.from_der(data, enhanced=enhanced)
        except ConstraintsError:
            continue
        if found is not None:
            found.broken_by({"attest": "A", "orig": {"tn": "12155551212"}})
            assert ClaimConstraints.from_der(found.to_der(), enhanced=enhanced) == found, (
                "what we write must read alike"
            )


def revocation_list(data: bytes) -> None:
    """A revocation list whose signature is taken for good, so that its entries are reached."""
    try:
        crl.parse_crl(data, [], NOW)
    except RevocationListError:
        return


def trust_list(data: bytes) -> None:
    """A signed list of roots whose signature is taken for good."""
    try:
        trustlist.parse_trust_list(data, [], NOW)
    except TrustListError:
        return


def record(data: bytes) -> None:
    """Two records of calls, before and behind a PBX, one after the other."""
    middle = data.find(b"\0")
    before, after = data[: max(middle, 0)], data[middle + 1 :]
    passive.from_records(list(read_messages(before)), list(read_messages(after)), PLAN)


def capture(data: bytes) -> None:
    """A capture file with calls."""
    try:
        passive.from_capture(read_capture(data), PLAN)
    except CaptureError:
        return


class _Deaf:
    """In the place of a connection's writer."""

    def write(self, _data: bytes) -> None: ...

    async def drain(self) -> None: ...


async def _conversation(data: bytes) -> None:
    def told(fields: Fields) -> None:
        fields.get("Event-Name")

    reader = asyncio.StreamReader(limit=MAX_FIELDS)
    reader.feed_data(data)
    reader.feed_eof()
    wire = Wire(reader, _Deaf())  # type: ignore[arg-type]  # a stand-in
    wire.told = told
    with suppress(PeerGone, ConversationError):
        for fields, _ in await wire.ask("connect", "linger 1"):
            fields.get("Caller-Caller-ID-Number")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def event_socket(data: bytes) -> None:
    """What somebody says who connects as FreeSWITCH does."""
    _loop().run_until_complete(_conversation(data))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        header,
        token,
        call,
        certificate,
        tnauthlist,
        constraints,
        revocation_list,
        trust_list,
        record,
        capture,
        event_socket,
    )
}


def _any_signer(*_arguments: object, **_names: object) -> None:
    """In the place of `core.signers.check_signer`: no fuzzer guesses a signature."""


def _any_signature(*_arguments: object) -> bool:
    """In the place of `core.jws.verify_es256`."""
    return True


def main() -> None:
    """Fuzz the target that the first argument names."""
    crl.check_signer = trustlist.check_signer = _any_signer  # type: ignore[assignment]  # a stand-in
    checks.verify_es256 = _any_signature  # type: ignore[assignment]  # a stand-in
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
