"""Keys and trust anchors of the store, taken over by running processes when the policy version changes.

What cannot be used does not displace what could: a pair that cannot be opened leaves the old one of its name in
place, a store that cannot be read leaves everything. Both are `trouble` for whoever tells the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, NamedTuple

from cryptography import x509

from shaken_plugin.authentication import Credential, Credentials, SigningPair
from shaken_plugin.certs.credentials import load_pair
from shaken_plugin.certs.sealing import Keyring, open_
from shaken_plugin.core.certificates import PathValidator, TrustAnchors, TrustedPath, parse_anchor_file
from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.errors import CredentialError, FailureCode, StoreUnavailable, VerificationFailure
from shaken_plugin.ports import MaterialSource

LOOK_AFTER: Final = 1.0
"""Seconds after which the store is asked again: for trust anchors, and after it could not be read."""


def open_pair(keyring: Keyring, stored: StoredPair, spc: str | None, lab_hosts: frozenset[str]) -> SigningPair:
    """A pair of the store, opened and checked as a whole.

    Args:
        keyring: see `sealing.open_`.
        stored: as the store has it.
        spc: see `credentials.load_pair`.
        lab_hosts: likewise.

    Raises:
        CredentialError: it cannot be used here; the text names it and says why.
    """
    try:
        key = open_(keyring, stored.bound, stored.sealed)
        chain = stored.chain.encode("ascii", "replace")
        return load_pair(key=key, chain=chain, x5u=stored.x5u, live_from=stored.live_from, spc=spc, lab_hosts=lab_hosts)
    except CredentialError as exc:
        raise CredentialError(f"key {stored.name} of the store: {exc}") from None


class Trouble(NamedTuple):
    """Something of the store that cannot be used."""

    credential: str
    text: str


@dataclass(frozen=True, slots=True)
class OwnCredential:
    """What the settings say of a credential."""

    spc: str | None = None
    pairs: tuple[SigningPair, ...] = ()
    """Pairs of the settings themselves, which no change of the store takes away."""


@dataclass(slots=True)
class _Taken:
    """What was taken over last: pairs of the store by name, as they were stored and opened."""

    stored: tuple[StoredPair, ...] = ()
    opened: dict[str, tuple[StoredPair, SigningPair]] = field(default_factory=dict)


class StoredCredentials(Credentials):
    """Credentials of the settings, with the pairs that the store has for them.

    Args:
        own: the credentials of the settings, by name; pairs of others are not used on this host.
        keyring: opens the pairs.
        lab_hosts: see `credentials.load_pair`.
        source: the store.
    """

    def __init__(
        self, own: Mapping[str, OwnCredential], keyring: Keyring, lab_hosts: frozenset[str], source: MaterialSource
    ) -> None:
        super().__init__({name: Credential(name, one.pairs) for name, one in own.items()})
        self._own = own
        self._keyring = keyring
        self._lab_hosts = lab_hosts
        self._source = source
        self._taken = _Taken()
        self._version: int | None = None
        self._failed_at = float("-inf")
        self._unreadable: tuple[str, ...] = ()
        self._unusable: tuple[str, ...] = ()
        self._looking = Lock()

    @property
    def trouble(self) -> tuple[str, ...]:
        """See `Credentials`."""
        return self._unreadable + self._unusable

    def look(self, version: int, now: float) -> None:
        """See `Credentials`. Nothing is read while the version stays."""
        if version == self._version or 0 <= now - self._failed_at < LOOK_AFTER:
            return
        if not self._looking.acquire(blocking=False):
            return  # another thread looks already; this call signs with what there is
        try:
            self._version, self._unreadable = version, ()
            self.take(self._source.material())
        except StoreUnavailable as exc:
            self._version, self._failed_at = None, now
            self._unreadable = (f"keys of the store stay as they were: {exc}",)
        finally:
            self._looking.release()

    def take(self, material: Sequence[Material]) -> list[Trouble]:
        """Take over pairs, and say which cannot be used; those that have not changed are not opened again."""
        stored = tuple(one for one in material if isinstance(one, StoredPair))
        if stored == self._taken.stored:
            return []
        troubles: list[Trouble] = []
        opened: dict[str, tuple[StoredPair, SigningPair]] = {}
        for one in stored:
            if one.credential not in self._own:
                continue
            known = self._taken.opened.get(one.name)
            try:
                pair = known[1] if known is not None and known[0] == one else self._open(one)
            except CredentialError as exc:
                kept = "" if known is None else "; the one that was opened before goes on signing"
                troubles.append(Trouble(one.credential, f"{exc}{kept}"))
                if known is not None:
                    opened[one.name] = known
                continue
            opened[one.name] = one, pair
        self.named = {name: Credential(name, self._pairs(name, opened)) for name in self._own}
        self._taken = _Taken(stored, opened)
        self._unusable = tuple(trouble.text for trouble in troubles)
        return troubles

    def _open(self, stored: StoredPair) -> SigningPair:
        return open_pair(self._keyring, stored, self._own[stored.credential].spc, self._lab_hosts)

    def _pairs(self, name: str, opened: Mapping[str, tuple[StoredPair, SigningPair]]) -> tuple[SigningPair, ...]:
        return self._own[name].pairs + tuple(pair for stored, pair in opened.values() if stored.credential == name)


def anchors_in(material: Sequence[Material]) -> Iterator[tuple[StoredAnchors, tuple[x509.Certificate, ...]]]:
    """The trust anchors of the store.

    Raises:
        VerificationFailure: CERTIFICATE_MALFORMED.
    """
    for one in material:
        if isinstance(one, StoredAnchors):
            found = parse_anchor_file(one.certificates.encode("ascii", "replace"))
            TrustAnchors(found)
            yield one, found


class JoinedAnchors:
    """A `core.certificates.PathValidator` on the trust anchors of the store, joined to others.

    Args:
        join: what validates paths by these certificates and those of the settings; None where there are none at all.
        source: the store.
        material: of the store, as it is known already.
    """

    def __init__(
        self,
        join: Callable[[Sequence[x509.Certificate]], PathValidator | None],
        source: MaterialSource,
        material: Sequence[Material] = (),
    ) -> None:
        self._join = join
        self._source = source
        self._stored: tuple[StoredAnchors, ...] | None = None
        self._inner: PathValidator | None = None
        self._seen: Hashable = None
        self._looked_at = float("-inf")
        self._trouble: tuple[str, ...] = ()
        self._take(material)

    @property
    def count(self) -> int:
        """How many roots are believed now."""
        return 0 if self._inner is None else self._inner.count

    @property
    def trouble(self) -> tuple[str, ...]:
        """See `core.certificates.PathValidator`."""
        return self._trouble

    def version(self, now: float) -> Hashable:
        """A value that changes with the anchors in force at ``now`` (POSIX seconds)."""
        self._look(now)
        inner = getattr(self._inner, "version", None)
        return self._stored, None if inner is None else inner(now)

    def validate(self, chain: Sequence[x509.Certificate], now: float) -> TrustedPath:
        """See `core.certificates.TrustAnchors.validate`.

        Raises:
            VerificationFailure: also TRUST_LIST_UNAVAILABLE, where no anchor is left.
        """
        self._look(now)
        if self._inner is None:
            raise VerificationFailure(
                FailureCode.TRUST_LIST_UNAVAILABLE, "no trust anchors, neither in the settings nor in the store"
            )
        return self._inner.validate(chain, now)

    def _look(self, now: float) -> None:
        if 0 <= now - self._looked_at < LOOK_AFTER:
            return
        self._looked_at = now
        try:
            version = self._source.version()
            if version != self._seen:
                self._take(self._source.material())
                self._seen = version
            self._trouble = ()
        except (StoreUnavailable, VerificationFailure) as exc:
            self._trouble = (f"trust anchors of the store stay as they were: {exc}",)

    def _take(self, material: Sequence[Material]) -> None:
        stored = tuple(one for one in material if isinstance(one, StoredAnchors))
        if stored == self._stored:
            return
        found = [certificate for _, certificates in anchors_in(material) for certificate in certificates]
        self._inner = self._join(found)
        self._stored = stored
