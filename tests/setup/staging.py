"""What the tests of setup share: running it on a staged tree, and looking at the tree."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from click.testing import CliRunner, Result

from shaken_plugin.cli import main

VENV: Final = "/srv/shaken/venv"
"""An environment that is said to be there, so that none has to be made."""

DEFAULTS: Final = "#\n# Kamailio startup options\n#\n\n#SHM_MEMORY=64\nPKG_MEMORY=16\n"
UNIT: Final = """\
[Unit]
Description=freeswitch
[Service]
; service
Type=forking
Environment="USER=freeswitch"
Environment="GROUP=freeswitch"
EnvironmentFile=-/etc/default/freeswitch
ExecStart=/usr/bin/freeswitch -u ${USER} -g ${GROUP} -ncwait ${DAEMON_OPTS}
UMask=0007
"""
"""The lines that matter of the unit in FreeSWITCH's own packages."""

Tree = dict[str, tuple[int, str]]


def tree_of(root: Path) -> Tree:
    """Everything below a folder: mode, and content or kind."""
    tree: Tree = {}
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        kind = "folder" if path.is_dir() else f"-> {path.readlink()}" if path.is_symlink() else ""
        tree[str(path.relative_to(root))] = (stat.S_IMODE(found.st_mode), kind or path.read_bytes().hex())
    return tree


def put(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def setup(root: Path, *arguments: str, code: int = 0, stdin: str = "") -> Result:
    options = [] if "--undo" in arguments else ["--venv", VENV]
    result = CliRunner().invoke(main, ["setup", "--root", str(root), *options, *arguments], input=stdin)
    assert result.exit_code == code, result.output
    return result
