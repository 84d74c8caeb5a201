"""``shaken completion``: a real bash completes commands, options and ids from the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from shaken_plugin.cli import COMMANDS, main
from shaken_plugin.cli.light import PLACES
from shaken_plugin.config.settings import PATH_VARIABLE
from shaken_plugin.lab.provider import Provider
from tests.cli.records import WHY, Run


def completed(*words: str) -> list[str]:
    """What a shell would offer for the last of these words."""
    *arguments, incomplete = words
    found = ShellComplete(main, {}, "shaken", "_SHAKEN_COMPLETE").get_completions(list(arguments), incomplete)
    return [item.value for item in found]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(run: Run, shell: str) -> None:
    script = run("completion", shell).stdout
    assert f"_SHAKEN_COMPLETE={shell}_complete" in script
    run("completion", "csh", code=2)


@pytest.mark.usefixtures("in_force")
def test_ids_come_from_the_store(run: Run, provider: Provider) -> None:
    run("letter", "add", "LOA-7", "--customer", "acme", *WHY)
    run("right", "add", "own", "--customer", "acme", "--basis", "ported", *WHY)
    assert completed("customer", "show", "") == ["acme", "banned", "pending"]
    assert completed("customer", "suspend", "b") == ["banned"]
    assert completed("trunk", "add", "x", "--customer", "ac") == ["acme"]
    assert completed("missing", "p") == ["pending"]
    assert "LOA-7" in completed("letter", "show", "LOA")
    assert "own" not in completed("letter", "show", "o")
    assert completed("number", "list", "--basis", "po") == ["ported"]
    assert completed("gateway", "show", "--settings", str(provider.settings), "in") == ["intl"]


@pytest.mark.usefixtures("in_force")
def test_ids_are_completed_without_what_takes_long_to_load() -> None:
    program = (
        "import sys\n"
        "from click.shell_completion import ShellComplete\n"
        "from shaken_plugin.cli import main\n"
        "found = ShellComplete(main, {}, 'shaken', '_X').get_completions(['customer', 'show'], 'a')\n"
        "slow = {'pydantic', 'cryptography', 'rich', 'phonenumbers'} & set(sys.modules)\n"
        "print([item.value for item in found], sorted(slow))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['acme'] []"


@pytest.mark.usefixtures("in_force")
def test_what_is_completed_at_once_is_what_the_commands_complete(provider: Provider) -> None:
    settings = ["--settings", str(provider.settings)]  # with an option, the command itself is asked
    for name, (_, verbs) in PLACES.items():
        for verb in verbs:
            assert completed(name, verb, "") == completed(name, verb, *settings, "")
            assert completed(name, verb, "--se") == ["--settings"]


def test_silent_where_the_store_cannot_be_read(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("customer", "show", "a") == []
    (provider.folder / "policy.db").write_bytes(b"no database at all" * 1000)
    assert completed("customer", "show", "a") == []
    provider.settings.write_text("nonsense: [")
    assert completed("customer", "show", "a") == []
    monkeypatch.setenv(PATH_VARIABLE, "/nonexistent/shaken.yaml")
    assert completed("customer", "show", "a") == []


def test_every_command_is_where_it_is_said_to_be(run: Run) -> None:
    told = run("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in told
        assert run(name, "--help").stdout.startswith("Usage: ")
    run("nonsense", code=2)


@pytest.mark.usefixtures("in_force")
def test_in_a_real_bash(run: Run, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    program = tmp_path / "bin" / "shaken"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom shaken_plugin.cli import main\nmain(prog_name='shaken')\n")
    program.chmod(0o755)
    script = tmp_path / "completion.bash"
    script.write_text(run("completion", "bash").stdout)
    asked = """
        source <(cat "$1"); shift
        COMP_WORDS=(shaken customer show ac); COMP_CWORD=3
        "$(complete -p shaken | sed 's/.*-F \\([^ ]*\\) .*/\\1/')" shaken ac show
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    command = [bash, "--norc", "-c", asked, "bash", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["acme"], "")
