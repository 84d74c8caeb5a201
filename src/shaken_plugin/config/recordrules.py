"""What no field of a record shows alone: rules of policy files and of the command line alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from shaken_plugin.config.numbering import is_toll_free
from shaken_plugin.core.attestation import names_nothing
from shaken_plugin.core.records import BASIS_TEXT, Basis, Gateway, Record, Right, Substitution, Trunk


class Contradiction(NamedTuple):
    """What is wrong with a record."""

    message: str
    field: tuple[str, ...] = ()
    """Where, as a path in the record."""
    needs: tuple[str, ...] = ()
    """Fields of which one must be given, where that is what is wrong."""


def contradictions(record: Record) -> Iterator[Contradiction]:
    """Where a record contradicts itself, or says too little to be of use."""
    if isinstance(record, Right | Substitution):
        begins, ends = record.valid_from, record.valid_until
        if begins is not None and ends is not None and begins >= ends:
            yield Contradiction("ends before valid_from", ("valid_until",))
    if isinstance(record, Right) and names_nothing(record):
        what = BASIS_TEXT[record.basis]
        yield Contradiction(f"document is missing: a {what} is named by its reference", needs=("document",))
    if isinstance(record, Trunk) and not record.addresses and not record.users:
        text = "a trunk needs addresses or users, or no call is ever recognised"
        yield Contradiction(text, needs=("addresses", "users"))
    if isinstance(record, Gateway) and not record.addresses:
        yield Contradiction("a gateway needs addresses, or no call is ever recognised", needs=("addresses",))
    window = record.window if isinstance(record, Substitution) else None
    if window is not None and window.begins == window.ends:
        yield Contradiction("is when it begins: for the whole day leave both out", ("window", "ends"))


def is_toll_free_only(record: object) -> bool:
    """Whether a record may have toll-free numbers alone."""
    return isinstance(record, Right) and record.basis is Basis.RESPORG


def wrong_numbers(record: object, first: str, last: str) -> str | None:
    """Why a record cannot have these numbers, None where it can."""
    if is_toll_free_only(record) and not is_toll_free(first, last):
        return "a RespOrg answers for toll-free numbers only"
    return None
