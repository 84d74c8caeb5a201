"""What `make load` sees of the memory of a Kamailio: what each process has of its own, and what all share."""

from __future__ import annotations

from bench.load.hosts import Host
from bench.load.watch import Watch

from tests.e2e.conftest import Network

KEPT, SIZE = 40, 8_000
"""Texts that are kept in shared memory, and their octets."""


def test_a_leak_in_shared_memory_is_seen_in_its_use_and_in_no_process(network: Network) -> None:
    host = Host("originating", network.provider("origin"), network.stack)
    host.start_switch(inside="sip:127.0.0.1:9", outside="sip:127.0.0.1:9", kemi=False)
    with Watch(host.processes(), dict, {"pool": host.pool}, 60, int) as watch:
        watch.look()
        for number in range(KEPT):
            host.switch.rpc("htable.sets", "shaken", f"leak-{number}", "x" * SIZE)
        watch.look()
    before, after, *_ = watch.pools["pool"]
    assert after.octets - before.octets >= KEPT * SIZE
    assert not watch.gone
    own = {name: (second.octets - first.octets) for (name, _), (first, second, *_) in watch.found.items()}
    assert max(own.values()) < KEPT * SIZE / 2, own
    touched = [second.touched - first.touched for first, second, *_ in watch.found.values()]
    assert max(touched) >= KEPT * SIZE * 0.9  # by the process that answers commands
    assert min(touched) == 0  # not by those that do nothing
