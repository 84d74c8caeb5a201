"""A policy store in memory: for tools, tests, and as the measure for every other store."""

from __future__ import annotations

from collections import defaultdict

from shaken_plugin.core.records import Gateway, NumberRight, PolicyFacts, Trunk
from shaken_plugin.errors import StoreUnavailable
from shaken_plugin.stores.policy import Policy, address_keys, network_key, number_keys, right_keys


class MemoryStore:
    """Answers from a `Policy` held in memory. ``broken`` makes every question fail."""

    def __init__(self, policy: Policy, version: int = 1) -> None:
        self._version = version
        self._users = dict(policy.users)
        self._customers = {customer.id: customer for customer in policy.customers}
        self._sources: dict[str, Trunk | Gateway] = {
            network_key(network): source for network, source in policy.addresses.items()
        }
        self._bits = sorted(
            {(network.version, network.prefixlen) for network in policy.addresses}, key=lambda pair: -pair[1]
        )
        self._rights: dict[str, list[NumberRight]] = defaultdict(list)
        for right in policy.rights:
            for key in right_keys(right):
                self._rights[key].append(right)
        self._lengths = sorted({len(key.partition(":")[2]) for key in self._rights}, reverse=True)
        self.broken = False

    def facts(self, source: str | None, user: str | None, number: str | None) -> PolicyFacts:
        """See `ports.PolicyStore.facts`."""
        if self.broken:
            raise StoreUnavailable("the store was told to fail")
        rights = self._covering(number)
        named = dict.fromkeys(right.customer for right in rights)
        holders = tuple(self._customers[customer] for customer in named if customer in self._customers)
        return PolicyFacts(self._source(source, user), rights, self._version, holders)

    def _source(self, source: str | None, user: str | None) -> Trunk | Gateway | None:
        if user is not None and user in self._users:
            return self._users[user]
        for key in address_keys(source or "", self._bits):
            if key in self._sources:
                return self._sources[key]
        return None

    def _covering(self, number: str | None) -> tuple[NumberRight, ...]:
        if number is None:
            return ()
        return tuple(right for key in number_keys(number, self._lengths) for right in self._rights.get(key, ()))


class ReplayInMemory:
    """A `ports.ReplayMemory` for one process, for tests and tools."""

    def __init__(self) -> None:
        self.seen: dict[bytes, tuple[bytes, float]] = {}
        self.broken = False

    def first_use(self, token: bytes, call: bytes, until: float, now: float) -> bool:
        """See `ports.ReplayMemory.first_use`."""
        if self.broken:
            raise StoreUnavailable("broken on purpose")
        known = self.seen.get(token)
        if known is not None and known[0] != call and known[1] >= now:
            return False
        self.seen[token] = (call, until)
        return True
