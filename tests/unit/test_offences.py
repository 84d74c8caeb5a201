"""Offences, in the words of the rules: one table of stories, told call by call."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from shaken_plugin.core.offences import WINDOW, Account, Finding, OffenceRules, Stage
from tests.offences import HOUR, Story

GRACE = 24 * HOUR
RULES = OffenceRules(GRACE)
AUTOMATIC = OffenceRules(GRACE, automatic=True)

STORIES: dict[str, tuple[OffenceRules, Sequence[object], str]] = {
    "one call is the first offence": (RULES, [(0, "1")], "1 open: 1 call"),
    "the same customer and number within 24 hours is one offence": (
        RULES,
        [(0, "1"), (1, "1"), (23.9, "1")],
        "1 open: 3 calls",
    ),
    "a dialler with fifty numbers is one offence": (
        RULES,
        [(index / 100, str(index)) for index in range(50)],
        "1 open: 50 calls",
    ),
    "fifty numbers on fifty days are one offence while the warning is not delivered": (
        RULES,
        [(24 * index, str(index)) for index in range(50)],
        "1 open: 50 calls",
    ),
    "nor does one number count again before its delivery": (
        RULES,
        [(0, "1"), (25, "1"), (50, "1")],
        "1 open: 3 calls",
    ),
    "in the grace time nothing counts": (
        RULES,
        [(0, "1"), "warned 1", (1.5, "2"), (24.9, "3")],
        "1 warned: 3 calls",
    ),
    "after it another number is the second": (
        RULES,
        [(0, "1"), "warned 1", (25, "2")],
        "1 warned: 1 call, 2 proposed: 1 call",
    ),
    "after it the same number is the second, but not within 24 hours": (
        OffenceRules(0),
        [(0, "1"), "warned 1", (23, "1"), (24.1, "1")],
        "1 warned: 2 calls, 2 proposed: 1 call",
    ),
    "a number that began in the grace time has its 24 hours, too": (
        RULES,
        [(0, "1"), "warned 1", (24, "2"), (47, "2"), (48.1, "2")],
        "1 warned: 3 calls, 2 proposed: 1 call",
    ),
    "a number that goes on through the grace time is the second once its 24 hours are over": (
        RULES,
        [(0, "1"), "warned 1", (24.5, "1"), (26, "1"), (48.4, "1"), (48.6, "1")],
        "1 warned: 4 calls, 2 proposed: 1 call",
    ),
    "further ones are evidence of the second until a person decides": (
        RULES,
        [(0, "1"), "warned 1", (25, "2"), (26, "3"), (100, "4")],
        "1 warned: 1 call, 2 proposed: 3 calls",
    ),
    "by setting the second suspends": (
        AUTOMATIC,
        [(0, "1"), "warned 1", (25, "2"), (26, "3")],
        "1 warned: 1 call, 2 suspended: 2 calls, customer suspended",
    ),
    "a person suspends": (
        RULES,
        [(0, "1"), "warned 1", (25, "2"), "suspend 26"],
        "1 warned: 1 call, 2 suspended: 1 call, customer suspended",
    ),
    "who was suspended already is not proposed again": (
        RULES,
        [(0, "1"), "warned 1", "suspend 2", (25, "2")],
        "1 warned: 1 call, 2 suspended: 1 call, customer suspended",
    ),
    "reinstatement begins the count anew": (
        RULES,
        [(0, "1"), "warned 1", (25, "2"), "suspend 26", "reinstate 27", (28, "3")],
        "1 settled: 1 call, 2 settled: 1 call, 3 open: 1 call",
    ),
    "and a number of before keeps its 24 hours": (
        RULES,
        [(0, "1"), "warned 1", (25, "2"), "suspend 26", "reinstate 27", (28, "2"), (50, "2")],
        "1 settled: 1 call, 2 settled: 2 calls, 3 open: 1 call",
    ),
    "the first dismissed, the next is a first": (
        RULES,
        [(0, "1"), "warned 1", "dismiss 1 2", (30, "2")],
        "1 dismissed: 1 call, 2 open: 1 call",
    ),
    "the second dismissed, the next is a second": (
        RULES,
        [(0, "1"), "warned 1", (25, "2"), "dismiss 2 26", (27, "3")],
        "1 warned: 1 call, 2 dismissed: 1 call, 3 proposed: 1 call",
    ),
    "and the number that was dismissed stays so for 24 hours": (
        RULES,
        [(0, "1"), "warned 1", (25, "2"), "dismiss 2 26", (27, "2")],
        "1 warned: 1 call, 2 dismissed: 2 calls",
    ),
    "a warning told twice was delivered the first time": (
        RULES,
        [(0, "1"), "warned 1", "warned 20", (25, "2")],
        "1 warned: 1 call, 2 proposed: 1 call",
    ),
    "a warning without an offence is none": (RULES, ["warned 1", (2, "1")], "1 open: 1 call"),
    "a call that comes late counts by its own time": (
        RULES,
        [(0, "1"), "warned 1", (26, "2"), (24, "3"), (0.5, "4")],
        "1 warned: 3 calls, 2 proposed: 1 call",
    ),
    "a call from before the first is evidence of it": (RULES, [(5, "1"), (4, "2"), (3, "1")], "1 open: 3 calls"),
    "a call from before a reinstatement is covered by it": (
        RULES,
        [(0, "1"), "suspend 1", "reinstate 10", (9, "2"), (11, "3")],
        "1 settled: 2 calls, 2 open: 1 call",
    ),
    "also where there was no offence to belong to": (
        RULES,
        ["suspend 1", "reinstate 10", (9, "2")],
        "",
    ),
}


@pytest.mark.parametrize(("rules", "told", "end"), STORIES.values(), ids=STORIES)
def test_stories(rules: OffenceRules, told: Sequence[object], end: str) -> None:
    story = Story(rules)
    story.tell(told)
    assert story.end() == end


def test_what_a_call_is_found_to_be() -> None:
    story = Story(RULES)
    assert [story.call(at, number).finding for at, number in ((0, "1"), (1, "1"), (2, "2"))] == [
        Finding.OPENED,
        Finding.EVIDENCE,
        Finding.EVIDENCE,
    ]
    early = Story(RULES)
    early.tell(["suspend 1", "reinstate 10"])
    assert early.call(9, "1")[:2] == (Finding.LATE, None)


def test_the_24_hours_end_to_the_second() -> None:
    story = Story(OffenceRules(0))
    story.tell([(0, "1"), "warned 0"])
    assert story.call((WINDOW - 0.001) / HOUR, "1").finding is Finding.EVIDENCE
    assert story.call(WINDOW / HOUR, "1").finding is Finding.OPENED


@pytest.mark.parametrize(
    ("told", "offence", "why"),
    [
        ([], 1, "closed already"),
        ([(0, "1"), "dismiss 1 1"], 1, "closed already"),
        ([(0, "1"), "warned 1", (25, "2")], 1, "the second, 2, rests on its warning"),
        ([(0, "1"), "warned 1", (25, "2"), "suspend 26"], 2, "reinstate the customer"),
    ],
)
def test_what_cannot_be_dismissed(told: Sequence[object], offence: int, why: str) -> None:
    story = Story(RULES)
    story.tell(told)
    before = story.account
    with pytest.raises(ValueError, match=why):
        story.account.dismiss(offence, 30 * HOUR)
    assert story.account == before


def test_stages_that_nothing_follows_from() -> None:
    assert {stage for stage in Stage if stage.closed} == {Stage.DISMISSED, Stage.SETTLED}
    assert Account().open == ()
