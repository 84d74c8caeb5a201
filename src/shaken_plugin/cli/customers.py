"""``shaken customer``: who is accountable for calls, how well we know them, what they may do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from shaken_plugin import runtime
from shaken_plugin.cli.output import Exit, console, fail, print_json, table, visible, when
from shaken_plugin.cli.records.attributes import as_data
from shaken_plugin.cli.records.changing import changing
from shaken_plugin.cli.records.completing import customer_ids
from shaken_plugin.cli.records.history import family
from shaken_plugin.cli.records.kinds import Kind, group
from shaken_plugin.cli.records.levels import standings, state_file
from shaken_plugin.cli.records.session import Intent, Opened, find, intends, intends_as, opened, telling
from shaken_plugin.cli.records.spans import numbers_data
from shaken_plugin.cli.records.values import OneOf, day
from shaken_plugin.cli.records.verbs import add_command, list_command, set_command, show_command
from shaken_plugin.cli.telling import Told, tell
from shaken_plugin.conduct import view
from shaken_plugin.conduct.accounts import Said
from shaken_plugin.conduct.decisions import known, reinstate, suspend, terminate
from shaken_plugin.conduct.state import State
from shaken_plugin.core.records import BASIS_TEXT, Basis, Customer, CustomerState, Right, Substitution, Trunk
from shaken_plugin.ports import PolicyRecords
from shaken_plugin.stores.standing import REINSTATED, worse

Decides = Callable[[State, str, str, str, float], None]

_KNOWN: Final = OneOf({state.value: state for state in (CustomerState.PENDING, CustomerState.VERIFIED)})
"""States that know-your-customer knows; the others are what `suspend`, `terminate` and `reinstate` do."""
_SHOWN: Final = ("state", "at", "who", "why", "offence")
"""Of each line of the standing."""
_SAID: Final = 5
"""Lines of the standing shown to people."""
_AGAINST: Final = (CustomerState.SUSPENDED, CustomerState.TERMINATED)


def _rights(records: PolicyRecords, customer: str) -> Iterator[Right]:
    return (right for right in records.all(Right) if right.customer == customer)


def _more(records: PolicyRecords, customer: Customer, session: Opened) -> dict[str, Any]:
    now = time.time()
    rights = list(_rights(records, customer.id))
    ends = [(right.valid_until, f"right {right.id} ends") for right in rights if right.valid_until is not None]
    ends += [(customer.review_at, "know-your-customer is to be reviewed")] if customer.review_at is not None else []
    coming = sorted((at, what) for at, what in ends if at >= now)[:1]
    return {
        **_conduct(session, customer),
        "trunks": [as_data(trunk) for trunk in records.all(Trunk) if trunk.customer.id == customer.id],
        "rights": [{**as_data(right), "numbers": numbers_data(records, Right, right.id)} for right in rights],
        "substitutions": [as_data(rule) for rule in records.all(Substitution) if rule.customer == customer.id],
        "next": [{"at": at, "what": what} for at, what in coming],
    }


def _conduct(session: Opened, customer: Customer) -> dict[str, Any]:
    """Where the customer stands in the runtime state, and what led there."""
    state = state_file(session.settings)
    said: list[Said] = []
    warned, cases = 0, []
    if state is not None:
        with state.reading() as connection:
            said = view.standing_history(connection, customer.id)
            warned, cases = view.warnings(connection, customer.id), view.cases(connection, customer.id, open_only=True)
    against = said[-1] if said and said[-1].state != REINSTATED else None
    in_force = customer.state if against is None else worse(customer.state, CustomerState(against.state))
    return {
        "state_in_force": in_force.value,
        "standing": [{name: one._asdict()[name] for name in _SHOWN} for one in reversed(said)],
        "warnings": warned,
        "open_offences": [case.as_json() for case in cases],
    }


def _print_more(data: dict[str, Any]) -> None:
    style = "bold red" if data["state_in_force"] in {state.value for state in _AGAINST} else None
    text = f"in force: {data['state_in_force']}; warnings delivered: {data['warnings']}"
    console.print(text, style=style, markup=False)
    for said in data["standing"][:_SAID]:
        console.print(visible(f"  {said['state']} {when(said['at'])} by {said['who']}: {said['why']}"))
    for case in data["open_offences"]:
        text = f"  offence {case['offence']} ({case['stage']}), {case['calls']} calls; see 'shaken offence'"
        console.print(text, style="yellow", markup=False)
    if data["trunks"]:
        made = table("trunk", "addresses", "accounts")
        for trunk in data["trunks"]:
            made.add_row(trunk["id"], ", ".join(trunk["addresses"]), ", ".join(trunk["users"]))
        console.print(made)
    else:
        console.print("no trunk: none of its calls is recognised", style="yellow", markup=False)
    if data["rights"]:
        made = table("right", "basis", "whose numbers", "document", "valid until", "numbers")
        for right in data["rights"]:
            until = "" if right["valid_until"] is None else day(right["valid_until"], last=True)
            count = right["numbers"]["count"]
            made.add_row(
                right["id"],
                BASIS_TEXT[Basis(right["basis"])],
                right["owner"] or "its own",
                right["document"] or "",
                "suspended" if right["suspended"] else until,
                f"{right['numbers']['ranges']:,} entries" if count is None else f"{count:,}",
            )
        console.print(made)
    else:
        console.print("no right to any number", style="yellow", markup=False)
    for coming in data["next"]:
        console.print(f"next: {when(coming['at'])} {coming['what']}", markup=False)


def _prepare(customer: Customer, extra: Mapping[str, Any]) -> Customer:
    before = extra.get("before")
    if before is not None and before.state in _AGAINST and customer.state not in _AGAINST:
        fail(f"{customer.id} is {before.state.value} by the policy; 'shaken customer reinstate' changes that", Exit.NO)
    return customer


def _in_list(session: Opened) -> Callable[[Customer], Customer]:
    """In the state that is in force."""
    against = standings(session)

    def seen(customer: Customer) -> Customer:
        standing = against.get(customer.id)
        return customer if standing is None else replace(customer, state=worse(customer.state, standing.state))

    return seen


CUSTOMER: Final = Kind(
    "customer",
    Customer,
    "Customers: who they are by law, whether we know them, how much their calls may get.\n\n"
    "'suspend' and 'terminate' refuse all their calls within a second, on every switch of the host or fleet, and leave "
    "the policy as it is; 'reinstate' needs a person. --state says how far know-your-customer is.",
    ("name", "kind", "state", "ceiling", "review"),
    defaults={"state": CustomerState.PENDING},
    narrowed={"state": _KNOWN},
    prepare=_prepare,
    related=family,
    in_list=_in_list,
    more=_more,
    print_more=_print_more,
)


@click.command("remove")
@click.argument("customer", shell_complete=customer_ids)
@click.option("--with-numbers", is_flag=True, help="Also its rights, with their numbers, and its substitutions.")
@intends
def remove(intent: Intent, customer: str, with_numbers: bool) -> None:
    """Remove a customer, with its trunks; the history keeps them.

    Where rights or substitutions refer to it, says which, and needs --with-numbers.
    """
    with changing(intent, f"remove customer {customer}") as edit:
        find(edit.draft, Customer, customer)
        rights = list(_rights(edit.draft, customer))
        rules = [rule for rule in edit.draft.all(Substitution) if rule.customer == customer]
        if (rights or rules) and not with_numbers:
            ranges = sum(edit.draft.count(Right, right.id) for right in rights)
            named = [*(f"right {right.id}" for right in rights), *(f"substitution {rule.id}" for rule in rules)]
            text = (
                f"{', '.join(named[:5])}{' …' if len(named) > 5 else ''} refer to customer {customer}, with {ranges} "
            )
            fail(f"{text}numbers and ranges; --with-numbers removes them, too", Exit.NO)
        for right in rights:
            edit.remove(Right, right.id)
        for rule in rules:
            edit.remove(Substitution, rule.id)
        for trunk in [trunk.id for trunk in edit.draft.all(Trunk) if trunk.customer.id == customer]:
            edit.remove(Trunk, trunk)
        edit.remove(Customer, customer)


# --- Suspended, terminated, reinstated ------------------------------------------------------------


def _decision(verb: str, function: Decides, about: str, *, by_name: bool = False) -> click.Command:
    """``suspend``, ``terminate``: written to the runtime state, which no import locks."""

    @intends_as(by_name=by_name, dry=False)
    def decide(intent: Intent, customer: str) -> None:
        session = opened(intent.settings_file)
        with telling():
            record = known(customer, session.store.records)
            before = standing_of(session, record)
            function(_state(session), customer, *intent.author)
            told = tell(session.settings)
            _report(intent, record.id, before, standing_of(session, record), told)

    command = click.command(verb, help=about)(decide)
    command.params.insert(0, click.Argument(["customer"], shell_complete=customer_ids))
    return command


def _state(session: Opened) -> State:
    """The state file to be changed; the first decision makes it where files were never put in force.

    Raises:
        StoreUnavailable: it cannot be used now.
    """
    runtime.first_state(session.settings)
    return State(Path(session.settings.store.state), Path(session.settings.store.path))


def standing_of(session: Opened, customer: Customer) -> CustomerState:
    """The state that decides a customer's calls."""
    return _in_list(session)(customer).state


def _report(intent: Intent, customer: str, before: CustomerState, after: CustomerState, told: Told) -> None:
    if intent.as_json:
        by, why, _ = intent.author
        state = [before.value, after.value]
        fleet = {} if told.fleet is None else {"fleet": told.as_json()}
        print_json({"ok": True, "customer": customer, "state": state, "by": by, "why": why, **fleet})
    else:
        console.print(f"customer {customer}: {before.value} → {after.value}", style="bold", markup=False)
        console.print("it decides calls in every worker of this host within a tenth of a second", markup=False)
        if told.text is not None:
            console.print(told.text, style=None if told.told else "yellow", markup=False)


@click.command("reinstate")
@click.argument("customer", shell_complete=customer_ids)
@click.option(
    "--state",
    type=_KNOWN,
    default="verified",
    show_default=True,
    help="Where the policy itself says suspended or terminated: what it says from now on.",
)
@intends_as(by_name=True, dry=False)
def reinstate_(intent: Intent, customer: str, state: CustomerState) -> None:
    """Let a suspended or terminated customer go on; needs a person and a reason.

    The count of offences begins anew.
    """
    session = opened(intent.settings_file)
    with telling():
        record = known(customer, session.store.records)
        before = standing_of(session, record)
        if record.state in _AGAINST:
            with session.store.change(intent.author, f"reinstate customer {customer}") as draft:
                draft.put(replace(record, state=state))
        if record.state not in _AGAINST or customer in standings(session):
            reinstate(_state(session), customer, *intent.author)
        told = tell(session.settings)
        with session.store.records() as records:
            _report(intent, customer, before, standing_of(session, find(records, Customer, customer)), told)


_STATE = click.Option(
    ["--state"], type=OneOf({state.value: state for state in CustomerState}), help="Only in this state."
)


def _keep(record: Customer, state: CustomerState | None) -> bool:
    return state in {None, record.state}


customer = group(
    CUSTOMER,
    add_command(CUSTOMER),
    show_command(CUSTOMER),
    list_command(CUSTOMER, _STATE, keep=_keep),
    set_command(CUSTOMER),
    _decision("suspend", suspend, "Refuse all calls of a customer from now on, until it is reinstated."),
    _decision("terminate", terminate, "The same for good: the contract has ended."),
    reinstate_,
    remove,
)
