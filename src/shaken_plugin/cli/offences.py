"""``shaken offence``: what customers did with numbers that are not theirs, and what people decide about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from shaken_plugin.cli.inputs import read_settings
from shaken_plugin.cli.output import Exit, console, fail, json_option, print_json, settings_option, table, visible, when
from shaken_plugin.cli.records.levels import state_file
from shaken_plugin.cli.records.session import author_of, user_name
from shaken_plugin.cli.telling import tell
from shaken_plugin.conduct import decisions, view
from shaken_plugin.conduct.state import State
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.offences import Stage
from shaken_plugin.errors import ConflictError, StoreUnavailable


@contextmanager
def telling() -> Iterator[None]:
    """Errors end the command: 1 for what cannot be decided so, 3 for a state file that cannot be used."""
    try:
        yield
    except ConflictError as exc:
        fail(str(exc), Exit.NO)
    except StoreUnavailable as exc:
        fail(str(exc))


def open_state(settings: Settings) -> State:
    """The state file that settings name."""
    return State(Path(settings.store.state), Path(settings.store.path))


@click.group("offence")
def offence() -> None:
    """Unauthorised caller IDs: the first is a warning with its evidence, the second suspends.

    The agent counts them, and sends warnings to the webhook of offences.webhook, or leaves that to you.
    """


@offence.command("list")
@click.option("--customer", metavar="ID", help="Only this customer's.")
@click.option("--open", "open_only", is_flag=True, help="Only those that were neither dismissed nor settled.")
@click.option("--observed", is_flag=True, help="What mode observe saw instead, which never counts.")
@settings_option
@json_option
def list_(customer: str | None, open_only: bool, observed: bool, settings_file: Path, as_json: bool) -> None:
    """List offences, the newest first."""
    seen, cases = list[tuple[str, view.NumberSeen]](), list[view.Case]()
    state = state_file(read_settings(settings_file)[0])
    if state is not None:
        with telling(), state.reading() as connection:
            seen = view.observed(connection, customer) if observed else []
            cases = [] if observed else view.cases(connection, customer, open_only=open_only)
    if as_json:
        print_json(
            {
                "ok": True,
                "offences": [case.as_json() for case in cases],
                "observed": [{"customer": of, **number._asdict()} for of, number in seen],
            }
        )
        return
    if observed:
        _print_observed(seen)
    else:
        _print_cases(cases)


def _print_cases(cases: list[view.Case]) -> None:
    shown = table("offence", "customer", "", "stage", "since", "calls", "numbers", "warnings", "to do")
    for case in cases:
        one = case.offence
        shown.add_row(
            str(one.id),
            case.customer,
            "second" if one.second else "first",
            one.stage.value,
            when(one.opened_at),
            str(case.calls),
            str(case.numbers),
            str(case.warnings),
            _to_do(case),
        )
    if shown.row_count:
        console.print(shown)
    else:
        console.print("no offences", markup=False)


def _to_do(case: view.Case) -> str:
    """What waits for a person."""
    if case.offence.stage is Stage.PROPOSED:
        return "suspend the customer, or dismiss it"
    if case.offence.stage is Stage.OPEN:
        return f"tell the customer ({case.failure})" if case.failure else "warning not delivered yet"
    return ""


def _print_observed(seen: list[tuple[str, view.NumberSeen]]) -> None:
    shown = table("customer", "number", "calls", "first", "last")
    for customer, number in seen:
        shown.add_row(customer, number.number, str(number.calls), when(number.first_at), when(number.last_at))
    console.print(shown if shown.row_count else "nothing was observed")


@offence.command("show")
@click.argument("identifier", metavar="OFFENCE", type=int)
@settings_option
@json_option
def show(identifier: int, settings_file: Path, as_json: bool) -> None:
    """Show an offence with its evidence, and all that happened to it."""
    with telling(), open_state(read_settings(settings_file)[0]).reading() as connection:
        found = view.details(connection, identifier)
    if found is None:
        fail(f"there is no offence {identifier}: shaken offence list", Exit.NO)
    if as_json:
        print_json({"ok": True, **found.as_json()})
        return
    _print_cases([found.case])
    console.print()
    numbers = table("number", "calls", "first", "last")
    for number in found.numbers:
        numbers.add_row(visible(number.number), str(number.calls), when(number.first_at), when(number.last_at))
    console.print(numbers)
    if len(found.numbers) < found.case.numbers:
        console.print(f"… and {found.case.numbers - len(found.numbers)} more numbers", markup=False)
    console.print()
    calls = table("at", "Call-ID", "from", "to", "level", "for a better level")
    for one in found.evidence:
        calls.add_row(when(one.get("at")), *map(visible, _of_call(one)))
    console.print(calls)
    if len(found.evidence) < found.case.calls:
        console.print(f"… and {found.case.calls - len(found.evidence)} more calls", markup=False)
    console.print()
    events = table("when", "what", "by", "why")
    for event in found.events:
        events.add_row(when(event.at), event.what, visible(event.who), visible(event.why))
    console.print(events)


def _of_call(one: dict[str, Any]) -> Iterator[str]:
    yield str(one.get("call_id", ""))
    yield str(one.get("substituted_for") or one.get("orig", ""))
    yield str(one.get("dest", ""))
    yield str(one.get("refusal") or one.get("level", ""))
    yield "; ".join(map(str, one.get("missing", ())))


def _decides(name: str, decide: Callable[[State, int, str, str, float], None], about: str, *, by_name: bool) -> None:
    """A command by which a person decides something about an offence."""

    def command(identifier: int, by: str, why: str, settings_file: Path, as_json: bool) -> None:
        author = author_of(by, why)
        settings = read_settings(settings_file)[0]
        state = open_state(settings)
        with telling():
            decide(state, identifier, *author)
            told = tell(settings)
            with state.reading() as connection:
                found = view.details(connection, identifier)
        assert found is not None
        if as_json:
            print_json(
                {"ok": True, **found.case.as_json(), **({} if told.fleet is None else {"fleet": told.as_json()})}
            )
        else:
            _print_cases([found.case])
            if told.fleet is not None and not told.told:
                text = "it counts when all hosts of the fleet can be told"
                console.print(f"{text}: {told.why_not}", style="yellow", markup=False)

    command.__doc__ = about
    person: dict[str, Any] = {"required": True} if by_name else {"default": user_name}
    command = click.argument("identifier", metavar="OFFENCE", type=int)(command)
    command = click.option("--by", metavar="NAME", help="The person who answers for it.", **person)(command)
    command = click.option("-m", "--why", required=True, metavar="TEXT", help="Why; it is kept for good.")(command)
    offence.command(name)(settings_option(json_option(command)))


_decides(
    "delivered",
    decisions.delivered,
    "Say that you told the customer of a first offence: from now on the grace time runs.",
    by_name=False,
)
_decides(
    "dismiss",
    decisions.dismiss,
    "Find that an offence was none; a proposal to suspend for it ends. Needs --by: an environment is no person.",
    by_name=True,
)
