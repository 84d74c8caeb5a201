"""``shaken setup``: accounts, folders, files and environment for the switches, and back again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from shaken_plugin.cli.output import Exit, console, errors, fail, json_option, print_json
from shaken_plugin.setup import (
    Machine,
    Manifest,
    Options,
    Plan,
    SetupError,
    execute,
    make_plan,
    routing_lines,
    take_back,
)
from shaken_plugin.setup.steps import Record, Step


@click.command("setup")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--undo", is_flag=True, help="Take back what earlier runs did.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--user", "users", multiple=True, metavar="NAME", help="A further user that a switch runs as; repeatable."
)
@click.option(
    "--wheel",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Wheel to install; default: the newest of this release in the checkout's dist, or where pip had it from.",
)
@click.option(
    "--venv",
    type=click.Path(path_type=Path, file_okay=False),
    help="A virtual environment that is there already, instead of making /opt/shaken/venv.",
)
@click.option(
    "--freeswitch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="A FreeSWITCH built from source: its prefix or configuration folder; default: $FREESWITCH_PREFIX, "
    "/etc/freeswitch.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Stage everything in this folder, for a package or an image. Users and groups are only listed.",
)
@json_option
def setup_(
    dry_run: bool,
    undo: bool,
    yes: bool,
    users: tuple[str, ...],
    wheel: Path | None,
    venv: Path | None,
    freeswitch: Path | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Install for the switches of this machine. Says first what it will do; --undo takes it back.

    It makes the user and group shaken, the folders, the empty database and the virtual
    environment, puts scripts and examples in place, and sets PYTHONPATH for Kamailio and
    FreeSWITCH. It restarts nothing and leaves your routing to you: it prints the lines to add.
    """
    machine = Machine() if root is None else Machine(root.resolve())
    if not (dry_run or machine.staged or machine.privileged):
        fail(
            "setup makes users and writes to /etc, /opt and /var: run it as root, for instance\n"
            f"    sudo {Path(sys.argv[0]).absolute()} setup\n"
            "or see what it would do with --dry-run, or stage it in a folder with --root FOLDER"
        )
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json cannot ask: add --yes, or --dry-run")
    try:
        manifest = Manifest(machine)
        if undo:
            _undo(machine, manifest, dry_run=dry_run, yes=yes, as_json=as_json)
        else:
            layout = None if freeswitch is None else freeswitch.absolute()
            options = Options(wheel, None if venv is None else str(venv.absolute()), users, layout)
            _install(machine, manifest, options, dry_run=dry_run, yes=yes, as_json=as_json)
    except SetupError as exc:
        fail(str(exc))
    except PermissionError as exc:
        fail(f"{exc.filename}: {exc.strerror}; root may look there")


# --- Doing ------------------------------------------------------------------------------------


def _install(
    machine: Machine, manifest: Manifest, options: Options, *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    plan = make_plan(machine, manifest, options)
    if not as_json:
        _print_plan(plan, machine)
    if plan.todo and not dry_run:
        _confirm(yes=yes)
        try:
            execute(plan.todo, machine, manifest, lambda step, done: None if as_json else _tell(step, done=done))
        except SetupError as exc:
            fail(f"{exc}\nWhat was done so far stays. Run setup again to go on, or take it back with --undo.")
    lines = routing_lines(plan.switches)
    if as_json:
        print_json(_plan_data(plan, machine, lines, executed=not dry_run))
    elif not dry_run:
        _print_routing(lines)
        _print_next(plan, machine)


def _confirm(*, yes: bool) -> None:
    if not yes and not click.confirm("Do this?"):
        fail("nothing was changed", Exit.NO)


def _tell(step: Step, *, done: bool) -> None:
    if done:
        console.print(f"done: {step.what}", style="green", markup=False)
    elif step.kind == "environment":
        console.print("this takes a minute: the environment and its packages …", markup=False)


def _print_plan(plan: Plan, machine: Machine) -> None:
    if not plan.todo:
        console.print("nothing to do: everything is as setup would make it", style="bold", markup=False)
    else:
        where = f" below {machine.root}" if machine.staged else ""
        console.print(f"shaken setup will do this{where}:", style="bold", markup=False)
        for number, step in enumerate(plan.todo, 1):
            console.print(f"{number:3}. {step.what}", markup=False)
    if plan.done and plan.todo:
        console.print(f"Already so: {len(plan.done)} of {len(plan.done) + len(plan.todo)}", markup=False)
    if plan.listed:
        console.print("Left to whoever installs the staged files, before they are used:", style="bold", markup=False)
        for step in plan.listed:
            console.print(f"   - {step.what}", markup=False)
    for remark in plan.remarks:
        console.print(f"note: {remark}", style="yellow", markup=False)


def _print_routing(lines: dict[str, str]) -> None:
    for title, text in lines.items():
        console.print(f"\nLines for {title}:\n", style="bold", markup=False)
        console.print("".join(f"    {line}\n" for line in text.splitlines()), markup=False, end="")


def _print_next(plan: Plan, machine: Machine) -> None:
    console.print("\nNext:", style="bold", markup=False)
    for number, text in enumerate(next_steps(plan, machine), 1):
        console.print(f"{number:3}. {text}", markup=False)


def next_steps(plan: Plan, machine: Machine) -> list[str]:
    """What is left to people, in order."""
    steps = [
        "put key, chain and trust anchors into /etc/shaken/keys, and fill in shaken.yaml and policy.yaml",
        "shaken setup   (once more: it sets the rights of what you put there)",
        "runuser -u shaken -- shaken check-config",
        "runuser -u shaken -- shaken apply",
        "systemctl enable --now shaken-agent   (downloads certificates; without it unknown signers get no verdict)",
    ]
    if machine.staged:
        steps.insert(0, "make the users and groups listed above on the finished machine")
    if plan.switches:
        steps.append("add the lines above to your routing; without them nothing is signed or verified")
        if "freeswitch" in plan.switches:
            folder = plan.freeswitch.configuration if plan.freeswitch else "DIR"
            steps.append(f"shaken check-config --freeswitch {folder}   (finds what would break it)")
        units = " ".join(plan.switches)
        steps.append(f"systemctl restart {units}   (group and PYTHONPATH are taken at the start; not by a reload)")
    return steps


def _plan_data(plan: Plan, machine: Machine, lines: dict[str, str], *, executed: bool) -> dict[str, Any]:
    def rows(steps: list[Step], state: str) -> list[dict[str, str]]:
        return [{"kind": step.kind, "subject": step.subject, "what": step.what, "state": state} for step in steps]

    return {
        "root": str(machine.root),
        "steps": [
            *rows(plan.todo, "done now" if executed else "to do"),
            *rows(plan.done, "was so"),
            *rows(plan.listed, "listed"),
        ],
        "notes": plan.remarks,
        "environment": plan.environment,
        "switches": list(plan.switches),
        "lines": lines,
        "next": next_steps(plan, machine),
    }


# --- Undoing ----------------------------------------------------------------------------------


def _undo(machine: Machine, manifest: Manifest, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    records = list(reversed(manifest.records))
    rows: list[dict[str, str | None]] = []

    def report(record: Record, kept: str | None) -> None:
        rows.append({"kind": record.kind, "subject": record.subject, "what": record.what, "kept": kept})
        if as_json:
            return
        if kept is None:
            console.print(f"undone: {record.what}", style="green", markup=False)
        else:
            console.print(f"kept: {record.key}: {kept}", style="yellow", markup=False)

    if not as_json:
        if not records:
            console.print("nothing to undo: setup did nothing here", style="bold", markup=False)
        else:
            console.print("shaken setup will take back, as far as nobody changed it:", style="bold", markup=False)
        for number, record in enumerate(records, 1):
            console.print(f"{number:3}. {record.what}", markup=False)
    kept: list[Record] = []
    if records and not dry_run:
        _confirm(yes=yes)
        try:
            kept = take_back(machine, manifest, report)
        except SetupError as exc:
            fail(f"{exc}\nWhat was taken back so far stays so. Run --undo again when this is put right.")
    if as_json:
        print_json({"root": str(machine.root), "steps": rows if not dry_run else [{"what": r.what} for r in records]})
    elif kept:
        errors.print(
            "What was kept is yours to delete; 'shaken setup --undo' then takes back the rest. Take our lines out of "
            "your routing and restart the switches.",
            markup=False,
        )
    elif records and not dry_run:
        console.print("All taken back. Take our lines out of your routing and restart the switches.", markup=False)
