"""What the FreeSWITCH section proves before it measures."""

from __future__ import annotations

from bench.sections.freeswitch import ran_scripts

RUN = "[NOTICE] mod_python3.c:231 Invoking py module: shaken\n"


def test_scripts_that_failed_or_did_not_run_are_no_empty_ones() -> None:
    """A bridge whose scripts cannot be loaded signs nothing, either."""
    assert ran_scripts(RUN * 4, 4)
    assert not ran_scripts(RUN * 3, 4)
    for trouble in ("Error importing module", "Error reloading module", "Module does not define sign",
                    "Error calling python script"):  # fmt: skip
        assert not ran_scripts(f"{RUN * 4}[ERR] mod_python3.c:270 {trouble}\n", 4)
