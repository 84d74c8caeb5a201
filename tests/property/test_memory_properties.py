"""What a verifier remembers makes it faster and changes no verdict."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from cryptography import x509
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shaken_plugin.certs.chained import DependingSource
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core import call, identity, passport, x5u
from shaken_plugin.core.certificates import TrustAnchors, TrustedPath, parse_chain
from shaken_plugin.core.crl import RevocationMode
from shaken_plugin.core.names import canonical_name
from shaken_plugin.core.verification import Profile, ReplayMode, Verdict, VerificationRules
from shaken_plugin.core.verstat import mark_asserted, mark_single
from shaken_plugin.errors import VerificationFailure
from shaken_plugin.lab.pki import Authority, Defect
from shaken_plugin.stores.memory import ReplayInMemory
from shaken_plugin.verification import LOOK_AFTER, VerificationService, Waiting
from tests.builders import ORIG, claims, jose, message, private_key, signed_header
from tests.conftest import NOW
from tests.property.strategies import examples, mutated, wire_text

PLAN = dial_plan("US")
RULES = VerificationRules(PLAN, profile=Profile.RFC8224)
ONE, OTHER = Authority.new(NOW), Authority.new(NOW, name="Other")
DAY: Final = 86_400.0
MINUTE = timedelta(seconds=60)
ISSUED: Final = [
    ONE.issue(now=NOW, spc="709J"),
    ONE.issue(now=NOW, spc="811K"),
    OTHER.issue(now=NOW, spc="709J"),
    ONE.issue(now=NOW, spc="709J", lifetime=2 * MINUTE, age=MINUTE),
    ONE.issue(now=NOW, spc="709J", age=-MINUTE),
    ONE.issue(now=NOW, spc="709J", defect=Defect.ISSUER_EXPIRED),
    ONE.issue(now=NOW, numbers=[ORIG]),
    ONE.issue(now=NOW, numbers=["12155550000"]),
]
KEYS: Final = [private_key(issued) for issued in ISSUED]
URLS: Final = [f"https://certificates.example.com/{number}.pem" for number in range(3)]
ANCHORS: Final[list[Sequence[x509.Certificate]]] = [[ONE.root], [OTHER.root], [ONE.root, OTHER.root]]
REVOCABLE: Final = [
    (canonical_name(certificate.issuer), certificate.serial_number)
    for certificate in (ISSUED[0].certificate, ISSUED[3].certificate, ONE.issuer)
]
REMEMBERED: Final = (
    call._parties_of_lines,
    call._any_targets,
    identity._read_known,
    passport._known_header,
    x5u.parse,
)
"""What processes remember of what calls say."""


class Anchors:
    """A `core.certificates.PathValidator` whose anchors change."""

    count = 1
    trouble = ()

    def __init__(self) -> None:
        self.choose(0)

    def choose(self, which: int) -> None:
        self.which, self._anchors = which, TrustAnchors(ANCHORS[which])

    def version(self, _now: float) -> Hashable:
        return self.which

    def validate(self, chain: Sequence[x509.Certificate], now: float) -> TrustedPath:
        return self._anchors.validate(chain, now)


class Lists:
    """A `ports.RevocationSource` whose lists change."""

    def __init__(self) -> None:
        self.serials: set[tuple[bytes, int]] = set()
        self.why: str | None = None

    def revoked(self, issuer: bytes, serial: int) -> bool:
        return (issuer, serial) in self.serials

    def trouble(self, _now: float) -> str | None:
        return self.why


@dataclass
class Verifier:
    """A service in a world of its own, and what happens to both."""

    remembers: bool
    anchors: Anchors = field(default_factory=Anchors)
    lists: Lists = field(default_factory=Lists)
    source: CertificateMemory = field(default_factory=lambda: CertificateMemory({}))
    replays: ReplayInMemory = field(default_factory=ReplayInMemory)
    now: float = NOW

    def __post_init__(self) -> None:
        self.make()

    def make(self) -> None:
        self.anchors.choose(self.anchors.which)
        self.service = VerificationService(
            RULES,
            self.anchors,
            DependingSource(self.source, self.anchors),
            self.lists,
            RevocationMode.HARD,
            self.replays,
            ReplayMode.ENFORCE,
        )

    def do(self, act: str, *values: Any) -> Verdict | Waiting | None:
        return getattr(self, act)(*values)  # type: ignore[no-any-return]  # getattr

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def publish(self, url: int, which: int | None) -> None:
        if which is None:
            self.source.documents.pop(URLS[url], None)
        else:
            self.source.documents[URLS[url]] = ISSUED[which].chain if which < len(ISSUED) else b"nonsense"
        self.now += LOOK_AFTER

    def believe(self, which: int) -> None:
        self.anchors.choose(which)
        self.now += LOOK_AFTER

    def revoke(self, which: int, trouble: str | None) -> None:
        self.lists.serials ^= {REVOCABLE[which]}
        self.lists.why = trouble
        self.now += LOOK_AFTER

    def call(self, sent: Sequence[str], call_id: str, changes: dict[str, Any]) -> Verdict | Waiting:
        if not self.remembers:
            for memory in REMEMBERED:
                memory.cache_clear()
            self.make()
        return self.service.begin(message(*sent, call_id=call_id, **changes), self.now)


@st.composite
def headers(draw: Any) -> str:
    """An Identity header, mostly right, that is fresh at some time of a sequence."""
    url = URLS[draw(st.integers(0, len(URLS) - 1))]
    changes = {"iat": int(NOW) + draw(st.sampled_from((0, 0, 30, 61, 120, 86_400)))}
    if draw(st.integers(0, 5)) == 0:
        changes |= draw(st.sampled_from(({"orig": {"tn": "12155551213"}}, {"attest": "B"}, {"x": 1}, {"dest": {}})))
    params = draw(
        st.sampled_from((f';info=<{url}>;alg=ES256;ppt="shaken"', f";info=<{url}>;ppt=shaken", f";info=<{url}>"))
    )
    valid = signed_header(
        KEYS[draw(st.integers(0, len(KEYS) - 1))], claims=claims(**changes), header=jose(x5u=url), params=params
    )
    return draw(mutated(valid)) if draw(st.integers(0, 7)) == 0 else valid


waits = st.tuples(
    st.just("wait"),
    st.sampled_from((0.0, 0.3, 0.5, 1.0, 29.0, 60.0, 61.0, 119.0, DAY, 30 * DAY, 400 * DAY)),
)
changes = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 2), st.none() | st.integers(0, len(ISSUED))),
    st.tuples(st.just("believe"), st.integers(0, len(ANCHORS) - 1)),
    st.tuples(
        st.just("revoke"), st.integers(0, len(REVOCABLE) - 1), st.sampled_from((None, None, None, "out of date"))
    ),
)
calls = st.tuples(
    st.just("call"),
    st.lists(headers(), min_size=1, max_size=3),
    st.sampled_from(("one", "two")),
    st.sampled_from(({}, {}, {}, {"to": "<sip:+12025550199@b.example.com>"}, {"sdp": "a=fingerprint:sha-1 AA:BB\r\n"})),
)


@settings(examples, max_examples=150)
@given(
    acts=st.lists(st.one_of(calls, calls, waits, changes), max_size=25),
    published=st.lists(st.integers(0, len(ISSUED) - 1), min_size=len(URLS), max_size=len(URLS)),
)
def test_memories_change_no_verdict(acts: list[tuple[Any, ...]], published: list[int]) -> None:
    """A call some time after a change is judged by what is so now, as by a verifier that was started for it.

    What changes is seen `LOOK_AFTER` later at the latest, so each change is followed by so much time; and by a clock
    that was put back by as much a change may be seen later.
    """
    verdicts = []
    for verifier in (Verifier(remembers=True), Verifier(remembers=False)):
        for url, which in enumerate(published):
            verifier.publish(url, which)
        verdicts.append([verifier.do(*act) for act in acts])
    assert verdicts[0] == verdicts[1]


@examples
@given(
    chain=st.lists(st.integers(0, len(ISSUED) - 1), min_size=1, max_size=3),
    now=st.sampled_from((NOW, NOW + 61, NOW - 61, NOW + 40 * DAY, NOW - 40 * DAY, NOW + 800 * DAY)),
)
def test_known_issuers_change_no_path(chain: list[int], now: float) -> None:
    warm = TrustAnchors(ANCHORS[2])
    for which in range(2):
        warm.validate(parse_chain(ISSUED[which].chain), NOW)
    parsed = [certificate for which in chain for certificate in parse_chain(ISSUED[which].chain)][:4]
    assert _judged(warm, parsed, now) == _judged(TrustAnchors(ANCHORS[2]), parsed, now)


def _judged(anchors: TrustAnchors, chain: Sequence[x509.Certificate], now: float) -> object:
    try:
        path = anchors.validate(chain, now)
    except VerificationFailure as failure:
        return failure.code, failure.detail
    return path.signer.certificate, path.not_before, path.not_after, path.serials


VALUE = '"A" <sip:+12155551212@a.example;user=phone>;x=1'


@examples
@given(line=st.one_of(wire_text, mutated(VALUE), st.just(VALUE)))
@example(line="\x0b<tel:+12155551212>\x1c")
@example(line=" <tel:+12155551212> ")
@example(line="no address")
@example(line="tel:+12155551212 x")
def test_a_single_value_is_marked_like_one_of_several(line: str) -> None:
    marked = mark_single(line, "TN-Validation-Passed")
    parties = [
        caller.party
        for caller in message(callers={call.CallerHeader.ASSERTED: (line,)}).callers_in(
            call.CallerHeader.ASSERTED, PLAN
        )
    ]
    if marked is not None and parties:
        assert mark_asserted([line], parties[0], "TN-Validation-Passed", PLAN) == marked
