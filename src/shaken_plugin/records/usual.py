"""Records of which the line alone is wanted: that of a usual call is written without putting the record together."""

from __future__ import annotations

from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any

from shaken_plugin.authentication import Signing
from shaken_plugin.core.attestation import Decision
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.sha2 import sha256
from shaken_plugin.core.telephone import DialPlan, TelephoneNumber
from shaken_plugin.core.verification import Result, Verdict
from shaken_plugin.jsontext import flat
from shaken_plugin.records.call import (
    MAX_LINE,
    VERSION,
    CallRecord,
    decided,
    digest,
    node_name,
    party_text,
    signed,
    step_text,
    tells,
    verified,
)


class Signed:
    """The record of a signing, as `signed` has it; not put together where its line can be written without it.

    Args:
        message, signing, now, observe: as for `signed`.
    """

    __slots__ = ("_message", "_now", "_observe", "_signing")

    def __init__(self, message: CallMessage, signing: Signing, now: float, *, observe: bool) -> None:
        self._message = message
        self._signing = signing
        self._now = now
        self._observe = observe

    def whole(self) -> CallRecord:
        """The record with its fields."""
        return signed(self._message, self._signing, self._now, observe=self._observe)

    def line(self) -> bytes:
        """See `CallRecord.line`."""
        line = self._usual()
        return self.whole().line() if line is None or len(line) >= MAX_LINE else line.encode("ascii")

    def _usual(self) -> str | None:
        """The line of a signed call of which nothing rare is to be told, in the order of the fields; else None."""
        call, signing = self._message, self._signing
        decision, credential, identity = signing.decision, signing.credential, signing.identity
        orig, dest = party_text(signing.orig), party_text(signing.dest)
        if decision is None or credential is None or identity is None or not orig or not dest:
            return None
        if signing.diverting or signing.holder or signing.substituted_for or signing.detail or signing.over_limit:
            return None
        if not (call.call_id and call.source and signing.origid) or signing.skip or signing.emergency or self._observe:
            return None
        quoted = encode_basestring_ascii
        way = f',"user":{quoted(call.user)}' if call.user else ""
        if call.route:
            way += f',"route":{quoted(call.route)}'
        if signing.routed_by and signing.routed_by != dest:
            way += f',"routed_by":{quoted(signing.routed_by)}'
        before, behind = decision.once(_parts)
        return (
            f'{{"v":{VERSION},"kind":"sign","at":{self._now!r},"node":{_node_quoted()},"call_id":{quoted(call.call_id)},'
            f'"orig":{quoted(orig)},"dest":{quoted(dest)},"attest":"{decision.level.value}",'
            f'"origid":{quoted(signing.origid)},"iat":{signing.iat},"ppt":"{signing.ppt}",'
            f'"signature_sha256":"{digest(identity.partition(";")[0])}","source":{quoted(call.source)}{way},{before}'
            f'"credential":{quoted(credential.name)},{behind}\n'
        )


class Filled:
    """The record of a signing from a form: what `CallRecord.line` made of a call like it, but for what differs.

    Args:
        form: the pieces before, between and behind time, Call-ID, called party, ``iat`` and digest of the signature.
        call_id, dest, iat, signature, now: those of the call, the first two as JSON texts.
    """

    __slots__ = ("_call_id", "_dest", "_form", "_iat", "_now", "_signature")

    def __init__(self, form: tuple[str, ...], call_id: str, dest: str, iat: int, signature: str, now: float) -> None:
        self._form, self._call_id, self._dest, self._iat = form, call_id, dest, iat
        self._signature, self._now = signature, now

    def line(self) -> bytes:
        """See `CallRecord.line`."""
        a, b, c, d, e, f = self._form
        seal = sha256(self._signature.encode("ascii")).hexdigest()
        line = f"{a}{self._now!r}{b}{self._call_id}{c}{self._dest}{d}{self._iat}{e}{seal}{f}"
        return line.encode("ascii")


class FilledVerified:
    """The record of a call that passed from a form, likewise.

    Args:
        form: the pieces before, between and behind what follows.
        now, call_id, orig, dest, origid, iat, signature: those of the call, the Call-ID as a JSON text.
    """

    __slots__ = ("_call_id", "_dest", "_form", "_iat", "_now", "_orig", "_origid", "_signature")

    def __init__(
        self, form: tuple[str, ...], now: float, call_id: str, orig: str, dest: str, origid: str, iat: int,
        signature: str,
    ) -> None:  # fmt: skip
        self._form, self._now, self._call_id, self._orig, self._dest = form, now, call_id, orig, dest
        self._origid, self._iat, self._signature = origid, iat, signature

    def line(self) -> bytes:
        """See `CallRecord.line`."""
        a, b, c, d, e, f, g, h = self._form
        seal = sha256(self._signature.encode("ascii")).hexdigest()
        line = (
            f"{a}{self._now!r}{b}{self._call_id}{c}{self._orig}{d}{self._dest}"
            f"{e}{self._origid}{f}{self._iat}{g}{seal}{h}"
        )
        return line.encode("ascii")


def _parts(decision: Decision) -> tuple[str, str]:
    """What a decision says in a line, before and behind the credential."""
    present = {name: value for name, value in decided(decision).items() if name != "trace" and tells(value)}
    behind: dict[str, Any] = {name: present.pop(name) for name in ("rules", "missing") if name in present}
    trace = ",".join(map(step_text, decision.trace))
    return f"{flat(present)[1:-1]},", f'{flat(behind)[1:-1]},"trace":[{trace}]}}'


class Verified:
    """The record of a verification, as `verified` has it; not put together where its line can be written without it.

    Args:
        message, verdict, verstat, plan, now, observe, emergency, rejected: as for `verified`.
    """

    __slots__ = ("_emergency", "_message", "_now", "_observe", "_plan", "_rejected", "_verdict", "_verstat")

    def __init__(
        self,
        message: CallMessage,
        verdict: Verdict,
        verstat: str,
        plan: DialPlan,
        now: float,
        *,
        observe: bool,
        emergency: bool,
        rejected: bool,
    ) -> None:
        self._message, self._verdict, self._verstat, self._plan, self._now = message, verdict, verstat, plan, now
        self._observe, self._emergency, self._rejected = observe, emergency, rejected

    def whole(self) -> CallRecord:
        """The record with its fields."""
        marks = {"observe": self._observe, "emergency": self._emergency, "rejected": self._rejected}
        return verified(self._message, self._verdict, self._verstat, self._plan, self._now, **marks)

    def line(self) -> bytes:
        """See `CallRecord.line`."""
        line = self._usual()
        return self.whole().line() if line is None or len(line) >= MAX_LINE else line.encode("ascii")

    def _usual(self) -> str | None:
        """The line of a call that passed by a PASSporT with all its claims, and nothing rare to tell; else None."""
        call, verdict, by = self._message, self._verdict, self._verdict.decisive
        if by is None or verdict.result is not Result.PASSED or verdict.replayed or verdict.diversions or by.detail:
            return None
        if self._observe or self._emergency or self._rejected or by.attest is None or by.iat is None:
            return None
        orig, dest, verstat = by.orig, call.called(self._plan), self._verstat
        if not (isinstance(orig, TelephoneNumber) and isinstance(dest, TelephoneNumber)):
            return None
        if not (call.call_id and verstat and by.origid and by.ppt and by.ppi and by.x5u and by.spc):
            return None
        quoted = encode_basestring_ascii
        return (
            f'{{"v":{VERSION},"kind":"verify","at":{self._now!r},"node":{_node_quoted()},"call_id":{quoted(call.call_id)},'
            f'"orig":"{orig.digits}","dest":"{dest.digits}","attest":"{by.attest._value_}","origid":{quoted(by.origid)},'
            f'"iat":{by.iat},"ppt":{quoted(by.ppt)},"signature_sha256":"{digest(by.ppi)}","result":"passed",'
            f'"verstat":{quoted(verstat)},{signer_text(by.x5u, by.spc)},"identities":{len(verdict.results)}}}\n'
        )


@lru_cache(1_024)
def signer_text(x5u: str, spc: str) -> str:
    """Who signed, as records and log lines have it: the same in all calls of a signer whose certificate is trusted."""
    return f'"x5u":{encode_basestring_ascii(x5u)},"spc":{encode_basestring_ascii(spc)}'


@cache
def _node_quoted() -> str:
    return encode_basestring_ascii(node_name())
