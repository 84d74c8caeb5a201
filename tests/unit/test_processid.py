"""Which process this is, in a child as well."""

from __future__ import annotations

import os

from shaken_plugin.processid import THIS


def test_a_child_is_another_process() -> None:
    assert THIS.id == os.getpid()
    before, (reader, writer) = THIS.id, os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, f"{THIS.id}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 32)) == child != before == THIS.id
    os.close(reader)
    os.close(writer)
