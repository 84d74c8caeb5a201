"""An approval is of what somebody saw: what is changed afterwards, nobody has approved."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from shaken_plugin.core.records import Right

_SEEN: Final = ("customer", "basis", "document", "sha256", "use_case", "owner", "valid_from", "valid_until")
"""What the approval of a right is about, beside its numbers. Fewer numbers are among those that were approved."""


def without_outlived_approval(before: Right | None, after: Right, new_numbers: int) -> tuple[Right, str | None]:
    """A right that was changed, without an approval of what it was before.

    Args:
        before: as it was, None where there was none.
        after: as it is to be; an approval with another name or time is a new one.
        new_numbers: how many numbers and ranges came to it.

    Returns:
        The right, and a note for people where its approval goes.
    """
    approval = (after.approved_by, after.approved_at)
    if before is None or before.approved_by is None or approval != (before.approved_by, before.approved_at):
        return after, None
    changed = [name.replace("_", " ") for name in _SEEN if getattr(before, name) != getattr(after, name)]
    changed += ["numbers"] if new_numbers else []
    if not changed:
        return after, None
    note = (
        f"right {after.id} is no longer approved: {before.approved_by} approved it before its {', '.join(changed)} "
        "changed; --approved-by (in a file: the column approved_by) approves it anew"
    )
    return replace(after, approved_by=None, approved_at=None), note
