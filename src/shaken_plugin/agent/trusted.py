"""The trust list that is chosen and its revocation lists, each in a task that keeps it fresh."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.downloads import Downloader
from shaken_plugin.agent.lists import KeptList, KeptRevocationList, KeptTrustList, RevocationParser, TrustListContent
from shaken_plugin.agent.metrics import Metrics
from shaken_plugin.agent.parts import Parts
from shaken_plugin.agent.recorder import Recorder
from shaken_plugin.agent.trust import Trust
from shaken_plugin.certs.cache import CacheWriter
from shaken_plugin.config.sections import Settings, TrustListSettings
from shaken_plugin.config.settings import resolve
from shaken_plugin.core import x5u
from shaken_plugin.core.certificates import TrustAnchors, parse_anchor_file
from shaken_plugin.errors import FileProblems, Problem, VerificationFailure

MAX_FOUND: Final = 8
"""Most revocation lists that are fetched because certificates name them."""
MAX_NAMED: Final = 2
"""Most lists that one certificate may name."""
KEEP_FOUND: Final = 14 * 86_400.0
"""Seconds since a certificate last named a list for which it is kept: certificates are fetched again
after a week at most."""


class Keeping:
    """Everything about lists.

    Args:
        parts: who checks lists.
    """

    def __init__(
        self,
        parts: Parts,
        downloader: Downloader,
        recorder: Recorder,
        alarms: Alarms,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._parts = parts
        self._common = (downloader, recorder, alarms, metrics, clock)
        self._clock = clock
        self._trust = Trust((), None)
        self._lists: dict[str, KeptList] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._found: tuple[str, RevocationParser] | None = None
        self._settings: tuple[object, ...] | None = None
        self._follows = False
        self._lab_hosts: frozenset[str] = frozenset()
        self._named: OrderedDict[str, float] = OrderedDict()
        """The lists that only certificates name, by when they last did, oldest first."""

    def configure(self, settings: Settings) -> None:
        """Take over settings; `start` begins what is new.

        Raises:
            FileProblems: files that settings name cannot be read; nothing changes.
        """
        chosen = settings.trust_list
        files = [*settings.verification.trust_anchors, *(chosen.anchors if chosen else [])]
        fixed = read_certificates(files)
        signers = read_certificates(chosen.signers if chosen else [])
        crl_signers = read_certificates(chosen.crl.signers if chosen else [])
        # The certificates themselves: a file may have changed under its name.
        key = (settings.verification.trust_list, chosen, *map(tuple, (fixed, signers, crl_signers)))
        follows = chosen is not None and chosen.crl.from_certificates
        trust = Trust(fixed, self._found_in_a_thread(asyncio.get_running_loop()) if follows else None)
        if fixed:
            _must_be_authorities(fixed)
        found = None
        lists: dict[str, KeptList] = {}
        if chosen is not None:
            name = settings.verification.trust_list or ""
            lists, found = self._make(name, chosen, trust, signers, crl_signers)
        if key == self._settings:
            return
        named = (
            list(self._named) if found is not None and self._found is not None and found[0] == self._found[0] else []
        )
        for url in list(self._lists):
            self._drop(url)
        self._settings, self._trust, self._lists, self._found = key, trust, lists, found
        self._follows, self._lab_hosts = follows, frozenset(settings.verification.lab_hosts)
        if follows:
            self._keep_found(named)

    def _found_in_a_thread(self, loop: asyncio.AbstractEventLoop) -> Callable[[list[str]], None]:
        def found(urls: list[str]) -> None:
            loop.call_soon_threadsafe(self._add, urls)

        return found

    def _make(
        self,
        name: str,
        chosen: TrustListSettings,
        trust: Trust,
        signers: list[x509.Certificate],
        crl_signers: list[x509.Certificate],
    ) -> tuple[dict[str, KeptList], tuple[str, RevocationParser] | None]:
        lists: dict[str, KeptList] = {}
        if chosen.url is not None:
            parse = self._parts.trust_list(signers) if signers else parse_bundle
            lists[chosen.url] = KeptTrustList(
                name,
                chosen.url,
                *self._common,
                parse=parse,
                grace=float(chosen.grace),
                changed=trust.listed,
                origin=origin(chosen.url, signers),
            )
        if not crl_signers:
            return lists, None
        revocation = self._parts.revocation(crl_signers)
        for url in chosen.crl.urls:
            lists[url] = KeptRevocationList(url, url, *self._common, trust_list=name, parse=revocation)
        return lists, (name, revocation)

    def _add(self, urls: list[str]) -> None:
        """Keep revocation lists that a certificate of a validated path names, too."""
        self._keep_found(urls[:MAX_NAMED])
        self.start()

    def _keep_found(self, urls: Iterable[str]) -> None:
        if self._found is None:  # the settings changed since
            return
        name, parse = self._found
        for url in urls:
            if url in self._lists and url not in self._named:
                continue  # the settings name it
            try:
                x5u.parse(url, self._lab_hosts, http_too=True)
            except VerificationFailure:
                continue  # ldap: and the like
            if url not in self._lists:
                if len(self._named) >= MAX_FOUND and not self._make_room():
                    text = f"{url}: certificates name more than {MAX_FOUND} lists; name those that count in crl.urls"
                    self._common[2].on("crl_not_kept", text, lasts=KEEP_FOUND)
                    continue
                self._lists[url] = KeptRevocationList(url, url, *self._common, trust_list=name, parse=parse)
            self._named[url] = self._clock()
            self._named.move_to_end(url)

    def _make_room(self) -> bool:
        """Give up the list named longest ago that never came: nobody keeps out others with made-up URLs."""
        for url in self._named:
            if math.isnan(self._lists[url].expires):
                self._drop(url)
                return True
        return False

    async def tidy(self) -> None:
        """Forget lists that neither settings nor certificates name any more. Called every few minutes.

        Raises:
            StoreUnavailable: they cannot be deleted now.
        """
        now, recorder = self._clock(), self._common[1]
        for url in [url for url, at in self._named.items() if now - at >= KEEP_FOUND]:
            self._drop(url)
        for trust_list, url in await recorder.run(CacheWriter.revocation_lists):
            # Else they would be out of date for ever, which is trouble.
            if self._found is not None and trust_list == self._found[0] and url not in self._lists:
                await recorder.run(partial(_drop_revocation_list, trust_list, url))

    def resume(self, stored: Iterable[tuple[str, str]]) -> None:
        """Go on with the lists, by trust list and URL, that certificates named before a restart."""
        if self._found is not None and self._follows:
            self._keep_found(url for trust_list, url in stored if trust_list == self._found[0])
            self.start()

    def start(self) -> None:
        """Begin to keep what is not kept yet."""
        for url, kept in self._lists.items():
            if url not in self._tasks:
                self._tasks[url] = asyncio.create_task(self._supervised(kept))

    async def _supervised(self, kept: KeptList) -> None:
        alarms = self._common[2]
        while True:
            try:
                await kept.keep()
            except Exception as exc:  # a fault of ours must not end it for ever
                alarms.on("fault", f"{kept.name}: {exc!r}", lasts=60.0)
                await asyncio.sleep(60.0)

    def _drop(self, url: str) -> None:
        self._named.pop(url, None)
        self._lists.pop(url).gone()
        if (task := self._tasks.pop(url, None)) is not None:
            task.cancel()

    def judge(self, document: bytes, now: float) -> bool:
        """See `Trust.judge`."""
        return self._trust.judge(document, now)

    def look(self) -> None:
        """Say which lists have ended."""
        for kept in self._lists.values():
            kept.look(self._clock())

    def lost(self) -> None:
        """The file is empty: fetch all again."""
        for kept in self._lists.values():
            kept.again()

    def status(self, now: float) -> list[dict[str, Any]]:
        """For the health page."""
        return [
            {
                "kind": kept.kind.value,
                "name": kept.name,
                "url": kept.url,
                "ends_in_seconds": None if math.isnan(kept.expires) else round(kept.expires - now),
            }
            for kept in self._lists.values()
        ]

    async def stop(self) -> None:
        """End all tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def parse_bundle(body: bytes, _now: float) -> TrustListContent:
    """A plain PEM bundle as a trust list: it has no sequence and no end.

    Raises:
        VerificationFailure: it cannot be read, or has what is no CA certificate.
        ValueError: it is empty.
    """
    certificates = parse_anchor_file(body)
    TrustAnchors(certificates)
    return TrustListContent(0, None, tuple(_der(certificate) for certificate in certificates))


def read_certificates(references: list[str]) -> list[x509.Certificate]:
    """The certificates of PEM files of the operator.

    Raises:
        FileProblems: one cannot be read.
    """
    found: list[x509.Certificate] = []
    problems = []
    for reference in references:
        try:
            found += parse_anchor_file(resolve(reference))
        except (ValueError, VerificationFailure) as exc:
            problems.append(Problem(reference, 1, 1, "", f"cannot be used: {exc}"))
    if problems:
        raise FileProblems(problems)
    return found


def _must_be_authorities(certificates: list[x509.Certificate]) -> None:
    try:
        TrustAnchors(certificates)
    except VerificationFailure as exc:
        raise FileProblems([Problem("trust anchors", 1, 1, "", exc.detail)]) from exc


def origin(url: str, signers: Sequence[x509.Certificate]) -> bytes:
    """Names a trust list by where it lies and who must sign it: others have sequences of their own."""
    digests = sorted(certificate.fingerprint(SHA256()) for certificate in signers)
    return sha256(b"".join([sha256(url.encode()).digest(), *digests])).digest()


def _drop_revocation_list(trust_list: str, url: str, writer: CacheWriter) -> None:
    writer.drop_revocation_list(trust_list, url)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
