"""Configurations of Kamailio: the shipped examples, and the same without us, or with secsipid in our place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bench.results import BenchError

_SIGN_LINE: Final = '        python_exec("shaken_sign");'
_VERIFY_LINE: Final = '    python_exec("shaken_verify", "FROM_OUTSIDE");'
_BEFORE_MODULES: Final = 'loadmodule "async.so"'


def with_modules(config: str, *, secsipid: bool) -> str:
    """A shipped configuration that also loads secsipid, where that is there."""
    return _replaced(config, _BEFORE_MODULES, f'loadmodule "secsipid.so"\n{_BEFORE_MODULES}') if secsipid else config


def without_ours(config: str, sign: str = "", verify: str = "") -> str:
    """The shipped native configuration as it were without us.

    Args:
        config: its text.
        sign: what stands in the place of our signing.
        verify: likewise.

    Raises:
        BenchError: it is not the file that this was written for.
    """
    config = _replaced(config, _SIGN_LINE, sign + "\n#")
    config = _replaced(config, _VERIFY_LINE, verify + "\n#")
    lines = [line for line in config.splitlines() if not _OURS.search(line)]
    config = _EMPTY.sub("", "\n".join(lines) + "\n")
    if "shaken_" in config or "_route[BRANCH]" in config or "_route[REPLY]" in config:
        raise BenchError("the shipped kamailio-native.cfg has changed: see bench/configurations.py")
    return config


# Kamailio takes no empty route.
_EMPTY: Final = re.compile(r"^(route|branch_route|onreply_route|event_route)\[[\w:]+\] \{\n\}\n", re.MULTILINE)
_OURS: Final = re.compile(
    r'python_exec\("shaken_|t_on_branch\("BRANCH"\)|t_on_reply\("REPLY"\)|\$xavp\(shaken(_as|\[0\])?=>|route\((SUBSTITUTED|INSIDE_A_DIALOG|BRANCH_IN_PYTHON|LEFT)\)'
)


def _replaced(config: str, old: str, new: str) -> str:
    if config.count(old) != 1:
        raise BenchError(f"the shipped configuration has changed: {old.strip()!r} is not in it once")
    return config.replace(old, new)


def secsipid_signing(key: Path, x5u: str) -> str:
    """As the module's documentation does it; the numbers without their plus signs, which PASSporTs have none of."""
    return f'        secsipid_add_identity("$(fU{{s.strip,1}})", "$(rU{{s.strip,1}})", "A", "", "{x5u}", "{key}");'


def secsipid_verifying(chain: Path) -> str:
    """Likewise, with the certificate in a file: nothing is downloaded."""
    return (
        f'    if (!secsipid_check_identity("{chain}")) {{\n'
        '        sl_send_reply("438", "Invalid Identity Header");\n        exit;\n    }'
    )
