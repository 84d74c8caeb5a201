"""What the FreeSWITCH section proves before it measures."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from bench.sections.freeswitch import House, prove, ran_scripts, signs_by_itself

from shaken_plugin.lab.freeswitch import find_freeswitch, module_folder
from shaken_plugin.lab.servers import LabError

RUN = "[NOTICE] mod_python3.c:231 Invoking py module: shaken\n"


def test_scripts_that_failed_or_did_not_run_are_no_empty_ones() -> None:
    """A bridge whose scripts cannot be loaded signs nothing, either."""
    assert ran_scripts(RUN * 4, 4)
    assert not ran_scripts(RUN * 3, 4)
    for trouble in ("Error importing module", "Error reloading module", "Module does not define sign",
                    "Error calling python script"):  # fmt: skip
        assert not ran_scripts(f"{RUN * 4}[ERR] mod_python3.c:270 {trouble}\n", 4)


def test_a_freeswitch_that_can_sign_by_itself_does(tmp_path: Path) -> None:
    try:
        able = signs_by_itself(module_folder(find_freeswitch()))
    except LabError as exc:
        pytest.skip(str(exc))
    if not able:
        pytest.skip("this FreeSWITCH's mod_sofia was built without libstirshaken")
    with ExitStack() as stack:
        house = House(tmp_path, stack)
        native = house.native()
        prove(house, native)
        assert "Missing required parameter" not in native.server.log_text()
