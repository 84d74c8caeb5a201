"""The machine that setup is tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.setup.staging import DEFAULTS, UNIT, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with both switches, before setup."""
    root = tmp_path / "root"
    users = "root:x:0:0::/root:/bin/sh\nkamailio:x:102:105::/run/kamailio:/bin/false\n"
    put(root / "etc/passwd", users + "freeswitch:x:110:110::/var/lib/freeswitch:/bin/false\n")
    put(root / "etc/group", "root:x:0:\nkamailio:x:105:\nfreeswitch:x:110:\n")
    put(root / "etc/default/kamailio", DEFAULTS)
    put(root / "lib/systemd/system/freeswitch.service", UNIT)
    return root
