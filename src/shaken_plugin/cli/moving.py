"""``shaken fleet move``, ``join`` and ``restore``: a host's policy into its fleet's Redis, and back."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin.cli.differing import difference_data, print_difference
from shaken_plugin.cli.fleetfacts import Compared, compare, counts, plain
from shaken_plugin.cli.inputs import read_settings
from shaken_plugin.cli.output import Exit, console, errors, fail, json_option, print_json
from shaken_plugin.cli.records.session import telling, waits
from shaken_plugin.config.fleet import RedisSettings
from shaken_plugin.config.sections import Settings
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.runtime.fleet import fleet_log
from shaken_plugin.runtime.fleetstate import leave_fleet, state_replica
from shaken_plugin.runtime.force import first_state
from shaken_plugin.stores.freshness import mark, mark_of, unmark
from shaken_plugin.stores.redis import moving
from shaken_plugin.stores.redis.advice import advise
from shaken_plugin.stores.redis.hosts import HostTable
from shaken_plugin.stores.redis.log import FleetLog
from shaken_plugin.stores.redis.moving import Relation, Situation

FOLLOWS: Final = 3.0
"""Seconds in which an agent that follows the fleet has marked the copy as its own."""

_OWN = Relation.OWN, Relation.ANOTHER, Relation.LOST


@dataclass(slots=True)
class Move:
    """One run of a command: what it found, and what it says."""

    settings_file: Path
    settings: Settings
    redis: RedisSettings
    log: FleetLog
    dry_run: bool
    as_json: bool
    does: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    compared: Compared | None = None

    @property
    def path(self) -> Path:
        """Of the policy."""
        return Path(self.settings.store.path)

    def end(self, refused: str | None = None) -> None:
        """Say everything; ends the command where it is refused."""
        if self.as_json:
            self._print_json(refused)
        else:
            self._print(refused)
        if refused is not None:
            sys.exit(Exit.NO)

    def _print_json(self, refused: str | None) -> None:
        told: dict[str, Any] = {"ok": refused is None, "dry_run": self.dry_run, "fleet": self.log.fleet}
        told |= {"error": refused, "does": self.does, "has": counts(self.settings)}
        if self.compared is not None:
            told["differences"] = [difference_data(one) for one in self.compared.records]
            told |= plain(self.compared)
        print_json(told | {"redis": self.advice, "next": self.next})

    def _print(self, refused: str | None) -> None:
        if self.compared is not None:
            self._print_differences(self.compared)
        verb = "would be done" if self.dry_run else "done"
        for line in self.does if refused is None else ():
            console.print(f"{verb}: {line}", markup=False)
        for line in self.advice:
            errors.print(f"{self.log.access.name}: {line}", style="yellow", markup=False)
        for number, line in enumerate(self.next if refused is None else (), 1):
            console.print(f"next, {number}: {line}", markup=False)
        if refused is not None:
            errors.print(refused, style="red", markup=False)

    def _print_differences(self, compared: Compared) -> None:
        differ = compared.policy_differs or compared.standings
        text = "from this host's policy to the fleet's" if differ else "this host and the fleet have the same"
        console.print(text, style="bold", markup=False)
        for one in compared.records:
            print_difference(one)
        if compared.more:
            console.print(f"and {compared.more} more records", markup=False)
        for name in compared.material:
            console.print(f"~ {name}", style="yellow", markup=False)
        for customer, here, there in compared.standings:
            console.print(f"~ customer {customer}: {here or 'nothing'} here, {there or 'nothing'} in the fleet")


def _begin(settings_file: Path, *, dry_run: bool, as_json: bool) -> Move:
    settings, _ = read_settings(settings_file)
    if settings.store.redis is None:
        fail(
            f"{settings_file}: has no store.redis. Write it there first: nothing that runs takes notice of it until it "
            "is told to, and this host decides by its own policy until that was moved"
        )
    return Move(settings_file, settings, settings.store.redis, fleet_log(settings), dry_run, as_json)


def _dry(function: Any) -> Any:
    text = "Say what would be done and what differs, and change nothing."
    return click.option("--dry-run", is_flag=True, help=text)(json_option(waits(function)))


# --- move ---------------------------------------------------------------------------------------


@click.command("move")
@click.option("--to", type=click.Choice(["redis", "embedded"]), default="redis", show_default=True, help="Where to.")
@click.option("--instead-of", default="", metavar="ID", help="Give up the policy of the fleet with this id for ours.")
@click.option("--without-redis", is_flag=True, help="To embedded though Redis is gone: with the copy as it is.")
@_dry
@click.pass_obj
def move(settings_file: Path, to: str, instead_of: str, without_redis: bool, dry_run: bool, as_json: bool) -> None:
    """Take this host's policy into the Redis of store.redis, or this host out of its fleet.

    To Redis goes all of it: the policy with its history, keys and trust anchors, standings and offences. It is refused
    where the fleet has another policy. To embedded, the host keeps what the fleet has now. Killed at any point, nothing
    is lost: run it again.
    """
    with telling():
        it = _begin(settings_file, dry_run=dry_run, as_json=as_json)
        if to == "redis":
            if without_redis:
                raise click.UsageError("--without-redis goes with --to embedded")
            _move_in(it, instead_of)
        else:
            if instead_of:
                raise click.UsageError("--instead-of goes with --to redis")
            _move_out(it, without_redis=without_redis)


def _move_in(it: Move, instead_of: str) -> None:
    found = moving.look_at(it.path, it.log)
    it.advice = advise(it.log)
    named = found.view is not None and found.view.identifier == instead_of
    refused = None if found.relation not in _OWN else moving.why_not(it.path, it.log, found)
    if found.relation is Relation.OWN and named:
        refused = None
    if found.relation in (Relation.OWN, Relation.AHEAD):
        it.compared = compare(it.settings, it.redis, it.log)
    it.does = _plan(it, found)
    if refused is None and not it.dry_run:
        before = counts(it.settings)
        moving.move_in(it.path, it.log, instead_of)
        _be_of_the_fleet(it)
        if before.get("policy_version"):
            it.does.append(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in before.items() if count))
    it.next = _after_joining(it) if refused is None else []
    it.end(refused)


def _plan(it: Move, found: Situation) -> list[str]:
    version, name = found.mark.head.version, it.log.name
    policy = {
        Relation.NEW: f"{name} begins with the policy of {it.path}, version {version} with its history",
        Relation.AHEAD: f"{name} begins anew with the policy of {it.path}, which was changed here alone since it left",
        Relation.SAME: f"{it.path} becomes a copy of {name} again: it is as the fleet had it in version {version}",
        Relation.COPY: f"{it.path} is a copy of {name} already, and is brought up to it",
        Relation.EMPTY: f"{it.path} has no policy, and becomes a copy of {name}",
        Relation.OWN: f"{name} is given up, and begins anew with the policy of {it.path}, version {version}",
    }.get(found.relation)
    state = f"standings and offences of {it.settings.store.state} go to the fleet; where it has some, both count"
    return [policy, state] if policy else []


def _be_of_the_fleet(it: Move) -> None:
    """What follows once the policy is a copy: standings and offences, and that the copy is known to be whole."""
    mark(it.path, time.time())
    first_state(it.settings)
    synced = state_replica(it.settings, it.redis).sync()
    it.does += synced.notes


def _after_joining(it: Move) -> list[str]:
    following = not it.dry_run and _is_followed(it.path)
    restart = "systemctl restart shaken-agent, which keeps the copy from now on"
    return [
        f"shaken apply --settings {it.settings_file}: puts these settings in force on this host",
        "the agent follows the fleet already" if following else restart,
        "restart the switch, or have it reload: it reads the same file as before, and says how old the copy is",
    ]


def _is_followed(path: Path) -> bool:
    """Whether an agent marks the copy."""
    ours, end = mark_of(path).stat().st_mtime_ns, time.monotonic() + FOLLOWS
    while time.monotonic() < end:
        if mark_of(path).stat().st_mtime_ns != ours:
            return True
        time.sleep(0.05)
    return False


def _move_out(it: Move, *, without_redis: bool) -> None:
    state = it.settings.store.state
    it.does = [
        f"{it.path} is a policy of this host's own from now on"
        + (", as the copy is now" if without_redis else f", as {it.log.name} has it"),
        f"{state} has the standings and offences of this host alone from now on",
        f"what {it.log.name} has stays there, for the hosts that are left",
    ]
    it.next = [
        f"take store.redis out of {it.settings_file}; until then the host decides by its own policy, and warns",
        f"shaken apply --settings {it.settings_file}",
        "systemctl restart shaken-agent, then restart the switch, or have it reload",
    ]
    if not without_redis:
        _ask_before_leaving(it)
    if not it.dry_run:
        if without_redis:
            moving.let_go(it.path)
        else:
            moving.move_out(it.path, it.log)
        leave_fleet(it.settings)
        unmark(it.path)
    it.end()


def _ask_before_leaving(it: Move) -> None:
    found = moving.look_at(it.path, it.log)
    if found.relation is not Relation.COPY:
        if found.relation not in (Relation.SAME, Relation.AHEAD):
            it.end(f"{it.path}: is no copy of {it.log.name}; nothing was changed")
        return
    assert found.view is not None
    behind = found.view.head.version - found.mark.head.version
    if behind:
        it.does.insert(0, f"{it.path} is brought up to {it.log.name}, {behind} versions")
    if not it.dry_run:
        state_replica(it.settings, it.redis).sync()


# --- join ---------------------------------------------------------------------------------------


@click.command("join")
@click.option("--give-up", is_flag=True, help="Even where this host's own policy says something else.")
@_dry
@click.pass_obj
def join(settings_file: Path, give_up: bool, dry_run: bool, as_json: bool) -> None:
    """Give up this host's own policy for that of its fleet; says what differs, and keeps a copy beside it.

    A host that never had a policy needs no command: its agent takes the fleet's. Standings of both count.
    """
    with telling():
        it = _begin(settings_file, dry_run=dry_run, as_json=as_json)
        found = moving.look_at(it.path, it.log)
        if found.view is None:
            it.end(f"{it.log.name}: there is none; 'shaken fleet move' begins one with this host's policy")
        refused = None
        if found.relation in (Relation.OWN, Relation.AHEAD):
            it.compared = compare(it.settings, it.redis, it.log)
            if it.compared.policy_differs and not give_up:
                refused = (
                    f"{it.path}: says something else than {it.log.name}; --give-up has it become a copy all the same"
                )
        it.does = [f"{it.path} becomes a copy of {it.log.name}", "standings of both count, offences are the fleet's"]
        if refused is None and not dry_run:
            _join(it)
        it.next = _after_joining(it) if refused is None else []
        it.end(refused)


def _join(it: Move) -> None:
    before = set(it.path.parent.glob(f"{it.path.name}.before-fleet-*"))
    moving.join(it.path, it.log)
    kept = sorted(set(it.path.parent.glob(f"{it.path.name}.before-fleet-*")) - before)
    it.does += [f"what was there is kept as {path}" for path in kept]
    _be_of_the_fleet(it)


# --- restore ------------------------------------------------------------------------------------


@click.command("restore")
@click.option("--even-so", is_flag=True, help="Though another host has a newer copy, whose changes are lost then.")
@_dry
@click.pass_obj
def restore(settings_file: Path, even_so: bool, dry_run: bool, as_json: bool) -> None:
    """Bring a fleet back from this host's copy into a Redis that has lost its data, or a new one.

    Refused where Redis has the fleet, and where a host that reports has a newer copy: run it there.
    """
    with telling():
        it = _begin(settings_file, dry_run=dry_run, as_json=as_json)
        it.advice = advise(it.log)
        found = moving.look_at(it.path, it.log)
        if found.relation is Relation.COPY:
            it.does = [f"nothing: {it.log.name} is there, and {it.path} is a copy of it"]
            it.end()
            return
        version = found.mark.head.version
        newer = [f"{name} (version {other})" for name, other in _others(it).items() if other > version]
        refused = None
        if newer and not even_so:
            refused = f"a newer copy than this host's, of version {version}, is on {', '.join(newer)}: run it there"
        it.does = [
            f"{it.log.name} is there again, with version {version} and all that {it.path} keeps of older ones",
            "hosts that are as far go on as if nothing had been, others take this copy over",
            "standings and offences come back from the hosts by themselves",
        ]
        if refused is None and (not dry_run or found.relation is not Relation.LOST):
            moving.restore(it.path, it.log)
        it.end(refused)


def _others(it: Move) -> dict[str, int]:
    """The versions of the hosts that report."""
    try:
        hosts = HostTable(it.log).read().found
    except (StoreUnavailable, StoreError):
        return {}
    return {host.name: host.status.version or 0 for host in hosts if host.status is not None}
