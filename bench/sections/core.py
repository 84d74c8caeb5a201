"""Signing and verifying alone, on one core: ours beside what it stands on and beside others."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from bench import peers, stage
from bench.numbering import CALLERS, anybody
from bench.processes import one_core
from bench.results import BenchError, Report, Series, Target
from bench.sections import Options, Section
from bench.workers import Measure, Task, Worker, interleave
from shaken_plugin.authentication import identity_header, identity_value
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.core.passport import Attest, passport_header, shaken_claims, shaken_payload, signing_input
from shaken_plugin.core.telephone import TelephoneNumber
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import CERTIFICATE_HOST, Provider
from shaken_plugin.switch.process import random_uuid

CERTIFICATES: Final = 64
"""Different certificates of the calls that are verified cold."""

_ECDSA: Final = ec.ECDSA(hashes.SHA256())


Make = Callable[[bytes, Path], Task]
"""Makes a task for a signer's key, PEM, and settings."""


class Repeated:
    """A task that does one thing again and again. ``once`` raises where it fails."""

    def __init__(self, once: Callable[[], object]) -> None:
        self._once = once

    def prepare(self, count: int) -> None:
        """See `Task`."""

    def run(self, count: int) -> None:
        """See `Task`."""
        once = self._once
        for _ in range(count):
            once()

    def check(self) -> None:
        """See `Task`."""


# --- What it stands on, and others ------------------------------------------------------------


def raw_signing(key: bytes, _chain: Path) -> Task:
    """``cryptography`` alone: one signature over what a PASSporT signs."""
    private, data = _private(key), _signed_octets()
    return Repeated(lambda: private.sign(data, _ECDSA))


def raw_verifying(key: bytes, _chain: Path) -> Task:
    """``cryptography`` alone: one verification."""
    private, data = _private(key), _signed_octets()
    signature, public = private.sign(data, _ECDSA), private.public_key()
    return Repeated(lambda: public.verify(signature, data, _ECDSA))


def pyjwt_signing(key: bytes, _settings: Path) -> Task:
    """PyJWT with a key object: a token with the claims and the header of a PASSporT."""
    import jwt  # noqa: PLC0415  # a peer: it may be missing

    private = _private(key)
    headers = {"ppt": "shaken", "typ": "passport", "x5u": _X5U}
    return Repeated(lambda: jwt.encode(_claims(), private, "ES256", headers=headers))


def pyjwt_verifying(key: bytes, _settings: Path) -> Task:
    """PyJWT with a key object: one token, its signature and the form of its claims."""
    import jwt  # noqa: PLC0415  # a peer: it may be missing

    private = _private(key)
    public, token = private.public_key(), jwt.encode(_claims(), private, "ES256")
    return Repeated(lambda: jwt.decode(token, public, algorithms=["ES256"]))


def secsipid_signing(key: bytes, _settings: Path) -> Task:
    """Libsecsipid with the key as PEM text, its cheapest way."""
    library = peers.Secsipid()
    caller, called, x5u = CALLERS[0].encode(), stage.CALLED.encode(), _X5U.encode()
    return Repeated(lambda: library.identity(caller, called, x5u, key))


def secsipid_verifying(key: bytes, _settings: Path) -> Task:
    """Libsecsipid with the public key as PEM text."""
    library = peers.Secsipid()
    public = _private(key).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    identity = library.identity(CALLERS[0].encode(), stage.CALLED.encode(), _X5U.encode(), key)
    return Repeated(lambda: library.check(identity, public))


# --- Ours -------------------------------------------------------------------------------------


def bare_signing(_key: bytes, settings: Path) -> Task:
    """Claims, PASSporT and the value of the Identity header; nothing is decided or recorded."""
    pair = stage.pair_of(settings)
    orig, dest = TelephoneNumber(CALLERS[0]), TelephoneNumber(stage.CALLED)

    def once() -> str:
        origid, iat = random_uuid(), int(time.time())
        return identity_value(pair, shaken_payload(attest=Attest.A, orig=orig, dest=dest, iat=iat, origid=origid))

    return Repeated(once)


class CompleteSigning:
    """A call as the adapter hands it over: decided, signed, recorded, logged.

    All callers are asked for before anything counts; whom they call is new each time.
    """

    def __init__(self, _key: bytes, settings: Path) -> None:
        self._side = stage.SwitchSide(settings)
        self._calls: list[dict[str, Any]] = []
        for caller in CALLERS:
            self._side.sign(stage.message(caller))

    def prepare(self, count: int) -> None:
        """See `Task`: each call has a Call-ID of its own."""
        draw = random.Random()
        self._calls = [stage.message(draw.choice(CALLERS), anybody(draw)) for _ in range(count)]

    def run(self, count: int) -> None:
        """See `Task`."""
        sign = self._side.sign
        for call in self._calls[:count]:
            sign(call)

    def check(self) -> None:
        """See `Task`: `SwitchSide.sign` has checked each."""


class CompleteVerifying:
    """Calls of one signer whose certificate is known: all checks, replay detection included.

    Args:
        key: of the signer.
        settings: of the verifying provider, which has the signer's certificate.
    """

    def __init__(self, _key: bytes, settings: Path, signer: Path) -> None:
        self._side, self._pair = stage.SwitchSide(settings), stage.pair_of(signer)
        self._calls: list[dict[str, Any]] = []

    def prepare(self, count: int) -> None:
        """See `Task`: each call has its own token, signed just now."""
        self._calls = [_signed_call(self._pair) for _ in range(count)]

    def run(self, count: int) -> None:
        """See `Task`."""
        verify = self._side.verify
        for call in self._calls[:count]:
            verify(call)

    def check(self) -> None:
        """See `Task`: `SwitchSide.verify` has checked each."""


class ColdVerifying:
    """Calls each of whose signers is met for the first time: the document read, the path validated.

    The document itself is on the host, as after a download by the agent.

    Args:
        settings: of the verifying provider, which has the documents.
        signers: key, chain and URL of each.
    """

    def __init__(self, _key: bytes, settings: Path, signers: list[tuple[bytes, bytes, str]]) -> None:
        self._settings = settings
        self._pairs = [load_pair(key=key, chain=chain, x5u=x5u, live_from=0, spc=None) for key, chain, x5u in signers]
        self.work: list[tuple[stage.SwitchSide, list[dict[str, Any]]]] = []

    def prepare(self, count: int) -> None:
        """See `Task`: for each certificate to be met once, a switch that has met none."""
        self.work = []
        for first in range(0, count, len(self._pairs)):
            pairs = self._pairs[: count - first]
            self.work.append((stage.SwitchSide(self._settings), [_signed_call(pair) for pair in pairs]))

    def run(self, _count: int) -> None:
        """See `Task`."""
        for side, calls in self.work:
            for call in calls:
                side.verify(call)

    def check(self) -> None:
        """See `Task`: `SwitchSide.verify` has checked each."""


# --- The section ------------------------------------------------------------------------------

_X5U: Final = f"https://{CERTIFICATE_HOST}/709J.pem"

OPENSSL, CRYPTOGRAPHY, PYJWT, SECSIPID = "OpenSSL", "cryptography", "PyJWT", "libsecsipid"
BARE, SIGNING = "bare signing", "complete signing"
WARM, COLD = "verification, warm", "verification, cold"


def run(options: Options) -> Report:
    """See `Section`."""
    report = Report("core", TITLE)
    rounds, seconds = (4, 0.1) if options.quick else (15, 0.3)
    authority = Authority.new(time.time())
    origin, target = stage.sides(options.folder, authority)
    key, signer, verifier = origin.credential.key, origin.settings, target.settings
    wanted: list[tuple[str, Callable[..., Task], tuple[Any, ...]]] = [
        (f"{CRYPTOGRAPHY} sign", raw_signing, (signer,)),
        (f"{CRYPTOGRAPHY} verify", raw_verifying, (signer,)),
        (f"{SECSIPID} sign", secsipid_signing, (signer,)),
        (f"{SECSIPID} verify", secsipid_verifying, (signer,)),
        (BARE, bare_signing, (signer,)),
        (SIGNING, CompleteSigning, (signer,)),
        (WARM, CompleteVerifying, (verifier, signer)),
        (COLD, ColdVerifying, (verifier, cold_signers(authority, target, CERTIFICATES))),
    ]
    if find_spec("jwt") is not None:
        wanted += [(f"{PYJWT} sign", pyjwt_signing, (signer,)), (f"{PYJWT} verify", pyjwt_verifying, (signer,))]
    else:
        report.notes.append("PyJWT is not installed: pip install PyJWT")
    with ExitStack() as stack:
        stack.enter_context(one_core())
        subjects: list[Measure[str]] = [_openssl]
        for name, make, arguments in wanted:
            try:
                worker = stack.enter_context(Worker(make, key, *arguments))
            except BenchError as exc:
                if not name.startswith(SECSIPID):
                    raise
                report.notes.append(f"{name}: {str(exc).strip().splitlines()[-1]}")
                continue
            subjects.append(_cost(name, worker, seconds))
        advance = options.begin("core", len(subjects) * (rounds + 1))
        found = interleave(subjects, rounds, advance)
    for name in names():
        if name in found:
            report.series.append(Series(name, "µs", tuple(value * 1e6 for value in found[name])))
    compare(report)
    return report


def names() -> list[str]:
    """What is measured, in the order of the table."""
    peers_too = (OPENSSL, CRYPTOGRAPHY, PYJWT, SECSIPID)
    return [f"{peer} {act}" for act in ("sign", "verify") for peer in peers_too] + [BARE, SIGNING, WARM, COLD]


def compare(report: Report) -> None:
    """The ratios of the section."""

    def rate(of: str, to: str, at_least: float | None = None) -> None:
        report.compare(of, to, rate=True, target=None if at_least is None else Target(at_least, at_least=True))

    rate(f"{CRYPTOGRAPHY} sign", f"{OPENSSL} sign")
    rate(f"{CRYPTOGRAPHY} verify", f"{OPENSSL} verify")
    for ours, act, limits in (
        (BARE, "sign", (0.75, 1.7)),
        (SIGNING, "sign", (0.55, 1.3)),
        (WARM, "verify", (0.7, 1.0)),
    ):
        rate(ours, f"{OPENSSL} {act}", limits[0])
        rate(ours, f"{CRYPTOGRAPHY} {act}")
        rate(ours, f"{PYJWT} {act}")
        rate(ours, f"{SECSIPID} {act}", limits[1])
    rate(COLD, f"{OPENSSL} verify")
    rate(COLD, f"{SECSIPID} verify")


def cold_signers(authority: Authority, verifier: Provider, count: int) -> list[tuple[bytes, bytes, str]]:
    """Signers whose documents a provider has: key, chain, URL."""
    found = []
    for number in range(count):
        issued = authority.issue(spc=f"{number:03}C", now=time.time())
        x5u = f"https://{CERTIFICATE_HOST}/{number:03}C.pem"
        verifier.publish(x5u, issued.chain)
        found.append((issued.key, issued.chain, x5u))
    return found


def _openssl() -> Mapping[str, float]:
    sign, verify = peers.openssl_rates()
    return {f"{OPENSSL} sign": 1 / sign, f"{OPENSSL} verify": 1 / verify}


def _cost(name: str, worker: Worker, seconds: float) -> Measure[str]:
    return lambda: {name: worker.cost(seconds)}


def _signed_call(pair: Any) -> dict[str, Any]:
    """A call from outside with a header that its signer has made just now."""
    claims = shaken_claims(
        attest=Attest.A,
        orig=TelephoneNumber(CALLERS[0]),
        dest=TelephoneNumber(stage.CALLED),
        iat=int(time.time()),
        origid=str(uuid.uuid4()),
    )
    return stage.message(CALLERS[0], identity=identity_header(pair, claims).format())


def _claims() -> dict[str, Any]:
    return {
        "attest": "A",
        "dest": {"tn": [stage.CALLED]},
        "iat": int(time.time()),
        "orig": {"tn": CALLERS[0]},
        "origid": str(uuid.uuid4()),
    }


def _signed_octets() -> bytes:
    """What the signature of a PASSporT is over."""
    return signing_input(passport_header(_X5U, "shaken"), _claims())


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    found = load_pem_private_key(key, None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return found


TITLE: Final = "Signing and verifying alone: one core, CPU time of one operation"
SECTION: Final = Section("core", TITLE, run)
