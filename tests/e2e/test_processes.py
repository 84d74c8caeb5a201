"""The processes of a Kamailio: each knows which it is, though the kernel is not asked at each call."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Network

SCRIPT = """
import os

import KSR

from shaken_plugin.adapters.kamailio import Kamailio
from shaken_plugin.processid import THIS


def mod_init():
    return Told(KSR)


class Told(Kamailio):
    def child_init(self, rank):
        return self.told("child_init", super().child_init(rank))

    def shaken_sign(self, *arguments):
        return self.told("shaken_sign", super().shaken_sign(*arguments))

    def told(self, where, result):
        with open({file!r}, "a") as file:
            file.write(f"{{where}} {{THIS.id}} {{os.getpid()}}\\n")
        return result
"""


def test_each_process_of_kamailio_knows_which_it_is(network: Network, tmp_path: Path) -> None:
    told, script = tmp_path / "told", tmp_path / "shaken.py"
    script.write_text(SCRIPT.format(file=str(told)))
    called = network.called()
    signer = network.kamailio(
        network.provider("origin"), outside_peer=called.uri, defines={"SHAKEN_SCRIPT": f'"{script}"'}
    )
    run = network.call("uac_call", signer.inside_port, calls=40, rate=40)
    assert run.counts.successful == 40
    lines = [line.split() for line in told.read_text().splitlines()]
    assert all(known == really for _, known, really in lines)
    workers = {known for where, known, _ in lines if where == "shaken_sign"}
    assert workers
    assert workers <= {known for where, known, _ in lines if where == "child_init"}
    assert str(signer.pid) not in workers
