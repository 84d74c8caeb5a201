"""``shaken completion``: what a shell needs to complete commands, options and ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: it is for a shell in any case.")
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, and ids from the store.

    For bash: shaken completion bash > /etc/bash_completion.d/shaken
    """
    made = get_completion_class(shell)
    assert made is not None  # the three that click has
    root = click.get_current_context().find_root()
    click.echo(made(root.command, {}, "shaken", "_SHAKEN_COMPLETE").source())
