"""Where somebody has read to in the ledger; imports no library."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Behind the record of this ``seq`` and ``id``; before the first, 0 and no id.

    ``seq`` grows in the order of commits. The id tells whether it still is the same ledger: another begins anew.
    """

    seq: int = 0
    id: str = ""
