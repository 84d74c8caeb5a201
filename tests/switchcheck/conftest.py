from __future__ import annotations

from pathlib import Path

import pytest

from tests.switchcheck.switches import Switch, make_switch


@pytest.fixture
def switch(tmp_path: Path) -> Switch:
    """A FreeSWITCH with everything as it should be."""
    root = tmp_path / "root"
    root.mkdir(0o755)
    return make_switch(root)
