"""Reason header fields of protocol STIR (RFC 9410; RFC 3326; several of one protocol: RFC 9366)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from shaken_plugin.core.sip import split_list
from shaken_plugin.core.verification import Verdict
from shaken_plugin.errors import FailureCode

_PROTOCOL = re.compile(r"[ \t]*([A-Za-z0-9.!%*_+`'~-]+)")
_PPI = re.compile(r'ppi[ \t]*=[ \t]*"?([A-Za-z0-9_.-]+)', re.IGNORECASE)


def stir_reason(failure: FailureCode, ppi: str | None = None) -> str:
    """One Reason value; ``ppi`` names the PASSporT in compact form."""
    value = f'STIR;cause={failure.value.status};text="{failure.value.phrase}"'
    return f'{value};ppi="{ppi}"' if ppi else value


def reasons(verdict: Verdict) -> list[str]:
    """The Reason values for a verdict, one for each Identity header that failed.

    RFC 9410 §5: with more than one Identity the ``ppi`` parameter says which.
    """
    return [
        stir_reason(result.failure, result.ppi)
        for result in verdict.results
        if result.failure is not None and not result.ignored
    ]


def split_reasons(lines: Iterable[str]) -> Iterator[str]:
    """The single values of Reason header lines."""
    for line in lines:
        yield from split_list(line)


def about_ours(value: str, ours: Collection[str]) -> bool:
    """Whether a Reason value is of protocol STIR and speaks of our own PASSporT.

    RFC 9410 §7: the authentication service MUST remove such values before the response goes
    back to the caller. One without ``ppi`` can only mean the PASSporT that we added.

    Args:
        value: one Reason value.
        ours: our PASSporTs in compact form, several where a failover was signed anew; none where
            we signed nothing.
    """
    protocol = _PROTOCOL.match(value)
    if not ours or protocol is None or protocol.group(1).upper() != "STIR":
        return False
    ppi = _PPI.search(value)
    return ppi is None or ppi.group(1).rpartition(".")[2] in {token.rpartition(".")[2] for token in ours}
