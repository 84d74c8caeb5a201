"""What people decide about customers and their offences; each with a name and a reason, kept for good."""

from __future__ import annotations

import difflib
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final

from shaken_plugin.conduct import view
from shaken_plugin.conduct.accounts import Said, last_said, read_account, waits_for_warning
from shaken_plugin.conduct.acts import draw_any, standing_act, submit
from shaken_plugin.conduct.state import State
from shaken_plugin.core.records import Customer, CustomerState
from shaken_plugin.errors import ConflictError
from shaken_plugin.ports import PolicyRecords, Standing, check_said
from shaken_plugin.stores.standing import REINSTATED
from shaken_plugin.stores.statetables import after

_RANK: Final = {REINSTATED: 0, CustomerState.SUSPENDED.value: 1, CustomerState.TERMINATED.value: 2}


def delivered(state: State, offence: int, by: str, why: str, at: float) -> None:
    """Somebody told the customer of the first offence.

    Raises:
        ConflictError: there is no such offence, or it is none that a warning waits for.
        StoreUnavailable: it cannot be written now.
    """
    _named(by, why)
    with state.changing() as connection:
        case = _case(connection, offence)
        if not waits_for_warning(read_account(connection, case.customer), offence):
            raise ConflictError(f"offence {offence} is {case.offence.stage.value}: no warning waits to be delivered")
        submit(connection, {"do": "delivered", "offence": offence, "at": at, "who": by, "why": why}, at)


def dismiss(state: State, offence: int, by: str, why: str, at: float) -> None:
    """A person finds that an offence was none. The warning, if it was delivered, stays counted.

    Raises:
        ConflictError: it cannot be dismissed; the text says what to do instead.
        StoreUnavailable: it cannot be written now.
    """
    _named(by, why)
    with state.changing() as connection:
        account = read_account(connection, _case(connection, offence).customer)
        try:
            account.dismiss(offence, at)
        except ValueError as exc:
            raise ConflictError(f"offence {offence} cannot be dismissed: {exc}") from None
        submit(connection, {"do": "dismissed", "offence": offence, "at": at, "who": by, "why": why}, at)


def suspend(state: State, customer: str, by: str, why: str, at: float) -> None:
    """Suspend a customer; all workers of the host obey within a tenth of a second.

    Whether the policy has such a customer is for `known` to say.

    Raises:
        ConflictError: they are that already, or terminated; by whom and why.
        StoreUnavailable: it cannot be written now.
    """
    _put_under(state, customer, CustomerState.SUSPENDED.value, by, why, at)


def terminate(state: State, customer: str, by: str, why: str, at: float) -> None:
    """Terminate a customer; as `suspend`, and a suspended one may be terminated."""
    _put_under(state, customer, CustomerState.TERMINATED.value, by, why, at)


def _put_under(state: State, customer: str, new: str, by: str, why: str, at: float) -> None:
    _named(by, why)
    with state.changing() as connection:
        last = last_said(connection, customer)
        if last is not None and _RANK[last.state] >= _RANK[new]:
            raise ConflictError(f"customer {customer} is {last.state} already, by {last.who}: {last.why}")
        account = read_account(connection, customer)
        about = account.open[-1].id if account.open else None
        _say(connection, Said(draw_any(), customer, new, at, at, by, why, about))


def _say(connection: sqlite3.Connection, said: Said) -> None:
    """Whoever decides knows what holds, and means to change it, whatever the clock of this host says."""
    last = last_said(connection, said.customer)
    stamp = after(last and last.stamp, said.at)
    submit(connection, standing_act(said._replace(stamp=stamp)), said.at)


def take_over(state: State, standings: Iterable[Standing]) -> list[str]:
    """Put customers under what a file says of them, where nothing later was decided here. Nobody is reinstated.

    Returns:
        What was done, for people.

    Raises:
        StoreUnavailable: it cannot be written now.
    """
    notes = []
    for customer, new, at, who, why in standings:
        with state.reading() as connection:
            last = last_said(connection, customer)
        if last is not None and (last.at >= at or _RANK[last.state] >= _RANK[new.value]):
            continue
        _put_under(state, customer, new.value, who, why, at)
        notes.append(f"customer {customer} is {new.value} here from now on, as on the host the file was exported from")
    return notes


def reinstate(state: State, customer: str, by: str, why: str, at: float) -> None:
    """Let a customer go on. The count of offences begins anew, that of warnings does not.

    Raises:
        ConflictError: nothing stands against them here.
        StoreUnavailable: it cannot be written now.
    """
    _named(by, why)
    with state.changing() as connection:
        last = last_said(connection, customer)
        if last is None or last.state == REINSTATED:
            raise ConflictError(
                f"customer {customer} is neither suspended nor terminated by 'shaken customer suspend' or offences"
            )
        _say(connection, Said(draw_any(), customer, REINSTATED, at, at, by, why, None))


def known(customer: str, records: Callable[[], AbstractContextManager[PolicyRecords]]) -> Customer:
    """The policy's customer of an id.

    Args:
        customer: the id.
        records: `ports.PolicyWriter.records`.

    Raises:
        ConflictError: there is none; the text names one that is similar.
        StoreError: the policy cannot be read.
    """
    with records() as policy:
        found = policy.get(Customer, customer)
        if found is not None:
            return found
        near = difflib.get_close_matches(customer, (one.id for one in policy.all(Customer)), n=1)
    hint = f"did you mean {near[0]}?" if near else "shaken customer list shows all"
    raise ConflictError(f"the policy has no customer {customer}: {hint}")


def _named(by: str, why: str) -> None:
    """Decisions of people have a name and a reason."""
    try:
        check_said("--by", by)
        check_said("--why", why)
    except ValueError as exc:
        raise ConflictError(str(exc)) from None


def _case(connection: sqlite3.Connection, offence: int) -> view.Case:
    found = view.details(connection, offence)
    if found is None:
        raise ConflictError(f"there is no offence {offence}: shaken offence list")
    return found.case
